"""Scenario MS-13 on the core: who comes back with an empty disk is another server."""

import pytest

from raft.core.membership import AddLearner
from raft.core.messages import AppendAccepted, AppendRequest, Heartbeat, HeartbeatResponse, PreVoteResponse, VoteRequest, VoteResponse
from raft.core.roles import Role
from raft.errors import WrongRecipient
from raft.testing.cluster import QUICK, Cluster, entries, member

T = QUICK.election_ticks
H = QUICK.heartbeat_ticks


def wiped() -> Cluster:
    """``a`` leads; ``c`` acknowledged two commands, then its disk was lost. What comes back in its place is ``c2``."""
    cluster = Cluster("abc")
    cluster.elect("a")
    cluster.write("a", b"x")
    cluster.write("a", b"y")
    cluster.run(2 * H)
    cluster.crash("c")
    cluster.add_server("c2")
    return cluster


@pytest.mark.parametrize(
    "message",
    [AppendRequest("a", "c", 1, 3, 1, entries(1, first=4), 3), Heartbeat("a", "c", 1, 3, 9), VoteRequest("b", "c", 2, 3, 1)],
    ids=lambda message: type(message).__name__,
)
def test_ms_13_messages_for_the_old_self_are_refused(message: AppendRequest | Heartbeat | VoteRequest) -> None:
    """What is meant for the server that had the disk is refused by name, and changes nothing."""
    cluster = wiped()
    before = cluster["c2"].status()
    with pytest.raises(WrongRecipient, match="a message for c; this is c2"):
        cluster["c2"].step(message)
    assert cluster["c2"].status() == before


def test_ms_13_it_is_not_counted_for_what_it_once_had() -> None:
    """Neither its acknowledgement nor its contact stands for the server that it was: without ``b`` nothing commits, and the leader steps down."""
    cluster = wiped()
    cluster.crash("b")
    cluster.write("a", b"z")
    status = cluster["a"].status()
    cluster.hand_over(AppendAccepted("c2", "a", 1, status.last_index))
    cluster.hand_over(HeartbeatResponse("c2", "a", 1, 99))
    cluster.read("a")
    cluster.settle()
    assert cluster["a"].status().commit_index == status.commit_index == 3 < status.last_index
    assert cluster.servers["a"].reads == {}
    for _ in range(2 * T):
        cluster.hand_over(HeartbeatResponse("c2", "a", 1, 99))
        cluster.run(1, "a")
    assert cluster["a"].role is not Role.LEADER


def test_ms_13_it_elects_nobody_and_does_not_campaign() -> None:
    """Its votes and pre-votes count for nothing, and by its empty log it is no voter: it waits."""
    cluster = wiped()
    cluster.crash("a")
    cluster.run(3 * T, "b")
    assert cluster["b"].role is Role.PRE_CANDIDATE
    term = cluster["b"].term
    cluster.hand_over(PreVoteResponse("c2", "b", term + 1, granted=True))
    assert cluster["b"].role is Role.PRE_CANDIDATE
    cluster.drop = lambda message: isinstance(message, VoteRequest)
    cluster.hand_over(PreVoteResponse("a", "b", term + 1, granted=True))
    cluster.settle()
    assert cluster["b"].role is Role.CANDIDATE
    cluster.hand_over(VoteResponse("c2", "b", term + 1, granted=True))
    assert cluster["b"].role is Role.CANDIDATE
    cluster.run(100 * T, "c2")
    assert (cluster["c2"].role, cluster["c2"].term) == (Role.FOLLOWER, 0)


def test_ms_13_it_takes_the_place_of_its_old_self() -> None:
    """As a new member it catches up from nothing, then takes the vote of the server that it was, which leaves."""
    cluster = wiped()
    cluster.change("a", AddLearner(member("c2"), promote=True, replaces="c"))
    cluster.run(2 * T)
    assert set(cluster["a"].status().configuration.voter_ids) == {"a", "b", "c2"}
    assert "c" not in cluster["a"].status().configuration
    assert cluster.commands("c2") == [b"x", b"y"]
    cluster.crash("b")
    cluster.write("a", b"z")
    cluster.run(2 * H)
    assert cluster.commands("c2") == [b"x", b"y", b"z"]
