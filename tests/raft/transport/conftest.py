"""Two nodes that talk over HTTP on loopback, for the tests beside this file."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Self, cast

import pytest
import uvloop

from raft.core.model import NodeId
from raft.ports.transport import Transport
from raft.testing.transport_doubles import CLUSTER, Recorder, bulk, until
from raft.transport.http import HttpTransport
from raft.transport.http_server import HttpServer
from raft.transport.limits import HttpLimits, LaneLimits

QUICK = HttpLimits(
    snapshot_chunk_bytes=50_000,
    client_idle_seconds=60.0,
    control=LaneLimits(queue_messages_max=256, queue_bytes_max=1_000_000, drop_oldest=True, request_seconds=1.0),
    bulk=LaneLimits(queue_messages_max=1_024, queue_bytes_max=8_000_000, drop_oldest=False, request_seconds=3.0),
)


IMPATIENT = HttpLimits(
    snapshot_chunk_bytes=50_000,
    connect_seconds=0.3,
    sweep_seconds=0.02,
    control=LaneLimits(queue_messages_max=8, queue_bytes_max=100_000, drop_oldest=True, request_seconds=0.3),
    bulk=LaneLimits(queue_messages_max=8, queue_bytes_max=1_000_000, drop_oldest=False, request_seconds=30.0),
)


class HttpWorld:
    """Nodes ``a`` and ``b`` on loopback; see :class:`raft.testing.transport_conformance.TransportWorld`."""

    def __init__(self, limits: HttpLimits = QUICK) -> None:
        self.limits = limits
        self.addresses: dict[NodeId, str] = {}
        self.servers: dict[NodeId, HttpServer] = {}
        self.transports: dict[NodeId, HttpTransport] = {}
        self.recorders: dict[NodeId, Recorder] = {}

    async def open(self) -> None:
        """Start both nodes."""
        for node in ("a", "b"):
            await self._begin(node, "127.0.0.1:0")
        for transport in self.transports.values():
            transport.connect(self.addresses)

    async def _begin(self, node: NodeId, bind: str) -> None:
        server = HttpServer(bind, limits=self.limits)
        transport = HttpTransport(server, node, CLUSTER)
        recorder = Recorder()
        await transport.start(recorder)
        self.addresses[node] = server.address
        self.servers[node], self.transports[node], self.recorders[node] = server, transport, recorder

    async def close(self) -> None:
        """Stop both."""
        for transport in self.transports.values():
            await transport.stop()

    def transport(self, node: NodeId) -> Transport:
        """A node's transport."""
        return self.transports[node]

    def recorder(self, node: NodeId) -> Recorder:
        """A node's handler."""
        return self.recorders[node]

    async def take_away(self, node: NodeId) -> None:
        """Stop a node."""
        await self.transports[node].stop()

    async def bring_back(self, node: NodeId) -> None:
        """Start it anew at the same port."""
        await self._begin(node, self.addresses[node])
        self.transports[node].connect(self.addresses)

    async def stall_bulk(self, sender: NodeId, to: NodeId) -> None:
        """Stop reading the one connection that a bulk message has opened."""
        self.transports[sender].send((bulk(sender, to, 1_000_000),))
        await until(lambda: self.recorders[to].messages, "the first bulk message arrives")
        self.recorders[to].messages.clear()
        self.stall_all(to)

    def stall_all(self, node: NodeId) -> None:
        """Let a node read nothing more from the connections it has now, as if it were frozen."""
        for connection in self.servers[node].connections:
            assert connection._transport is not None
            connection._transport.pause_reading()

    def cut_connections(self, sender: NodeId, to: NodeId) -> None:
        """Abort what ``to`` has accepted; ``sender`` is the only one who connects to it."""
        del sender
        for connection in tuple(self.servers[to].connections):
            connection.abort()


@asynccontextmanager
async def opened(world: HttpWorld) -> AsyncIterator[HttpWorld]:
    """A world that is open for a while, and leaves no task behind."""
    await world.open()
    try:
        yield world
    finally:
        await world.close()
    mine = asyncio.current_task()
    assert [task for task in asyncio.all_tasks() if task is not mine] == []


@pytest.fixture
def make_http_world() -> Callable[..., HttpWorld]:
    """Makes a world of two nodes, from limits or without."""
    return HttpWorld


@pytest.fixture
def open_http_world() -> Callable[..., AbstractAsyncContextManager[HttpWorld]]:
    """Makes one for an ``async with``, from limits or without; it must leave no task behind."""
    return lambda limits=QUICK: opened(HttpWorld(limits))


class RawPeer:
    """A listener that records each request's head and body and answers as the test says.

    :param answer: bytes for each request; None to say nothing.
    """

    def __init__(self, answer: bytes | None) -> None:
        self.answer = answer
        self.requests: list[bytes] = []
        self.connections = 0
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await self._server.wait_closed()
        await until(lambda: all(task.done() for task in self._tasks), "its connections end")

    @property
    def address(self) -> str:
        """Where it listens."""
        assert self._server is not None
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        self._tasks.append(cast("asyncio.Task[None]", asyncio.current_task()))
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length:")[2].split()[0])
                self.requests.append(head + await reader.readexactly(length))
                if self.answer is not None:
                    writer.write(self.answer)
        except (asyncio.IncompleteReadError, OSError):
            writer.transport.abort()


async def single_node(address: str, limits: HttpLimits = IMPATIENT) -> tuple[HttpTransport, Recorder]:
    """A node ``a`` whose peer ``b`` is at the address."""
    transport, recorder = HttpTransport(HttpServer("127.0.0.1:0", limits=limits), "a", CLUSTER), Recorder()
    await transport.start(recorder)
    transport.connect({"a": transport.address, "b": address})
    return transport, recorder


@pytest.fixture
def impatient() -> HttpLimits:
    """Limits with short deadlines and small queues."""
    return IMPATIENT


@pytest.fixture
def raw_peer() -> type[RawPeer]:
    """The class of a peer that answers as the test says."""
    return RawPeer


@pytest.fixture
def single() -> Callable[..., Coroutine[Any, Any, tuple[HttpTransport, Recorder]]]:
    """Starts a node ``a`` whose peer ``b`` is at a given address; gives its transport and its handler."""
    return single_node


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Awaitable[None]], None]:
    """Runs a scenario on either event loop."""

    def run_it(scenario: Awaitable[None]) -> None:
        async def whole() -> None:
            await scenario

        with asyncio.Runner(loop_factory=request.param, debug=True) as runner:
            runner.run(whole())

    return run_it
