"""A load that gives figures or fails: what it counts, and when it refuses."""

import itertools

import pytest
from stub import ANSWER, Stub

from benchmarks import hammer

REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n"


def url(stub: Stub) -> str:
    """Where the stub is."""
    return "http://{}:{}".format(*stub.address)


@pytest.mark.parametrize(("count", "connections"), [(100, 7), (3, 7)])
def test_all_requests_are_sent(count: int, connections: int) -> None:
    """Requests that end are all sent, once, also when there are more connections than requests; the time is that of the last answer."""
    with Stub() as stub:
        assert 0 < hammer.send_all([url(stub)], itertools.repeat(REQUEST, count), connections) < 30
        assert len(stub.requests) == count


def test_not_all_sent_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the time is over before the last request, nothing is called done."""
    monkeypatch.setattr(hammer, "WHOLE_SECONDS", 0.2)
    with Stub() as stub, pytest.raises(hammer.LoadFailed, match="not all were sent"):
        hammer.send_all([url(stub)], itertools.repeat(REQUEST), 2)


def test_a_refusal_is_told() -> None:
    """An answer that is not 2xx spoils the run."""
    refusal = b"HTTP/1.1 500 Oh\r\nContent-Length: 9\r\n\r\nno leader"
    with Stub(lambda number: [refusal if number == 3 else ANSWER]) as stub, pytest.raises(hammer.LoadFailed, match="1 of another status"):
        hammer.send_all([url(stub)], itertools.repeat(REQUEST, 5), 2)


def test_a_broken_connection_is_told() -> None:
    """A server that closes a connection that waits spoils the run."""
    with Stub(lambda number: [] if number == 3 else [ANSWER]) as stub, pytest.raises(hammer.LoadFailed, match="1 unanswered"):
        hammer.send_all([url(stub)], itertools.repeat(REQUEST, 50), 2)


def test_nobody_there_is_told() -> None:
    """An address at which nobody listens is named."""
    with pytest.raises(hammer.LoadFailed, match=r"127\.0\.0\.1:1:"):
        hammer.send_all(["http://127.0.0.1:1"], itertools.repeat(REQUEST, 5), 2)


def test_only_the_measured_time_counts() -> None:
    """The load lasts before and after; the hook is called at both ends of the time that counts, and sees what was answered until then."""
    seen: list[int] = []
    with Stub() as stub:
        measured = hammer.run([url(stub)], itertools.repeat(REQUEST), 2, seconds=0.2, warm_seconds=0.1, watch=lambda: seen.append(len(stub.requests)))
    assert len(seen) == 2
    assert 0 < seen[0] < seen[1]
    assert 0.1 < measured.seconds < 2
    assert abs(measured.answers - (seen[1] - seen[0])) <= 4, "the hook and the figures differ by no more than what is under way"
    assert measured.latencies == sorted(measured.latencies)
    assert measured.percentile_ms(0) <= measured.percentile_ms(50) <= measured.percentile_ms(100)


def test_requests_that_end_too_early_are_told() -> None:
    """A measured time in which nothing was left to ask is no measurement."""
    with Stub() as stub, pytest.raises(hammer.LoadFailed, match="ended before the time"):
        hammer.run([url(stub)], itertools.repeat(REQUEST, 5), 2, seconds=5, warm_seconds=0, watch=lambda: None)
