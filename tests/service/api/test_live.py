"""A real gunicorn, over TCP, with the product's own configuration."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import gevent.hub
import pytest

pytestmark = pytest.mark.processes

START_SECONDS = 20.0
PATIENCE_SECONDS = 60.0


class Node:
    """A web server process, and its agent in a thread with a loop of its own.

    :ivar first: the answer that said that it is ready.
    """

    asked = b"/readyz"
    ready = b" 200 OK"
    first = b""

    def __init__(self, directory: Path, agent: Any, **settings: str) -> None:
        self.agent = agent
        self._quit = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run_agent)
        self._thread.start()
        assert self._ready.wait(START_SECONDS)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        environment = os.environ | {
            "KVORUM_NAME": "n1",
            "KVORUM_DATA_DIR": str(directory),
            "KVORUM_SOCKET_PATH": str(agent.path),
            "KVORUM_API_BIND": f"127.0.0.1:{self.port}",
            **settings,
        }
        command = [sys.executable, "-m", "gunicorn", "--config", "python:service.gunicorn_conf", "service.wsgi:application"]
        self.log = directory / "web.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        self._await_readiness()

    def _run_agent(self) -> None:
        self.agent.start()
        self._ready.set()
        while not self._quit.is_set():
            gevent.sleep(0.005)
        self.agent.stop()
        gevent.get_hub().destroy()

    def _await_readiness(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.first = self.send(request("GET", self.asked))
                if self.ready in self.first:
                    return
            except OSError:
                pass
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def open(self) -> socket.socket:
        """A connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_SECONDS)

    def send(self, data: bytes) -> bytes:
        """Send bytes, and receive until the server closes."""
        with self.open() as sock:
            sock.sendall(data)
            return receive_all(sock)

    def await_blocking_queries(self, count: int) -> None:
        """Return once that many requests wait for a change."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not re.search(rb'kvorum_worker_blocking_queries\{worker="\d+"\} %d\.0\n' % count, self.send(request("GET", b"/metrics"))):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def stop(self) -> None:
        """End both."""
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(10)
        self._quit.set()
        self._thread.join(10)


def receive_all(sock: socket.socket) -> bytes:
    """Everything until the other side closes."""
    received = b""
    while data := sock.recv(65536):
        received += data
    return received


@pytest.fixture
def node(tmp_path: Path, make_agent: Any, request: pytest.FixtureRequest) -> Iterator[Node]:
    """A running node; a parameter names its ``worker_class``."""
    made = Node(tmp_path, make_agent(tmp_path), **({"KVORUM_WORKER_CLASS": request.param} if hasattr(request, "param") else {}))
    yield made
    made.stop()


both_servers = pytest.mark.parametrize("node", ["own", "gevent"], indirect=True)


def request(method: str, target: bytes, body: bytes = b"", *, close: bool = True) -> bytes:
    """The bytes of a request."""
    head = b"%s %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % (method.encode(), target, len(body))
    return head + (b"Connection: close\r\n" if close else b"") + b"\r\n" + body


class Hasty(Node):
    """A node that is asked for its settings as soon as anybody answers."""

    ready = b'"Settings"'
    asked = b"/v1/agent/self"


def test_a_worker_serves_nobody_before_it_knows_the_settings_in_force(tmp_path: Path, make_agent: Any) -> None:
    """The very first answer of a new worker is by the settings that the agent tells, not by those of its environment, even if the agent is slow."""
    agent = make_agent(tmp_path)
    agent.settings = {"kv_value_bytes_max": 4}
    agent.hesitation_seconds = 0.5
    node = Hasty(tmp_path, agent)
    try:
        assert b'"kv_value_bytes_max":4,' in node.first
    finally:
        node.stop()


@both_servers
def test_on_the_wire(node: Node) -> None:
    """Raw UTF-8, unusual methods, long keys, chunked bodies and a kept connection work through the real server."""
    key = "ü/ключ".encode()
    assert node.send(request("PUT", b"/v1/kv/" + key, b"v")).endswith(b"\r\n\r\ntrue")
    assert node.send(request("GET", b"/v1/kv/" + key + b"?raw")).endswith(b"\r\n\r\nv")
    assert b"method get not allowed" in node.send(request("get", b"/v1/kv/a"))
    assert b"Allow: OPTIONS,GET,PUT,DELETE" in node.send(request("FOO", b"/v1/kv/a"))
    assert node.send(request("PUT", b"/v1/kv/" + b"%41" * 8000, b"v")).endswith(b"true")
    assert b" 414 " in node.send(b"GET /v1/kv/" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n")
    chunked = b"PUT /v1/kv/c HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n"
    assert node.send(chunked).endswith(b"true")
    kept = request("GET", b"/v1/kv/c?raw", close=False) + request("PUT", b"/v1/kv/c", b"x" * 600_000, close=False) + request("GET", b"/v1/kv/c?raw")
    answers = node.send(kept)
    assert answers.count(b"HTTP/1.1 200 OK") == 2
    assert answers.count(b"HTTP/1.1 413 ") == 1
    assert answers.endswith(b"abcd")


@both_servers
def test_headers_change_nothing(node: Node) -> None:
    """A header can't change the path or the address of a request, nor pass for another one."""
    misleading = b"SCRIPT_NAME: /v1\r\nPATH_INFO: /x\r\nX_Consul_Namespace: n\r\n"
    answer = node.send(b"GET /v1/kv/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + misleading + b"X-Request-Id: r\r\n\r\n")
    assert b" 404 " in answer
    assert b"X-Consul-Index: 1\r\n" in answer
    assert b"X-Request-Id: r\r\n" in answer


def test_waits_and_wakes_over_tcp(node: Node) -> None:
    """A blocking query on one connection is woken by a write on another."""
    assert node.send(request("PUT", b"/v1/kv/a", b"1")).endswith(b"true")
    index = int(node.send(request("GET", b"/v1/kv/a")).split(b"X-Consul-Index: ")[1].split(b"\r\n")[0])
    with node.open() as waiting:
        waiting.sendall(request("GET", b"/v1/kv/a?raw&wait=60s&index=%d" % index))
        node.await_blocking_queries(1)
        assert node.send(request("PUT", b"/v1/kv/a", b"2")).endswith(b"true")
        assert receive_all(waiting).endswith(b"\r\n\r\n2")


@both_servers
def test_stopping_answers_those_who_wait(node: Node) -> None:
    """SIGTERM ends the server soon, and a waiting blocking query gets its answer first."""
    assert node.send(request("PUT", b"/v1/kv/a", b"1")).endswith(b"true")
    with node.open() as waiting:
        waiting.sendall(request("GET", b"/v1/kv/a?raw&wait=60s&index=99"))
        node.await_blocking_queries(1)
        node.process.send_signal(signal.SIGTERM)
        assert receive_all(waiting).endswith(b"\r\n\r\n1")
    assert node.process.wait(8) == 0


def test_a_client_that_goes_frees_its_blocking_query(node: Node) -> None:
    """A blocking query is over when its client closes the connection, not when its time is."""
    assert node.send(request("PUT", b"/v1/kv/a", b"1")).endswith(b"true")
    with node.open() as waiting:
        waiting.sendall(request("GET", b"/v1/kv/a?raw&wait=600s&index=99"))
        node.await_blocking_queries(1)
    node.await_blocking_queries(0)


@both_servers
def test_long_answers(node: Node) -> None:
    """A long answer arrives whole, also at a client that reads slowly."""
    for number in range(20):
        assert node.send(request("PUT", b"/v1/kv/long/%d" % number, b"x" * 400_000)).endswith(b"true")
    with node.open() as slow:
        slow.sendall(request("GET", b"/v1/kv/long/?recurse"))
        received = slow.recv(1000)
        node.await_blocking_queries(0)
        received += receive_all(slow)
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"Content-Length: %d\r\n" % len(body) in head + b"\r\n"
    assert len(body) > 20 * 400_000 * 4 // 3


def test_workers_end_with_their_parent(node: Node) -> None:
    """Even kill -9 of gunicorn's master leaves no worker behind."""
    node.process.kill()
    node.process.wait(10)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            node.open().close()
        except ConnectionRefusedError:
            return
        time.sleep(0.02)
    pytest.fail("the port is still served")
