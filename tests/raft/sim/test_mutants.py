"""The checkers see: planted faults are found."""

import pytest

from raft.testing.mutants import MUTANTS, Mutant, hunt
from raft.testing.sim import main
from raft.testing.world import ScheduleFailed, World

LIMIT = 60
RARE = {"M04 longest log"}
"""Found within the 10,000 schedules that the targets allow, but not within seconds: ``python -m raft.testing.mutants`` hunts these too."""

QUICK = [mutant for mutant in MUTANTS if mutant.name not in RARE]


@pytest.mark.slow
@pytest.mark.parametrize("mutant", QUICK, ids=lambda mutant: mutant.name)
def test_mutants_are_found(mutant: Mutant) -> None:
    """A core with a planted fault fails within a few schedules."""
    verdict = hunt(mutant, limit=LIMIT)
    assert verdict.rule, f"{mutant.name} survived {verdict.schedules} schedules: {mutant.fault}"


def test_a_failure_says_how_to_see_it_again() -> None:
    """What a failing schedule raises names the rule, shows the last steps and gives the command that replays it."""
    mutant = next(mutant for mutant in MUTANTS if mutant.name == "M05 early replies")
    with mutant.planted(), pytest.raises(ScheduleFailed) as caught:
        World(1).run()
    assert caught.value.rule == "durability"
    assert "replay: python -m raft.testing.sim --seed 1" in str(caught.value)
    assert str(caught.value).count("\n") > 20


def test_the_command_fails_with_a_violation(capsys: pytest.CaptureFixture[str]) -> None:
    """The exit status is 1 when a schedule failed, and the seeds are listed."""
    mutant = next(mutant for mutant in MUTANTS if mutant.name == "M05 early replies")
    with mutant.planted():
        assert main(["--start", "1", "--count", "2"]) == 1
    assert "failed: python -m raft.testing.sim --seed 1" in capsys.readouterr().out


def test_nothing_outlives_a_mutant() -> None:
    """The core is whole again after a hunt."""
    with MUTANTS[0].planted():
        pass
    assert World(1).run().committed > 0
