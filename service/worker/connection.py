"""One client: its requests in the order in which they come, each answered before the next is looked at.

A connection is a greenlet. It reads and writes by its own watchers, and keeps no timer: it notes what it does and since when, and
:mod:`service.worker.watch` looks for those who take too long. A request that breaks a rule is answered with the reason, and the connection ends; what
the client still sends is thrown away for a moment, so that it can read the answer before its own sending fails.

An application may have a method ``fast(method, target, variables, body, recalled)``: it is asked first, with the headers as WSGI names them and the
whole body, and gives a :class:`~service.worker.response.Complete`, or None where the request is to be handled as WSGI. One that also has
``recall(head)`` is asked that before: it gives the answer where it knows it from the head's bytes, or else what ``fast`` is told. ``fast`` is told
None if there is more to the request than its head, or the connection ends with it: so answers become known only for heads that stand alone.
"""

import io
import logging
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from http import HTTPStatus
from typing import Any

import gevent

from service.worker import parser
from service.worker.body import PIECE_BYTES, Body, BodyBroken, Decoder, decoder
from service.worker.parser import Fields, Head, Refused
from service.worker.response import CONTINUE, Complete, Date, Response, refusal

log = logging.getLogger(__name__)

HEAD_BYTES = 16 * 1024
"""What is asked of the kernel at once, where most requests fit."""
WHOLE_BODY_BYTES_MAX = 64 * 1024
"""A longer body is given to the application as it comes."""
BYTES_PER_SECOND_MIN = 1024
"""Who sends a body or takes an answer slower than that, for longer than the limits of the watch, is cut off."""

_READ, _WRITE = 1, 2
_FAILED = refusal(HTTPStatus.INTERNAL_SERVER_ERROR)


class State(IntEnum):
    """What a connection does."""

    IDLE = 0
    HEAD = 1
    BODY = 2
    ANSWERING = 3
    SENDING = 4
    ENDING = 5


# Looking up a member of an enumeration costs as much as a small function.
_IDLE, _HEAD, _BODY, _ANSWERING, _SENDING, _ENDING = State


class ClientGone(Exception):
    """The connection does not take what is sent any more."""


@dataclass(slots=True, kw_only=True)
class Service:
    """What all connections of one worker share.

    :ivar environ: what WSGI's environment is the same for all requests.
    :ivar is_last: whether an answer that begins now ends its connection, whatever the request says.
    :ivar finished: called with a connection whose request took so long that its client is watched.
    """

    application: Any
    environ: Mapping[str, Any]
    is_last: Callable[[], bool]
    finished: Callable[["Connection"], None] = lambda _: None
    date: Date = field(default_factory=Date)
    fast: Callable[[str, str, Mapping[str, str], bytes, Any], Complete | None] | None = None
    recall: Callable[[bytes], Any] | None = None

    def __post_init__(self) -> None:
        self.fast = getattr(self.application, "fast", None)
        self.recall = getattr(self.application, "recall", None)


