"""Servers for tests: one end of a pair of sockets is served, the other one is the client."""

import contextlib
import copy
import hashlib
import logging
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import gevent
import gevent.socket
from gunicorn.config import Config

from service.worker.connection import Connection, Service
from service.worker.response import Complete
from service.worker.stock import StockWorker, relax_parser, write_error

PATIENCE_SECONDS = 60.0
ENVIRON = {"SERVER_NAME": "", "SERVER_PORT": "", "REMOTE_ADDR": "", "REMOTE_PORT": "0"}
DATE = re.compile(rb"\r\nDate: [^\r]*")
_LATER = frozenset(("/stream", "/lazy", "/part", "/none", "/known"))


class Seen(NamedTuple):
    """A request as an application got it; ``body`` is None where it could not be read."""

    method: str
    target: str
    body: bytes | None


class Application:
    """Notes what it is asked, and answers with it; how, the path tells. It can answer at once, too.

    :ivar connections: what each request says of its connection.
    """

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.connections: list[str] = []
        self.environs: list[dict[str, Any]] = []

    def fast(self, method: str, target: str, variables: Any, body: bytes, _recalled: Any = None) -> Complete | None:
        """Everything whose path is no other function's."""
        if target.partition("?")[0] in _LATER or not target.startswith("/") or method == "CONNECT":
            return None
        self.seen.append(Seen(method, target, body))
        self.connections.append(variables.get("HTTP_CONNECTION", ""))
        told = summary(method, target, variables, body)
        return Complete("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(told)))], told)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """WSGI."""
        self.environs.append(environ)
        path, method, target = environ["PATH_INFO"], environ["REQUEST_METHOD"], environ["RAW_URI"]
        self.seen.append(Seen(method, target, None))
        self.connections.append(environ.get("HTTP_CONNECTION", ""))
        body = b"" if path == "/lazy" else environ["wsgi.input"].read(3 if path == "/part" else None)
        self.seen[-1] = Seen(method, target, body)
        variables = {name: value for name, value in environ.items() if name.startswith("HTTP_") or name in {"CONTENT_LENGTH", "CONTENT_TYPE"}}
        told = summary(method, target, variables, body)
        if path == "/stream":
            start_response("200 OK", [("Content-Type", "text/plain")])
            return iter([b"", told[:10], told[10:]])
        if path in {"/none", "/known"}:
            start_response("204 No Content" if path == "/none" else "304 Not Modified", [("ETag", '"1"')])
            return [b""]
        status = "413 Request Entity Too Large" if path == "/lazy" else "200 OK"
        start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(told)))])
        return [told]


class Remembering(Application):
    """Gives the same answer to the same head, without a second look at it.

    :ivar known: for each head what was seen of the request, its connection, and its answer.
    :ivar recalled: how often one was found.
    """

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[bytes, tuple[Seen, str, Complete]] = {}
        self.recalled = 0

    def recall(self, head: bytes) -> Complete | bytes:
        """The same answer as before, or the head, to keep the next one under."""
        if (known := self.known.get(head)) is None:
            return head
        seen, connection, answer = known
        self.recalled += 1
        self.seen.append(seen)
        self.connections.append(connection)
        return answer

    def fast(self, method: str, target: str, variables: Any, body: bytes, recalled: Any = None) -> Complete | None:
        """As before, and kept where the server says that it may be."""
        answer = super().fast(method, target, variables, body)
        if answer is not None and recalled is not None:
            self.known[recalled] = (self.seen[-1], self.connections[-1], answer)
        return answer


def summary(method: str, target: str, variables: Any, body: bytes) -> bytes:
    """A request in a few bytes."""
    return repr((method, target, sorted(variables.items()), len(body), hashlib.sha256(body).hexdigest()[:8])).encode()


class Own:
    """The server of this project."""

    def __init__(self, application: Any) -> None:
        self.last = False
        self.connections: list[Connection] = []
        environ = {"wsgi.multithread": True, "wsgi.errors": None}
        self.service = Service(application=application, environ=environ, is_last=lambda: self.last)

    def serve(self, sock: Any) -> None:
        """Serve one connection."""
        self.connections.append(Connection(self.service, sock, ENVIRON))
        self.connections[-1].serve()


class Stock:
    """gunicorn's worker, as this project sets it up."""

    def __init__(self, application: Any) -> None:
        self._worker = copy.copy(_stock_worker())
        self._worker.wsgi = application

    def serve(self, sock: Any) -> None:
        """Serve one connection."""
        with self.handling() as worker:
            worker.handle(NAMELESS, sock, ("", 0))

    @contextlib.contextmanager
    def handling(self) -> Iterator[StockWorker]:
        """The worker, while gunicorn refuses requests as in this project."""
        import gunicorn.util  # noqa: PLC0415 - only here is it another's business how gunicorn answers

        plain, gunicorn.util.write_error = gunicorn.util.write_error, write_error
        try:
            yield self._worker
        finally:
            gunicorn.util.write_error = plain


@lru_cache
def _stock_worker() -> StockWorker:
    """The one that all others are twins of: each begins with a temporary file, which takes milliseconds beside others who sync the disk."""
    cfg = _stock_settings()
    worker = StockWorker(0, 0, [], None, 30, cfg, cfg.logger_class(cfg))
    worker.tmp.close()
    for name in ("gunicorn.error", "gunicorn.http.wsgi"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return worker


@lru_cache
def _stock_settings() -> Config:
    relax_parser()
    cfg = Config()
    for name, value in (
        ("keepalive", 75),
        ("permit_unconventional_http_method", True),
        ("http_parser", "python"),
        ("limit_request_line", 65536),
        ("forwarded_allow_ips", ""),
        ("forwarder_headers", ""),
        ("secure_scheme_headers", {}),
        ("header_map", "drop"),
    ):
        cfg.set(name, value)
    return cfg


class Nameless:
    """A listener, as far as gunicorn asks for it."""

    def getsockname(self) -> tuple[str, str]:
        """As the environment of the other server has it."""
        return "", ""


NAMELESS = Nameless()


@contextlib.contextmanager
def connected(serve: Callable[[Any], None]) -> Iterator[Any]:
    """A client's socket, while the other end of it is served; leaving waits until that is over."""
    ours, theirs = gevent.socket.socketpair()
    greenlet = gevent.spawn(serve, theirs)
    try:
        ours.settimeout(PATIENCE_SECONDS)
        yield ours
    finally:
        ours.close()
        greenlet.get(timeout=PATIENCE_SECONDS)


def receive_all(sock: Any) -> bytes:
    """Everything until the server ends the connection."""
    received = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while data := sock.recv(65536):
            received += data
    return bytes(received)


def exchange(server: Own | Stock, pieces: Sequence[bytes], *, pause: bool = True) -> bytes:
    """Send pieces, then say that there is no more; everything that is answered, without dates.

    :param pause: let the server look at each piece before the next one is sent.
    """
    with connected(server.serve) as client:
        reader = gevent.spawn(receive_all, client)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for piece in pieces:
                client.sendall(piece)
                if pause:
                    gevent.sleep(0)
            client.shutdown(socket.SHUT_WR)
        answered: bytes = reader.get(timeout=PATIENCE_SECONDS)
    return DATE.sub(b"", answered)
