"""The space is what it says: copies are whole, states have one name, and what is set back is only time."""

import subprocess
import sys
from collections import deque
from random import Random

import pytest

from raft.core.log import RaftLog
from raft.core.membership import ConfigurationTrail
from raft.core.node import RaftNode
from raft.core.progress import Progress
from raft.core.reads import ReadQueue
from raft.core.state import Outbox, State
from raft.testing.explore_freeze import Freezer
from raft.testing.explore_search import attempt, breadth_first, walk
from raft.testing.explore_site import fresh
from raft.testing.explore_space import NODES, Space
from raft.testing.explore_space import State as Whole
from raft.testing.explore_starts import PARTS, enter

TIME = {
    State: {"tick_count", "election_elapsed", "election_deadline", "silent_until", "heartbeat_elapsed", "transfer_elapsed"},
    Progress: {"contact_tick", "read_round", "_round_since"},
    ReadQueue: {"round", "confirmed", "_waiting", "_rounds"},
    RaftNode: {"_number"},
}
"""What the explorer sets back, or what never changes in it."""

CONTENT = {
    State: {"node_id", "config", "log", "trail", "term", "vote", "saved", "role", "leader", "_jitter", "verified", "installing", "installing_number"}
    | {"votes", "own_vote_number", "progress", "reads", "forwarded_reads", "term_start", "uncommitted_bytes", "transfer_target", "successor_called"}
    | {"outbox"},
    Progress: {"_inflight", "_round_in_time", "_round_target", "inflight_bytes", "match", "next", "nudge", "peer", "probe_sent", "state"},
    ReadQueue: set(),
    RaftNode: {"state"},
}
"""What makes one state differ from another."""


def chance_run(space: Space, state: Whole, seed: int, steps: int) -> tuple[list[str], Whole]:
    """Make moves by chance. :returns: their texts, and where they lead."""
    rng, texts = Random(seed), []
    for _ in range(steps):
        moves = sorted(space.moves(state), key=space.text)
        move = moves[rng.randrange(len(moves))]
        texts.append(space.text(move))
        reached = space.follow(state, space.fingerprint(state), move, lambda _print: True)
        assert reached is not None
        assert reached[0] == space.fingerprint(reached[1])
        state = reached[1]
    return texts, state


def test_every_counter_is_known() -> None:
    """Each attribute of the core is time, which is set back, or content, which is kept: who adds one must say which."""
    node = fresh("a", enter("plain", {})[0].initial_boundary()).node
    known = {kind: TIME[kind] | CONTENT[kind] for kind in TIME}
    assert set(vars(node)) == known[RaftNode]
    assert set(vars(node.state)) == known[State]
    assert set(vars(node.state.reads)) == known[ReadQueue]
    assert set(Progress.__slots__) == known[Progress]


@pytest.mark.parametrize("part", PARTS)
def test_copies_are_whole(part: str) -> None:
    """A node that is frozen and thawed freezes to the same value again, and shares nothing that can change."""
    space, starts = enter(part, {})
    walk(space, starts, seed=1, states=500)
    freezer = space._freezer
    for frozen in space._frozen:
        copy, other = freezer.thaw(frozen), freezer.thaw(frozen)
        assert freezer.freeze(copy) == frozen
        for kind in (State, RaftLog, ConfigurationTrail, ReadQueue, Outbox, list, deque, dict):
            assert not {id(item) for item in changing(copy, kind)} & {id(item) for item in changing(other, kind)}


def changing(value: object, kind: type) -> list[object]:
    """All objects of a class that belong to a node."""
    inner = vars(value).values() if hasattr(value, "__dict__") else [getattr(value, name) for name in getattr(type(value), "__slots__", ())]
    if isinstance(value, list | deque):
        inner = list(value)
    elif isinstance(value, dict):
        inner = list(value.values())
    elif not type(value).__module__.startswith("raft.") or type(value).__hash__ is not object.__hash__:
        inner = []
    return ([value] if type(value) is kind else []) + [found for item in inner for found in changing(item, kind)]


def test_what_cannot_be_copied_is_refused() -> None:
    """An attribute of a kind that the explorer does not know is an error, not a shared object."""
    node = fresh("a", enter("plain", {})[0].initial_boundary()).node
    node.state.votes = {"b": object()}  # type: ignore[dict-item]  # the point of the test
    with pytest.raises(TypeError, match=r"can't copy a builtins\.object"):
        Freezer({State: {"config": None, "_jitter": None}}).freeze(node)


@pytest.mark.parametrize("part", PARTS)
def test_a_state_has_one_name(part: str) -> None:
    """The same moves lead to the same fingerprint in a space that has seen nothing else, and what is kept on the way is the sum of the parts."""
    used, starts = enter(part, {})
    breadth_first(used, starts, states=300)
    for seed, name in enumerate(starts):
        texts, reached = chance_run(used, starts[name], seed, 30)
        other, others = enter(part, {})
        assert attempt(other, others[name], texts) is None
        state = others[name]
        for text in texts:
            move = next(move for move in other.moves(state) if other.text(move) == text)
            next_ = other.follow(state, 0, move, lambda _print: True)
            assert next_ is not None
            state = next_[1]
        assert other.fingerprint(state) == used.fingerprint(reached)


@pytest.mark.processes
def test_names_do_not_depend_on_the_process() -> None:
    """Two processes with different hash seeds see the same fingerprints."""
    program = (
        "from raft.testing.explore_starts import enter\n"
        "from raft.testing.explore_search import walk\n"
        "space, starts = enter('membership', {})\n"
        "print(sum(walk(space, starts, seed=1, states=500).seen))\n"
    )
    sums = [
        subprocess.run([sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, check=True, capture_output=True, text=True).stdout
        for seed in ("1", "4242")
    ]
    assert sums[0] == sums[1] != ""


def test_a_small_space_has_an_end() -> None:
    """Where hardly anything may happen, the search says that it has seen all there is, and looked at each."""
    space, starts = enter("plain", {"terms": 1, "commands": 1, "crashes": 0, "drops": 0, "duplicates": 0, "slow": 0, "heartbeats": 0})
    outcome = breadth_first(space, {"elected": starts["elected"]}, states=100_000)
    assert outcome.exhausted
    assert outcome.states == len(outcome.seen) > 20
    assert outcome.found is None
    assert set(walk(space, {"elected": starts["elected"]}, seed=1, states=100_000).seen) == set(outcome.seen)


def test_nodes_are_three() -> None:
    """Every part begins with three nodes, whoever of them is a member."""
    for part in PARTS:
        space, starts = enter(part, {})
        for state in starts.values():
            assert [space.site(state, position).node for position in range(3)] == list(NODES)
