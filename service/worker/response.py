"""Answers: from what an application gives to the bytes that are sent, as few sends as can be.

The order is that of gunicorn: its own headers first (``Server``, ``Date``, ``Connection``, ``Transfer-Encoding``), then the application's as given.
"""

import re
import time
from collections.abc import Callable, Iterable
from email.utils import formatdate
from http import HTTPStatus
from types import TracebackType
from typing import Any

from gunicorn import SERVER

from service.worker.parser import Head

Headers = list[tuple[str, str]]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]

JOINED_BYTES_MAX = 64 * 1024
"""A longer body is sent by itself: copying it would cost more than another send."""
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_STATUS = re.compile(r"[1-9][0-9]{2}(?: [ \t\x21-\x7e\x80-\xff]*)?")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[ \t\x21-\x7e\x80-\xff]*")
_OF_THE_CONNECTION = frozenset(
    ("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailers", "transfer-encoding", "upgrade", "server", "date")
)
"""Headers that an application can't set: they are about this connection, or the server's own."""
_NO_CONTENT, _NOT_MODIFIED = 204, 304


class Date:
    """The header lines that every answer begins with; made anew once a second."""

    def __init__(self) -> None:
        self._second = -1
        self._lines = b""

    def lines(self) -> bytes:
        """``Server`` and ``Date``."""
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._lines = f"Server: {SERVER}\r\nDate: {formatdate(second, usegmt=True)}\r\n".encode()
        return self._lines


class AnswerInvalid(ValueError):
    """An application gave what can't be sent: it would not be read as one answer."""


def check_headers(headers: Iterable[tuple[str, str]]) -> None:
    """Refuse headers that can't be sent.

    :raises AnswerInvalid: one could be read as something else.
    """
    for name, value in headers:
        if not (isinstance(name, str) and isinstance(value, str)):
            raise AnswerInvalid("a header that is no text")
        if not (_NAME.fullmatch(name) and _VALUE.fullmatch(value)):
            raise AnswerInvalid(f"the header {name!r}")  # not its value: it may be a secret


class Complete:
    """An answer that is there as a whole. One that is sent again and again is put together once.

    :param status: with its reason.
    :param headers: final, ``Content-Length`` among them.
    :ivar status: as it is sent.
    :raises AnswerInvalid: a header could be read as something else.
    """

    __slots__ = ("_lines", "body", "status")

    def __init__(self, status: str, headers: Headers, body: bytes) -> None:
        self.body = body
        self.status = status.encode("latin-1")
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
        if lines.count("\n") != len(headers) or lines.count("\r") != len(headers):
            raise AnswerInvalid("a header with a line end")
        self._lines = lines.encode("latin-1")

    @property
    def bytes_kept(self) -> int:
        """How much memory it takes, about."""
        return len(self.body) + len(self._lines) + 300

    def to_bytes(self, date: Date, minor: int, *, keeps: bool) -> bytes:
        """What is sent."""
        connection = b"keep-alive" if keeps else b"close"
        return b"HTTP/1.%d %b\r\n%bConnection: %b\r\n%b\r\n%b" % (minor, self.status, date.lines(), connection, self._lines, self.body)


def refusal(status: HTTPStatus) -> bytes:
    """The answer to a request that was not even read, as Go's server gives it. What was wrong is in the log."""
    text = f"{status.value} {_PHRASES.get(status, status.phrase)}"
    return (f"HTTP/1.1 {text}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\nContent-Length: {len(text)}\r\n\r\n{text}").encode(
        "latin-1"
    )


_PHRASES = {HTTPStatus.REQUEST_URI_TOO_LONG: "URI Too Long"}  # Python calls it otherwise before 3.13


