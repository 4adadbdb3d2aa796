"""Answering, by bytes: what an application gives and what is sent, who is cut off, who has gone, and what the stop needs."""

import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
import gevent.socket
import pytest

sys.path.insert(0, str(Path(__file__).parents[3]))

from service.worker.connection import Connection, State
from service.worker.response import Complete, Date
from service.worker.server import Worker
from service.worker.watch import SLOW_SECONDS, Watch
from tests.service.worker.serving import PATIENCE_SECONDS, Application, Own, Remembering, connected, exchange, receive_all

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
OLD = b"GET / HTTP/1.0\r\n\r\n"


def wsgi(status: str, headers: list[tuple[str, str]], body: Any) -> Any:
    """An application that always answers the same; ``body`` may be a function that makes the pieces."""

    def application(_environ: dict[str, Any], start_response: Any) -> Any:
        start_response(status, headers)
        return body() if callable(body) else body

    return application


def answer(application: Any, sent: bytes = GET) -> bytes:
    """What one request is answered, without the lines that every answer has."""
    return exchange(Own(application), [sent]).replace(b"\r\nServer: gunicorn", b"")


def until(condition: Any) -> None:
    """Let greenlets run until the condition holds."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        gevent.sleep(0.001)


KEPT = b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n"


def test_one_answer_is_one_send(monkeypatch: pytest.MonkeyPatch) -> None:
    """Head and body leave together, whether they come from the short cut, as a list, or in one piece with a length."""
    sends: list[int] = []
    plain = Connection._send
    monkeypatch.setattr(Connection, "_send", lambda self, data: sends.append(len(data)) or plain(self, data))
    assert answer(Application()).startswith(KEPT)
    assert answer(wsgi("200 OK", [], [b"a", b"b"])) == KEPT + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
    assert answer(wsgi("200 OK", [("Content-Length", "2")], lambda: iter([b"ab"]))) == KEPT + b"Content-Length: 2\r\n\r\nab"
    assert len(sends) == 3


def test_streams() -> None:
    """Pieces are sent as they come, in chunks; to HTTP/1.0 as they are, and then the connection ends. The first may be empty: it sends the head."""
    gate = gevent.event.Event()

    def pieces() -> Iterator[bytes]:
        yield b""
        gate.wait(PATIENCE_SECONDS)
        yield b"a" * 10
        yield b""
        yield b"b"

    application = wsgi("200 OK", [], pieces)
    with connected(Own(application).serve) as client:
        client.sendall(GET)
        assert client.recv(1000).endswith(b"Transfer-Encoding: chunked\r\n\r\n")
        gate.set()
        client.shutdown(socket.SHUT_WR)
        assert receive_all(client) == b"A\r\naaaaaaaaaa\r\n1\r\nb\r\n0\r\n\r\n"
    assert answer(application, OLD) == b"HTTP/1.0 200 OK\r\nConnection: close\r\n\r\naaaaaaaaaab"


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified", "200 OK"])
def test_answers_without_a_body(status: str) -> None:
    """204 and 304 have none, nor has the answer to HEAD, whatever the application gives; the length is told as the status allows."""
    sent = GET.replace(b"GET", b"HEAD") if status == "200 OK" else GET
    length = b"" if status.startswith("204") else b"Content-Length: 3\r\n"
    answered = answer(wsgi(status, [("Content-Length", "3")], [b"abc"]), sent + LAST)
    assert answered.startswith(b"HTTP/1.1 %b\r\nConnection: keep-alive\r\n%b\r\nHTTP/1.1" % (status.encode(), length))


def test_lengths_are_kept() -> None:
    """More than the length that was told is not sent; where less came the connection ends, or what follows would be read as the rest."""
    assert answer(wsgi("200 OK", [("Content-Length", "2")], lambda: iter([b"a", b"bc"])), GET).endswith(b"\r\n\r\nab")
    assert answer(wsgi("200 OK", [("Content-Length", "3")], [b"a"]), GET + GET).count(b"HTTP/1.1") == 1


def test_headers_of_the_connection_are_the_servers() -> None:
    """An application can't set them."""
    headers = [("Connection", "x"), ("Date", "x"), ("Server", "x"), ("Transfer-Encoding", "x"), ("X-A", " b "), ("Content-Length", "0")]
    assert answer(wsgi("200 OK", headers, [])) == KEPT + b"X-A: b\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    "header", [("X", "a\r\nY: b"), ("X", "a\nY: b"), ("X", "a\rb"), ("X\r\nY", "a"), ("X", 1), ("X", "\u20ac"), ("Content-Length", "x")]
)
def test_headers_that_would_be_another_answer(header: Any) -> None:
    """A line end in a header is the application's failure, not another header."""
    assert answer(wsgi("200 OK", [header], [b""])).startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    if "\r" in repr(header[1]) + repr(header[0]):
        application = SimpleNamespace(fast=lambda *_: ("200 OK", [header], b""))
        assert answer(application).startswith(b"HTTP/1.1 500 ")


