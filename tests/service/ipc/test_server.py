"""The agent's end of the socket, over a real Unix socket."""

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from service.ipc import protocol, server
from service.ipc.server import Worker, listen

HELLO = protocol.frame(protocol.Hello(protocol.VERSION, 77))


class Desk:
    """Remembers what it was told; answers a barrier at once."""

    def __init__(self) -> None:
        self.greeted: list[Worker] = []
        self.left: list[Worker] = []
        self.messages: list[protocol.FromWorker] = []

    def greet(self, worker: Worker) -> None:
        """A worker has connected."""
        self.greeted.append(worker)

    def leave(self, worker: Worker) -> None:
        """A worker has gone."""
        self.left.append(worker)

    def handle(self, worker: Worker, message: protocol.FromWorker) -> None:
        """A worker asks."""
        self.messages.append(message)
        if isinstance(message, protocol.Barrier):
            worker.send(protocol.BarrierPassed(message.id, 5, 1))


class Client:
    """The other end: bytes in, frames out."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def receive(self) -> Any:
        """The next frame; None when the connection was ended."""
        try:
            header = await self.reader.readexactly(protocol.HEADER_BYTES)
            return protocol.from_agent.decode(await self.reader.readexactly(int.from_bytes(header, "big")))
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return None

    async def send(self, data: bytes) -> None:
        """Bytes, as they are."""
        self.writer.write(data)
        await self.writer.drain()


Scenario = Callable[[Desk, Callable[[], Coroutine[Any, Any, Client]]], Coroutine[Any, Any, None]]


def run(directory: Path, scenario: Scenario) -> None:
    """Run a scenario against a listening agent; clients have read the agent's hello already."""

    async def main() -> None:
        desk, path, clients = Desk(), directory / "agent.sock", []
        door = await listen(path, desk)

        async def connect() -> Client:
            client = Client(*await asyncio.open_unix_connection(str(path)))
            clients.append(client)
            assert await client.receive() == protocol.Hello(protocol.VERSION, os.getpid())
            return client

        try:
            await scenario(desk, connect)
        finally:
            door.close()
            for client in clients:
                client.writer.transport.abort()
            await until(lambda: len(desk.left) >= len(clients))

    asyncio.run(asyncio.wait_for(main(), 30))


async def until(condition: Callable[[], Any]) -> None:
    """Wait until it is so."""
    while not condition():  # noqa: ASYNC110 - the desk has no event to wait for
        await asyncio.sleep(0.001)


def test_handshake_and_answers(tmp_path: Path) -> None:
    """After both have said hello frames reach the desk, answers come back, and the desk hears of the end."""

    async def scenario(desk: Desk, connect: Any) -> None:
        client = await connect()
        await client.send(HELLO + protocol.frame(protocol.Barrier(1)) + protocol.frame(protocol.Propose([2], [b"x"])))
        assert await client.receive() == protocol.BarrierPassed(1, 5, 1)
        await until(lambda: len(desk.messages) == 2)
        assert desk.messages == [protocol.Barrier(1), protocol.Propose([2], [b"x"])]
        assert [worker.pid for worker in desk.greeted] == [77]
        client.writer.close()
        await until(lambda: desk.left == desk.greeted)
        desk.greeted[0].send(protocol.BarrierPassed(9, 9, 9))

    run(tmp_path, scenario)


def test_split_frames(tmp_path: Path) -> None:
    """Frames may arrive byte by byte, and many in one piece."""

    async def scenario(desk: Desk, connect: Any) -> None:
        client = await connect()
        proposals = [protocol.Propose([number], [b"%d" % number * number]) for number in range(30)]
        data = HELLO + b"".join(map(protocol.frame, proposals))
        for position in range(200):
            await client.send(data[position : position + 1])
            await asyncio.sleep(0)
        await client.send(data[200:])
        await until(lambda: len(desk.messages) == len(proposals))
        assert desk.messages == proposals

    run(tmp_path, scenario)


