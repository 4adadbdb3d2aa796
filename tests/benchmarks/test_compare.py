"""The comparison without its servers: requests, rows, plots and files."""

import json
from array import array
from itertools import islice
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from benchmarks.compare import portrait, report, svg
from benchmarks.compare.dialects import DIALECTS, KEYS, LISTED_KEYS, TRANSACTION_OPERATIONS, VALUE_BYTES
from benchmarks.compare.load import Figures
from benchmarks.compare.portrait import quantiles, timeline
from benchmarks.compare.side_by_side import Row
from benchmarks.compare.svg import Point
from benchmarks.compare.systems import PEERS, present
from benchmarks.compare.workloads import WORKLOADS

KINDS = sorted({one.kind for one in WORKLOADS.values()})


def summary(rate: float, not_2xx: int = 0) -> dict[str, Any]:
    """Of a run, as :func:`benchmarks.compare.asker.summary` gives it."""
    return {"rate": rate, "not_2xx": not_2xx, "unanswered": 0, "ms": {"p50": 1.0, "p90": 2.0, "p99": 3.0, "p99_9": 4.0, "max": 5.0}}


def row(*pairs: tuple[dict[str, Any], dict[str, Any]], name: str = "put64") -> Row:
    """A row beside a peer."""
    return Row(WORKLOADS[name], "Peer", list(pairs))


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("kind", [*KINDS, "fill"])
def test_requests_are_whole(name: str, kind: str) -> None:
    """Every request of every dialect announces the length of its body."""
    dialect = DIALECTS[name]("")
    for request in islice(dialect.fill() if kind == "fill" else getattr(dialect, kind)("?stale"), 300):
        head, _, body = request.partition(b"\r\n\r\n")
        assert int((head.partition(b"Content-Length: ")[2] or b"0").partition(b"\r\n")[0]) == len(body), head
        assert body == b"" or body[:1] not in b"{[" or json.loads(body)


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("kind", ["put", "txn"])
def test_every_write_is_new(name: str, kind: str) -> None:
    """No two writes carry the same body, nor do those of the next run."""
    dialect = DIALECTS[name]("")
    bodies = [request.partition(b"\r\n\r\n")[2] for _run in range(2) for request in islice(getattr(dialect, kind)(""), 200)]
    assert len(set(bodies)) == 400