@pytest.mark.parametrize("status", ["200\r\nX: y", "OK", "", None])
def test_a_status_that_is_none(status: Any) -> None:
    """It is the application's failure."""
    assert answer(wsgi(status, [], [b""])).startswith(b"HTTP/1.1 500 ")


def test_failures(caplog: pytest.LogCaptureFixture) -> None:
    """An application that raises is answered for, in plain text; behind half an answer the connection just ends. The log has the traceback."""

    def late() -> Iterator[bytes]:
        yield b"half"
        raise ZeroDivisionError

    def early(*_: Any) -> Any:
        raise ZeroDivisionError

    assert answer(early, GET + GET).endswith(b"\r\nConnection: close\r\nContent-Length: 25\r\n\r\n500 Internal Server Error")
    assert answer(SimpleNamespace(fast=early), GET + GET).endswith(b"\r\n\r\n500 Internal Server Error")
    assert answer(lambda *_: [b""]).startswith(b"HTTP/1.1 500 ")
    assert answer(wsgi("200 OK", [], ["text"])).startswith(b"HTTP/1.1 500 ")
    assert answer(wsgi("200 OK", [("Content-Length", "9")], late), GET + GET).endswith(b"\r\n\r\nhalf")
    assert caplog.text.count("\nZeroDivisionError\n") == 3


def test_start_response_again() -> None:
    """Only with an error, and only before anything was sent; what was sent stays."""

    def application(_environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("X", "y")])
        with pytest.raises(ValueError, match="twice"):
            start_response("200 OK", [])
        try:
            int("no number")
        except ValueError:
            write = start_response("500 Sorry", [("Content-Length", "4")], sys.exc_info())
            write(b"so")
            with pytest.raises(ValueError, match="no number"):
                start_response("200 OK", [], sys.exc_info())
        return [b"rr"]

    assert answer(application) == b"HTTP/1.1 500 Sorry\r\nConnection: keep-alive\r\nContent-Length: 4\r\n\r\nsorr"


def test_an_answer_is_closed() -> None:
    """What an application gives is closed, also when the client has gone in the middle of it."""
    closed = gevent.event.Event()

    def pieces() -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * 100_000
        finally:
            closed.set()

    with connected(Own(wsgi("200 OK", [], pieces)).serve) as client:
        client.sendall(GET)
        client.recv(10)
    assert closed.wait(PATIENCE_SECONDS)


