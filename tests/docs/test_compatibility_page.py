"""The page about compatibility says what the table and the records say."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests import compatibility

PRINTED = """ok   kv-get
FAIL kv-odd
     step 0 GET /v1/kv/a status: want 200 got 404
ok   txn-one
group kv: 1 passed, 1 failed
group txn: 1 passed, 0 failed
SUMMARY 2/3 scenarios passed in 1s FAILED: kv-odd
"""


def test_the_page_is_up_to_date() -> None:
    """docs/consul-compatibility.md is what the table, the differences and the recorded runs make of it."""
    assert compatibility.PAGE.read_text(encoding="utf-8") == compatibility.render(), "out of date: python -m tests.compatibility"


def test_what_a_replay_prints_is_taken_over() -> None:
    """Passed scenarios are counted by group, failed ones named."""
    assert compatibility.replayed(PRINTED) == {"consul": "1.8.7", "passed": {"kv": 1, "txn": 1}, "failed": ["kv-odd"]}


def test_an_entry_without_its_reason_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever is not the same as in Consul says why."""
    table = tmp_path / "table.toml"
    monkeypatch.setattr(compatibility, "TABLE", table)
    for entry in ('verdict = "absent"', 'verdict = "bogus"\nnote = "x"'):
        table.write_text(f'[[endpoint]]\npath = "/v1/x"\nmethods = "GET"\n{entry}\n', encoding="utf-8")
        with pytest.raises(ValueError, match="/v1/x needs a verdict"):
            compatibility.endpoints()


def test_every_scenario_that_ends_otherwise_has_its_reason() -> None:
    """No recorded scenario fails that nobody decided about, and no reason is left over."""
    found = json.loads((compatibility.DOCS / "conformance.json").read_text(encoding="utf-8"))
    assert sorted(found["failed"]) == sorted(compatibility.deviations())
