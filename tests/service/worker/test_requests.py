"""Reading requests, by bytes: what is refused, what is taken, and how bodies and connections end."""

import contextlib
import sys
from pathlib import Path
from typing import Any

import gevent
import pytest

sys.path.insert(0, str(Path(__file__).parents[3]))

from service.worker.body import BodyBroken, ChunkedDecoder
from service.worker.parser import FIELD_BYTES_MAX, FIELDS_MAX, REMEMBERED_BYTES_MAX, TARGET_LINE_BYTES_MAX, Refused, parse
from tests.service.worker.serving import Application, Own, Remembering, Seen, connected, exchange, receive_all

HEAD = b"PUT /a HTTP/1.1\r\nHost: x\r\n"
NEXT = b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n"

REFUSED = {
    "both lengths": (HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "two lengths that differ": (HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef", 400),
    "two lengths alike": (HEAD + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na", 400),
    "a list of lengths": (HEAD + b"Content-Length: 1, 1\r\n\r\na", 400),
    "a length with a sign": (HEAD + b"Content-Length: +1\r\n\r\na", 400),
    "a length of no digits": (HEAD + b"Content-Length: \r\n\r\n", 400),
    "a length in other digits": (HEAD + "Content-Length: ²\r\n\r\n".encode("latin-1"), 400),
    "a length that is too long": (HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", 400),
    "chunked twice": (HEAD + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
    "chunked in two headers": (HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "no chunked at the end": (HEAD + b"Transfer-Encoding: gzip\r\n\r\n", 400),
    "chunked, but not last": (HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n", 400),
    "another coding": (HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "an unknown coding": (HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
    "a coding behind a vertical tab": (HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
    "chunked in HTTP/1.0": (HEAD.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "a folded header": (HEAD + b"X-A: b\r\n c\r\n\r\n", 400),
    "a folded first header": (b"GET / HTTP/1.1\r\n Host: x\r\n\r\n", 400),
    "a space before the colon": (HEAD + b"Content-Length : 5\r\n\r\nabcde", 400),
    "no colon": (HEAD + b"Content-Length 5\r\n\r\n", 400),
    "no name": (HEAD + b": a\r\n\r\n", 400),
    "a bare CR in a value": (HEAD + b"X-A: b\rc\r\n\r\n", 400),
    "a bare LF in a value": (HEAD + b"X-A: b\nContent-Length: 5\r\n\r\n", 400),
    "a bare LF behind the request line": (b"GET / HTTP/1.1\nHost: x\r\n\r\n", 400),
    "bare LFs alone": (b"GET / HTTP/1.1\nHost: x\n\n", 400),
    "a bare CR in the request line": (b"GET /\r HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "a zero byte in a value": (HEAD + b"X-A: b\0c\r\n\r\n", 400),
    "a byte beyond ASCII in a name": (HEAD + b"X-\xe4: b\r\n\r\n", 400),
    "two hosts": (HEAD + b"Host: y\r\n\r\n", 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two spaces in the request line": (b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "a tab in the request line": (b"GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "something behind the version": (b"GET / HTTP/1.1 x\r\nHost: x\r\n\r\n", 400),
    "no version": (b"GET /\r\nHost: x\r\n\r\n", 400),
    "another version": (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 400),
    "no method": (b" / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "a method that is no token": (b"G(T / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "a target without a slash": (b"GET a HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "a star for another method": (b"GET * HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "a target that is no URL": (b"GET http://[x/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "two empty lines first": (b"\r\n\r\n" + HEAD + b"\r\n", 400),
    "an unknown expectation": (HEAD + b"Expect: tea\r\n\r\n", 417),
    "an expectation of nothing": (HEAD + b"Expect:\r\n\r\n", 417),
    "a long target": (b"GET /" + b"a" * TARGET_LINE_BYTES_MAX + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
    "a target without an end": (b"GET /" + b"a" * TARGET_LINE_BYTES_MAX * 2, 414),
    "many headers": (HEAD + b"X-A: b\r\n" * FIELDS_MAX + b"\r\n", 431),
    "a long header": (HEAD + b"X-A: " + b"b" * FIELD_BYTES_MAX + b"\r\n\r\n", 431),
    "headers without an end": (HEAD + b"X-A: b\r\n" * 200_000, 431),
}
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
BAD_CHUNKS = {
    "no size": b"\r\nabc\r\n0\r\n\r\n",
    "no number": b"x\r\nabc\r\n0\r\n\r\n",
    "a sign": b"+3\r\nabc\r\n0\r\n\r\n",
    "a prefix": b"0x3\r\nabc\r\n0\r\n\r\n",
    "a separator": b"0_3\r\nabc\r\n0\r\n\r\n",
    "a space before the size": b" 3\r\nabc\r\n0\r\n\r\n",
    "a space behind the size": b"3 \r\nabc\r\n0\r\n\r\n",
    "a huge size": b"1" + b"0" * 16 + b"\r\n",
    "too short a size": b"2\r\nabc\r\n0\r\n\r\n",
    "too long a size": b"4\r\nabc\r\n0\r\n\r\n",
    "a bare LF behind the size": b"3\nabc\r\n0\r\n\r\n",
    "a bare LF behind the data": b"3\r\nabc\n0\r\n\r\n",
    "a bare CR in an extension": b"3;a\r=b\r\nabc\r\n0\r\n\r\n",
    "an extension that is none": b"3;a=(\r\nabc\r\n0\r\n\r\n",
    "a size line without an end": b"3;" + b"a" * 9_000,
    "a trailer that is none": b"0\r\nx\r\n\r\n",
    "a length behind the body": b"0\r\nContent-Length: 3\r\n\r\n",
    "a bare LF in the trailers": b"0\r\nX: y\n\r\n",
    "an early end": b"3\r\nab",
}


def statuses(answered: bytes) -> list[int]:
    """The status of each answer."""
    return [int(part[2:5]) for part in answered.split(b"HTTP/1.")[1:]]


@pytest.mark.parametrize("name", REFUSED)
def test_what_two_servers_could_read_differently_is_refused(name: str) -> None:
    """The application sees nothing of it nor of what comes behind it; the answer is plain and the last one."""
    sent, status = REFUSED[name]
    application = Application()
    answered = exchange(Own(application), [sent + NEXT])
    assert application.seen == []
    assert statuses(answered) == [status]
    assert b"\r\nConnection: close\r\n" in answered
    assert answered.partition(b"\r\n\r\n")[2].startswith(str(status).encode())


@pytest.mark.parametrize("name", BAD_CHUNKS)
def test_bad_chunks_are_refused(name: str) -> None:
    """A body whose end is not certain is refused before the application sees it."""
    application = Application()
    # The one that ends early really does.
    behind = b"" if name == "an early end" else NEXT
    assert statuses(exchange(Own(application), [CHUNKED + BAD_CHUNKS[name] + behind])) == [400]
    assert application.seen == []


def test_a_refusal_reaches_a_client_that_goes_on_sending() -> None:
    """What comes behind a refused request is thrown away for a moment: a reset would take the answer with it."""
    with connected(Own(Application()).serve) as client:
        client.sendall(b"GARBAGE\r\n\r\n")
        for _ in range(50):
            client.sendall(b"x" * 10_000)
        assert client.recv(100).startswith(b"HTTP/1.1 400 Bad Request\r\n")


def test_chunks_however_they_are_cut() -> None:
    """A chunked body with extensions and trailers is the same in any pieces, and ends where it ends."""
    data = b'3;a=b; c="d;\\""\r\nabc\r\n0a\r\n0123456789\r\n0;x\r\nX-After: 1\r\n\r\nrest'
    for size in range(1, len(data) + 1):
        decoder, body, behind = ChunkedDecoder(), b"", b""
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            if decoder.done:
                behind += piece
            else:
                body += decoder.feed(piece)
        assert (body, decoder.rest + behind) == (b"abc0123456789", b"rest")


def test_pipelined_requests_are_answered_in_order() -> None:
    """Requests in one piece, each as if it came alone, the slow one first."""

    class Slow(Application):
        def fast(self, method: str, target: str, variables: Any, body: bytes, recalled: Any) -> Any:
            if target == "/slow":
                gevent.sleep(0.05)
            return super().fast(method, target, variables, body, recalled)

    application = Slow()
    targets = ["/slow", "/c", "/part", "/lazy", "/b"]
    data = b"".join(b"PUT %b HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nGET / 1.1" % target.encode() for target in targets)
    answered = exchange(Own(application), [data])
    assert [seen.target for seen in application.seen] == targets
    assert statuses(answered) == [200, 200, 200, 413, 200]
    assert [answered.find(b"'%b'" % target.encode()) for target in targets] == sorted(answered.find(b"'%b'" % target.encode()) for target in targets)


def test_a_head_that_is_known_is_not_read_again() -> None:
    """The same request again, alone or behind others: the same answer, in its turn, on a connection that goes on."""
    application = Remembering()
    known, other = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n", b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n"
    answered = exchange(Own(application), [known, known[:20], known[20:] + other + known[:20], known + b"GET /b HTTP/1.1\r\nHost: x\r\n\r\n" + known])
    assert application.recalled == 3
    assert application.seen == [
        Seen("GET", "/a", b""),
        Seen("GET", "/a", b""),
        Seen("PUT", "/a", known[:20]),
        Seen("GET", "/a", b""),
        Seen("GET", "/b", b""),
        Seen("GET", "/a", b""),
    ]
    assert statuses(answered) == [200] * 6
    assert answered.count(b"Connection: keep-alive") == 6


@pytest.mark.parametrize(
    ("data", "bodies"),
    [
        (b"GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1", [b"1", b"1"]),
        (b"GET /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", [b"x", b"x"]),
        (b"GET /a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n", [b"", b""]),
        (b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", [b"", b""]),
        (b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", [b""]),
    ],
    ids=["a body", "chunks", "an expectation", "HTTP/1.0", "the last one"],
)
def test_a_head_that_does_not_stand_alone_is_not_known(data: bytes, bodies: list[bytes]) -> None:
    """What follows it would be taken for the next request, or the connection would go on where it must end."""
    application = Remembering()
    answered = exchange(Own(application), [data, data])
    assert not application.known
    assert [seen.body for seen in application.seen] == bodies
    assert statuses(answered) == [status for _ in bodies for status in ([100, 200] if b"Expect" in data else [200])]


def test_the_last_answer_may_be_a_known_one() -> None:
    """A worker that stops ends the connection behind it, and says so."""
    application = Remembering()
    server = Own(application)
    assert statuses(exchange(server, [NEXT])) == [200]
    server.last = True
    answered = exchange(server, [NEXT + NEXT])
    assert statuses(answered) == [200]
    assert b"\r\nConnection: close\r\n" in answered
    assert application.recalled == 1


def test_an_application_that_fails_to_recall(caplog: pytest.LogCaptureFixture) -> None:
    """It is answered for, and the connection ends."""

    class Broken(Application):
        def recall(self, _head: bytes) -> Any:
            raise ZeroDivisionError

    assert statuses(exchange(Own(Broken()), [NEXT + NEXT])) == [500]
    assert caplog.text.count("\nZeroDivisionError\n") == 1


@pytest.mark.parametrize("body", [b"", b"v", b"v" * 600_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_bodies(body: bytes, *, chunked: bool) -> None:
    """A body of any length arrives whole, and the request behind it is found: also if the application has read none of it."""
    for target in ("/a", "/lazy", "/part"):
        form = b"Transfer-Encoding: chunked\r\n\r\n" if chunked else b"Content-Length: %d\r\n\r\n" % len(body)
        framed = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n" if chunked else body
        application = Application()
        answered = exchange(Own(application), [b"PUT %b HTTP/1.1\r\nHost: x\r\n" % target.encode() + form, framed + NEXT])
        read = {"/a": body, "/lazy": b"", "/part": body[:3]}[target]
        assert application.seen == [Seen("PUT", target, read), Seen("GET", "/next", b"")]
        assert len(statuses(answered)) == 2


def test_a_body_that_ends_early() -> None:
    """A length that is not reached is seen by the application, as a short body; the connection ends."""
    application = Application()
    assert statuses(exchange(Own(application), [HEAD + b"Content-Length: 5\r\n\r\nab"])) == [200]
    assert application.seen == [Seen("PUT", "/a", b"ab")]


def test_a_long_body_that_breaks() -> None:
    """An application that reads a long body as it comes gets an error where that breaks; if it does not care, the answer is 400, and the last."""
    errors: list[BaseException] = []

    def application(environ: dict[str, Any], _start_response: Any) -> list[bytes]:
        try:
            environ["wsgi.input"].read()
        except BodyBroken as error:
            errors.append(error)
            raise
        raise AssertionError

    data = CHUNKED + b"20000\r\n" + b"x" * 0x20000 + b"\r\nzzz\r\n"
    assert statuses(exchange(Own(application), [data + NEXT])) == [400]
    assert [str(error) for error in errors] == ["the request's body is malformed: a chunk's size that is none"]


@pytest.mark.parametrize("target", [b"/lazy", b"/part"])
def test_what_comes_behind_a_long_body_that_breaks(target: bytes) -> None:
    """If the application has not read that far it is answered, and nothing that follows is taken for a request."""
    head = CHUNKED.replace(b"/a", target)
    application = Application()
    with connected(Own(application).serve) as client:
        client.sendall(head + b"20000\r\n" + b"x" * 0x20000)
        answered = client.recv(1000)
        client.sendall(b"zzz\r\n")
        gevent.sleep(0)  # the server looks at each by itself
        with contextlib.suppress(BrokenPipeError):
            client.sendall(NEXT)
        answered += receive_all(client)
    assert statuses(answered) in ([413], [200])
    assert len(application.seen) == 1


def test_expectations() -> None:
    """``Expect: 100-continue`` is answered before the body comes; in HTTP/1.0 it means nothing."""
    with connected(Own(Application()).serve) as client:
        client.sendall(HEAD + b"Content-Length: 2\r\nExpect: 100-Continue\r\n\r\n")
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"ab")
        assert client.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")
    old = b"PUT / HTTP/1.0\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nab"
    assert statuses(exchange(Own(Application()), [old])) == [200]


@pytest.mark.parametrize(
    ("minor", "header", "kept"),
    [
        (1, b"", True),
        (1, b"Connection: close\r\n", False),
        (1, b"Connection: x, Close\r\n", False),
        (1, b"Connection: keep-alive\r\n", True),
        (1, b"Connection: keep-alive\r\nConnection: close\r\n", False),
        (0, b"", False),
        (0, b"Connection: Keep-Alive\r\n", True),
        (0, b"Connection: close\r\n", False),
    ],
)
@pytest.mark.parametrize("target", [b"/", b"/part"])
def test_whether_a_connection_is_kept(minor: int, header: bytes, target: bytes, *, kept: bool) -> None:
    """By version and Connection header; the answer says it, in the request's version."""
    sent = b"GET %b HTTP/1.%d\r\nHost: x\r\n%b\r\n" % (target, minor, header)
    application = Application()
    with connected(Own(application).serve) as client:
        client.sendall(sent + sent)
        answered = receive_all(client) if not kept else b""
        if kept:
            while answered.count(b"HTTP/1.") < 2:
                answered += client.recv(1000)
    assert len(application.seen) == (2 if kept else 1)
    assert answered.startswith(b"HTTP/1.%d 200 OK\r\n" % minor)
    assert answered.count(b"\r\nConnection: keep-alive\r\n" if kept else b"\r\nConnection: close\r\n") == len(application.seen)


def test_nothing_follows_connect() -> None:
    """Whatever comes behind a CONNECT is no request."""
    application = Application()
    exchange(Own(application), [b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n" + NEXT])
    assert [seen.method for seen in application.seen] == ["CONNECT"]


def test_environment() -> None:
    """What WSGI is told: raw and decoded target, headers under their names, many as one, none with an underscore."""
    application = Application()
    sent = b"OPTIONS /stream?a=%20b HTTP/1.1\r\nHost: x\r\nX-Many: a\r\nSCRIPT_NAME: /v1\r\nx-many: b\r\nContent-Type: t\r\nContent-Length: 0\r\n\r\n"
    exchange(Own(application), [sent])
    environ = application.environs[0]
    told = {name: environ[name] for name in ("RAW_URI", "PATH_INFO", "QUERY_STRING", "SCRIPT_NAME", "SERVER_PROTOCOL", "HTTP_X_MANY", "CONTENT_TYPE")}
    assert list(told.values()) == ["/stream?a=%20b", "/stream", "a=%20b", "", "HTTP/1.1", "a,b", "t"]
    assert environ["CONTENT_LENGTH"] == "0"
    assert "HTTP_SCRIPT_NAME" not in environ


def test_what_is_remembered_of_headers_is_not_shared() -> None:
    """Nobody can change what the headers of a later request say."""
    head = parse(HEAD[:-2])
    assert parse(HEAD[:-2]).fields is head.fields
    with pytest.raises(TypeError):
        head.fields.variables["HTTP_X"] = "y"  # type: ignore[index]  # that is the point
    long = HEAD + b"X: " + b"y" * REMEMBERED_BYTES_MAX
    assert parse(long).fields is not parse(long).fields
    with pytest.raises(Refused):
        parse(b"GET / HTTP/1.1\r\nX: y")
