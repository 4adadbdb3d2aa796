"""A node's KV API in a few lines, kept in memory, with faults on demand; and a way to run the command line."""

import json
import os
import signal
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote, unquote_to_bytes, urlsplit

import pytest

from service.cli.main import run


class Stored(NamedTuple):
    """A key's value, flags and ModifyIndex."""

    value: bytes
    flags: int
    modify_index: int


class Fault(NamedTuple):
    """What the double does instead of answering. ``status`` 0 closes the connection without an answer; ``method`` is empty for all of them."""

    status: int
    text: str = ""
    outcome: str = ""
    times: int = 1_000_000
    method: str = ""


class Double:
    """The state of the double, and what it was asked."""

    def __init__(self) -> None:
        self.data: dict[bytes, Stored] = {}
        self.requests: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.fault: Fault | None = None
        self.status: dict[str, Any] = {}
        self.ready = (200, "ready")
        self.members: dict[str, Any] = {"members": []}
        self.bodies: list[bytes] = []
        self.on_put: Callable[[], None] = lambda: None
        self.extra: dict[str, str] = {}
        self.on_unknown: Callable[[], None] = lambda: None
        self.index = 10
        self.lock = threading.Lock()
        self.address = ""

    def store(self, key: str, value: bytes, flags: int = 0) -> None:
        """Put a key there directly."""
        self.index += 1
        self.data[key.encode("utf-8", "surrogateescape")] = Stored(value, flags, self.index)

    def fail(self, status: int, text: str = "", outcome: str = "", times: int = 1_000_000, method: str = "") -> None:
        """Answer the next requests so."""
        self.fault = Fault(status, text, outcome, times, method)

    def take_fault(self, method: str) -> Fault | None:
        """The fault for this request, if one is due."""
        with self.lock:
            fault = self.fault if self.fault is not None and self.fault.method in {"", method} else None
            if fault is not None:
                self.fault = fault._replace(times=fault.times - 1) if fault.times > 1 else None
            return fault