class Response:
    """One answer in the making, as WSGI wants it (PEP 3333).

    :param request: what is answered.
    :param send: sends bytes to the client.
    :param is_last: asked when the headers are sent: whether the connection ends with this answer, whatever the request says.
    :ivar started: whether any of it was sent.
    :ivar keeps: whether the connection goes on behind it; final once it is finished.
    """

    def __init__(self, request: Head, date: Date, send: Callable[[bytes], None], is_last: Callable[[], bool]) -> None:
        self.started = False
        self.keeps = request.keeps
        self._request = request
        self._date = date
        self._send = send
        self._is_last = is_last
        self._status = ""
        self._headers: Headers = []
        self._length: int | None = None
        self._sent = 0
        self._chunked = False
        self._bodiless = False

    def start_response(self, status: str, headers: Headers, exc_info: ExcInfo | None = None) -> Callable[[bytes], None]:
        """Take status and headers; they are sent with the first piece of the body.

        :raises AnswerInvalid: they can't be sent.
        """
        if exc_info and self.started and exc_info[1] is not None:
            raise exc_info[1]
        if self._status and not exc_info:
            raise AnswerInvalid("start_response was called twice")
        if not isinstance(status, str) or not _STATUS.fullmatch(status):
            raise AnswerInvalid(f"the status {status!r}")
        check_headers(headers)
        code = int(status[:3])
        self._bodiless = self._request.method == "HEAD" or code in (_NO_CONTENT, _NOT_MODIFIED) or code < HTTPStatus.OK
        without_length = code == _NO_CONTENT or code < HTTPStatus.OK
        self._status, self._length, self._headers = status, None, []
        for name, value in headers:
            lower = name.lower()
            if lower in _OF_THE_CONNECTION or (without_length and lower == "content-length"):
                continue
            if lower == "content-length":
                self._length = _length(value)
            self._headers.append((name, value.strip(" \t")))
        self._chunked = self._length is None and self._request.minor > 0 and not self._bodiless
        return self.write

    def write(self, data: bytes) -> None:
        """Send a piece of the body, with the headers if it is the first; these also without it."""
        if not isinstance(data, bytes):
            raise AnswerInvalid("a body that is no bytes")
        piece = self._framed(data)
        if self.started:
            if piece:
                self._send(piece)
        else:
            self._send_first(piece)

    def send_all(self, pieces: Iterable[Any]) -> None:
        """Send the body and its end."""
        if isinstance(pieces, (list, tuple)) and all(isinstance(piece, bytes) for piece in pieces):
            self._finish(self._framed(b"".join(pieces)))
            return
        for piece in pieces:
            self.write(piece)
        self._finish(b"")

    def _finish(self, piece: bytes) -> None:
        if self._chunked:
            piece += b"0\r\n\r\n"
        if not self.started:
            self._send_first(piece)
        elif piece:
            self._send(piece)
        if self._length is not None and self._sent < self._length and not self._bodiless:
            self.keeps = False  # what comes next would be read as the rest of this

    def _framed(self, data: bytes) -> bytes:
        if not data or self._bodiless:
            return b""
        if self._length is not None:
            data = data[: self._length - self._sent]
        self._sent += len(data)
        return b"%X\r\n%b\r\n" % (len(data), data) if self._chunked else data

    def _send_first(self, piece: bytes) -> None:
        if not self._status:
            raise AnswerInvalid("start_response was not called")
        # Without a length and without chunks only the end of the connection tells the end of the body.
        self.keeps = self.keeps and not self._is_last() and (self._length is not None or self._chunked or self._bodiless)
        headers = [("Transfer-Encoding", "chunked"), *self._headers] if self._chunked else self._headers
        joined = len(piece) <= JOINED_BYTES_MAX
        data = Complete(self._status, headers, piece if joined else b"").to_bytes(self._date, self._request.minor, keeps=self.keeps)
        self.started = True
        self._send(data)
        if not joined:
            self._send(piece)


def _length(value: str) -> int:
    text = value.strip(" \t")
    if not (text.isascii() and text.isdecimal()):
        raise AnswerInvalid(f"the Content-Length {value!r}")
    return int(text)
