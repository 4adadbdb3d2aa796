"""The server against clients that are slow, greedy, hostile or merely odd; they speak through plain sockets."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest

from raft.core.messages import Heartbeat
from raft.testing.transport_doubles import CLUSTER, Recorder, until
from raft.transport.codec import encode
from raft.transport.http import HttpTransport
from raft.transport.http_client import call
from raft.transport.http_server import MESSAGES_PATH, SNAPSHOT_PATH, HttpServer
from raft.transport.limits import HttpLimits

LIMITS = HttpLimits(body_bytes_max=10_000, head_bytes_max=2_000)
HEARTBEAT = Heartbeat("a", "b", 1, 2, 3)
BODY = encode(CLUSTER, [HEARTBEAT])


def request(body: bytes, path: str = MESSAGES_PATH, headers: str = "") -> bytes:
    """A request as text and bytes."""
    return f"POST {path} HTTP/1.1\r\nHost: b\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def echo(body: bytes) -> tuple[int, bytes]:
    """Answers what it got, a little later."""
    await asyncio.sleep(0.01)
    return 200, body


class Served:
    """A server with a transport behind it."""

    def __init__(self, server: HttpServer, recorder: Recorder) -> None:
        self.server = server
        self.recorder = recorder
        self.writers: list[asyncio.StreamWriter] = []

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A plain connection to it."""
        host, _, port = self.server.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        self.writers.append(writer)
        return reader, writer

    async def close(self) -> None:
        """End all plain connections."""
        for writer in self.writers:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()

    async def exchange(self, data: bytes) -> bytes:
        """Send bytes on a new connection and read until the server closes or stays quiet."""
        reader, writer = await self.connect()
        writer.write(data)
        received = b""
        with suppress(TimeoutError, ConnectionResetError):
            async with asyncio.timeout(2.0):
                while piece := await reader.read(65_536):
                    received += piece
        writer.close()
        return received


@asynccontextmanager
async def serving(limits: HttpLimits = LIMITS) -> AsyncIterator[Served]:
    """A node ``b`` that listens."""
    server = HttpServer("127.0.0.1:0", {"/echo": echo}, limits)
    transport = HttpTransport(server, "b", CLUSTER)
    recorder = Recorder()
    await transport.start(recorder)
    served = Served(server, recorder)
    try:
        yield served
    finally:
        await served.close()
        await transport.stop()


Run = Callable[[Awaitable[None]], None]


def test_pipelined_requests_are_answered_in_order(run: Run) -> None:
    """Many requests in one write, quick and slow routes mixed: the answers come in their order, on the same connection."""

    async def scenario() -> None:
        async with serving() as served:
            reader, writer = await served.connect()
            writer.write(b"".join(request(BODY) + request(b"%d" % number, "/echo") for number in range(20)))
            for number in range(20):
                assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 204 No Content\r\n\r\n"
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200 OK\r\n")
                assert await reader.readexactly(len(b"%d" % number)) == b"%d" % number
            assert len(served.server.connections) == 1
            assert served.recorder.messages == [HEARTBEAT] * 20
            writer.close()

    run(scenario())


def test_request_may_come_byte_by_byte(run: Run) -> None:
    """A request in pieces of one byte is one request."""

    async def scenario() -> None:
        async with serving() as served:
            reader, writer = await served.connect()
            for byte in request(BODY):
                writer.write(bytes((byte,)))
                await asyncio.sleep(0)
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 204 No Content\r\n\r\n"
            assert served.recorder.messages == [HEARTBEAT]
            writer.close()

    run(scenario())


