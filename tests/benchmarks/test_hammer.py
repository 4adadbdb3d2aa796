"""The load generator: what it takes for a whole answer, what it counts, and when it refuses to give figures."""

import itertools
import socketserver
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks import hammer

REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n"
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n20\r\n" + b"x" * 32 + b"\r\n3\r\nabc\r\n0\r\n\r\n"


@contextmanager
def serving(*pieces: bytes, close_after: int = 1_000_000) -> Iterator[str]:
    """A server that answers every request with these pieces, each a segment of its own as far as the system lets it; its address."""

    class Handler(socketserver.StreamRequestHandler):
        disable_nagle_algorithm = True

        def handle(self) -> None:
            for number in itertools.count():
                while (line := self.rfile.readline()) not in {b"\r\n", b""}:
                    pass
                if not line or number == close_after:
                    return
                for piece in pieces:
                    self.wfile.write(piece)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        request_queue_size = 100

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("answer", [PLAIN, CHUNKED])
def test_every_request_is_answered_once(answer: bytes) -> None:
    """Requests that end are all sent and counted, over connections that share them; there may be more connections than requests."""
    for count, connections in ((100, 7), (3, 7)):
        with serving(answer) as url:
            assert hammer.run([url], itertools.repeat(REQUEST, count), connections).answers == count


@pytest.mark.parametrize("answer", [PLAIN, CHUNKED])
def test_an_answer_in_two_pieces_is_one(answer: bytes) -> None:
    """Wherever an answer is cut, it is whole when its last byte is there, and not before."""
    for cut in range(1, len(answer)):
        with serving(answer[:cut], answer[cut:]) as url:
            assert hammer.run([url], itertools.repeat(REQUEST, 2), 1).answers == 2


@pytest.mark.parametrize("answer", [PLAIN, CHUNKED])
def test_an_answer_is_not_whole_without_its_last_byte(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer whose end does not come is given up after some time, and there are no figures."""
    monkeypatch.setattr(hammer, "ANSWER_SECONDS", 0.1)
    with serving(answer[:-1]) as url, pytest.raises(hammer.LoadFailed, match="1 answers did not come"):
        hammer.run([url], itertools.repeat(REQUEST, 1), 1)


def test_a_refusal_is_told() -> None:
    """An answer that is not 2xx spoils the run, and the text tells what it was."""
    with serving(b"HTTP/1.1 500 Oh\r\nContent-Length: 9\r\n\r\nno leader") as url, pytest.raises(hammer.LoadFailed, match="500"):
        hammer.run([url], itertools.repeat(REQUEST, 5), 2)


def test_a_broken_connection_is_told() -> None:
    """A server that closes a connection that waits spoils the run."""
    with serving(PLAIN, close_after=3) as url, pytest.raises(hammer.LoadFailed, match="broke before its answer"):
        hammer.run([url], itertools.repeat(REQUEST, 50), 2)


def test_only_the_measured_time_counts() -> None:
    """The load lasts before and after; the hook is called at both ends of the time that counts."""
    calls: list[int] = []
    with serving(PLAIN) as url:
        seen = hammer.run([url], itertools.repeat(REQUEST), 2, seconds=0.2, warm_seconds=0.1, watch=lambda: calls.append(1))
    assert calls == [1, 1]
    assert 0.2 <= seen.seconds < 2
    assert seen.latencies == sorted(seen.latencies)
    assert seen.percentile_ms(0) <= seen.percentile_ms(50) <= seen.percentile_ms(100)


def test_requests_that_end_too_early_are_told() -> None:
    """A measured time in which nothing was left to ask is no measurement."""
    with serving(PLAIN) as url, pytest.raises(hammer.LoadFailed, match="ended before the time"):
        hammer.run([url], itertools.repeat(REQUEST, 5), 2, seconds=5)
