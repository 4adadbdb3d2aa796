"""Sessions, locks and watches while leaders are killed: the short forms of ``session_faults`` and ``watch_faults``."""

import random
from pathlib import Path

import pytest
import session_faults
import watch_faults

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(400)]

KILLS = 2


def test_sl_02_no_session_dies_early(tmp_path: Path) -> None:
    """Through killed leaders no session ends before its TTL is over, no lock has two holders or a dead one, and clients are told the truth."""
    seed = random.SystemRandom().randrange(1 << 32)
    model, lines = session_faults.run(tmp_path, count=36, kills=KILLS, seed=seed, pause_seconds=1.0, settled_seconds=3.0)
    print("\n" + "\n".join(lines))  # noqa: T201 - a failing run must name its seed, and a person wants the figures
    assert model.verdict.violations == []
    assert model.verdict.counts["expired"] >= 36 // 3, "those that leave and those that are silent at the end"
    assert model.verdict.counts["locks lost, delete"] + model.verdict.counts["locks lost, release"] > 0
    assert model.verdict.counts["lock true"] > 36


def test_no_watcher_misses_a_change(tmp_path: Path) -> None:
    """Through killed leaders every watcher sees each last change, its index never goes back, and what it sees is what the log says."""
    seed = random.SystemRandom().randrange(1 << 32)
    verdict, lines = watch_faults.run(tmp_path, count=len(watch_faults.TARGETS), kills=KILLS, seed=seed)
    print("\n" + "\n".join(lines))  # noqa: T201 - as above
    assert verdict.violations == []
    assert verdict.counts["answers"] > KILLS * len(watch_faults.TARGETS)
