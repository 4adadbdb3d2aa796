"""The load: what it sends and counts, and that only the open loop sees a pause as those see it who arrive meanwhile."""

import itertools

import pytest
from stub import ANSWER, Stub

from benchmarks.compare import load
from benchmarks.compare.load import quantile, status_when_whole

pytestmark = pytest.mark.timeout(30)

REQUEST = b"GET /v1/kv/a HTTP/1.1\r\nHost: bench\r\n\r\n"
PAUSE_SECONDS = 0.5


def requests(count: int | None = None) -> "itertools.repeat[bytes]":
    """The same request again and again."""
    return itertools.repeat(REQUEST) if count is None else itertools.repeat(REQUEST, count)


def test_a_pause_shows_in_the_open_loop() -> None:
    """Half a second of a second and a half stands still: a fifth of all that arrive waits longer than a tenth of a second, some for all of it."""
    with Stub(pause_at=200, pause_seconds=PAUSE_SECONDS) as stub:
        figures = load.run((stub.address,), requests(), 8, 1.5, rate=400)
    assert (figures.bad, len(figures.ended)) == (0, 601)
    assert quantile(figures.latencies, 0.8) > 0.1
    assert PAUSE_SECONDS * 0.9 < max(figures.latencies) < PAUSE_SECONDS * 2
    assert len(figures.lags) < 601 - 0.8 * PAUSE_SECONDS * 400, "who waits for a connection is not called late"


def test_the_same_pause_hides_from_the_closed_loop() -> None:
    """The same pause is one slow answer a connection, and no percentile tells of it."""
    with Stub(pause_at=200, pause_seconds=PAUSE_SECONDS) as stub:
        figures = load.run((stub.address,), requests(), 4, 1.5)
    assert figures.bad == 0
    assert len(figures.ended) > 2_000
    assert quantile(figures.latencies, 0.99) < 0.1
    assert sum(took > PAUSE_SECONDS / 2 for took in figures.latencies) <= 4 < PAUSE_SECONDS * 400 / 4


def test_arrivals_keep_their_rate() -> None:
    """An open loop sends as many requests as arrive, evenly, whatever the number of connections."""
    with Stub() as stub:
        figures = load.run((stub.address,), requests(), 32, 1.0, rate=1000)
    assert len(figures.ended) == 1001
    middle = figures.began + 0.5
    assert 400 < sum(ended < middle for ended in figures.ended) < 600
    assert quantile(figures.lags, 0.5) < 0.005


def test_other_statuses_count_as_refused() -> None:
    """An answer that is not 2xx has no latency, and is counted."""
    with Stub(lambda number: [ANSWER if number % 4 else b"HTTP/1.1 500 Error\r\nContent-Length: 0\r\n\r\n"]) as stub:
        figures = load.run((stub.address,), requests(100), 1, 10)
    assert (len(figures.ended), len(figures.latencies), len(figures.refused), figures.bad) == (75, 75, 25, 25)


@pytest.mark.parametrize("rate", [0.0, 500.0])
def test_broken_connections_count_as_unanswered(rate: float) -> None:
    """What was asked on a connection that breaks has no answer; a load whose connections are all gone ends, and counts who still waits."""
    with Stub(lambda number: [ANSWER] if number < 50 else []) as stub:
        figures = load.run((stub.address,), requests(), 2, 0.3, rate=rate)
    assert len(figures.ended) == 50
    assert figures.unanswered >= 2
    assert figures.bad == figures.unanswered


def test_a_load_ends_with_its_requests() -> None:
    """A finite number of requests is sent once, over all connections, and then it is over."""
    with Stub() as stub:
        figures = load.run((stub.address,), requests(1000), 16, 60)
        assert len(stub.requests) == 1000
    assert (len(figures.ended), figures.bad) == (1000, 0)


def test_connections_go_to_the_addresses_in_turn() -> None:
    """Two servers get half each, although one connection could carry all that arrives."""
    with Stub() as one, Stub() as other:
        load.run((one.address, other.address), requests(400), 4, 60, rate=800)
        assert len(one.requests) + len(other.requests) == 400
        assert min(len(one.requests), len(other.requests)) > 150


def test_answers_in_pieces() -> None:
    """An answer that comes piece by piece, by length or in chunks, is one answer, complete with its last piece."""
    by_length = [b"HTTP/1.1 200 OK\r\nContent-Len", b"gth: 4\r\n\r\ntr", b"ue"]
    chunked = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"4\r\ntrue\r\n10", b"\r\n0123456789abcdef\r\n0\r\n", b"\r\n"]
    with Stub(lambda number: by_length if number % 2 else chunked) as stub:
        figures = load.run((stub.address,), requests(20), 1, 10)
    assert (len(figures.ended), figures.bad) == (20, 0)
    assert min(figures.latencies) > 0.005


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (ANSWER, 2),
        (ANSWER[:-1], 0),
        (b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", 5),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 2),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n\r\n", 0),
    ],
)
def test_the_end_of_an_answer(data: bytes, status: int) -> None:
    """The first digit of the status is known with the last byte, not before."""
    assert status_when_whole(data) == status


def test_no_connection_is_an_error() -> None:
    """A load that can't connect says so, and measures nothing."""
    with Stub() as stub:
        address = stub.address
    with pytest.raises(OSError, match="onnect"):
        load.run((address,), requests(), 1, 1)