def test_answers_gather(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers of one turn of the loop leave in one write, in order."""

    async def scenario(desk: Desk, connect: Any) -> None:
        client = await connect()
        await client.send(HELLO)
        await until(lambda: desk.greeted)
        transport = desk.greeted[0]._transport
        writes: list[bytes] = []
        monkeypatch.setattr(desk.greeted[0], "_transport", Counting(transport, writes))
        for number in range(50):
            desk.greeted[0].send(protocol.Results([number], [b""]))
        assert [(await client.receive()).ids for _ in range(50)] == [[number] for number in range(50)]
        assert len(writes) == 1

    class Counting:
        def __init__(self, transport: Any, writes: list[bytes]) -> None:
            self._transport, self._writes = transport, writes

        def write(self, data: bytes) -> None:
            self._writes.append(data)
            self._transport.write(data)

        def get_write_buffer_size(self) -> int:
            size: int = self._transport.get_write_buffer_size()
            return size

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (protocol.frame(protocol.Hello(protocol.VERSION + 1, 77)), f"no hello in version {protocol.VERSION}"),
        (protocol.frame(protocol.Barrier(1)), f"no hello in version {protocol.VERSION}"),
        (b"\x00\x00\x00\x03abc", "a frame that can't be read"),
        (b"\x00\x00\x00\x00", "a frame that can't be read"),
        (HELLO + protocol.frame(protocol.Results([1], [b""])), "a frame that can't be read"),
        (HELLO + b"\x00\x00\x00\x01\xc1", "a frame that can't be read"),
        (HELLO + (protocol.FRAME_BYTES_MAX + 1).to_bytes(4, "big"), f"a frame of {protocol.FRAME_BYTES_MAX + 1} bytes; the limit is"),
        (b"GET / HTTP/1.1\r\n\r\n", f"bytes; the limit is {protocol.FRAME_BYTES_MAX}"),
    ],
)
def test_bad_frames_end_the_connection(tmp_path: Path, data: bytes, text: str, caplog: pytest.LogCaptureFixture) -> None:
    """Another version, garbage, a frame of the wrong kind or over the limit: cut off with a log line that says why; others are served."""

    async def scenario(desk: Desk, connect: Any) -> None:
        good, bad = await connect(), await connect()
        await good.send(HELLO)
        await bad.send(data)
        assert await bad.receive() is None
        await until(lambda: desk.left)
        assert not desk.messages
        await good.send(protocol.frame(protocol.Barrier(3)))
        assert await good.receive() == protocol.BarrierPassed(3, 5, 1)

    run(tmp_path, scenario)
    assert text in caplog.text


def test_nothing_after_a_bad_frame(tmp_path: Path) -> None:
    """What follows a frame that can't be read, in the same piece, is not carried out."""

    async def scenario(desk: Desk, connect: Any) -> None:
        client = await connect()
        await client.send(HELLO + b"\x00\x00\x00\x01\xc1" + protocol.frame(protocol.Propose([1], [b"x"])))
        assert await client.receive() is None
        await until(lambda: desk.left)
        assert desk.messages == []

    run(tmp_path, scenario)


def test_a_worker_that_does_not_read_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Answers that nobody reads don't gather without limit."""
    monkeypatch.setattr(server, "WRITE_BUFFER_BYTES_MAX", 1_000_000)

    async def scenario(desk: Desk, connect: Any) -> None:
        client = await connect()
        client.writer.transport.pause_reading()
        await client.send(HELLO)
        await until(lambda: desk.greeted)
        for _ in range(200):
            desk.greeted[0].send(protocol.Results([1], [bytes(100_000)]))
            await asyncio.sleep(0)
            if desk.left:
                break
        assert desk.left == desk.greeted

    run(tmp_path, scenario)
    assert "it does not read its answers" in caplog.text


def test_the_socket_file(tmp_path: Path) -> None:
    """A socket file that a dead agent left is replaced, and belongs to its owner alone; a path that can't be bound is an error."""
    path = tmp_path / "agent.sock"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()

    async def scenario(_: Desk, connect: Any) -> None:
        await (await connect()).send(HELLO)
        assert path.stat().st_mode & 0o777 == 0o600

    run(tmp_path, scenario)
    with pytest.raises(OSError, match="No such file or directory"):
        asyncio.run(listen(tmp_path / "missing" / "agent.sock", Desk()))