class Connection:
    """See the module's text.

    :param sock: of gevent; it is closed at the end.
    :param environ: what WSGI's environment is the same for all requests of the connection.
    :ivar state: what it does.
    :ivar since: when that began, on the monotonic clock; progress moves it.
    :ivar watched: whether the watch looks out for the client's going.
    :ivar greenlet: that serves it.
    """

    __slots__ = (
        "_buffer",
        "_environ",
        "_hub",
        "_lag_seconds",
        "_overdue",
        "_parked",
        "_readable",
        "_reads",
        "_service",
        "_sock",
        "_writable",
        "greenlet",
        "since",
        "state",
        "watched",
    )

    def __init__(self, service: Service, sock: Any, environ: Mapping[str, Any]) -> None:
        self._service = service
        self._sock = sock
        self._environ = environ
        self._hub: Any = gevent.get_hub()
        self._readable: Any = self._hub.loop.io(sock.fileno(), _READ)
        self._writable: Any = None
        self._reads = self._parked = False
        self._buffer = b""
        self._overdue = False
        self._lag_seconds = 0.0
        self.greenlet: Any = gevent.getcurrent()
        self.state = _IDLE
        self.since = time.monotonic()
        self.watched = False
        sock.setblocking(False)

    def fileno(self) -> int:
        """The file descriptor."""
        number: int = self._sock.fileno()
        return number

    def serve(self) -> None:
        """Answer requests until the connection ends."""
        try:
            while (head := self._next_head()) is not None and self._answer(head):
                if self.watched:
                    self._service.finished(self)
        except Refused as refused:
            log.info("a request was refused with %d: %s", refused.status, refused)
            self._send_last(refusal(refused.status))
        except ClientGone as gone:
            log.debug("a client has gone: %s", gone)
        finally:
            if self.watched:
                self._service.finished(self)
            self._close()

    def end_reading(self) -> None:
        """Let what has arrived be the last that is read."""
        self._shut(socket.SHUT_RD)

    def cut(self) -> None:
        """End it: the client is too slow. Where a request is still coming it is told so."""
        self._overdue = True
        self._shut(socket.SHUT_RDWR if self.state in (_SENDING, _ENDING) else socket.SHUT_RD)

    def _shut(self, how: int) -> None:
        try:
            self._sock.shutdown(how)
        except OSError as error:
            log.debug("a connection has ended by itself: %s", error)

    def _close(self) -> None:
        self._readable.close()
        if self._writable is not None:
            self._writable.close()
        self._sock.close()

    # -- requests --

    def _next_head(self) -> bytes | None:
        """The next request up to the empty line before its body; None when there is no other."""
        data = self._buffer
        if not data:
            self.state, self.since = _IDLE, time.monotonic()
            data = self._receive(HEAD_BYTES)
            if not data:
                return None
        end = data.find(b"\r\n\r\n")
        if end <= 0 or data[0] == 13:  # an empty line may come first (RFC 9112, section 2.2)
            data = self._await_head(data)
            if not data:
                return None
            end = data.find(b"\r\n\r\n")
        self._buffer = data[end + 4 :]
        return data[:end]

    def _await_head(self, data: bytes) -> bytes:
        """A head that did not come in one piece, with what follows it and without an empty line before it; nothing when the client ends first."""
        gathered, searched, begun = bytearray(data), 0, False
        self.state, self.since = _HEAD, time.monotonic()
        while True:
            if not begun and len(gathered) >= 2:
                begun = True
                if gathered.startswith(b"\r\n"):
                    del gathered[:2]
            if begun and gathered.find(b"\r\n\r\n", max(0, searched - 3)) >= 0:
                return bytes(gathered)
            parser.check_beginning(gathered, searched)
            searched = len(gathered)
            received = self._receive(HEAD_BYTES)
            if not received:
                if self._overdue and gathered:
                    raise Refused(HTTPStatus.REQUEST_TIMEOUT, "its head took too long")
                return b""
            gathered += received

    def _answer(self, raw: bytes) -> bool:
        """Answer one request; whether another may follow.

        :param raw: its head.
        """
        self.state, self.since = _ANSWERING, time.monotonic()
        service, recalled = self._service, None
        if service.recall is not None:
            try:
                recalled = service.recall(raw)
            except Exception:
                log.exception("a request failed")
                return self._send_last(_FAILED)
            if isinstance(recalled, Complete):
                if log.isEnabledFor(logging.DEBUG):
                    _tell(*raw.decode("latin-1").split(" ", 2)[:2])
                keeps = not service.is_last()
                self._send(recalled.to_bytes(service.date, 1, keeps=keeps))
                return keeps or self._send_last(b"")
        head = parser.parse(raw)
        if log.isEnabledFor(logging.DEBUG):
            _tell(head.method, head.target)
        body = self._take_body(head)
        if isinstance(body, bytes) and service.fast is not None and head.method != "HEAD":
            answered = self._answer_fast(head, body, recalled if head.stands_alone else None)
            if answered is not None:
                return answered
        return self._answer_wsgi(head, body)

    def _answer_fast(self, head: Head, body: bytes, recalled: Any) -> bool | None:
        """Let the application answer at once; None when it does not."""
        service = self._service
        try:
            answer = service.fast(head.method, head.target, head.fields.variables, body, recalled)  # type: ignore[misc]  # the caller has looked
            if answer is None:
                return None
            keeps = head.keeps and not service.is_last()
            data = answer.to_bytes(service.date, head.minor, keeps=keeps)
        except Exception:
            log.exception("a request failed")
            return self._send_last(_FAILED)
        self._send(data)
        return keeps or self._end(head)

    def _answer_wsgi(self, head: Head, body: bytes | Body) -> bool:
        service = self._service
        response = Response(head, service.date, self._send, service.is_last)
        stream = io.BytesIO(body) if isinstance(body, bytes) else body.stream()
        try:
            pieces = service.application(self._make_environ(head, stream), response.start_response)
            try:
                response.send_all(pieces)
            finally:
                if hasattr(pieces, "close"):
                    pieces.close()
        except ClientGone:
            raise
        except BodyBroken as broken:
            if response.started:
                return False
            raise Refused(HTTPStatus.BAD_REQUEST, str(broken)) from broken
        except Exception:
            log.exception("a request failed")
            # Behind half an answer another one would be read as a part of it.
            return not response.started and self._send_last(_FAILED)
        if isinstance(body, bytes):
            return response.keeps or self._end(head)
        if not response.keeps:
            return self._send_last(b"")
        if not body.discard():
            return False
        self._buffer = body.rest
        return True

    def _end(self, head: Head) -> bool:
        """End the connection behind an answer; always False."""
        # Where more may be on its way, closing at once would reset the connection, and could take the answer with it.
        return (head.keeps or bool(self._buffer)) and self._send_last(b"")

    def _make_environ(self, head: Head, stream: io.BufferedIOBase) -> dict[str, Any]:
        path, query = parser.split_target(head.target)
        return {
            **self._service.environ,
            **self._environ,
            **head.fields.variables,
            "REQUEST_METHOD": head.method,
            "RAW_URI": head.target,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "SCRIPT_NAME": "",
            "SERVER_PROTOCOL": f"HTTP/1.{head.minor}",
            "wsgi.input": stream,
            "wsgi.url_scheme": "http",
            "gunicorn.socket": self._sock,
        }

    # -- bodies --

    def _take_body(self, head: Head) -> bytes | Body:
        """The body of a request: all of it, or a long one as a stream."""
        fields = head.fields
        if fields.expects and head.minor:
            self._send(CONTINUE)
        length = fields.length
        if length is None and not fields.chunked:
            return b""
        if length is not None and length <= len(self._buffer):
            body, self._buffer = self._buffer[:length], self._buffer[length:]
            return body
        return self._read_body(fields)

    def _read_body(self, fields: Fields) -> bytes | Body:
        """A body that has not come yet: all of it, or a long one as a stream."""
        self._lag_seconds = 0.0
        found = decoder(fields)
        begun, self._buffer = found.feed(self._buffer), b""
        if not fields.chunked and (fields.length or 0) > WHOLE_BODY_BYTES_MAX:
            return Body(found, begun, self._receive_body)
        return self._gather(found, begun)

    def _gather(self, found: Decoder, begun: bytes) -> bytes | Body:
        gathered = bytearray(begun)
        while not found.done and len(gathered) <= WHOLE_BODY_BYTES_MAX:
            data = self._receive_body()
            if data:
                gathered += found.feed(data)
                continue
            if self._overdue:
                raise Refused(HTTPStatus.REQUEST_TIMEOUT, "its body took too long")
            if found.must_be_whole:
                raise Refused(HTTPStatus.BAD_REQUEST, "its body ended early")
            break
        if not found.done:
            return Body(found, bytes(gathered), self._receive_body)
        self._buffer = found.rest
        return bytes(gathered)

    def _receive_body(self) -> bytes:
        """What comes next of a body; nothing at its end, and when it comes too slowly."""
        self.state, self.since = _BODY, time.monotonic() - self._lag_seconds
        data = self._receive(PIECE_BYTES)
        self._credit(len(data))
        now = time.monotonic()
        # What the application does between two pieces is not the client's time.
        self._lag_seconds = now - self.since
        self.state, self.since = _ANSWERING, now
        return data

    # -- the socket --

    def _receive(self, size: int) -> bytes:
        """What the client sends next; nothing at its end."""
        while not self._overdue:
            self._await_data()
            try:
                data: bytes = self._sock.recv(size)
            except BlockingIOError:
                continue
            except OSError as error:
                raise ClientGone(str(error)) from error
            else:
                return data
        return b""

    def _await_data(self) -> None:
        """Park until there is something to receive, be it the end. The watcher stays on between requests: each start of one costs a system call."""
        if not self._reads:
            self._reads = True
            self._readable.start(self._data_arrived)
        self._parked = True
        try:
            self._hub.switch()
        finally:
            self._parked = False

    def _data_arrived(self) -> None:
        """Called by the loop, again and again while nobody takes what has arrived."""
        if self._parked:
            self._parked = False
            self.greenlet.switch()
        else:
            self._reads = False
            self._readable.stop()

    def _send(self, data: bytes) -> None:
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise ClientGone(str(error)) from error
        if sent < len(data):
            self._send_rest(memoryview(data)[sent:])

    def _send_rest(self, data: memoryview) -> None:
        if self._writable is None:
            self._writable = self._hub.loop.io(self._sock.fileno(), _WRITE)
        before = self.state
        self.state, self.since = _SENDING, time.monotonic()
        while data:
            self._hub.wait(self._writable)
            try:
                sent = self._sock.send(data)
            except BlockingIOError:
                continue
            except OSError as error:
                raise ClientGone(str(error)) from error
            self._credit(sent)
            data = data[sent:]
        self.state, self.since = before, time.monotonic()

    def _send_last(self, data: bytes) -> bool:
        """Send the end of the connection, and wait a moment until the client has read it; always False."""
        self._overdue = False
        try:
            if data:
                self._send(data)
            self.state, self.since = _ENDING, time.monotonic()
            self._shut(socket.SHUT_WR)
            while self._receive(PIECE_BYTES):
                pass
        except ClientGone as gone:
            log.debug("a client has gone: %s", gone)
        return False

    def _credit(self, count: int) -> None:
        """Give a client that moves the time that it needs at the lowest speed that is allowed."""
        self.since = min(time.monotonic(), self.since + count / BYTES_PER_SECOND_MIN)


def _tell(method: str, target: str) -> None:
    log.debug("%s %s", method, target.partition("?")[0])  # what follows may hold a token