def test_transactions_write_each_key_once() -> None:
    """64 different keys, each with 128 bytes in base64."""
    for request in islice(DIALECTS["consul"]("").txn(""), 400):
        operations = [one["KV"] for one in json.loads(request.partition(b"\r\n\r\n")[2])]
        assert len({one["Key"] for one in operations}) == TRANSACTION_OPERATIONS
        assert {len(one["Value"]) for one in operations} == {-(-VALUE_BYTES // 3) * 4}


def test_every_key_that_is_read_was_written() -> None:
    """The keys of the reads and of the listing are those that are filled in."""
    consul = DIALECTS["consul"]("")
    filled = {request.split(b" ", 2)[1] for request in consul.fill()}
    assert len(filled) == KEYS + LISTED_KEYS
    assert {request.split(b" ", 2)[1] for request in islice(consul.get(""), 20_000)} < filled


def test_rows_count_ratios_of_pairs() -> None:
    """The ratio is that of each pair, however far the rates of two pairs are apart."""
    found = row((summary(100), summary(50)), (summary(30), summary(10)), (summary(200), summary(50)))
    assert sorted(found.ratios) == [2.0, 3.0, 4.0]
    assert "3.00 (2.00..4.00)" in found.told()


def test_a_bad_answer_makes_a_row_void() -> None:
    """One request of one run that was not answered 2xx is enough, on either side, and the row says so."""
    assert row((summary(100), summary(50))).void == ""
    for pair in ((summary(100, 1), summary(50)), (summary(100), summary(50, 1))):
        bad = row((summary(100), summary(50)), pair)
        assert "not answered 2xx" in bad.void
        assert "not answered 2xx" in bad.told()
    assert "no steady leader" in row().void


def test_a_timeline_counts_from_the_kill() -> None:
    """Writes fall into hundredths of a second around the kill; one that arrived before it is not the first one after it."""
    figures = Figures(4.0, ended=array("d", [9.995, 10.001, 10.305, 10.705]), latencies=array("d", [0.001, 0.01, 0.4, 0.1]))
    told = timeline(figures, 10.0, 10.005)
    assert told["slots"] == [(-0.01, 1), (0.0, 1), (0.3, 1), (0.7, 1)]
    assert told["first_after_kill_ms"] == pytest.approx(705)


def test_a_distribution_ends_where_its_requests_do() -> None:
    """Of a thousand requests one in a thousand is the last that is told of."""
    found = quantiles(array("d", [number / 1000 for number in range(1000)]))
    assert found[0] == (1, 0)
    assert found[10] == (10, pytest.approx(900))
    assert found[-1] == (pytest.approx(1000), pytest.approx(999))


def test_what_is_missing_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that is not there is named with the way to have it; kvorum is always there."""
    for name in ("CONSUL_BIN", "ETCD_BIN", "PYSYNCOBJ_PATH"):
        monkeypatch.setenv(name, "/nowhere")
    found, missing = present(["kvorum", *PEERS])
    assert found == ["kvorum"]
    assert [line.split(":")[0] for line in missing] == [f"{name} is left out" for name in PEERS]


def test_files_are_written(tmp_path: Path) -> None:
    """A page that names each plot that is there, plots that are XML, and JSON; void rows are on the page."""
    facts = {
        "versions": {"kvorum": "1", "Peer": "2"},
        "notes": ["told"],
        "minutes": 1.0,
        "begun": "now",
        "machine": dict.fromkeys(("command", "processors", "memory_gib", "kernel", "file_system", "python"), "x") | {"load_average_before": [0]},
    }
    figures = {"arrivals_per_second": 100, "distribution": [(1, 0.5), (10, 2.0)], "asker_late_p99_ms": 0.7, **summary(9)}
    lost = timeline(Figures(1.0, ended=array("d", [9.0, 11.0]), latencies=array("d", [0.1, 0.1])), 10.0, 10.0)
    one = {
        "throughput": {"put": [{"connections": number, **summary(number * 10)} for number in (1, 1024)]},
        "distribution": {"put": figures},
        "outage": {"arrivals_per_second": 100, **lost},
    }
    rows = [row((summary(100), summary(50))), row((summary(100, 1), summary(50)), name="get64")]
    report.write(tmp_path, facts, {"Peer": rows}, {"kvorum": one, "Peer": one})
    page = (tmp_path / report.PAGE).read_text(encoding="utf-8")
    drawn = sorted(path.name for path in tmp_path.glob("*.svg"))
    assert drawn == ["connections-put.svg", "failover.svg", "latency-put.svg"]
    for name in drawn:
        assert f"]({name})" in page
        ET.parse(tmp_path / name)
    assert page.count("kvorum 0.7 ms, Peer 0.7 ms") == 1
    assert "**2.00** (2.00..2.00)" in page
    assert "void: not answered 2xx" in page
    assert json.loads((tmp_path / report.RAW).read_text())["side_by_side"]["Peer"][1]["void"]
    assert tuple(report.KIND_WORDS) == portrait.KINDS


@pytest.mark.parametrize(("high", "last"), [(13_000, 15_000), (1, 1), (0.7, 0.8), (5, 5)])
def test_axes_end_at_round_values(high: float, last: float) -> None:
    """A linear axis begins at 0 and ends at a round value that is not below what is drawn."""
    axis = svg.linear("a second", high)
    assert (axis.share(0), axis.share(axis.high), axis.high) == (0, 1, pytest.approx(last))
    assert 3 <= len(axis.marks) <= 7


def test_texts_can_hold_anything() -> None:
    """Names with signs of XML are drawn, not parsed."""
    drawn = svg.lines("a < b & c", "<", svg.logarithmic("x", 1, 1000), svg.linear("y", 3), {"<&>": [Point(1, 1, 0.5, 2), Point(1000, 3)]})
    assert "a < b & c" in "".join(ET.fromstring(drawn).itertext())
