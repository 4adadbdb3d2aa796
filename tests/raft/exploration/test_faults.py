"""The explorer sees: planted faults are found, with the way there; the core as it is breaks no rule."""

from collections.abc import Callable

import pytest

from raft.core.model import NodeId
from raft.core.quorum import jointly_agreed
from raft.core.state import State as CoreState
from raft.testing.explore_search import attempt, breadth_first, walk
from raft.testing.explore_starts import PARTS, enter
from raft.testing.mutants import MUTANTS, Mutant

CALM = {"crashes": 0, "drops": 0, "duplicates": 0, "slow": 0}
STATES = 60_000


def _count_learners(state: CoreState, value: Callable[[NodeId], int]) -> int:
    configuration = state.configuration
    learners = tuple(member.id for member in configuration.learners)
    return jointly_agreed((*configuration.voter_ids, *learners), configuration.outgoing_ids, value)


LEARNER_COUNTED = Mutant("learner counted", "counts learners toward commitment", ((CoreState, "agreed", _count_learners),))


def planted(name: str) -> Mutant:
    """The fault of that name."""
    return next(mutant for mutant in (*MUTANTS, LEARNER_COUNTED) if mutant.name == name)


@pytest.mark.parametrize(
    ("name", "part", "bounds", "rule"),
    [
        ("M02 follower commit", "plain", CALM | {"commands": 0}, "commit"),
        ("M03 any log", "plain", CALM | {"heartbeats": 0}, "leader completeness"),
        ("M06 vote unwritten", "plain", CALM | {"heartbeats": 0, "commands": 0}, "durability"),
        ("vote forgotten", "plain", CALM | {"crashes": 1}, "monotonic"),
        ("appends blindly", "plain", CALM | {"heartbeats": 0, "commands": 0}, "log matching"),
        ("applied on arrival", "snapshot", CALM | {"slow": 1, "commands": 0}, "apply"),
        ("half a quorum", "membership", CALM, "durable quorum"),
        ("learner counted", "membership-learner", CALM, "durable quorum"),
    ],
)
def test_breadth_finds_faults(name: str, part: str, bounds: dict[str, int], rule: str) -> None:
    """A fault that shows near a start is found breadth-first; the moves lead there again, and no shorter way would."""
    with planted(name).planted():
        space, starts = enter(part, bounds)
        found = breadth_first(space, starts, states=STATES).found
        assert found is not None
        assert found.rule == rule
        space, starts = enter(part, bounds)
        again = attempt(space, starts[found.start], found.moves)
        assert again is not None
        assert (again.rule, again.detail, again.moves) == (found.rule, found.detail, found.moves)
        for left_out in range(len(found.moves)):
            shorter = attempt(space, starts[found.start], (*found.moves[:left_out], *found.moves[left_out + 1 :]))
            assert shorter is None


@pytest.mark.parametrize(
    ("name", "bounds", "rules"),
    [
        ("M01 figure 8", CALM | {"commands": 0}, {"commit rule", "leader completeness"}),
        ("M13 own sync", CALM | {"slow": 1}, {"durable quorum"}),
    ],
)
def test_walks_find_faults(name: str, bounds: dict[str, int], rules: set[str]) -> None:
    """A fault that shows only far from every start is found by a walk."""
    with planted(name).planted():
        for seed in range(1, 11):
            space, starts = enter("plain", bounds)
            found = walk(space, starts, seed=seed, states=STATES // 2).found
            if found is not None:
                break
        assert found is not None, "10 walks found nothing"
        assert found.rule in rules
        space, starts = enter("plain", bounds)
        again = attempt(space, starts[found.start], found.moves)
        assert again is not None
        assert again.rule == found.rule


@pytest.mark.parametrize("part", PARTS)
def test_the_core_is_clean(part: str) -> None:
    """The core as it is breaks no rule in a few thousand states of each part, near and far."""
    space, starts = enter(part, {})
    for outcome in (breadth_first(space, starts, states=2_500), walk(space, starts, seed=1, states=2_500)):
        assert outcome.found is None
        assert len(outcome.seen) >= 2_500
