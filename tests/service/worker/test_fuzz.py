"""Random requests: well-formed ones are answered as gunicorn's worker does, malformed ones hide none; and the comparison notices what it is for."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[3]))

from service.worker import body, parser
from service.worker.connection import Connection
from tests.service.worker import fuzz
from tests.service.worker.cases import make_case
from tests.service.worker.growth import Look, grown
from tests.service.worker.serving import Application, Own, Seen
from tests.service.worker.wire import NotClosed, Wire, exchange_at_once

SEED = 20_260
REQUESTS = 3_000
"""`make fuzz-http` sends any number."""
NOTICED_WITHIN = 20_000
"""Requests; each of the faults below is noticed long before."""


def test_random_requests() -> None:
    """Whatever a client sends and however it is cut: nothing fails, nothing is hidden, what is well-formed is answered as by gunicorn."""
    done = fuzz.run(SEED, 1, REQUESTS, speaks=False)
    assert done.wrong == ""
    assert done.requests // 3 < done.malformed < done.requests * 2 // 3
    assert min(done.by_sockets, done.cut, done.hindered) > 100
    assert len(done.looks) == 10


def test_cases_are_made_again() -> None:
    """A case depends on its seed alone, so one line replays it."""
    assert make_case(SEED) == make_case(SEED)
    assert make_case(SEED) != make_case(SEED + 1)


def bare_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Header lines may end without a carriage return."""
    plain = parser._values
    monkeypatch.setattr(parser, "_values", lambda block: plain(re.sub(rb"(?<!\r)\n", b"\r\n", block)))
    monkeypatch.setattr(parser, "_remembered", parser.parse_fields)


def both_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Content-Length counts, whatever Transfer-Encoding says beside it."""
    plain = parser._is_chunked
    monkeypatch.setattr(parser, "_is_chunked", lambda values: "CONTENT-LENGTH" not in values and plain(values))
    monkeypatch.setattr(parser, "_remembered", parser.parse_fields)


def miscounted_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands behind a chunk is not looked at."""
    monkeypatch.setattr(body.ChunkedDecoder, "_data_end", lambda self, _data, position, _pieces: setattr(self, "_step", self._size) or position + 2)


def forgotten_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """What came behind a body in chunks is thrown away."""
    plain = Connection._read_body

    def read_body(self: Connection, fields: Any) -> Any:
        whole = plain(self, fields)
        self._buffer = b""
        return whole

    monkeypatch.setattr(Connection, "_read_body", read_body)


def lost_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who reads too slowly misses something."""
    plain = Connection._send_rest
    monkeypatch.setattr(Connection, "_send_rest", lambda self, data: plain(self, data[1:]))


def crash(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long header is too much."""
    plain = parser._values
    monkeypatch.setattr(parser, "_values", lambda block: 1 // (len(block) < 7000) and plain(block))


@pytest.mark.parametrize("fault", [bare_ends, both_lengths, miscounted_chunks, forgotten_rest, lost_bytes, crash])
def test_faults_are_noticed(fault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is wrong in one place is told from one that is right."""
    fault(monkeypatch)
    done = fuzz.run(SEED, 1, NOTICED_WITHIN, speaks=False)
    assert "again: python -m tests.service.worker.fuzz --requests 1 --seed " in done.wrong


def test_a_leak_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that remembers something of each connection grows; so does one that keeps more than there was, or a file."""
    kept = []
    plain = Connection._close
    monkeypatch.setattr(Connection, "_close", lambda self: kept.extend((self.since, [number]) for number in range(3)) or plain(self))
    assert "blocks from " in fuzz.run(SEED, 1, REQUESTS * 3, speaks=False).wrong
    steady = [Look(number * 100_000, 50_000 + number % 2 * 2_000, 40 << 20, 8) for number in range(10)]
    assert grown(steady) == ""
    assert grown([one._replace(size=one.size + one.requests * 30) for one in steady]).startswith("size from ")
    assert grown([one._replace(files=one.files + one.requests // 100_000) for one in steady]).startswith("files from ")


def test_a_connection_left_open_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every connection is closed by the server."""
    monkeypatch.setattr(Wire, "close", lambda _: None)
    with pytest.raises(NotClosed):
        exchange_at_once(Own(Application()), Wire([b"GET / HTTP/1.0\r\n\r\n"]))


def test_what_counts_as_hidden() -> None:
    """The comparison notices a request that only one of two servers sees, and one with another body; fewer are no harm."""
    get, put = Seen("GET", "/", b""), Seen("PUT", "/", b"v")
    assert fuzz.is_within([get], [get, put])
    assert fuzz.is_within([put], [put._replace(body=None)])
    assert not fuzz.is_within([get, put], [get])
    assert not fuzz.is_within([put], [put._replace(body=b"w")])
    assert not fuzz.is_within([put], [get])
