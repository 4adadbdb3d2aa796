"""Schedules that must pass: fresh ones each time, and every one that has ever found something."""

import secrets

import pytest

from raft.testing.markers import FAULTS, MARKERS
from raft.testing.sim import run_many, run_seed
from raft.testing.world import COMMITTED_MIN

FRESH = 60

FOUND = {
    16: "a snapshot arrived while the state machine still applied: its next report stopped the node",
    169: "the same",
    216: "the same",
}
"""Seeds that reach the situation of a fault which a schedule had found: each fails when that fault is planted again (:mod:`raft.testing.mutants`)."""


def test_fresh_schedules_hold_every_property() -> None:
    """Schedules nobody has run before violate nothing, and each has run long enough to mean something."""
    start = secrets.randbelow(1 << 40)
    print(f"python -m raft.testing.sim --start {start} --count {FRESH}")  # noqa: T201  # pytest shows it when the test fails
    summary = run_many(start, FRESH, jobs=1)
    assert summary.failures == {}
    assert summary.schedules == FRESH
    assert summary.simulated_ms >= FRESH * 60_000
    assert summary.committed >= FRESH * COMMITTED_MIN


def test_the_faults_really_happen() -> None:
    """Sixty schedules inject every kind of fault and reach the branches that only faults reach, the common ones at least."""
    counts = run_many(1, 60, jobs=1).counts
    wanted = [*FAULTS, *(marker.name for marker in MARKERS if marker.common), "crashes in the middle of an install", "configuration truncated"]
    assert [name for name in wanted if not counts[name]] == []


@pytest.mark.parametrize("seed", sorted(FOUND))
def test_schedules_that_once_failed(seed: int) -> None:
    """A seed that finds an old fault of the core, as long as that is there, passes now."""
    report = run_seed(seed)
    assert report.committed >= COMMITTED_MIN
