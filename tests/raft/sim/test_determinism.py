"""One seed, one schedule: whatever the process, its hash seed or its history."""

import pytest

from raft.testing.same_steps import compare_twice
from raft.testing.sim import main, run_seed


def test_a_seed_decides_everything() -> None:
    """The same seed gives the same steps twice in one process, and another seed gives others."""
    first, again, other = (run_seed(seed, digest=True).digest for seed in (11, 11, 12))
    assert first == again
    assert first != other


def test_hash_seeds_change_nothing() -> None:
    """Two processes with different hash seeds take the same steps in the same order."""
    assert compare_twice(100, 6, jobs=1) == []


def test_a_trace_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """The command line replays one seed and prints its steps and its digest."""
    assert main(["--seed", "11", "--trace"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(" receives " in line for line in lines) > 1_000
    assert run_seed(11, digest=True).digest in lines[-1]
