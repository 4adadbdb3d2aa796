"""Scenarios of pre-vote and check-quorum (PV) on the core."""

import pytest

from raft.core.messages import Heartbeat, PreVoteRequest, PreVoteResponse, VoteRequest, VoteResponse
from raft.core.model import HardState
from raft.core.ready import LeaderChanged, RoleChanged
from raft.core.roles import Role
from raft.errors import InvariantViolation, NotLeader
from raft.testing.cluster import QUICK, Cluster

T = QUICK.election_ticks
H = QUICK.heartbeat_ticks


def led(ids: str = "abc") -> Cluster:
    """A cluster that the first server leads; its no-op is committed everywhere."""
    cluster = Cluster(ids)
    cluster.elect(ids[0])
    cluster.run(2 * H)
    return cluster


def test_pv_01_return_of_an_isolated_node() -> None:
    """After 100 election timeouts alone its term has not grown, and its return changes neither leader nor term."""
    cluster = led()
    cluster.cut("c")
    cluster.run(100 * T)
    assert cluster["c"].term == 1
    assert cluster["c"].role is Role.PRE_CANDIDATE
    cluster.heal()
    cluster.run(3 * T)
    assert (cluster.leaders, cluster.terms) == (["a"], {1})
    assert cluster["c"].leader == "a"


def test_pv_02_pre_vote_leaves_no_trace() -> None:
    """Neither asking nor answering writes anything."""
    cluster = Cluster("abc")
    cluster.drop = lambda message: isinstance(message, PreVoteResponse)
    for node in "abc":
        cluster.hold_disk(node)
    cluster.run(2 * T, "a")
    assert cluster["a"].role is Role.PRE_CANDIDATE
    assert len(cluster.sent_since(0, PreVoteResponse)) == 4
    for server in cluster.servers.values():
        assert all(ready.hard_state is None for ready in server.unwritten)
        assert (server.running.term, server.running.status().vote) == (0, None)


@pytest.mark.parametrize("role", [Role.FOLLOWER, Role.PRE_CANDIDATE, Role.CANDIDATE, Role.LEADER])
def test_pv_02_answering_changes_nothing_in_any_role(role: Role) -> None:
    """Whatever a node is, being asked for a pre-vote leaves its role, term, vote and timer as they were, whether it grants it or not."""
    cluster = Cluster("abc")
    if role is Role.LEADER:
        cluster.elect("a")
    elif role is not Role.FOLLOWER:
        cluster.drop = lambda message: isinstance(message, VoteRequest if role is Role.CANDIDATE else PreVoteRequest)
        cluster.run(T, "a")
    cluster.tick("a")
    assert cluster["a"].role is role
    state = cluster["a"].state
    before = (cluster["a"].status(), state.election_elapsed, state.election_deadline, state.saved)
    mark = len(cluster.sent)
    for term in (state.term, state.term + 1, state.term + 9):
        cluster.hand_over(PreVoteRequest("b", "a", term, 9, term))
    assert (cluster["a"].status(), state.election_elapsed, state.election_deadline, state.saved) == before
    cluster.pump("a")
    granted = [sent.granted for sent in cluster.sent_since(mark, PreVoteResponse) if isinstance(sent, PreVoteResponse)]
    assert granted == [False, role is not Role.LEADER, role is not Role.LEADER]


def test_pv_02_late_pre_votes_are_no_votes() -> None:
    """Grants that arrive after the real election began, and pre-vote refusals of the old term, do not count."""
    cluster = Cluster("abcde")
    cluster.drop = lambda message: isinstance(message, VoteRequest)
    cluster.run(T, "a")
    assert cluster["a"].role is Role.CANDIDATE
    for node in "bcde":
        cluster.hand_over(PreVoteResponse(node, "a", 1, granted=True))
        cluster.hand_over(PreVoteResponse(node, "a", 1, granted=False))
    assert (cluster["a"].role, cluster["a"].term) == (Role.CANDIDATE, 1)


def test_pv_02_a_grant_for_another_term_is_dropped() -> None:
    """A pre-candidate counts grants for the next term only."""
    cluster = Cluster("abc")
    cluster.drop = lambda message: isinstance(message, PreVoteRequest)
    cluster.run(T, "a")
    cluster.hand_over(PreVoteResponse("b", "a", 5, granted=True))
    assert (cluster["a"].role, cluster["a"].term) == (Role.PRE_CANDIDATE, 0)
    cluster.hand_over(PreVoteResponse("b", "a", 1, granted=True))
    assert cluster["a"].role is Role.CANDIDATE


