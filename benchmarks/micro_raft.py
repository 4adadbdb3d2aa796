"""The rows of the micro benchmarks about the Raft library: the core, the codec, the log on disk, messages over HTTP. See :mod:`micro`."""

import asyncio
import random
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from itertools import count
from pathlib import Path

import uvloop
from micro_case import Case, Run, over, plain, repeated

from raft.config import RaftConfig
from raft.core.messages import AppendRequest, Heartbeat, HeartbeatResponse, Message
from raft.core.model import Boundary, Configuration, Entry, EntryKind, HardState, Member
from raft.core.node import RaftNode
from raft.core.roles import Role
from raft.ports.storage import WriteBatch
from raft.storage.sqlite import SqliteLog
from raft.transport import codec
from raft.transport.http import HttpTransport
from raft.transport.http_server import HttpServer

NAMES = ("one", "two", "three")
CLUSTER = "bench"
VALUE = random.Random(1).randbytes(128)
BODY_BYTES_MAX = 16 * 1024 * 1024
COMPACT_ENTRIES = 1_000
"""The logs of the group in memory are cut after so many, as those of a node are after some time."""
TICKS_MAX = 1_000


class Group:
    """Three cores without disks and wires: what is to be written counts as written, what is sent arrives at once."""

    def __init__(self) -> None:
        first = Boundary(configuration=Configuration(voters=tuple(Member(name, name, f"{name}:1") for name in NAMES)))
        dice = random.Random(1)
        self.nodes = {
            name: RaftNode(node_id=name, config=RaftConfig(), boundary=first, entries=(), hard_state=HardState(), applied=0, jitter=dice.randrange)
            for name in NAMES
        }
        self._contexts = count(1)
        self._applied = dict.fromkeys(NAMES, 0)
        self._compacted = 0
        self._leader = self._elect()

    def _elect(self) -> RaftNode:
        for _ in range(TICKS_MAX):
            for node in self.nodes.values():
                node.tick()
            self._settle()
            for node in self.nodes.values():
                if node.role is Role.LEADER:
                    return node
        raise RuntimeError(f"nobody leads after {TICKS_MAX} ticks")

    def propose(self, commands: list[bytes]) -> None:
        """Let the leader take commands, and go on until nobody has anything to do: they are committed, and the leader has applied them."""
        self._leader.propose(commands, next(self._contexts))
        self._settle()
        if (applied := min(self._applied.values())) - self._compacted >= COMPACT_ENTRIES:
            self._compacted = applied
            for node in self.nodes.values():
                node.compact(node.boundary_at(self._compacted))

    def _settle(self) -> None:
        moved = True
        while moved:
            moved = False
            for name, node in self.nodes.items():
                while (ready := node.ready()) is not None:
                    moved = True
                    self._deliver(ready.messages)
                    self._deliver(ready.messages_after_persist)
                    node.advance(ready.number)
                    if ready.committed:
                        self._applied[name] = ready.committed[-1].index
                        node.applied_to(self._applied[name])

    def _deliver(self, messages: tuple[Message, ...]) -> None:
        for message in messages:
            self.nodes[message.to].step(message)


@contextmanager
def core(commands: int, _: Path) -> Iterator[Run]:
    """A batch through the whole group."""
    yield repeated(partial(Group().propose, [VALUE] * commands))


def entries(first: int, number: int) -> tuple[Entry, ...]:
    """Entries of one value each, in a row."""
    return tuple([Entry(index, 1, EntryKind.COMMAND, VALUE) for index in range(first, first + number)])


APPEND = AppendRequest("one", "two", 1, 1, 1, entries(2, 16), 1)
BODY = codec.encode(CLUSTER, [APPEND])


@contextmanager
def log(number: int, directory: Path) -> Iterator[Run]:
    """Batches of entries, each written and synced."""
    with closing(SqliteLog(directory)) as store:
        store.load()
        store.write(WriteBatch(HardState(1, "one", 0)))

        def write(first: int) -> None:
            store.write(WriteBatch(None, entries(first, number)))

        yield over(write, count(1, number))


class Echo:
    """A :class:`~raft.ports.transport.TransportHandler`: one side answers each heartbeat, the other sends the next one when it is answered.

    :param left: how many are still to be sent; None at the side that answers.
    """

    def __init__(self, transport: HttpTransport) -> None:
        self._transport = transport
        self._left = 0
        self._done: asyncio.Future[None] | None = None

    async def send(self, messages: int) -> None:
        """Send so many, each when the one before was answered."""
        self._left = messages
        self._done = asyncio.get_running_loop().create_future()
        self._send()
        await self._done

    def receive(self, messages: tuple[Message, ...]) -> None:
        """See the port."""
        for message in messages:
            if isinstance(message, Heartbeat):
                self._transport.send((HeartbeatResponse(message.to, message.sender, message.term, message.round),))
            elif self._left:
                self._send()
            elif self._done is not None and not self._done.done():
                self._done.set_result(None)

    def _send(self) -> None:
        self._left -= 1
        self._transport.send((Heartbeat("one", "two", 1, 0, self._left),))

    def unreachable(self, peer: str) -> None:
        """Fail: nothing is answered any more.

        :raises ConnectionError: always.
        """
        raise ConnectionError(f"{peer} does not answer")


@contextmanager
def messages(_: Path) -> Iterator[Run]:
    """A heartbeat and its answer, each with a request of HTTP and its answer of its own; both ends on one loop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        transports = {name: HttpTransport(HttpServer("127.0.0.1:0"), name, CLUSTER) for name in NAMES[:2]}
        echoes = {name: Echo(transport) for name, transport in transports.items()}

        async def start() -> None:
            for name, transport in transports.items():
                await transport.start(echoes[name])
            for transport in transports.values():
                transport.connect({name: other.address for name, other in transports.items()})

        async def stop() -> None:
            for transport in transports.values():
                await transport.stop()

        runner.run(start())
        try:
            yield lambda calls: runner.run(echoes["one"].send(calls))
        finally:
            runner.run(stop())


CASES = (
    Case("Raft core, three nodes in memory: 1 command a batch", partial(core, 1)),
    Case("Raft core, three nodes in memory: 64 commands a batch", partial(core, 64), 64),
    Case("codec: an append of 16 entries of 128 bytes to bytes", plain(lambda: codec.encode(CLUSTER, [APPEND]))),
    Case("codec: the same from bytes", plain(lambda: codec.decode(BODY, CLUSTER, "two", BODY_BYTES_MAX))),
    Case("log with sync: 1 entry of 128 bytes a write", partial(log, 1)),
    Case("log with sync: 64 entries of 128 bytes a write", partial(log, 64), 64),
    Case("HTTP between agents: a heartbeat and its answer, both ends", messages),
)
