"""The agent's end of the socket to the workers, for asyncio.

Frames are taken apart here and handed to a :class:`Desk`. Answers gather for one turn of the loop and leave in one write.
"""

import asyncio
import logging
import os
import socket
from pathlib import Path
from typing import Protocol, cast

import msgspec

from service.ipc import protocol

log = logging.getLogger(__name__)

WRITE_BUFFER_BYTES_MAX = 256 * 1024 * 1024
"""A worker that does not read its answers is cut off when so much has gathered."""


class Desk(Protocol):
    """Whoever carries out what workers ask."""

    def greet(self, worker: "Worker") -> None:
        """A worker has connected."""
        ...

    def handle(self, worker: "Worker", message: protocol.FromWorker) -> None:
        """A worker asks; answer by ``worker.send``, now or later."""
        ...

    def leave(self, worker: "Worker") -> None:
        """A worker has gone."""
        ...


class Worker(asyncio.Protocol):
    """One connected worker.

    :ivar watching: whether it wants :class:`~service.ipc.protocol.Changed` frames.
    """

    def __init__(self, desk: Desk) -> None:
        self.pid = 0
        self.watching = False
        self._desk = desk
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._frames: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello."""
        self._transport = cast("asyncio.Transport", transport)
        self.send(protocol.Hello(protocol.VERSION, os.getpid()))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the worker; what it had asked is carried out all the same."""
        self._transport = None
        log.debug("worker %d has gone: %s", self.pid, exc)
        self._desk.leave(self)

    def data_received(self, data: bytes) -> None:
        """Take frames apart."""
        self._buffer += data
        offset, buffer = 0, self._buffer
        while len(buffer) - offset >= protocol.HEADER_BYTES:
            length = int.from_bytes(buffer[offset : offset + protocol.HEADER_BYTES], "big")
            if length > protocol.FRAME_BYTES_MAX:
                self._cut_off(f"a frame of {length} bytes; the limit is {protocol.FRAME_BYTES_MAX}")
                return
            end = offset + protocol.HEADER_BYTES + length
            if end > len(buffer):
                break
            self._take(bytes(buffer[offset + protocol.HEADER_BYTES : end]))
            if self._transport is None or self._transport.is_closing():
                return
            offset = end
        del buffer[:offset]

    def send(self, message: protocol.FromAgent) -> None:
        """Answer, at the end of this turn of the loop. Without effect when the worker has gone."""
        if self._transport is None:
            return
        if not self._frames:
            self._loop.call_soon(self._flush)
        self._frames.append(protocol.frame(message))

    def _flush(self) -> None:
        frames, self._frames = self._frames, []
        if self._transport is None:
            return
        self._transport.write(frames[0] if len(frames) == 1 else b"".join(frames))
        if self._transport.get_write_buffer_size() > WRITE_BUFFER_BYTES_MAX:
            self._cut_off("it does not read its answers")

    def _take(self, body: bytes) -> None:
        try:
            message = protocol.from_worker.decode(body)
        except msgspec.MsgspecError as error:
            self._cut_off(f"a frame that can't be read: {error}")
            return
        if self.pid:
            self._desk.handle(self, message)
        elif isinstance(message, protocol.Hello) and message.version == protocol.VERSION:
            self.pid = message.pid
            self._desk.greet(self)
        else:
            self._cut_off(f"no hello in version {protocol.VERSION}: {message!r:.100}")

    def _cut_off(self, reason: str) -> None:
        log.warning("cut off worker %d: %s", self.pid, reason)
        if self._transport is not None:
            self._transport.abort()


async def listen(path: Path, desk: Desk) -> asyncio.AbstractServer:
    """Accept workers. A socket file that a dead agent left is replaced: the data directory's lock says that it is dead.

    :raises OSError: when the path can't be bound.
    """
    bound = _bind(path)
    return await asyncio.get_running_loop().create_unix_server(lambda: Worker(desk), sock=bound)


def _bind(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bound.bind(str(path))
        path.chmod(0o600)
    except OSError:
        bound.close()
        raise
    return bound
