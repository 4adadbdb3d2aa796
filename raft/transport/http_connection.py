"""One accepted connection: parses requests, keeps the limits, answers in order.

Requests may be pipelined. Those for synchronous routes are answered together, with one write for all that arrived in one piece. Such a route may
hold its answer back (:class:`Pending`); what is answered behind it waits for it. While a coroutine route works, nothing more is read from the
connection; what had been read waits behind it.

A request that breaks a rule gets an answer with the reason, and the connection ends: the rest of what the client sends is thrown away for
a moment, so that it can read the answer before its own sending fails.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

import httptools

if TYPE_CHECKING:
    from raft.transport.http_server import HttpServer, Route

Answer = tuple[int, bytes]
"""Status and body."""

NO_CONTENT: Answer = (HTTPStatus.NO_CONTENT, b"")
MESSAGES_TYPE = b"application/msgpack"
"""Who accepts this reads messages in answers."""
LINGER_SECONDS = 1.0
_NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def _response(status: int, body: bytes, *, keep_alive: bool) -> bytes:
    if status == HTTPStatus.NO_CONTENT and keep_alive:
        return _NO_CONTENT
    head = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        head.append("Allow: POST")
    if status != HTTPStatus.NO_CONTENT:
        head.append(f"Content-Length: {len(body)}")
    if status >= HTTPStatus.BAD_REQUEST:
        head.append("Content-Type: text/plain; charset=utf-8")
    if not keep_alive:
        head.append("Connection: close")
    return "\r\n".join((*head, "", "")).encode() + body


class Pending:
    """An answer that a synchronous route gives later. Whoever holds it must settle it; a connection that ends answers without waiting."""

    __slots__ = ("_connection", "answer")

    def __init__(self) -> None:
        self.answer: Answer | None = None
        self._connection: ServerConnection | None = None

    @property
    def is_open(self) -> bool:
        """Whether somebody still waits for it."""
        return self.answer is None

    def attach(self, connection: "ServerConnection") -> None:
        """It will be given on this connection."""
        self._connection = connection

    def settle(self, status: int, body: bytes) -> None:
        """Give the answer; without effect when there is one already."""
        if self.answer is None:
            self.answer = (status, body)
            if self._connection is not None:
                self._connection.give_settled()


class ServerConnection(asyncio.Protocol):
    """Invariants: answers leave in the order of the requests; ``_busy`` means that a coroutine route has the turn; ``_ended`` means
    that no further request is taken, while answers to earlier ones may still be due; ``_pending`` begins with an answer that is held back.
    """

    def __init__(self, server: "HttpServer", loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._limits = server.limits
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._answers: list[bytes] = []
        self._pending: deque[Pending] = deque()
        self._waiting: deque[Callable[[], None]] = deque()
        self._busy = False
        self._ended = False
        self._reading = True
        self._write_paused_since: float | None = None
        self._request_since: float | None = None
        self._idle_since = loop.time()
        self._in_head = False
        self._in_request = False
        self._head_bytes = 0
        self._new_request()

    def _new_request(self) -> None:
        self._url = b""
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._expects_continue = False
        self._takes_messages = False

    # --- the event loop's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, unless there are too many."""
        self._transport = cast("asyncio.Transport", transport)
        self._server.connections.add(self)
        if len(self._server.connections) > self._limits.connections_max:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, f"more than {self._limits.connections_max} connections (connections_max)")
            self._write_answers()

    def connection_lost(self, _error: Exception | None) -> None:
        """Forget everything; a route that works goes on and its answer is dropped."""
        self._ended = True
        self._transport = None
        self._waiting.clear()
        self._give_pending()
        self._server.forget(self)

    def data_received(self, data: bytes) -> None:
        """Parse, handle, answer."""
        if self._ended:
            return
        if self._in_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(HTTPStatus.BAD_REQUEST, "this server speaks HTTP/1.1 only")
        except httptools.HttpParserError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, f"this is not HTTP: {error}")
        if self._in_head and self._head_bytes > self._limits.head_bytes_max:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"headers over {self._limits.head_bytes_max} bytes (head_bytes_max)")
        if self._in_request and self._request_since is None:
            self._request_since = self._loop.time()
        if self._answers:
            self._write_answers()

    def pause_writing(self) -> None:
        """The client does not read its answers: take no more requests from it."""
        self._write_paused_since = self._loop.time()
        self._update_reading()

    def resume_writing(self) -> None:
        """It reads again."""
        self._write_paused_since = None
        self._update_reading()

    # --- the parser's calls

    def on_message_begin(self) -> None:
        """A request begins."""
        self._in_head = self._in_request = True
        self._head_bytes = 0

    def on_url(self, url: bytes) -> None:
        """A part of the path."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Three headers matter: how long the body will be, whether the client waits for leave to send it, and what it reads in an answer."""
        lower = name.lower()
        if lower == b"content-length":
            if int(value) > self._limits.body_bytes_max:
                self._refuse_body(int(value))
        elif lower == b"expect" and value.lower() == b"100-continue":
            self._expects_continue = True
        elif lower == b"accept" and value == MESSAGES_TYPE:
            self._takes_messages = True

    def on_headers_complete(self) -> None:
        """The body is next."""
        self._in_head = False
        if self._expects_continue and not self._ended and not self._busy:
            self._answers.append(_CONTINUE)

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._body_bytes += len(body)
        if self._body_bytes > self._limits.body_bytes_max:
            self._refuse_body(self._body_bytes)
        if not self._ended:
            self._body.append(body)

    def on_message_complete(self) -> None:
        """A request is whole."""
        self._in_request = False
        self._request_since = None
        if self._parser.should_upgrade():
            self._refuse(HTTPStatus.BAD_REQUEST, "this server speaks HTTP/1.1 only")
        if not self._ended:
            body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
            keep_alive, takes_messages = self._parser.should_keep_alive(), self._takes_messages
            self._in_turn(partial(self._handle, self._parser.get_method(), self._url, body, keep_alive, takes_messages))
        self._new_request()

    # --- the server's calls

    def expire(self, now: float) -> None:
        """End the connection when a deadline has passed.

        :param now: the loop's time in seconds.
        """
        patience = self._limits.receive_seconds
        if self._write_paused_since is not None and now - self._write_paused_since > patience:
            self.abort()
        elif self._busy or self._ended or self._pending:
            return
        elif self._request_since is not None and now - self._request_since > patience:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"the request took longer than {patience:g} s (receive_seconds)")
            self._write_answers()
        elif self._request_since is None and now - self._idle_since > self._limits.server_idle_seconds:
            self._close()

    def give_settled(self) -> None:
        """An answer that was held back is there: it leaves, and those behind it that are there."""
        self._collect()
        self._write_answers()

    def abort(self) -> None:
        """Break the connection now."""
        self._ended = True
        if self._transport is not None:
            self._transport.abort()

    # --- handling

    def _in_turn(self, action: Callable[[], None]) -> None:
        if self._busy:
            self._waiting.append(action)
        else:
            action()

    def _handle(self, method: bytes, url: bytes, body: bytes, keep_alive: bool, takes_messages: bool) -> None:
        path = url.decode("latin-1")
        if method != b"POST":
            self._respond(HTTPStatus.METHOD_NOT_ALLOWED, b"only POST is answered here", keep_alive)
        elif (at_once := self._server.sync_routes.get(path)) is not None:
            self._take(self._server.answer_at_once(at_once, path, body, takes_messages and keep_alive), keep_alive)
        elif (route := self._server.routes.get(path)) is not None:
            self._busy = True
            self._update_reading()
            task = self._loop.create_task(self._run(route, path, body, keep_alive))
            self._server.tasks.add(task)
            task.add_done_callback(self._server.tasks.discard)
        else:
            self._respond(HTTPStatus.NOT_FOUND, f"nothing is at {path}".encode(), keep_alive)

    def _take(self, answer: Answer | Pending, keep_alive: bool) -> None:
        """The answer of a synchronous route, or its promise: in its turn."""
        if isinstance(answer, tuple):
            self._respond(*answer, keep_alive)
            return
        self._pending.append(answer)
        answer.attach(self)
        self._collect()

    def _collect(self) -> None:
        """What need not be held back any longer becomes the next to be written."""
        while self._pending and (answer := self._pending[0].answer) is not None:
            self._pending.popleft()
            self._answers.append(_response(*answer, keep_alive=True))
            self._idle_since = self._loop.time()

    def _give_pending(self) -> None:
        """Hold nothing back any longer. The last comes first, so that they leave together, with the first."""
        for pending in tuple(reversed(self._pending)):
            pending.settle(*NO_CONTENT)

    async def _run(self, route: "Route", path: str, body: bytes, keep_alive: bool) -> None:
        status, answer = await self._server.answer(route, path, body)
        self._busy = False
        if self._transport is None:
            return
        self._respond(status, answer, keep_alive)
        while self._waiting and not self._busy and not self._transport.is_closing():
            self._waiting.popleft()()
        self._write_answers()
        self._update_reading()

    def _respond(self, status: int, body: bytes, keep_alive: bool) -> None:
        self._give_pending()
        self._answers.append(_response(status, body, keep_alive=keep_alive))
        self._idle_since = self._loop.time()
        if not keep_alive:
            self._write_answers()
            self._close()

    def _refuse_body(self, size: int) -> None:
        self._refuse(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body of {size} bytes is over the limit of {self._limits.body_bytes_max} (body_bytes_max)"
        )

    def _refuse(self, status: int, reason: str) -> None:
        """Answer what had come before, then this, and read no further."""
        if self._ended:
            return
        self._ended = True
        self._in_head = self._in_request = False
        self._in_turn(partial(self._refuse_now, status, reason))

    def _refuse_now(self, status: int, reason: str) -> None:
        self._give_pending()
        self._answers.append(_response(status, reason.encode(), keep_alive=False))
        self._write_answers()
        if self._transport is not None and self._transport.can_write_eof():
            self._transport.write_eof()
        self._linger()

    def _write_answers(self) -> None:
        if self._transport is not None and not self._transport.is_closing() and self._answers:
            self._transport.write(self._answers[0] if len(self._answers) == 1 else b"".join(self._answers))
        self._answers.clear()

    def _close(self) -> None:
        self._ended = True
        if self._transport is not None:
            self._transport.close()
        self._linger()

    def _linger(self) -> None:
        """A client that does not take the last answer must not hold the connection."""
        self._loop.call_later(LINGER_SECONDS, self.abort)

    def _update_reading(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        wanted = not self._busy and self._write_paused_since is None
        if wanted != self._reading:
            self._reading = wanted
            (self._transport.resume_reading if wanted else self._transport.pause_reading)()
