"""The listening side: a small HTTP/1.1 server on asyncio, for the peers of a node.

It can listen before the node knows who it is: routes are added at any time, and those of the transport answer 503 until the
transport is attached. What one connection does is in :mod:`raft.transport.http_connection`.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus

from raft.transport.address import parse_address
from raft.transport.http_connection import Answer, Pending, ServerConnection
from raft.transport.limits import HttpLimits

logger = logging.getLogger(__name__)

Route = Callable[[bytes], Awaitable[Answer]]
"""Takes a body, gives status and body. Runs as a task; requests behind it on the same connection wait."""
SyncRoute = Callable[[bytes, bool], Answer | Pending]
"""The same for what is answered on the loop, at once or when the route settles what it returned; the flag says whether the client reads messages in
an answer."""

MESSAGES_PATH = "/raft/v1/messages"
SNAPSHOT_PATH = "/raft/v1/snapshot"


def not_attached(_body: bytes, _takes_messages: bool = False) -> Answer:
    """What the transport's own paths answer as long as the node has no identity."""
    return HTTPStatus.SERVICE_UNAVAILABLE, b"this node does not belong to a cluster yet"


class HttpServer:
    """Listens at one address and answers POST requests by path.

    :param bind: ``host:port``; port 0 takes a free one, see :attr:`address`.
    :param routes: path to route; the composition root may add its own here or by :meth:`add_route`.
    :raises ValueError: when ``bind`` is no address.
    """

    def __init__(self, bind: str, routes: Mapping[str, Route] | None = None, limits: HttpLimits | None = None) -> None:
        self._host, self._port = parse_address(bind)
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._all_gone = asyncio.Event()
        self.limits = limits or HttpLimits()
        self.routes: dict[str, Route] = dict(routes or {})
        self.sync_routes: dict[str, SyncRoute] = {MESSAGES_PATH: not_attached, SNAPSHOT_PATH: not_attached}
        self.connections: set[ServerConnection] = set()
        self.tasks: set[asyncio.Task[None]] = set()

    @property
    def listening(self) -> bool:
        """Whether new connections are taken. The kernel is asked, so that a listener that died is noticed."""
        if self._server is None or not self._server.sockets:
            return False
        try:
            return all(listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) for listener in self._server.sockets)
        except OSError:
            return False

    @property
    def address(self) -> str:
        """Where it listens, ``host:port``, with the port that was really taken."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{host}:{self._port}"

    def add_route(self, path: str, route: Route) -> None:
        """Answer ``path`` with a coroutine; replaces what answered it."""
        self.sync_routes.pop(path, None)
        self.routes[path] = route

    def add_sync_route(self, path: str, route: SyncRoute) -> None:
        """Answer ``path`` at once; replaces what answered it."""
        self.routes.pop(path, None)
        self.sync_routes[path] = route

    async def start(self) -> None:
        """Bind and listen. Without effect when it listens already.

        :raises OSError: when the address can't be bound.
        """
        if self._server is not None:
            return
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: ServerConnection(self, loop), self._host, self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        self._sweeper = loop.call_later(self.limits.sweep_seconds, self._sweep, loop)

    async def stop(self) -> None:
        """Stop listening, break all connections, end the tasks of routes. Idempotent."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        server, self._server = self._server, None
        if server is None:
            return
        await _stop_accepting(server)
        server.close()
        for connection in tuple(self.connections):
            connection.abort()
        for task in tuple(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        if self.connections:
            self._all_gone.clear()
            await self._all_gone.wait()
        await server.wait_closed()

    def forget(self, connection: ServerConnection) -> None:
        """A connection has ended."""
        self.connections.discard(connection)
        if not self.connections:
            self._all_gone.set()

    async def answer(self, route: Route, path: str, body: bytes) -> Answer:
        """Run a route; an exception becomes a 500 and a line in the log."""
        try:
            return await route(body)
        except Exception:
            logger.exception("the route %s failed", path)
            return HTTPStatus.INTERNAL_SERVER_ERROR, b"internal error"

    def answer_at_once(self, route: SyncRoute, path: str, body: bytes, takes_messages: bool) -> Answer | Pending:
        """The same for a route of the other kind."""
        try:
            return route(body, takes_messages)
        except Exception:
            logger.exception("the route %s failed", path)
            return HTTPStatus.INTERNAL_SERVER_ERROR, b"internal error"

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for connection in tuple(self.connections):
            connection.expire(now)
        self._sweeper = loop.call_later(self.limits.sweep_seconds, self._sweep, loop)


async def _stop_accepting(server: asyncio.Server) -> None:
    """Let what was accepted become a connection before the server is closed.

    The selector loop of asyncio takes two turns for that, and loses the connection when the server was closed in between: nobody is told of it, and
    its socket stays open until garbage is collected. Other loops accept and tell at once.
    """
    loop = asyncio.get_running_loop()
    if isinstance(loop, asyncio.SelectorEventLoop):
        for listener in server.sockets:
            loop.remove_reader(listener.fileno())
        for _turn in range(2):
            await asyncio.sleep(0)