def test_the_date_is_made_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the same text within a second, and another one in the next."""
    now = [1_000_000_000.9]
    monkeypatch.setattr("service.worker.response.time.time", lambda: now[0])
    date = Date()
    first = date.lines()
    assert first == b"Server: gunicorn\r\nDate: Sun, 09 Sep 2001 01:46:40 GMT\r\n"
    assert date.lines() is first
    now[0] += 0.2
    assert b"01:46:41" in date.lines()
    assert Complete("200 OK", [], b"").to_bytes(date, 0, keeps=False).startswith(b"HTTP/1.0 200 OK\r\nServer: gunicorn\r\nDate: Sun, ")


# -- the watch --


class Watched(Own):
    """A server with a watch that looks when it is told to.

    :ivar told: the greenlets whose client has gone.
    """

    def __init__(self, application: Any) -> None:
        super().__init__(application)
        self.told: list[Any] = []
        self.watch = Watch(SimpleNamespace(gone=self.told.append))
        self.service.finished = self.watch.finished

    def look(self, seconds: float) -> None:
        """Look as if that much time had gone by."""
        self.watch.connections = set(self.connections)
        self.watch.look(time.monotonic() + seconds)

    def until(self, state: State) -> None:
        """Wait until the connection does that."""
        until(lambda: self.connections and self.connections[0].state is state)


@pytest.fixture
def watched() -> Iterator[Watched]:
    """A server that notes what it is asked."""
    made = Watched(Application())
    made.watch.start()
    yield made
    made.watch.close()


@pytest.mark.parametrize(
    ("sent", "state", "answered"),
    [
        (b"", State.IDLE, b""),
        (b"GET / HTTP/1.1\r\nHost: x\r\n", State.HEAD, b"HTTP/1.1 408 Request Timeout\r\n"),
        (b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\na", State.BODY, b"HTTP/1.1 408 Request Timeout\r\n"),
        (b"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n", State.BODY, b"HTTP/1.1 408 Request Timeout\r\n"),
    ],
)
def test_slow_clients_are_cut_off(watched: Watched, sent: bytes, state: State, answered: bytes) -> None:
    """Who sends nothing, or goes on too slowly, is waited for as long as the limit, and no longer; who has begun is told."""
    with connected(watched.serve) as client:
        client.sendall(sent)
        watched.until(state)
        watched.look(SLOW_SECONDS[state] - 1)
        gevent.sleep(0)
        assert watched.connections[0].state is state
        watched.look(SLOW_SECONDS[state] + 1)
        assert receive_all(client).startswith(answered)
    assert watched.service.application.seen == []


def test_a_client_that_does_not_read_is_cut_off() -> None:
    """It does not hold an answer, nor what makes it, for ever."""
    watched = Watched(wsgi("200 OK", [("Content-Length", "90000000")], [b"x" * 90_000_000]))
    with connected(watched.serve) as client, closing(watched.watch):
        client.sendall(GET)
        watched.until(State.SENDING)
        watched.look(SLOW_SECONDS[State.SENDING] + 1)
        assert len(receive_all(client)) < 90_000_000


def test_who_moves_is_not_cut_off(watched: Watched) -> None:
    """A body that comes fast enough may take longer than the limit."""
    size = 1_000_000
    with connected(watched.serve) as client:
        client.sendall(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size + b"x" * (size // 2))
        until(lambda: watched.connections and watched.connections[0].state is State.BODY)
        connection = watched.connections[0]
        gevent.sleep(0)
        begun = connection.since
        connection.since -= 100  # as if it had begun long ago
        client.sendall(b"x" * (size // 2))
        assert client.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")
        assert connection.since > begun


@pytest.mark.parametrize("ends", ["closes", "says it is done"])
def test_a_client_that_goes_while_it_waits(ends: str) -> None:
    """The application hears of it, once and of the right greenlet; a request that takes no second is never watched."""
    gate, waiting = gevent.event.Event(), []

    class Waiting(Application):
        def fast(self, *_: Any) -> Any:
            waiting.append(gevent.getcurrent())
            gate.wait(PATIENCE_SECONDS)
            return Complete("200 OK", [("Content-Length", "2")], b"ok")

    watched = Watched(Waiting())
    watched.watch.start()
    with closing(watched.watch), connected(watched.serve) as client:
        client.sendall(GET)
        watched.until(State.ANSWERING)
        watched.look(0.5)
        assert not watched.connections[0].watched
        watched.look(1.5)
        assert watched.connections[0].watched
        gevent.sleep(0.01)
        assert watched.told == []
        if ends == "closes":
            client.close()
        else:
            client.shutdown(socket.SHUT_WR)
        until(lambda: watched.told)
        assert watched.told == waiting
        gate.set()
        if ends != "closes":
            assert receive_all(client).endswith(b"\r\n\r\nok")
    assert not watched.connections[0].watched


def test_a_watched_connection_goes_on() -> None:
    """Once a long request is answered nobody looks out for its client any more, and the next one is served."""
    watched = Watched(Application())
    gate = gevent.event.Event()
    plain = watched.service.fast
    assert plain is not None
    watched.service.fast = lambda *given: (gate.wait(PATIENCE_SECONDS), plain(*given))[1]
    watched.watch.start()
    with closing(watched.watch), connected(watched.serve) as client:
        client.sendall(GET)
        watched.until(State.ANSWERING)
        watched.look(2)
        gate.set()
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
        watched.until(State.IDLE)
        assert not watched.connections[0].watched
        client.sendall(LAST)
        assert b"Connection: close" in receive_all(client)
    assert watched.told == []


def test_what_comes_early_waits_in_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that comes while the one before it is carried out wakes nobody: it is told of once, and read when its turn has come."""
    told: list[int] = []
    arrived = Connection._data_arrived
    monkeypatch.setattr(Connection, "_data_arrived", lambda self: told.append(self.state) or arrived(self))
    watched = Watched(Application())
    gate = gevent.event.Event()
    plain = watched.service.fast
    assert plain is not None
    watched.service.fast = lambda *given: (gate.wait(PATIENCE_SECONDS), plain(*given))[1]
    with connected(watched.serve) as client:
        client.sendall(GET)
        watched.until(State.ANSWERING)
        client.sendall(GET)
        until(lambda: State.ANSWERING in told)
        for _ in range(20):
            gevent.sleep(0)
        assert told == [State.IDLE, State.ANSWERING]
        gate.set()
        client.sendall(LAST)
        assert receive_all(client).count(b"HTTP/1.1 200 OK") == 3


