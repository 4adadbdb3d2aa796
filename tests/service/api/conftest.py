"""A worker for tests, with an agent that speaks the real protocol over a real Unix socket and applies commands to a real state file.

Only Raft is missing: there is one node, and it always leads.
"""

import io
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

import gevent
import gevent.server
import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from acl_keeper import ON, Keeper

from service.api.app import create_app
from service.api.fastpath import FastPath
from service.domain import commands
from service.ipc import protocol
from service.ipc.client import AgentClient
from service.ipc.page import LeasePage
from service.ipc.report import MemberReport, NodeReport
from service.settings import load
from service.store.machine import KvMachine
from service.store.reader import Reader

LEADER = "127.0.0.1:8300"
NUMBERS = {"log_entries": 4.0, "disk_writes_total": 7.0}
LEADING = protocol.NodeState(leader_known=True, leading=True, contact=0.0, applied=3, generation=1, quitting=False, reason="")


@dataclass(eq=False)
class FakeAgent:
    """The agent's end of the socket. Turn its knobs to make it fail.

    :ivar failing: answer every request with this kind of failure.
    :ivar mute: do not answer at all.
    :ivar drop_on_propose: break the socket when a proposal arrives, after carrying it out.
    :ivar members: what it answers about the membership.
    :ivar frames: every frame that came, decoded.
    :ivar settings: what it tells of the settings in force.
    :ivar hesitation_seconds: how long it takes after the handshake to say so.
    :ivar problems: what it answers to a reload.
    """

    path: Path
    machine: KvMachine
    failing: str = ""
    mute: bool = False
    drop_on_propose: bool = False
    hello: protocol.Hello = field(default_factory=lambda: protocol.Hello(protocol.VERSION, 1))
    frames: list[Any] = field(default_factory=list)
    node_state: protocol.NodeState = field(
        default_factory=lambda: protocol.NodeState(leader_known=True, leading=True, contact=0.0, applied=3, generation=1, quitting=False, reason="")
    )
    on_command: Callable[[commands.Command], None] = lambda _: None
    members: tuple[int, bytes] = (200, b'{"members":[]}')
    settings: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    hesitation_seconds: float = 0.0

    def __post_init__(self) -> None:
        self._server: Any = None
        # A new cluster's first write has a small index above 1, too.
        self.machine.apply([(1, 1, None), (2, 1, None), (3, 1, None)])
        self._sockets: dict[Any, bool] = {}

    def start(self) -> None:
        """Listen."""
        self.path.unlink(missing_ok=True)
        listener = gevent.socket.socket(gevent.socket.AF_UNIX)
        listener.bind(str(self.path))
        listener.listen(16)
        self._server = gevent.server.StreamServer(listener, self._serve)
        self._server.start()

    def stop(self) -> None:
        """Stop listening and break every socket."""
        self._server.stop(timeout=0)
        self.path.unlink(missing_ok=True)
        self.drop()

    def drop(self) -> None:
        """Break every socket; go on listening."""
        for sock in list(self._sockets):
            try:
                sock.shutdown(gevent.socket.SHUT_RDWR)
            except OSError:
                continue

    def received(self, kind: type) -> list[Any]:
        """The frames of one kind that came."""
        return [frame for frame in self.frames if isinstance(frame, kind)]

    def tell(self, **changes: Any) -> None:
        """Change the node's state and announce it."""
        self.node_state = msgspec.structs.replace(self.node_state, **changes)
        for sock in list(self._sockets):
            sock.sendall(protocol.frame(self.node_state))

    def send(self, message: protocol.FromAgent) -> None:
        """Send a frame to everybody."""
        for sock in list(self._sockets):
            sock.sendall(protocol.frame(message))

    def configure(self, **values: Any) -> None:
        """Let other settings be in force, and tell everybody."""
        self.settings |= values
        self.send(protocol.Configured(self.settings))

    def announce(self, changed: protocol.Changed) -> None:
        """Send a Changed frame to those who watch."""
        for sock, watching in list(self._sockets.items()):
            if watching:
                sock.sendall(protocol.frame(changed))

    def _serve(self, sock: Any, _: Any) -> None:
        self._sockets[sock] = False
        stream = sock.makefile("rb")
        try:
            sock.sendall(protocol.frame(self.hello))
            gevent.sleep(self.hesitation_seconds)
            sock.sendall(protocol.frame(protocol.Configured(self.settings)))
            sock.sendall(protocol.frame(self.node_state))
            while header := stream.read(protocol.HEADER_BYTES):
                message = protocol.from_worker.decode(stream.read(int.from_bytes(header, "big")))
                self.frames.append(message)
                if not isinstance(message, protocol.Hello) and not self.mute and not self._answer(sock, message):
                    break
        except OSError:
            return
        finally:
            del self._sockets[sock]
            sock.close()

    def _answer(self, sock: Any, message: protocol.FromWorker) -> bool:
        match message:
            case protocol.Propose():
                if self.failing:
                    sock.sendall(protocol.frame(protocol.Failed(message.ids, self.failing, "as the test wants it")))
                    return True
                answers = [self._apply(data) for data in message.commands]
                if self.drop_on_propose:
                    return False
                sock.sendall(protocol.frame(protocol.Results(message.ids, answers)))
            case protocol.Watch():
                self._sockets[sock] = message.on
                sock.sendall(protocol.frame(protocol.BarrierPassed(message.id, self.machine.applied_index, self.machine.generation)))
            case protocol.Barrier() | protocol.AskMembers() if self.failing:
                sock.sendall(protocol.frame(protocol.Failed([message.id], self.failing, "as the test wants it")))
            case protocol.Barrier():
                sock.sendall(protocol.frame(protocol.BarrierPassed(message.id, self.machine.applied_index, self.machine.generation)))
            case protocol.AskMembers() | protocol.AskReload() if self.drop_on_propose:
                return False
            case protocol.AskMembers():
                sock.sendall(protocol.frame(protocol.Members(message.id, *self.members)))
            case protocol.AskReload():
                sock.sendall(protocol.frame(protocol.Reloaded(message.id, self.problems)))
            case protocol.AskStatus():
                sock.sendall(protocol.frame(protocol.Status(message.id, msgspec.to_builtins(self.report()))))
            case protocol.Monitor() | protocol.Suspect():
                pass
            case _:
                raise AssertionError(message)
        return True

    def _apply(self, data: bytes) -> bytes:
        entry = commands.stamp(data, int(time.time() * 1000))
        self.on_command(commands.decode(entry)[1])
        return self.apply(entry)

    def apply(self, entry: bytes | None) -> bytes:
        """Apply one entry and tell those who watch."""
        result = self.machine.apply([(self.machine.applied_index + 1, 1, entry)])[0]
        changes = self.machine.take_changes()
        if not changes.nothing:
            self.announce(protocol.Changed(*changes[:6]))
        return result

    def report(self) -> NodeReport:
        """What it tells about itself."""
        leads = self.node_state.leader_known
        member = MemberReport("n1", "11111111-2222-3333-4444-555555555555", LEADER, "127.0.0.1:8500", voter=True, leader=leads)
        index = self.machine.applied_index
        return NodeReport(
            name="n1",
            id=member.id,
            cluster_id="c1",
            role="leader",
            term=2,
            commit=index,
            applied=index,
            last_index=index,
            members=[member],
            numbers=NUMBERS,
        )


