"""Sessions, locks, watches and writes while leaders are killed: the short forms of ``session_faults``, ``watch_faults`` and ``write_faults``."""

import random
from pathlib import Path

import pytest
import session_faults
import watch_faults
import write_faults

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(400)]

KILLS = 2


def test_sl_02_no_session_dies_early(tmp_path: Path) -> None:
    """Through changes of leader no session ends before its TTL is over, no lock has two holders or a dead one, and clients are told the truth."""
    seed = random.SystemRandom().randrange(1 << 32)
    model, lines = session_faults.run(tmp_path, count=36, kills=KILLS, transfers=2, seed=seed, pause_seconds=1.0, settled_seconds=2.0)
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


def test_cl_05_failed_means_not_applied(tmp_path: Path) -> None:
    """Through a lost quorum and a killed worker no write that was called failed ever shows, and each that was acknowledged is where it was told.

    The lost quorum leaves writes in one log that their clients know nothing of, and that log is the one that goes on: who calls them failed is wrong.
    """
    seed = random.SystemRandom().randrange(1 << 32)
    verdict, lines = write_faults.run(tmp_path, faults=("quorum paused", "worker killed"), seed=seed, settled_seconds=1.0)
    print("\n" + "\n".join(lines))  # noqa: T201 - as above
    assert verdict.violations == []
    assert min(verdict.counts[told] for told in ("done", "unmet", "rejected", "unknown")) > 0
    assert verdict.counts["unknown, applied"] > 0
    assert verdict.counts["rows read"] > 0