class Handler(BaseHTTPRequestHandler):
    """Answers like a node does."""

    protocol_version = "HTTP/1.1"
    double: Double

    def log_message(self, *_arguments: object) -> None:
        """Stay silent."""

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        """Send one answer."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_any(self) -> None:
        """Read a request, note it, and answer by its path."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.double.requests.append((self.command, self.path))
        self.double.headers.append(dict(self.headers))
        self.double.bodies.append(body)
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        fault = self.double.take_fault(self.command)
        if fault is not None and fault.status == 0:
            self.close_connection = True
            self.double.on_unknown()
        elif fault is not None:
            extra = {"X_Kvorum_Outcome": fault.outcome} if fault.outcome else {}
            extra |= {"Content_Type": "application/problem+json"} if fault.text.startswith("{") else {}
            self.answer(fault.status, fault.text.encode(), **extra)
        elif parts.path.startswith("/v1/kv/"):
            self.kv(unquote_to_bytes(parts.path.removeprefix("/v1/kv/")), query, body)
        elif parts.path == "/v1/scan":
            self.answer(200, self.scan(query))
        elif parts.path == "/v1/cluster/status":
            self.answer(200, json.dumps(self.double.status).encode())
        elif parts.path.startswith(("/v1/cluster/members", "/v1/cluster/transfer")):
            self.answer(200, json.dumps(self.double.members).encode())
        elif parts.path == "/v1/status/leader":
            self.answer(200, b'"127.0.0.1:8300"')
        elif parts.path == "/v1/agent/reload":
            self.answer(200, b"")
        elif parts.path in {"/livez", "/readyz"}:
            self.answer(self.double.ready[0], self.double.ready[1].encode())
        else:
            self.answer(404, b"")

    do_GET = do_PUT = do_POST = do_DELETE = do_any  # noqa: N815 - the names that http.server asks for

    def scan(self, query: dict[str, str]) -> bytes:
        """A page."""
        limit = int(query.get("limit", "1000"))
        first = max(query.get("prefix", ""), query.get("start", "")).encode()
        found = sorted(key for key in self.double.data if key.startswith(query.get("prefix", "").encode()) and key >= first)
        rows = [self.row(key) for key in found[:limit]]
        return json.dumps({"entries": rows, "next": quote(found[limit], safe="") if 0 < limit < len(found) else None}).encode()

    def kv(self, key: bytes, query: dict[str, str], body: bytes) -> None:
        """The KV routes."""
        with self.double.lock:
            status, answer = getattr(self, "kv_" + self.command.lower())(key, query, body)
        if self.command == "PUT":
            self.double.on_put()
        self.answer(status, answer, **self.double.extra)

    def kv_get(self, key: bytes, query: dict[str, str], _body: bytes) -> tuple[int, bytes]:
        """One key, a listing, or names."""
        data = self.double.data
        found = sorted(name for name in data if name.startswith(key)) if {"recurse", "keys"} & set(query) else [key] * (key in data)
        if not found:
            return 404, b""
        if "keys" in query:
            return 200, json.dumps([name.decode() for name in found]).encode()
        rows = [self.row(name) for name in found]
        return 200, json.dumps(rows).encode()

    def row(self, name: bytes) -> dict[str, Any]:
        """A key as a node shows it."""
        stored = self.double.data[name]
        value = b64encode(stored.value).decode() or None
        indexes = {"CreateIndex": stored.modify_index, "ModifyIndex": stored.modify_index}
        return {"LockIndex": 0, "Key": name.decode(), "Flags": stored.flags, "Value": value} | indexes

    def kv_put(self, key: bytes, query: dict[str, str], body: bytes) -> tuple[int, bytes]:
        """Set, perhaps on a condition."""
        if self.refused(key, query):
            return 200, b"false"
        self.double.index += 1
        self.double.data[key] = Stored(body, int(query.get("flags", "0")), self.double.index)
        return 200, b"true"

    def kv_delete(self, key: bytes, query: dict[str, str], _body: bytes) -> tuple[int, bytes]:
        """Delete one or many."""
        if "recurse" in query:
            for name in [name for name in self.double.data if name.startswith(key)]:
                del self.double.data[name]
        elif self.refused(key, query):
            return 200, b"false"
        else:
            self.double.data.pop(key, None)
        return 200, b"true"

    def refused(self, key: bytes, query: dict[str, str]) -> bool:
        """Whether the condition does not hold."""
        stored = self.double.data.get(key)
        return "cas" in query and int(query["cas"]) != (stored.modify_index if stored else 0)


class Server(ThreadingHTTPServer):
    """Waits for its threads, so that no socket outlives a test."""

    daemon_threads = False
    block_on_close = True

    def server_bind(self) -> None:
        """Bind without asking a name server for our own name."""
        TCPServer.server_bind(self)


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[Double]:
    """The double, listening; KVORUM_HTTP_ADDR names it."""
    double = Double()
    handler = type("BoundHandler", (Handler,), {"double": double, "timeout": 5})
    with Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        double.address = f"127.0.0.1:{server.server_address[1]}"
        for name in [name for name in os.environ if name.startswith(("KVORUM_", "CONSUL_"))]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("KVORUM_HTTP_ADDR", double.address)
        yield double
        server.shutdown()
        thread.join()


class Ran(NamedTuple):
    """What a command did."""

    code: int
    out: bytes
    err: str


@pytest.fixture
def kvorum(capfdbinary: pytest.CaptureFixture[bytes]) -> Iterator[Callable[..., Ran]]:
    """Run the command line in this process."""
    previous = signal.getsignal(signal.SIGTERM)

    def call(*arguments: str) -> Ran:
        capfdbinary.readouterr()
        code = run(arguments)
        sys.stdout.flush()
        captured = capfdbinary.readouterr()
        return Ran(code, captured.out, captured.err.decode())

    yield call
    signal.signal(signal.SIGTERM, previous)


@pytest.fixture
def spawn() -> Callable[..., subprocess.Popen[bytes]]:
    """Start the command line as a process of its own, with pipes; the caller waits for it."""

    def start(*arguments: str, **environ: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "service.cli", *arguments],
            env={**os.environ, **environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    return start
