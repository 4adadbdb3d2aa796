"""The page about testing says what the records say."""

import json
from pathlib import Path
from typing import Any

import pytest

from raft.testing import record_page, records, sim, sim_record
from raft.testing.markers import FAULTS, MARKERS
from raft.testing.record_page import main, render
from raft.testing.sim import Summary

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A copy of the page, with no records beside it yet."""
    copy = tmp_path / "testing.md"
    copy.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "testing").mkdir()
    assert main([str(copy)]) == 0
    return copy


def recorded(folder: Path, monkeypatch: pytest.MonkeyPatch, *, until: int, rules: dict[int, str]) -> None:
    """Record schedules that did nothing but reach one branch each, once."""

    def run_seeds(seeds: range, *, digest: bool = False) -> Summary:
        del digest
        done = Summary(schedules=len(seeds), cpu_s=2.0, rules=rules if seeds[0] == 1 else {})
        done.counts.update({"read round retried": len(seeds), "crashes": 3 * len(seeds)})
        return done

    monkeypatch.setattr(sim, "run_seeds", run_seeds)
    sim.main(["--record", str(folder / record_page.SCHEDULES), "--until", str(until)])


def test_the_page_is_what_the_records_say() -> None:
    """docs/testing.md is up to date with the files in docs/testing."""
    text = PAGE.read_text(encoding="utf-8")
    assert render(text, PAGE.parent / "testing") == text, "out of date: python -m raft.testing.record_page docs/testing.md"


def test_every_part_has_its_place() -> None:
    """Each part stands in the page once."""
    text = PAGE.read_text(encoding="utf-8")
    assert [text.count(f"<!-- {name}: made by raft.testing.record_page -->") for name in record_page.PARTS] == [1] * len(record_page.PARTS)


def test_what_was_run_is_told(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Schedules, seeds, speed, faults and rare branches of the record come into the page; all else stays."""
    before = page.read_text(encoding="utf-8")
    assert before.count("No schedules are recorded yet.") == 3
    recorded(page.parent / "testing", monkeypatch, until=20, rules={})
    assert main(["--check", str(page)]) == 1
    assert page.read_text(encoding="utf-8") == before
    assert main([str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert "| schedules | 20 |" in text
    assert "| seeds | 1 to 20 |" in text
    assert "| violations | none: with 95 % confidence fewer than 3 in 20 schedules find one |" in text
    assert "| crashes | 60 | 3.00 |" in text
    assert "| read round retried | 20 | 0 |" in text
    assert f"| 1 to 20 | 20 | {20 / 4:.1f} |" in text
    assert all(f"| {name} | " in text for name in (*FAULTS, *(marker.name for marker in MARKERS)))
    assert main(["--check", str(page)]) == 0


def test_violations_and_earlier_cores_are_told(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A seed that failed is listed with its rule; when the core is another one, the record of the earlier one is a line of its own."""
    folder = page.parent / "testing"
    recorded(folder, monkeypatch, until=10, rules={7: "vote"})
    main([str(page)])
    assert "| violations | vote (seed 7) |" in page.read_text(encoding="utf-8")
    earlier = records.core_digest()
    monkeypatch.setattr(records, "core_digest", lambda: "another")
    recorded(folder, monkeypatch, until=5, rules={})
    main([str(page)])
    text = page.read_text(encoding="utf-8")
    assert f"| `{earlier}` | 10 | 1 |" in text
    assert "vote (seed 7)" not in text


def test_explored_states_are_told(page: Path) -> None:
    """States, how far the search went, and what it found are in the page."""
    part: dict[str, Any] = {"explorer": "abc", "python": "3.11.7", "states": 5_000, "looked_at": 1_000, "depth": 120, "breadth": {"plain": 9}}
    part |= {"moves": {"drop": 7_000}, "violations": [{"rule": "vote", "replay": "python -m x"}], "wall_s": 60.0, "cpu_s": 100.0}
    (page.parent / "testing" / record_page.STATES).write_text(json.dumps({"kind": "states", "records": [{"core": "c", "parts": [part]}]}))
    main([str(page)])
    text = page.read_text(encoding="utf-8")
    assert "| distinct states | 5,000, 1,000 of them looked at from every side |" in text
    assert "| every state so many moves from a start | plain 9 |" in text
    assert "| violations | vote: `python -m x` |" in text
    assert "50.0 states a second and core" in text


def test_a_file_that_is_no_record_is_named(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A broken record stops the page from being written."""
    (page.parent / "testing" / record_page.SCHEDULES).write_text("{")
    with pytest.raises(SystemExit) as ended:
        main([str(page)])
    assert ended.value.code == 2
    assert "can't be read as a record" in capsys.readouterr().err


def test_the_rule_of_the_count_is_in_the_page() -> None:
    """The page names the commands by flags that exist."""
    text = PAGE.read_text(encoding="utf-8")
    for flag in ("--record", "--until", "--require-markers", "--merge", "--start"):
        assert flag in text
        assert flag in (sim.__doc__ or "") + (sim_record.__doc__ or "")
