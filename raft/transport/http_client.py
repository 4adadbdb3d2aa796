"""The calling side: one connection that sends requests and matches the answers, and single calls on top of it.

Nothing here ever sends a request a second time.
"""

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import cast

import httptools

from raft.transport.address import parse_address
from raft.transport.resolver import Endpoint, Resolver

ANSWER_BYTES_MAX = 1024 * 1024
"""Longest body of an answer that is read. Answers of peers are short."""

Answered = Callable[[int, bytes], None]
Lost = Callable[[Exception | None], None]


def request_head(address: str, path: str, accept: bytes = b"") -> bytes:
    """Everything of a request before the number of its ``Content-Length``.

    :param accept: what is read in an answer besides text, if anything.
    """
    wanted = b"Accept: %b\r\n" % accept if accept else b""
    return b"POST %b HTTP/1.1\r\nHost: %b\r\n%bContent-Length: " % (path.encode("latin-1"), address.encode("latin-1"), wanted)


def frame_request(head: bytes, body: bytes) -> bytes:
    """A whole request.

    :param head: what :func:`request_head` made.
    """
    return b"%b%d\r\n\r\n%b" % (head, len(body), body)


class ClientConnection(asyncio.Protocol):
    """One connection to one address.

    :param answered: called with status and body for each answer, in the order of the requests.
    :param lost: called once, when the connection has ended, with the reason if there is one.
    :param writable: called when the peer takes data again after it had stopped.

    :attr:`unanswered` holds the sending times (loop time in seconds) of the requests that wait for their answers, oldest first.
    """

    def __init__(self, answered: Answered, lost: Lost, writable: Callable[[], None] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._answered = answered
        self._lost = lost
        self._writable = writable
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._fault: Exception | None = None
        self._aborted = False
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self.unanswered: deque[float] = deque()
        self.paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The dial succeeded; a dial that was given up in the meantime ends here."""
        self._transport = cast("asyncio.Transport", transport)
        raw_socket = transport.get_extra_info("socket")
        with suppress(OSError):
            raw_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._aborted:
            self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """Tell the owner; an answer that was cut off is lost with the rest."""
        self._transport = None
        self._ended.set_result(None)
        self._lost(self._fault or error)

    def data_received(self, data: bytes) -> None:
        """Parse answers."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.abort(ConnectionError(f"the peer's answer is not HTTP: {error}"))

    def pause_writing(self) -> None:
        """The peer takes no more for the moment."""
        self.paused = True

    def resume_writing(self) -> None:
        """It does again."""
        self.paused = False
        if self._writable is not None:
            self._writable()

    def on_body(self, body: bytes) -> None:
        """A part of an answer's body."""
        self._body_bytes += len(body)
        if self._body_bytes > ANSWER_BYTES_MAX:
            self.abort(ConnectionError(f"the peer's answer is over {ANSWER_BYTES_MAX} bytes"))
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        """An answer is whole."""
        status = self._parser.get_status_code()
        if status < HTTPStatus.OK or self._aborted:
            return
        body = b"".join(self._body)
        self._body.clear()
        self._body_bytes = 0
        if not self.unanswered:
            self.abort(ConnectionError(f"the peer answered {status} without a question"))
            return
        self.unanswered.popleft()
        keep_alive = self._parser.should_keep_alive()
        self._answered(status, body)
        if not keep_alive:
            self.abort(ConnectionError(f"the peer closes the connection after status {status}"))

    def post(self, request: bytes) -> None:
        """Send a request that :func:`frame_request` made. On a connection that is just ending it is lost like the others before it."""
        self.unanswered.append(self._loop.time())
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(request)

    def abort(self, reason: Exception | None = None) -> None:
        """Break the connection now; ``lost`` is called soon, with this reason."""
        self._aborted = True
        self._fault = self._fault or reason
        if self._transport is not None:
            self._transport.abort()

    @property
    def is_open(self) -> bool:
        """Whether requests can be sent."""
        return self._transport is not None and not self._aborted

    async def wait_closed(self) -> None:
        """Wait until the socket of a connection that was once open is closed."""
        await asyncio.shield(self._ended)


async def dial(address: str, connection: ClientConnection, seconds: float, resolver: Resolver) -> None:
    """Resolve the name and connect, within the given time.

    :raises OSError: when that failed; also for an address that is none.
    """
    try:
        host, port = parse_address(address)
        async with asyncio.timeout(seconds):
            await _connect(await resolver.resolve(host, port), connection)
    except ValueError as error:  # no address, or a name that can't be one
        raise ConnectionError(f"{address}: {error}") from error
    except TimeoutError as error:
        connection.abort()  # it may have been made in the very turn in which the time ended
        raise TimeoutError(f"{address} did not answer within {seconds:g} s") from error
    except BaseException:
        connection.abort()
        raise
    if not connection.is_open:
        raise ConnectionResetError(f"{address} closed the connection at once")


async def _connect(endpoints: list[Endpoint], connection: ClientConnection) -> None:
    """Try the addresses of a host one after the other."""
    *first_ones, last = endpoints
    loop = asyncio.get_running_loop()
    for host, port in first_ones:
        with suppress(ConnectionError):
            await loop.create_connection(lambda: connection, host, port)
            return
    await loop.create_connection(lambda: connection, *last)


class Caller:
    """Requests to one address, one after the other, on one connection that is dialled when needed.

    :param address: ``host:port``.
    :param connect_seconds: longest dial.
    :param resolver: knows the addresses of names.
    """

    def __init__(self, address: str, connect_seconds: float, resolver: Resolver) -> None:
        self._address = address
        self._resolver = resolver
        self._connect_seconds = connect_seconds
        self._connection: ClientConnection | None = None
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._last: ClientConnection | None = None
        self._closed = False

    async def call(self, path: str, body: bytes, seconds: float) -> tuple[int, bytes]:
        """Send one request and wait for its answer. After an error the next call dials anew.

        :returns: status and body.
        :raises OSError: when there is no answer within ``seconds``; whether the peer has acted on the request is then unknown.
        """
        try:
            async with asyncio.timeout(seconds):
                connection = self._connection or await self._dial()
                self._answer = asyncio.get_running_loop().create_future()
                connection.post(frame_request(request_head(self._address, path), body))
                return await self._answer
        except TimeoutError as error:
            self._break()
            raise TimeoutError(f"{self._address} did not answer within {seconds:g} s") from error
        except BaseException:
            self._break()
            raise
        finally:
            self._answer = None

    def abort(self) -> None:
        """Break the connection and whatever call waits for it. No call can be made afterwards."""
        self._closed = True
        self._break()

    async def close(self) -> None:
        """Break the connection and wait until its socket is closed. No call can be made afterwards."""
        self.abort()
        if self._last is not None:
            await self._last.wait_closed()

    def _break(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort(ConnectionAbortedError(f"the connection to {self._address} was closed"))

    async def _dial(self) -> ClientConnection:
        self._check_not_closed()
        connection = ClientConnection(self._answered, lambda error: self._lost(connection, error))
        await dial(self._address, connection, self._connect_seconds, self._resolver)
        self._connection = self._last = connection
        self._check_not_closed()
        return connection

    def _check_not_closed(self) -> None:
        if self._closed:
            raise ConnectionAbortedError(f"the connection to {self._address} was closed")

    def _answered(self, status: int, body: bytes) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((status, body))

    def _lost(self, connection: ClientConnection, error: Exception | None) -> None:
        current = connection is self._connection
        if current:
            self._connection = None
        if (current or self._connection is None) and self._answer is not None and not self._answer.done():
            reason = error if isinstance(error, OSError) else ConnectionResetError(f"{self._address} closed the connection")
            self._answer.set_exception(reason)


async def call(address: str, path: str, body: bytes, timeout: float) -> tuple[int, bytes]:  # noqa: ASYNC109  # the time belongs to the call
    """Make one POST request to any address.

    :param address: ``host:port``.
    :param timeout: seconds for everything: name, dial, request, answer.
    :returns: status and body.
    :raises OSError: when there is no answer; whether the peer has acted on the request is then unknown.
    """
    resolver = Resolver()
    caller = Caller(address, timeout, resolver)
    try:
        return await caller.call(path, body, timeout)
    finally:
        await caller.close()
        await resolver.stop()