@pytest.mark.parametrize(
    ("data", "status", "words"),
    [
        (request(b"garbage"), 400, b"can't be read"),
        (request(b""), 400, b"can't be read"),
        (request(BODY[:-1]), 400, b"can't be read"),
        (request(encode("other", [HEARTBEAT])), 403, b"cluster 'other'"),
        (request(encode(CLUSTER, [Heartbeat("a", "c", 1, 2, 3)])), 421, b"node 'c'"),
        (request(b"\x95\x02" + BODY[2:]), 415, b"version 2"),
        (request(b"garbage", SNAPSHOT_PATH), 400, b"can't be read"),
        (request(BODY, SNAPSHOT_PATH), 400, b"can't be read"),
        (request(b"", "/nowhere"), 404, b"/nowhere"),
        (b"GET /raft/v1/messages HTTP/1.1\r\nHost: b\r\n\r\n", 405, b"only POST"),
    ],
    ids=lambda value: repr(value)[-30:],
)
def test_refused_requests_leave_the_connection_usable(run: Run, data: bytes, status: int, words: bytes) -> None:
    """A refusal has its status and its reason as text, hands nothing on, and the next request on the connection is answered."""

    async def scenario() -> None:
        async with serving() as served:
            received = await served.exchange(data + request(BODY, headers="Connection: close\r\n"))
            assert received.startswith(b"HTTP/1.1 %d " % status)
            assert words in received
            assert received.endswith(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
            assert served.recorder.messages == [HEARTBEAT]

    run(scenario())


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20, 400),
        (b"NONSENSE / HTTP/1.1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: many\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999999\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 10001\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nX: " + b"x" * 300_000, 431),
        (b"POST /" + b"x" * 300_000, 431),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_broken_requests_end_the_connection(run: Run, data: bytes, status: int) -> None:
    """What is no HTTP, or over a limit, is answered with its status at once, and the server closes. Requests before it got their answers."""

    async def scenario() -> None:
        async with serving() as served:
            reader, writer = await served.connect()
            writer.write(request(b"first", "/echo"))
            for start in range(0, len(data), 20_000):
                writer.write(data[start : start + 20_000])
                await asyncio.sleep(0.001)
            received = b""
            with suppress(ConnectionError):
                async with asyncio.timeout(5.0):
                    while piece := await reader.read(65_536):
                        received += piece
            first, _, rest = received.partition(b"first")
            assert first.startswith(b"HTTP/1.1 200 ")
            assert rest.startswith(b"HTTP/1.1 %d " % status)
            assert b"Connection: close" in rest
            writer.close()
            await until(lambda: not served.server.connections, "the connection is gone")
            assert served.recorder.messages == []

    run(scenario())


def test_oversized_body_is_refused_before_it_is_read(run: Run) -> None:
    """A body over the limit gets 413 after its headers, announced or in chunks, and what follows is thrown away, not stored."""

    async def scenario() -> None:
        async with serving() as served:
            for head in (b"Content-Length: 1000000000", b"Transfer-Encoding: chunked"):
                reader, writer = await served.connect()
                writer.write(b"POST /echo HTTP/1.1\r\n%b\r\n\r\n" % head)
                if b"chunked" in head:
                    writer.write(b"4000\r\n" + bytes(0x4000) + b"\r\n")
                async with asyncio.timeout(5.0):
                    received = await reader.read(65_536)
                assert received.startswith(b"HTTP/1.1 413 ")
                assert b"body_bytes_max" in received
                (connection,) = served.server.connections
                writer.write(bytes(100_000))
                await asyncio.sleep(0.02)
                assert sum(map(len, connection._body)) <= LIMITS.body_bytes_max
                writer.close()
                await until(lambda: not served.server.connections, "the connection is gone")

    run(scenario())


def test_body_at_the_limit_is_taken(run: Run) -> None:
    """Exactly ``body_bytes_max`` bytes are no offence, announced or in chunks."""

    async def scenario() -> None:
        async with serving() as served:
            body = bytes(LIMITS.body_bytes_max)
            assert await call(served.server.address, "/echo", body, 5.0) == (200, body)
            chunked = b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2710\r\n" + body + b"\r\n0\r\n\r\n"
            assert (await served.exchange(chunked)).endswith(body)

    run(scenario())


