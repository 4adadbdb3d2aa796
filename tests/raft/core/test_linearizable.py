"""Scenarios of linearizable reads (RD), of pre-vote and check-quorum (PV) and of transfers (TR) on the core."""

import pytest

from raft.core.membership import Demote, Remove
from raft.core.messages import (
    AppendAccepted,
    AppendRequest,
    Heartbeat,
    HeartbeatResponse,
    PreVoteRequest,
    PreVoteResponse,
    ReadIndexRequest,
    ReadIndexResponse,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from raft.core.model import HardState
from raft.core.ready import LeaderChanged, RoleChanged
from raft.core.roles import Role
from raft.errors import ChangeRefused, InvariantViolation, NotLeader, TransferInProgress, TransferRefused
from raft.testing.cluster import QUICK, Cluster, entries

T = QUICK.election_ticks
H = QUICK.heartbeat_ticks


def led(ids: str = "abc", learners: str = "") -> Cluster:
    """A cluster that the first server leads; its no-op is committed everywhere."""
    cluster = Cluster([*ids, *learners], voters=ids, learners=learners)
    cluster.elect(ids[0])
    cluster.run(2 * H)
    return cluster


def answers(cluster: Cluster, node: str) -> list[int]:
    """The read indexes that a node was given, in the order of asking; 0 is a refusal."""
    return [index for _, index in sorted(cluster.servers[node].reads.items())]


def test_rd_01_confirmed_read() -> None:
    """A read waits for a round that begins after it arrived; many reads share one round."""
    cluster = led()
    cluster.write("a", b"x")
    mark = len(cluster.sent)
    for _ in range(50):
        cluster.read("a")
    cluster.pump("a")
    assert answers(cluster, "a") == []
    cluster.settle()
    assert answers(cluster, "a") == [2] * 50
    assert len(cluster.sent_since(mark, Heartbeat)) == 2


def test_rd_01_an_earlier_round_confirms_nothing() -> None:
    """Answers to a heartbeat that was sent before the read arrived do not serve it."""
    cluster = led()
    cluster.tick("a", H)
    cluster.pump("a")  # heartbeats are under way
    cluster.read("a")
    earlier = cluster["a"].state.reads.round
    for node in "bc":
        cluster.hand_over(HeartbeatResponse(node, "a", 1, earlier))
    assert answers(cluster, "a") == []
    cluster.settle()
    assert answers(cluster, "a") == [1]


def test_rd_01_a_lost_round_is_made_up_for_by_a_heartbeat() -> None:
    """When the round's messages are lost the next regular heartbeat confirms the read."""
    cluster = led()
    cluster.drop = lambda message: isinstance(message, Heartbeat)
    cluster.read("a")
    cluster.settle()
    assert answers(cluster, "a") == []
    cluster.drop = lambda _message: False
    cluster.run(H)
    assert answers(cluster, "a") == [1]


def test_rd_02_first_commit_of_the_term() -> None:
    """A fresh leader answers no read before an entry of its own term is committed, though it hears everybody."""
    cluster = Cluster("abc", logs={node: (entries(1, 1), HardState(1, None, 2)) for node in "abc"})
    cluster.drop = lambda message: isinstance(message, AppendRequest)
    cluster.elect("a")
    assert cluster["a"].status().commit_index == 2
    cluster.read("a")
    cluster.run(2 * H)
    assert answers(cluster, "a") == []
    cluster.drop = lambda _message: False
    cluster.run(2 * H)
    assert answers(cluster, "a") == [3]


def test_rd_03_partitioned_old_leader() -> None:
    """A leader that is cut off never confirms a read after the other side committed something newer: it refuses it."""
    cluster = led()
    cluster.cut("a")
    cluster.elect("b", frozen="a")
    cluster.write("b", b"newer")
    cluster.read("a")
    cluster.settle()
    assert answers(cluster, "a") == []
    cluster.run(2 * T, "a")
    assert answers(cluster, "a") == [0]
    assert cluster["a"].role is not Role.LEADER


def test_rd_06_follower_read() -> None:
    """A follower asks the leader for the index; the index covers everything committed before."""
    cluster = led()
    cluster.write("a", b"x")
    cluster.read("b")
    cluster.settle()
    assert answers(cluster, "b") == [2]


@pytest.mark.parametrize("loss", ["later term", "another leader", "the leader goes"])
def test_rd_06_a_change_of_leader_fails_fast(loss: str) -> None:
    """A read that was sent to a leader which is one no longer is refused at once."""
    cluster = led()
    cluster.drop = lambda message: isinstance(message, ReadIndexRequest)
    cluster.read("b")
    cluster.settle()
    if loss == "later term":
        cluster.hand_over(VoteResponse("c", "b", 9, granted=False))
    elif loss == "another leader":
        cluster.hand_over(Heartbeat("c", "b", 9, 0, 1))
    else:
        cluster.tick("b", 2 * T)
    cluster.pump("b")
    assert answers(cluster, "b") == [0]


def test_rd_06_a_leader_that_steps_down_refuses_what_waits() -> None:
    """Reads of its own and of followers are refused when the leader loses its quorum."""
    cluster = led()
    cluster.drop = lambda message: message.to == "a"
    cluster["a"].step(ReadIndexRequest("b", "a", 1, 77))
    cluster.read("a")
    cluster.settle()
    cluster.run(2 * T, "a")
    assert answers(cluster, "a") == [0]
    assert ReadIndexResponse("a", "b", 1, 77, 0) in cluster.sent


def test_rd_06_who_does_not_lead_refuses() -> None:
    """A request for a read index that reaches a follower is refused; one of a later term makes it follow that term."""
    cluster = led()
    mark = len(cluster.sent)
    cluster.hand_over(ReadIndexRequest("c", "b", 1, 5))
    cluster.hand_over(ReadIndexRequest("c", "b", 4, 6))
    cluster.pump("b")
    assert cluster.sent_since(mark) == [ReadIndexResponse("b", "c", 1, 5, 0), ReadIndexResponse("b", "c", 4, 6, 0)]
    with pytest.raises(NotLeader):
        cluster.read("b")


def test_an_unasked_read_index_is_dropped() -> None:
    """An answer that nobody waits for, or a second one, is passed over."""
    cluster = led()
    context = cluster.read("b")
    cluster.settle()
    cluster.servers["b"].reads.clear()
    cluster.hand_over(ReadIndexResponse("a", "b", 1, context, 9))
    cluster.settle()
    assert answers(cluster, "b") == []


def test_rd_08_single_node_reads() -> None:
    """On a cluster of one a read after an acknowledged write sees it, also right after a restart."""
    cluster = Cluster("a")
    cluster.elect("a")
    cluster.write("a", b"x")
    cluster.read("a")
    cluster.settle()
    assert answers(cluster, "a") == [2]
    cluster.restart("a")
    cluster.servers["a"].reads.clear()
    with pytest.raises(NotLeader):
        cluster.read("a")
    cluster.elect("a")
    cluster.read("a")
    cluster.settle()
    assert answers(cluster, "a") == [3]


def test_reads_do_not_count_learners() -> None:
    """A round needs a majority of the voters; answers of learners are not among it."""
    cluster = led("abc", "de")
    cluster.cut("a", "b", "c")
    cluster.read("a")
    cluster.settle()
    assert answers(cluster, "a") == []
    cluster.heal()
    cluster.run(H)
    assert answers(cluster, "a") == [1]


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
    """It steps down within an election timeout, says why, and knows no leader any more."""
    cluster = led("abcde")
    for node in "cde":
        cluster.cut("a", node)
    cluster.run(T + H, "a", "b")
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


def test_tr_01_transfer_to_a_current_follower() -> None:
    """The target leads without any time passing, no committed entry is lost, and the old leader follows."""
    cluster = led()
    cluster.write("a", b"x")
    cluster["a"].transfer("b")
    cluster.settle()
    assert (cluster.leaders, cluster.terms) == (["b"], {2})
    cluster.run(H)
    assert cluster["a"].leader == "b"
    cluster.write("a", b"y")
    cluster.run(H)
    assert [cluster.commands(node) for node in "abc"] == [[b"x", b"y"]] * 3


def test_tr_02_slow_target() -> None:
    """The target is brought up to date first; proposals are refused meanwhile, those of followers as well."""
    cluster = led()
    cluster.cut("b")
    cluster.write("a", b"x")
    cluster["a"].transfer("b")
    cluster.settle()
    assert cluster.sent_since(0, TimeoutNow) == []
    before = cluster["a"].status()
    with pytest.raises(TransferInProgress, match="leadership is being transferred to b"):
        cluster.propose("a", b"y")
    assert cluster["a"].status() == before
    cluster.write("c", b"z")
    (refusal,) = cluster.servers["c"].answers
    assert refusal.retry
    cluster.heal()
    cluster.run(2 * H)
    assert cluster.leaders == ["b"]
    assert cluster.commands("b") == [b"x"]


def test_tr_02_timeout() -> None:
    """When the target does not finish within an election timeout the leader takes proposals again."""
    cluster = led()
    cluster.cut("b")
    cluster.write("a", b"x")
    cluster["a"].transfer("b")
    cluster.run(T - 1, "a", "c")
    assert cluster["a"].status().transfer_target == "b"
    cluster.run(1, "a", "c")
    assert cluster["a"].status().transfer_target is None
    cluster.write("a", b"y")
    assert cluster.commands("a") == [b"x", b"y"]


def test_tr_02_a_lost_timeout_now() -> None:
    """When the request to campaign is lost, the leader leads on after an election timeout."""
    cluster = led()
    cluster.drop = lambda message: isinstance(message, TimeoutNow)
    cluster["a"].transfer("b")
    cluster.run(T)
    cluster.write("a", b"x")
    assert (cluster.leaders, cluster.commands("a")) == (["a"], [b"x"])


@pytest.mark.parametrize(("target", "text"), [("a", "a leads already"), ("x", "x is no voter"), ("d", "d is no voter")])
def test_tr_03_bad_targets(target: str, text: str) -> None:
    """The leader itself, a stranger and a learner are refused, and nothing changes."""
    cluster = led("abc", "d")
    before = cluster["a"].status()
    with pytest.raises(TransferRefused, match=text):
        cluster["a"].transfer(target)
    assert cluster["a"].status() == before


def test_tr_03_who_does_not_lead_can_not_hand_over() -> None:
    """A follower refuses, and names the leader."""
    with pytest.raises(NotLeader, match="the leader is a"):
        led()["b"].transfer("c")


def test_tr_03_no_membership_change_meanwhile() -> None:
    """The target can't be removed or demoted during the transfer."""
    cluster = led()
    cluster.cut("b")
    cluster.write("a", b"x")
    cluster["a"].transfer("b")
    for change in (Remove("b"), Demote("b")):
        with pytest.raises(ChangeRefused, match="leadership is being transferred to b"):
            cluster.change("a", change)


def test_tr_03_a_removed_member_is_no_target() -> None:
    """Once removed or demoted, even before that is committed, a server can't be handed leadership."""
    cluster = led()
    for node in "bc":
        cluster.hold_disk(node)
    cluster.change("a", Demote("b"))
    with pytest.raises(TransferRefused, match="b is no voter"):
        cluster["a"].transfer("b")


def test_tr_03_a_second_transfer_replaces_the_first() -> None:
    """The last named target leads."""
    cluster = led()
    cluster.cut("b")
    cluster.write("a", b"x")
    cluster["a"].transfer("b")
    cluster["a"].transfer("c")
    cluster.settle()
    assert cluster.leaders == ["c"]


def test_a_transfer_replaces_even_a_fresh_vote_of_silence() -> None:
    """A node that waits in a candidacy of its own campaigns anew when the leader of its term hands over to it."""
    cluster = led()
    cluster.cut("b")
    cluster.tick("b", 2 * T)
    cluster.heal()
    assert cluster["b"].role is Role.PRE_CANDIDATE
    cluster.hand_over(TimeoutNow("a", "b", 1))
    assert (cluster["b"].role, cluster["b"].term) == (Role.CANDIDATE, 2)


def test_tr_05_transfers_under_continuous_writes() -> None:
    """Three transfers amid thousands of queued writes: what was acknowledged is there once, on every node."""
    cluster = led()
    acknowledged: list[bytes] = []
    for target in "bca":
        leader = cluster.leaders[0]
        for number in range(2_000):
            command = b"%s%d" % (target.encode(), number)
            cluster.propose(leader, command)
        cluster.pump(leader)
        cluster[leader].transfer(target)
        cluster.settle()
        assert cluster.leaders == [target]
        cluster.run(H)
        acknowledged += [b"%s%d" % (target.encode(), number) for number in range(2_000)]
    assert [cluster.commands(node) for node in "abc"] == [acknowledged] * 3


def test_an_answer_in_the_term_of_a_transfer_counts() -> None:
    """The new leader learns what its followers hold from the answers to its first append."""
    cluster = led()
    cluster["a"].transfer("b")
    cluster.settle()
    mark = len(cluster.sent)
    cluster.run(H)
    assert cluster.sent_since(mark, AppendAccepted) == []
    assert {peer.match_index for peer in cluster["b"].status().peers} == {2}
