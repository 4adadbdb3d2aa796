"""A server that answers at once, but for what a test plants: a pause, a status, a broken connection, an answer in pieces."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Self, cast

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue"
Respond = Callable[[int], list[bytes]]
"""The pieces of the answer to a request, by its number; none: the connection is closed."""


class Stub:
    """Serves in a thread of its own while it is open.

    :param pause_at: the number of the request at which the whole server stands still, for ``pause_seconds``.
    """

    def __init__(self, respond: Respond = lambda _number: [ANSWER], *, pause_at: int = -1, pause_seconds: float = 0.0) -> None:
        self.respond = respond
        self.pause_at = pause_at
        self.pause_seconds = pause_seconds
        self.requests: list[bytes] = []
        self.address = ("127.0.0.1", 0)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_exception: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        server = await self._loop.create_server(lambda: _Client(self), *self.address)
        self.address = server.sockets[0].getsockname()
        self._ready.set()
        await self._over.wait()
        server.close()


class _Client(asyncio.Protocol):
    """One connection of the stub; a request comes whole, as loopback gives small ones."""

    def __init__(self, stub: Stub) -> None:
        self._stub = stub

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        stub, number = self._stub, len(self._stub.requests)
        stub.requests.append(data)
        if number == stub.pause_at:
            time.sleep(stub.pause_seconds)  # the loop, and so every client
        pieces = stub.respond(number)
        if not pieces:
            self._transport.abort()
        for place, piece in enumerate(pieces):
            asyncio.get_running_loop().call_later(place * 0.005, self._transport.write, piece)
