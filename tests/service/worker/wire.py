"""A connection without a kernel: a whole exchange with a server in one call, which takes no system call and no switch of greenlets.

The server is the one that serves sockets, from its first ``recv`` to its ``close``; only who waits for bytes never has to.
"""

import contextlib
from collections.abc import Sequence
from typing import Any

import gevent

from service.worker.connection import Connection
from tests.service.worker.serving import DATE, ENVIRON, NAMELESS, Own, Stock

ANY_FILE = 0
"""A watcher wants a file descriptor, which is only looked at once it is started; here none is."""


class Wire:
    """As a server sees the socket of a client.

    :param pieces: what the client sends; no ``recv`` gives bytes of two of them.
    :param takes: how many bytes each ``send`` takes in turn, 0 where it would have to wait; afterwards each takes all.
    :param breaks: whether the connection is reset behind the last piece, instead of saying that there is no more.
    :ivar answered: what the server has sent.
    :ivar closed: whether the server has let go of it.
    """

    def __init__(self, pieces: Sequence[bytes], takes: Sequence[int] = (), *, breaks: bool = False) -> None:
        self.answered = bytearray()
        self.closed = False
        self._pieces = [piece for piece in reversed(pieces) if piece]
        self._takes = list(reversed(takes))
        self._breaks = breaks

    def fileno(self) -> int:
        """See :data:`ANY_FILE`."""
        return ANY_FILE

    def recv(self, size: int) -> bytes:
        """The next piece, or its beginning."""
        if not self._pieces:
            if self._breaks:
                raise ConnectionResetError
            return b""
        piece = self._pieces.pop()
        if len(piece) > size:
            self._pieces.append(piece[size:])
        return piece[:size]

    def send(self, data: bytes | memoryview) -> int:
        """Take data, or a part of it."""
        count = min(len(data), self._takes.pop()) if self._takes else len(data)
        if not count and data:
            raise BlockingIOError
        self.answered += data[:count]
        return count

    def sendall(self, data: bytes) -> None:
        """Take data."""
        self.answered += data

    def shutdown(self, how: int) -> None:
        """Nothing: the client has sent all that it will."""

    def close(self) -> None:
        """The end."""
        self.closed = True

    def setblocking(self, flag: bool) -> None:
        """Nothing: it never has to wait."""

    def gettimeout(self) -> float:
        """As of a socket that does not wait."""
        return 0.0


class _Hub:
    """What a connection asks of gevent's hub."""

    def __init__(self) -> None:
        self.loop = gevent.get_hub().loop

    def switch(self) -> None:
        """There always is something to read."""

    def wait(self, _watcher: Any) -> None:
        """There always is room to write."""


class NotClosed(Exception):
    """A server has returned, and left the connection open."""


def exchange_at_once(server: Own | Stock, wire: Wire) -> bytes:
    """Serve a connection; everything that is answered, without dates.

    :raises NotClosed: the server let it open.
    """
    if isinstance(server, Own):
        connection = Connection(server.service, wire, ENVIRON)
        connection._hub = _Hub()
        connection.serve()
    else:
        with server.handling() as worker:
            worker.timeout_ctx = contextlib.nullcontext  # a timer costs more than a request
            worker.handle(NAMELESS, wire, ("", 0))
    if not wire.closed:
        raise NotClosed
    return DATE.sub(b"", wire.answered)