def test_client_may_ask_for_leave_to_send(run: Run) -> None:
    """``Expect: 100-continue`` is granted, so that common clients don't wait."""

    async def scenario() -> None:
        async with serving() as served:
            reader, writer = await served.connect()
            writer.write(b"POST /echo HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"ok")
            assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 OK")
            writer.close()

    run(scenario())


def test_slow_clients_are_cut(run: Run) -> None:
    """A request that is not whole in time gets 408; one that is idle for too long is closed; others on time are not touched."""

    async def scenario() -> None:
        limits = replace(LIMITS, receive_seconds=0.2, server_idle_seconds=0.4, sweep_seconds=0.02)
        async with serving(limits) as served:
            assert (await served.exchange(b"POST / HTTP/1.1\r\nContent-Le")).startswith(b"HTTP/1.1 408 ")
            assert (await served.exchange(request(BODY)[:-3])).startswith(b"HTTP/1.1 408 ")
            assert await served.exchange(b"") == b""
            assert await served.exchange(request(BODY)) == b"HTTP/1.1 204 No Content\r\n\r\n"

    run(scenario())


def test_client_that_reads_no_answers_is_cut(run: Run) -> None:
    """Requests without end from a client that takes no answer: the server stops to read, then breaks the connection; memory stays bounded."""

    async def scenario() -> None:
        limits = replace(LIMITS, receive_seconds=0.3, sweep_seconds=0.02, body_bytes_max=1_000_000)
        async with serving(limits) as served:
            reader, writer = await served.connect()
            writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport can
            data = request(bytes(900_000), "/echo")
            with suppress(ConnectionError):
                while served.server.connections or not reader:
                    writer.write(data)
                    async with asyncio.timeout(5.0):
                        await writer.drain()
            await until(lambda: not served.server.connections, "the connection is gone")
            writer.close()

    run(scenario())


def test_too_many_connections_are_refused(run: Run) -> None:
    """Beyond ``connections_max`` a new connection gets 503; when others end there is room again."""

    async def scenario() -> None:
        async with serving(replace(LIMITS, connections_max=3)) as served:
            open_ones = [await served.connect() for _ in range(3)]
            await until(lambda: len(served.server.connections) == 3, "three are connected")
            assert (await served.exchange(b"")).startswith(b"HTTP/1.1 503 ")
            for _, writer in open_ones:
                writer.close()
            await until(lambda: not served.server.connections, "the connections are gone")
            assert await call(served.server.address, "/echo", b"hi", 5.0) == (200, b"hi")

    run(scenario())


def test_server_answers_before_the_node_has_an_identity(run: Run) -> None:
    """Routes work at once; messages and snapshots get 503 until a transport is attached, and again after it has stopped."""

    async def scenario() -> None:
        server = HttpServer("127.0.0.1:0", {"/echo": echo}, LIMITS)
        await server.start()
        await server.start()
        assert server.listening
        address = server.address
        assert await call(address, "/echo", b"hi", 5.0) == (200, b"hi")
        for path in (MESSAGES_PATH, SNAPSHOT_PATH):
            status, reason = await call(address, path, BODY, 5.0)
            assert (status, reason) == (503, b"this node does not belong to a cluster yet")
        server.add_route("/late", echo)
        assert await call(address, "/late", b"x", 5.0) == (200, b"x")
        recorder = Recorder()
        transport = HttpTransport(server, "b", CLUSTER)
        await transport.start(recorder)
        assert transport.address == address
        assert await call(address, MESSAGES_PATH, BODY, 5.0) == (204, b"")
        assert recorder.messages == [HEARTBEAT]
        await transport.stop()
        assert not server.listening

    run(scenario())


def test_route_that_raises_is_an_internal_error(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """An exception in a route becomes a 500 without its text, is logged, and the server goes on."""

    async def broken(_body: bytes) -> tuple[int, bytes]:
        raise RuntimeError("secret detail")

    async def scenario() -> None:
        async with serving() as served:
            served.server.add_route("/broken", broken)
            assert await call(served.server.address, "/broken", b"", 5.0) == (500, b"internal error")
            assert await call(served.server.address, "/echo", b"hi", 5.0) == (200, b"hi")

    run(scenario())
    assert "secret detail" in caplog.text


def test_address_that_is_taken_is_named(run: Run) -> None:
    """A second server on the same port fails with an OSError and leaves the first one alone."""

    async def scenario() -> None:
        async with serving() as served:
            second = HttpServer(served.server.address)
            with pytest.raises(OSError, match="in use"):
                await second.start()
            assert not second.listening
            await second.stop()
            assert await call(served.server.address, "/echo", b"hi", 5.0) == (200, b"hi")

    run(scenario())


def test_dead_listener_is_noticed(run: Run) -> None:
    """A listening socket that dies under the server shows: the node must end rather than be deaf."""

    async def scenario() -> None:
        server = HttpServer("127.0.0.1:0")
        states = [server.listening]
        await server.start()
        states.append(server.listening)
        assert server._server is not None
        asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)  # the failing accept is reported there
        with socket.socket(fileno=os.dup(server._server.sockets[0].fileno())) as twin:
            twin.shutdown(socket.SHUT_RDWR)
        states.append(server.listening)
        assert states == [False, True, False]
        await server.stop()

    run(scenario())


def test_stop_ends_routes_that_are_at_work(run: Run) -> None:
    """Stopping does not wait for a route that never ends, and leaves no task."""

    async def scenario() -> None:
        started = asyncio.Event()

        async def endless(_body: bytes) -> tuple[int, bytes]:
            started.set()
            await asyncio.Event().wait()
            return 200, b""

        async with serving() as served:
            served.server.add_route("/endless", endless)
            calling = asyncio.ensure_future(call(served.server.address, "/endless", b"", 10.0))
            await started.wait()
        with pytest.raises(ConnectionError):
            await calling
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(scenario())


@pytest.mark.parametrize("turns", range(6))
def test_stop_breaks_a_connection_that_was_only_just_accepted(turns: int) -> None:
    """A connection that the loop has accepted and not yet told of is broken as well, however far it has come."""

    async def body() -> bytes:
        server = HttpServer("127.0.0.1:0")
        await server.start()
        host, _, port = server.address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=5) as client:
            for _ in range(turns):
                await asyncio.sleep(0)
            await server.stop()
            with suppress(ConnectionResetError):
                return await asyncio.to_thread(client.recv, 1)
        return b""

    assert asyncio.run(body()) == b""