# -- the stop --


def test_last_answers(watched: Watched) -> None:
    """From when the worker stops each answer says that it is the last, also one whose request came before; what is pipelined behind is not begun."""
    for target in (b"/", b"/part"):
        watched.last = True
        with connected(watched.serve) as client:
            client.sendall(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % target * 2)
            answered = receive_all(client)
            assert answered.count(b"HTTP/1.1 200 OK") == answered.count(b"Connection: close") == 1


@pytest.mark.parametrize("sent", [LAST, GET])
def test_a_last_answer_is_not_reset(watched: Watched, sent: bytes) -> None:
    """What a client has sent behind its last request is read and thrown away, or the system would answer it with a reset."""
    watched.last = True
    with connected(watched.serve) as client:
        client.sendall(sent + b"x" * 100_000)
        received = b""
        while data := client.recv(65536):
            received += data
    assert received.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("begun", [b"", GET[:-2]])
def test_idle_connections_end(begun: bytes) -> None:
    """One on which no request comes is closed for reading; what has arrived on it by then is answered. One that is answering is left alone."""
    own = Own(Application())
    worker = Worker.__new__(Worker)
    worker._watch = SimpleNamespace(connections=own.connections)
    with connected(own.serve) as client:
        client.sendall(begun)
        until(lambda: own.connections and own.connections[0].state is (State.HEAD if begun else State.IDLE))
        client.sendall(GET if not begun else b"\r\n")
        worker.end_idle()
        assert receive_all(client).count(b"HTTP/1.1 200 OK") == 1


def test_who_is_being_answered_is_not_idle() -> None:
    """A request that is carried out, or whose body is on its way, is not cut short."""
    for sent in (b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\na", GET):
        own = Own(Application())
        gate = gevent.event.Event()
        plain = own.service.fast
        assert plain is not None
        own.service.fast = lambda *given, gate=gate, plain=plain: (gate.wait(PATIENCE_SECONDS), plain(*given))[1]
        worker = Worker.__new__(Worker)
        worker._watch = SimpleNamespace(connections=own.connections)
        with connected(own.serve) as client:
            client.sendall(sent)
            until(lambda own=own: own.connections and own.connections[0].state in (State.BODY, State.ANSWERING))
            worker.end_idle()
            gate.set()
            client.sendall(b"b" if sent != GET else b"")
            assert client.recv(1000).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("make", [Application, Remembering])
def test_requests_are_named_in_the_log(caplog: pytest.LogCaptureFixture, make: Callable[[], Application]) -> None:
    """With the level ``debug`` there is a line a request, without what may hold a token, and however it is answered."""
    application, asked = make(), b"GET /a?token=secret HTTP/1.1\r\nHost: x\r\n\r\n"
    answer(application, asked)
    assert caplog.text == ""
    caplog.set_level("DEBUG", "service.worker.connection")
    answer(application, asked)
    assert [record.getMessage() for record in caplog.records] == ["GET /a"]
