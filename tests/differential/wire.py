"""One keep-alive HTTP connection that sends whatever it is given: also what no client library would let through."""

import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

PATIENCE_SECONDS = 30.0
IDLE_SECONDS_MAX = 1.0
"""An older connection is opened anew: the server may be about to close it."""
_CHUNK = 65536
_WITHOUT_BODY = (204, 304)


class Closed(ConnectionError):
    """The server ended the connection before its answer was whole."""


class Reply(NamedTuple):
    """An answer. Names of headers are in lower case; the values of one that came twice are joined."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent, byte for byte.

    :ivar target: of the request line, as it is.
    :ivar body: None for none at all.
    :ivar chunked: the body is sent in chunks instead of with its length.
    """

    method: str
    target: bytes
    body: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()
    chunked: bool = False

    def encode(self, host: str) -> bytes:
        """The bytes on the wire."""
        lines = [b"%b %b HTTP/1.1" % (self.method.encode(), self.target), b"Host: " + host.encode()]
        lines += [f"{name}: {value}".encode("latin-1") for name, value in self.headers]
        body = self.body or b""
        if self.chunked:
            lines.append(b"Transfer-Encoding: chunked")
            pieces = [body[start : start + _CHUNK] for start in range(0, len(body), _CHUNK)]
            body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        elif self.body is not None:
            lines.append(b"Content-Length: %d" % len(body))
        return b"\r\n".join([*lines, b"", body])


class Connection:
    """To a server on loopback; it opens itself anew when the server has closed it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._host = f"127.0.0.1:{port}"
        self._socket: socket.socket | None = None
        self._buffer = b""
        self._used = 0.0

    def close(self) -> None:
        """Close it; the next request opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._buffer = b""

    def send(self, request: Request) -> None:
        """Send a request. :meth:`receive` must come before the next."""
        if time.monotonic() - self._used > IDLE_SECONDS_MAX:
            self.close()
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), PATIENCE_SECONDS)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A server may refuse a request by its head and not read the rest: its answer is there all the same.
        with suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(request.encode(self._host))

    def receive(self, method: str) -> Reply:
        """The answer to what was sent.

        :raises Closed: there is none, or not all of it.
        """
        try:
            reply, keep = self._read(method)
        except (OSError, ValueError) as error:
            self.close()
            raise Closed(repr(error)) from None
        self._used = time.monotonic()
        if not keep:
            self.close()
        return reply

    def _read(self, method: str) -> tuple[Reply, bool]:
        status, headers = 100, {}
        while status == 100:
            head = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
            status = int(head[0].split(" ", 2)[1])
            headers = {}
            for line in head[1:-2]:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                headers[name] = f"{headers[name]}, {value.strip()}" if name in headers else value.strip()
        keep = headers.get("connection", "").lower() != "close"
        if method == "HEAD" or status in _WITHOUT_BODY:
            body = b""
        elif headers.get("transfer-encoding", "").lower() == "chunked":
            body = self._chunks()
        elif "content-length" in headers:
            body = self._exactly(int(headers["content-length"]))
        else:
            body, keep = self._rest(), False
        return Reply(status, headers, body), keep

    def _more(self) -> bool:
        if self._socket is None:
            raise Closed("not connected")
        found = self._socket.recv(1 << 20)
        self._buffer += found
        return bool(found)

    def _until(self, mark: bytes) -> bytes:
        while (end := self._buffer.find(mark)) < 0:
            if not self._more():
                raise Closed(f"after {self._buffer[:100]!r}")
        found, self._buffer = self._buffer[: end + len(mark)], self._buffer[end + len(mark) :]
        return found

    def _exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            if not self._more():
                raise Closed(f"after {len(self._buffer)} of {count} bytes")
        found, self._buffer = self._buffer[:count], self._buffer[count:]
        return found

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self._until(b"\r\n"), 16):
            body += self._exactly(size)
            self._until(b"\r\n")
        self._until(b"\r\n")
        return body

    def _rest(self) -> bytes:
        while self._more():
            pass
        found, self._buffer = self._buffer, b""
        return found
