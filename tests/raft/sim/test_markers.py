"""The rare branches are noted where they are taken, by their names, and noting them changes nothing."""

from collections import Counter

import pytest

from raft.core.messages import AppendAccepted, AppendRequest, Heartbeat, HeartbeatResponse, InstallSnapshot, Message, VoteRequest, VoteResponse
from raft.core.model import Boundary, Configuration, Entry, EntryKind, HardState
from raft.core.ready import RoleChanged
from raft.core.roles import Role
from raft.core.state import State
from raft.testing import markers
from raft.testing.cluster import QUICK, Cluster, configuration, entries
from raft.testing.markers import ARRIVING, MARKERS, MINIMUM, MINIMUM_OF
from raft.testing.sim import run_seed

ABC = configuration("abc")


def noted(state: State, message: Message) -> set[str]:
    """What is counted when a message arrives at a node in this state."""
    counts: Counter[str] = Counter()
    ARRIVING[type(message)](counts, state, message)
    return set(counts.keys())


def state_of(node: str = "a", terms: tuple[int, ...] = (1, 1, 2), term: int = 3, commit: int = 0) -> State:
    """A node that has just started, and whose promise of silence is over."""
    state = State(
        node_id=node,
        config=QUICK,
        boundary=Boundary(configuration=ABC),
        entries=entries(*terms),
        hard_state=HardState(term, None, commit),
        applied=0,
        jitter=lambda _: 0,
    )
    state.silent_until = 0
    return state


def test_an_old_terms_entry_is_withheld() -> None:
    """Figure 8: a leader that sees a quorum hold an earlier term's entry, and nothing of its own yet, is noted; one that has committed is not."""
    cluster = Cluster("abc", voters="abc")
    cluster.elect("a")
    cluster.cut("a", "b", "c")
    cluster.propose("a", b"x")
    cluster.pump("a")
    for node in "bc":
        cluster.crash(node)
        cluster.restart(node)
    cluster.heal()
    cluster.elect("a")
    state = cluster["a"].state
    accepted = AppendAccepted("b", "a", state.term, state.log.last_index)
    state.log.commit, state.term_start = 1, state.log.last_index + 1
    state.progress["b"].match = 1
    assert "old-term entry withheld" in noted(state, accepted)
    state.term_start = 1
    assert "old-term entry withheld" not in noted(state, accepted)


def test_a_late_vote_is_told_from_a_vote() -> None:
    """A vote of an earlier term is noted, one of the present term and a refusal are not."""
    state = state_of()
    state.adopt_term(4)
    state.role = Role.CANDIDATE
    assert noted(state, VoteResponse("b", "a", 3, granted=True)) == {"late vote ignored"}
    assert noted(state, VoteResponse("b", "a", 4, granted=True)) == set()
    assert noted(state, VoteResponse("b", "a", 3, granted=False)) == set()


def test_why_a_vote_is_refused() -> None:
    """Silence, a vote that is given and a log that is behind are told apart."""
    state = state_of()
    assert noted(state, VoteRequest("b", "a", 4, 2, 1)) == {"vote refused: log behind"}
    assert noted(state, VoteRequest("b", "a", 4, 3, 2)) == set()
    assert noted(state, VoteRequest("x", "a", 2, 3, 2)) == {"candidate of an earlier term refused"}
    state.vote = "c"
    assert noted(state, VoteRequest("b", "a", 3, 3, 2)) == {"vote refused: already given"}
    state.silent_until = 99
    assert noted(state, VoteRequest("b", "a", 4, 3, 2)) == {"candidate passed over: a leader was heard"}
    assert noted(state, VoteRequest("b", "a", 4, 3, 2, transfer=True)) == {"called successor asks in silence"}