def test_pv_03_voters_with_a_live_leader_refuse() -> None:
    """Who heard the leader lately refuses pre-votes, ignores votes and their terms, save those of a transfer."""
    cluster = led()
    mark = len(cluster.sent)
    cluster.hand_over(PreVoteRequest("c", "b", 2, 9, 9))
    cluster.hand_over(VoteRequest("c", "b", 5, 9, 9))
    cluster.pump("b")
    assert cluster.sent_since(mark) == [PreVoteResponse("b", "c", 1, granted=False)]
    assert (cluster["b"].term, cluster["b"].leader) == (1, "a")
    cluster.hand_over(VoteRequest("c", "b", 5, 9, 9, transfer=True))
    cluster.pump("b")
    assert cluster.sent_since(mark, VoteResponse) == [VoteResponse("b", "c", 5, granted=True)]


def test_pv_03_silence_ends_the_refusal() -> None:
    """After a base election timeout without the leader a voter grants again."""
    cluster = led()
    cluster.hand_over(Heartbeat("a", "b", 1, 0, 0))
    cluster.tick("b", T - 1)
    cluster.hand_over(PreVoteRequest("c", "b", 2, 9, 9))
    cluster.servers["b"].running.state.election_deadline = 2 * T
    cluster.tick("b", 1)
    cluster.hand_over(PreVoteRequest("c", "b", 2, 9, 9))
    cluster.pump("b")
    assert [sent.granted for sent in cluster.sent_since(0, PreVoteResponse)[-2:] if isinstance(sent, PreVoteResponse)] == [False, True]


def test_pv_04_leader_without_quorum_contact() -> None:
    """It steps down within an election timeout, says why, refuses reads, confirms no write, and knows no leader any more."""
    cluster = led("abcde")
    for node in "cde":
        cluster.cut("a", node)
    cluster.propose("a", b"pending")
    read = cluster.read("a")
    cluster.run(T + H, "a", "b")
    assert cluster.servers["a"].reads == {read: 0}
    assert cluster.commands("a") == cluster.commands("b") == []
    assert (cluster["a"].role, cluster["a"].leader, cluster["a"].term) == (Role.FOLLOWER, None, 1)
    seen = cluster.servers["a"].observations
    assert RoleChanged(Role.FOLLOWER, 1, "no contact with a quorum for an election timeout") in seen
    assert LeaderChanged(None, 1) in seen
    with pytest.raises(NotLeader):
        cluster.propose("a", b"x")


def test_pv_04_a_minority_away_is_no_reason() -> None:
    """With a majority heard of, a leader leads on."""
    cluster = led("abcde")
    for node in "de":
        cluster.cut("a", node)
    cluster.run(5 * T, "a", "b", "c")
    assert cluster.leaders == ["a"]


def test_pv_04_a_leader_that_is_heard_but_hears_nobody() -> None:
    """A leader whose heartbeats arrive and whose answers do not gives up, and somebody else leads: nobody waits for it for ever."""
    cluster = led()
    for node in "bc":
        cluster.cut(node, "a", one_way=True)
    cluster.run(6 * T)
    assert cluster.leaders in (["b"], ["c"])


def test_a_follower_that_hears_nobody_disturbs_nobody() -> None:
    """A follower that is heard and hears nothing asks around for ever, and neither leader nor term change."""
    cluster = led()
    cluster.cut("a", "c", one_way=True)
    cluster.cut("b", "c", one_way=True)
    cluster.run(50 * T)
    assert cluster["c"].role is Role.PRE_CANDIDATE
    assert (cluster.leaders, cluster.terms) == (["a"], {1})


def test_pv_07_stuck_higher_term_candidate() -> None:
    """A node whose term is ahead is taken in again: the cluster moves to its term, without the node having to win."""
    cluster = led()
    cluster.write("a", b"x")
    cluster.crash("c")
    cluster.servers["c"].log._hard_state = HardState(8, None, 0)
    cluster.servers["c"].log._entries.clear()
    cluster.restart("c")
    cluster.run(8 * T)
    assert len(cluster.leaders) == 1
    assert len(cluster.terms) == 1
    assert cluster.terms.pop() >= 8
    assert cluster.commands("c") == [b"x"]


def test_pv_09_quorum_of_doubters() -> None:
    """When each of a majority lost the leader they elect a new one, although the old one still runs and reaches somebody."""
    cluster = led("abcde")
    for node in "cde":
        cluster.cut("a", node)
    cluster.elect("c", frozen="a")
    assert set(cluster.leaders) == {"a", "c"}
    assert cluster["c"].term > cluster["a"].term
    cluster.write("a", b"lost")
    cluster.heal()
    cluster.run(2 * T)
    assert cluster.leaders == ["c"]


def test_two_leaders_of_one_term_are_loud() -> None:
    """A leader that hears of another in its own term stops: that can't be."""
    cluster = led()
    with pytest.raises(InvariantViolation, match="b leads in term 1, and so does this node"):
        cluster["a"].step(Heartbeat("b", "a", 1, 0, 0))
