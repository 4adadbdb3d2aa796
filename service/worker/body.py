"""The body of a request: where it ends, and the stream that an application reads it from.

A decoder takes what comes from the client and gives what belongs to the body; what stands behind the body is the next request.
"""

import io
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Protocol

from service.worker.parser import FIELD_BYTES_MAX, Fields, Refused, check_trailers

PIECE_BYTES = 64 * 1024
SIZE_LINE_BYTES_MAX = FIELD_BYTES_MAX
SIZE_DIGITS_MAX = 16
TRAILERS_BYTES_MAX = 16 * 1024

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]+)(?:[ \t]*;[ \t]*" + _TOKEN + rb"(?:[ \t]*=[ \t]*(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?)*")
_BARE_LF = re.compile(rb"(?<!\r)\n")


class BodyBroken(OSError):
    """The body ended early, or is malformed: what an application gets that reads it as it comes."""


class Decoder(Protocol):
    """Finds the end of a body.

    :ivar done: whether the end was found.
    :ivar rest: what came behind it.
    :ivar must_be_whole: whether a body whose end never came is malformed, rather than short.
    """

    done: bool
    rest: bytes
    must_be_whole: bool

    def feed(self, data: bytes) -> bytes:
        """What of the data belongs to the body.

        :raises Refused: it is malformed.
        """


class LengthDecoder:
    """A body whose length is known."""

    must_be_whole = False

    def __init__(self, length: int) -> None:
        self.done = length == 0
        self.rest = b""
        self._left = length

    def feed(self, data: bytes) -> bytes:
        """The data, up to the end of the body."""
        if len(data) < self._left:
            self._left -= len(data)
            return data
        taken, self.rest = data[: self._left], data[self._left :]
        self._left = 0
        self.done = True
        return taken


class ChunkedDecoder:
    """A body in chunks (RFC 9112, section 7.1)."""

    must_be_whole = True

    def __init__(self) -> None:
        self.done = False
        self.rest = b""
        self._undecided = b""
        self._left = 0
        self._step: Callable[[bytes, int, list[bytes]], int] = self._size

    def feed(self, data: bytes) -> bytes:
        """The data without sizes, extensions and trailers."""
        if self._undecided:
            data = self._undecided + data
        pieces: list[bytes] = []
        position = 0
        while not self.done:
            ahead = self._step(data, position, pieces)
            if ahead < 0:
                break
            position = ahead
        self._undecided, self.rest = (b"", data[position:]) if self.done else (data[position:], b"")
        return b"".join(pieces)

    # Each takes the data, where it begins, and the list of the body's pieces; it returns how far it got, or -1 to wait for more.

    def _size(self, data: bytes, position: int, _pieces: list[bytes]) -> int:
        end = data.find(b"\r\n", position)
        if (len(data) if end < 0 else end) - position > SIZE_LINE_BYTES_MAX:
            raise Refused(HTTPStatus.BAD_REQUEST, "a chunk's size on a line that is too long")
        if end < 0:
            if _BARE_LF.search(data, position):
                raise Refused(HTTPStatus.BAD_REQUEST, "a chunk's size that ends without a carriage return")
            return -1
        matched = _SIZE_LINE.fullmatch(data, position, end)
        if not matched or len(matched[1]) > SIZE_DIGITS_MAX:
            raise Refused(HTTPStatus.BAD_REQUEST, "a chunk's size that is none")
        self._left = int(matched[1], 16)
        self._step = self._data if self._left else self._trailers
        return end + 2

    def _data(self, data: bytes, position: int, pieces: list[bytes]) -> int:
        piece = data[position : position + self._left]
        if not piece:
            return -1
        pieces.append(piece)
        self._left -= len(piece)
        if not self._left:
            self._step = self._data_end
        return position + len(piece)

    def _data_end(self, data: bytes, position: int, _pieces: list[bytes]) -> int:
        end = data[position : position + 2]
        if not b"\r\n".startswith(end):
            raise Refused(HTTPStatus.BAD_REQUEST, "a chunk that is longer than its size")
        if len(end) < 2:
            return -1
        self._step = self._size
        return position + 2

    def _trailers(self, data: bytes, position: int, _pieces: list[bytes]) -> int:
        if data.startswith(b"\r\n", position):
            self.done = True
            return position + 2
        end = data.find(b"\r\n\r\n", position)
        if (len(data) if end < 0 else end) - position > TRAILERS_BYTES_MAX:
            raise Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "too much behind a body")
        if end < 0:
            if _BARE_LF.search(data, position):
                raise Refused(HTTPStatus.BAD_REQUEST, "a trailer that ends without a carriage return")
            return -1
        check_trailers(data[position:end])
        self.done = True
        return end + 4


def decoder(fields: Fields) -> Decoder:
    """The decoder of a request's body."""
    return ChunkedDecoder() if fields.chunked else LengthDecoder(fields.length or 0)


class Body(io.RawIOBase):
    """A body that is read as it comes.

    :param begun: what was decoded already.
    :param receive: gives what comes next from the client; nothing at its end.
    :ivar failed: whether it can't be read to its end, so that nobody knows where the next request begins.
    """

    def __init__(self, decoder: Decoder, begun: bytes, receive: Callable[[], bytes]) -> None:
        super().__init__()
        self.failed = False
        self._decoder = decoder
        self._decoded = memoryview(begun)
        self._receive = receive

    @property
    def rest(self) -> bytes:
        """What came behind it, once its end was reached."""
        return self._decoder.rest

    def stream(self) -> io.BufferedReader:
        """As an application reads it."""
        return io.BufferedReader(self, PIECE_BYTES)

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, target: memoryview) -> int:  # type: ignore[override]  # any buffer that can be written, which is what io gives
        """Fill a buffer with what comes next; 0 at the end."""
        while not self._decoded:
            if self._decoder.done or (self.failed and not self._decoder.must_be_whole):
                return 0
            self._decoded = memoryview(self._next())
        count = min(len(target), len(self._decoded))
        target[:count] = self._decoded[:count]
        self._decoded = self._decoded[count:]
        return count

    def discard(self) -> bool:
        """Throw the rest away.

        :returns: whether the end was reached.
        """
        self._decoded = memoryview(b"")
        try:
            while not (self._decoder.done or self.failed):
                self._next()
        except BodyBroken:
            return False
        return not self.failed

    def _next(self) -> bytes:
        if self.failed:
            raise BodyBroken("the request's body can't be read")
        data = self._receive()
        if not data:
            self.failed = True
            if self._decoder.must_be_whole:
                raise BodyBroken("the request's body ended early")
            return b""
        try:
            return self._decoder.feed(data)
        except Refused as refused:
            self.failed = True
            raise BodyBroken(f"the request's body is malformed: {refused}") from refused