class Reply(NamedTuple):
    """An answer, taken apart."""

    status: int
    headers: dict[str, str]
    body: bytes


class Worker:
    """One worker without a web server: the whole application, the short cut before it, and their agent."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.agent = FakeAgent(directory / "agent.sock", KvMachine(directory))
        self.agent.start()
        self.client = AgentClient(self.agent.path)
        self.reader = Reader(directory)
        environment = {"KVORUM_NAME": "n1", "KVORUM_DATA_DIR": str(directory), "KVORUM_DATACENTER": "dc1"}
        self.settings = load(environment | {"KVORUM_" + name.upper(): str(value) for name, value in settings.items()})
        self.app = create_app(self.client, self.reader, self.settings)
        self.fast = FastPath(self.app)
        self.blocking = self.app.extensions["kvorum"].kv.blocking
        self.client.start()
        self.until(lambda: self.client.node_state.leader_known)

    def close(self) -> None:
        """End both ends."""
        self.client.close()
        self.agent.stop()
        self.reader.close()
        self.agent.machine.close()

    def until(self, condition: Callable[[], Any], seconds: float = 10.0) -> None:
        """Let greenlets run until the condition holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "the condition did not come true in time"
            gevent.sleep(0.001)

    def call(self, method: str, uri: str, body: bytes | None = None, *, app: Any = None, announced: int | None = None, **headers: str) -> Reply:
        """One request, exactly as given. Header names are given with underscores."""
        started: list[Any] = []
        sent = self._start(started, method, uri, body, app=app, announced=announced, **headers)
        try:
            return Reply(int(started[0][:3]), dict(started[1]), b"".join(sent))
        finally:
            getattr(sent, "close", lambda: None)()

    def open(self, method: str, uri: str) -> Iterator[bytes]:
        """A request whose answer goes on: the pieces of its body as they come."""
        sent = self._start([], method, uri, None)
        try:
            yield from sent
        finally:
            getattr(sent, "close", lambda: None)()

    def _start(
        self, started: list[Any], method: str, uri: str, body: bytes | None, *, app: Any = None, announced: int | None = None, **headers: str
    ) -> Any:
        path, _, query = uri.partition("?")
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "RAW_URI": uri,
            "PATH_INFO": unquote_to_bytes(path.encode("latin-1")).decode("latin-1"),
            "QUERY_STRING": query,
            "SCRIPT_NAME": "",
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_HOST": "localhost",
            "wsgi.input": io.BytesIO(body or b""),
            "wsgi.url_scheme": "http",
            "wsgi.errors": io.StringIO(),
            "wsgi.version": (1, 0),
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            "wsgi.input_terminated": True,
        }
        if body is not None and "Transfer_Encoding" not in headers:
            environ["CONTENT_LENGTH"] = str(len(body) if announced is None else announced)
        environ |= {"HTTP_" + name.upper(): value for name, value in headers.items()}
        return (app or self.fast)(environ, lambda status, sent_headers, _=None: started.extend((status, sent_headers)))

    def put(self, key: str, value: bytes = b"v") -> int:
        """Set a key; returns its ModifyIndex."""
        assert self.call("PUT", f"/v1/kv/{key}", value).body == b"true"
        return self.reader.get(key.encode()).index

    def index(self, uri: str) -> int:
        """The X-Consul-Index of a read."""
        return int(self.call("GET", uri).headers["X-Consul-Index"])


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    """A worker with its agent."""
    made = Worker(tmp_path)
    yield made
    made.close()


@pytest.fixture
def page(worker: Worker) -> Iterator[LeasePage]:
    """The agent's page of the lease, which lasts; the worker has seen it, and the key ``a`` is there."""
    made = LeasePage()
    worker.put("a", b"v")
    worker.agent.send(protocol.Lease(str(made.path)))
    made.publish(2**62, 0)
    worker.until(lambda: worker.client.lease_index() == 0)
    yield made
    made.close()


@pytest.fixture
def make_worker(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Makes workers with settings of their own."""
    made: list[Worker] = []

    def make(**settings: Any) -> Worker:
        directory = tmp_path / str(len(made))
        directory.mkdir()
        made.append(Worker(directory, **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def make_agent() -> Iterator[Callable[[Path], FakeAgent]]:
    """Makes agents that somebody else starts and stops."""
    machines: list[KvMachine] = []

    def make(directory: Path) -> FakeAgent:
        machines.append(KvMachine(directory))
        return FakeAgent(directory / "agent.sock", machines[-1])

    yield make
    for machine in machines:
        machine.close()


@pytest.fixture
def acl(make_worker: Callable[..., Any]) -> Keeper:
    """A worker with the ACL on."""
    return Keeper(make_worker(**ON))