def test_old_snapshots_and_appends() -> None:
    """A snapshot at or below the commit index, one that keeps the tail, and appends of earlier terms are told apart."""
    state = state_of(commit=2)
    assert noted(state, InstallSnapshot("b", "a", 3, Boundary(2, 1, ABC))) == {"snapshot discarded as old"}
    kept = Counter[str]()
    ARRIVING[InstallSnapshot](kept, state, InstallSnapshot("b", "a", 3, Boundary(3, 2, ABC)))
    assert kept["snapshot kept the tail of the log"] == 1
    assert noted(state, AppendRequest("b", "a", 2, 3, 2, (), 2)) == {"append of an earlier term refused"}
    assert noted(state, Heartbeat("b", "a", 3, 9, 1)) == ({"commit withheld: log not verified"})


def test_a_round_that_was_lost_is_made_up_for() -> None:
    """An answer to a later round than the one that reads wait for is noted when its sender had not answered that one."""
    cluster = Cluster("abc", voters="abc")
    cluster.elect("a")
    cluster.run(2 * QUICK.heartbeat_ticks)
    cluster.drop = lambda message: isinstance(message, Heartbeat)
    cluster.read("a")
    cluster.pump("a")
    state = cluster["a"].state
    waiting = state.reads.round
    assert noted(state, HeartbeatResponse("b", "a", state.term, waiting)) == set()
    assert noted(state, HeartbeatResponse("b", "a", state.term, waiting + 1)) == {"read round retried"}


def test_an_election_inside_a_joint_change() -> None:
    """The configuration that counts is the one the log held at the election, not one that was appended since."""
    state = state_of(terms=(1,), term=2)
    joint = Configuration(voters=ABC.voters, outgoing=ABC.voters)
    state.trail._trail.append((1, joint))
    state.role, state.term_start = Role.LEADER, 2
    counts = Counter[str]()
    markers.noted(counts, state, RoleChanged(Role.LEADER, 2, "elected"))
    assert counts["elected in a joint change"] == 1
    assert counts["elected with a change not committed"] == 1
    state.trail._trail.append((3, ABC))
    markers.noted(counts, state, RoleChanged(Role.LEADER, 2, "elected"))
    assert counts["elected in a joint change"] == 2


def test_truncated_configurations() -> None:
    """A tail that held a configuration is told from one that did not."""
    counts = Counter[str]()
    markers.truncated(counts, entries(1, 1))
    markers.truncated(counts, (Entry(1, 1, EntryKind.CONFIGURATION, b""),))
    assert (counts["logs truncated"], counts["configuration truncated"]) == (2, 1)


def test_looking_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A schedule takes the same steps whether or not anybody takes note."""
    watched = run_seed(3, digest=True)
    for kind in ARRIVING:
        monkeypatch.setitem(ARRIVING, kind, lambda _counts, _state, _message: None)
    blind = run_seed(3, digest=True)
    assert blind.digest == watched.digest
    assert not blind.counts["append with nothing new"]
    assert watched.counts["append with nothing new"]


def test_the_minimum_grows_with_the_run() -> None:
    """A hundred in a hundred thousand; in short runs the common ones once; nothing in very short ones."""
    common, rare = (next(marker for marker in MARKERS if marker.common is kind) for kind in (True, False))
    assert [markers.minimum(common, schedules) for schedules in (99, 100, 50_000, MINIMUM_OF, 10 * MINIMUM_OF)] == [0, 1, 50, MINIMUM, 10 * MINIMUM]
    assert [markers.minimum(rare, schedules) for schedules in (100, 999, 1_000, MINIMUM_OF)] == [0, 0, 1, MINIMUM]


def test_what_was_missed_is_named() -> None:
    """A marker below its minimum is named with both numbers."""
    counts = {marker.name: MINIMUM for marker in MARKERS} | {"read round retried": 99}
    assert markers.missed(counts, MINIMUM_OF) == [("read round retried", 99, MINIMUM)]


def test_names_are_unique() -> None:
    """Forty markers or more, each once; what counts as a fault is listed once too."""
    names = [marker.name for marker in MARKERS]
    assert len(set(names)) == len(names) >= 40
    assert len(set(markers.FAULTS)) == len(markers.FAULTS)
