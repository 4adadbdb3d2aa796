"""The façade: what a Ready holds, what the status shows, and what the invariants catch."""

from collections.abc import Callable

import pytest

from raft.core.messages import AppendRequest, Heartbeat, ReadIndexRequest
from raft.core.model import ENTRY_OVERHEAD_BYTES, HardState
from raft.core.node import RaftNode
from raft.core.roles import Role
from raft.errors import InvariantViolation
from raft.testing.cluster import QUICK, Cluster, entries

T = QUICK.election_ticks


def led() -> Cluster:
    """Three nodes; ``a`` leads, and its no-op is committed everywhere."""
    cluster = Cluster("abc")
    cluster.elect("a")
    cluster.run(T)
    return cluster


def test_a_node_tells_who_it_is() -> None:
    """Identity, role, term and leader can be asked for at any moment."""
    node = led()["b"]
    assert (node.node_id, node.role, node.term, node.leader) == ("b", Role.FOLLOWER, 1, "a")


def test_an_idle_node_has_no_ready_and_each_has_the_next_number() -> None:
    """When nothing has happened there is nothing to take, however often one asks, and no number is spent on it."""
    node = led()["b"]
    assert node.ready() is None
    numbers = []
    for round_ in (5, 6):
        node.step(Heartbeat("a", "b", 1, 1, round_))
        ready = node.ready()
        assert ready is not None
        assert not ready.must_persist
        numbers.append(ready.number)
        assert node.ready() is None
    assert numbers[1] == numbers[0] + 1


def test_a_commit_alone_is_not_written() -> None:
    """A change of the commit index is written along with other things, never by itself."""
    cluster = led()
    cluster.hold_disk("b")
    cluster.servers["b"].unwritten.clear()
    cluster.hand_over(AppendRequest("a", "b", 1, 1, 1, entries(1, first=2), 1))
    cluster.pump("b")
    cluster.hand_over(Heartbeat("a", "b", 1, 2, 5))
    cluster.pump("b")
    first, second = cluster.servers["b"].unwritten
    assert first.must_persist
    assert (second.hard_state, second.entries, second.must_persist) == (None, (), False)
    assert cluster["b"].state.hard_state == HardState(1, "a", 2)


def test_what_waits_for_the_disk_is_apart_from_what_does_not() -> None:
    """The answer to an append waits for the disk, the answer to a heartbeat does not."""
    cluster = led()
    node = cluster["b"]
    node.step(AppendRequest("a", "b", 1, 1, 1, entries(1, first=2), 1))
    node.step(Heartbeat("a", "b", 1, 1, 5))
    ready = node.ready()
    assert ready is not None
    assert [type(message).__name__ for message in ready.messages] == ["HeartbeatResponse"]
    assert [type(message).__name__ for message in ready.messages_after_persist] == ["AppendAccepted"]


def test_the_status_describes_the_followers() -> None:
    """A leader's status shows how far each follower is and how long it was silent."""
    cluster = led()
    cluster.cut("c")
    before = cluster["a"].status().log_bytes
    cluster.write("a", b"abc")
    cluster.run(3, "a", "b")
    status = cluster["a"].status()
    (b, c) = status.peers
    assert (b.match_index, b.next_index, b.state, b.inflight) == (2, 3, "replicate", 0)
    assert (c.match_index, c.inflight, c.inflight_bytes) == (1, 1, 3 + ENTRY_OVERHEAD_BYTES)
    assert c.contact_ticks >= 3 > b.contact_ticks
    assert (status.uncommitted_bytes, status.log_bytes - before, status.transfer_target) == (0, 3 + ENTRY_OVERHEAD_BYTES, None)


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda node: setattr(node.state.log, "applying", 9), "applied beyond what is committed and durable"),
        (lambda node: setattr(node.state.log, "handed", 9), "durable, handed or commit beyond the end"),
        (lambda node: setattr(node.state, "term", 0), "the log ends in a later term"),
        (lambda node: setattr(node.state, "leader", "b"), "leads without being the leader it knows"),
        (lambda node: setattr(node.state, "term", 5), "a leader whose log does not end in its term"),
        (lambda node: setattr(node.state.progress["b"], "match", 7), "progress of b: match 7, next 2"),
        (lambda node: setattr(node.state.progress["b"], "next", 7), "progress of b: next 7 beyond the log"),
        (lambda node: node.state.progress["b"]._inflight.extend([(1, 0)] * 65), "progress of b: 65 in flight"),
    ],
)
def test_a_broken_invariant_is_named(damage: Callable[[RaftNode], None], text: str) -> None:
    """Each invariant notices what it is for, and says which node and where it stands."""
    node = led()["a"]
    node.check_invariants()
    damage(node)
    with pytest.raises(InvariantViolation, match=text) as caught:
        node.check_invariants()
    assert str(caught.value).startswith("a (leader, term ")


def test_an_outdated_read_request_raises_the_term() -> None:
    """A request of a later term makes a leader follow; whoever asked is refused, in the later term."""
    cluster = led()
    cluster.hand_over(ReadIndexRequest("b", "a", 5, 3))
    assert (cluster["a"].role, cluster["a"].term) == (Role.FOLLOWER, 5)


def test_a_commit_at_start_is_a_hint() -> None:
    """A node that starts with a commit index applies up to it without hearing anybody."""
    cluster = Cluster("abc", logs={"a": (entries(1, 1, 1), HardState(1, "b", 2))})
    cluster.settle()
    assert cluster.commands("a") == [b"1/1", b"2/1"]
    assert cluster["a"].status().vote == "b"
