"""What a leader's lease rests on in the core: silent voters, and rounds that a quorum has answered (dissertation, section 6.4.1)."""

import pytest

from raft.config import RaftConfig
from raft.core.membership import AddVoter, Demote, JointChange, Remove
from raft.core.messages import (
    AppendRequest,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    Message,
    PreVoteRequest,
    PreVoteResponse,
    ReadIndexRequest,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from raft.core.model import Boundary
from raft.core.roles import Role
from raft.testing.cluster import QUICK, Cluster, configuration, member

T = QUICK.election_ticks
H = QUICK.heartbeat_ticks


def led(ids: str = "abc", learners: str = "") -> Cluster:
    """A cluster that the first server leads; its no-op is committed everywhere."""
    cluster = Cluster([*ids, *learners], voters=ids, learners=learners)
    cluster.elect(ids[0])
    cluster.run(2 * H)
    return cluster


def answers(cluster: Cluster, *requests: Message) -> list[bool]:
    """Whether each request for a vote or a pre-vote is granted; one that is dropped is not."""
    granted = []
    for request in requests:
        mark = len(cluster.sent)
        cluster.hand_over(request)
        cluster.pump(request.to)
        granted.append(any(isinstance(answer, VoteResponse | PreVoteResponse) and answer.granted for answer in cluster.sent_since(mark)))
    return granted


# -- silence ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_", [VoteRequest("a", "b", 1, 0, 0), PreVoteRequest("a", "b", 1, 0, 0)], ids=["vote", "pre-vote"])
def test_who_has_just_started_votes_for_nobody(request_: Message) -> None:
    """For an election timeout after a start no vote is granted: an earlier life may have promised a leader silence."""
    cluster = Cluster("abc")
    cluster.silent_after_start = True
    cluster.restart("b")
    for _ in range(T):
        assert answers(cluster, request_) == [False]
        assert cluster["b"].term == 0
        cluster.tick("b")
    assert answers(cluster, request_) == [True]


def test_who_has_just_started_campaigns_no_earlier() -> None:
    """A vote for oneself is a vote too: the first campaign comes when the silence is over."""
    cluster = Cluster("a")
    cluster.silent_after_start = True
    cluster.restart("a")
    cluster.tick("a", T - 1)
    assert cluster["a"].role is Role.FOLLOWER
    cluster.tick("a")
    assert cluster["a"].role is not Role.FOLLOWER


def test_a_transfer_breaks_the_silence() -> None:
    """A candidate whom the leader called is voted for at once, by whoever heard that leader or has just started: the lease is given up."""
    cluster = Cluster("abc")
    cluster.silent_after_start = True
    cluster.restart("b")
    cluster.hand_over(Heartbeat("a", "c", 1, 0, 1))
    assert answers(cluster, VoteRequest("a", "b", 1, 0, 0, transfer=True), VoteRequest("b", "c", 2, 0, 0, transfer=True)) == [True, True]


@pytest.mark.parametrize(
    "heard",
    [
        Heartbeat("a", "b", 3, 0, 1),
        AppendRequest("a", "b", 3, 0, 0, (), 0),
        InstallSnapshot("a", "b", 3, Boundary(5, 2, configuration("abc"))),
    ],
    ids=["heartbeat", "append", "snapshot"],
)
@pytest.mark.parametrize(
    "news",
    [ReadIndexRequest("c", "b", 4, 9), HeartbeatResponse("c", "b", 4, 0), None],
    ids=["a later term by a read", "a later term by a stray answer", "nothing else"],
)
def test_a_promise_outlives_the_term(heard: Message, news: Message | None) -> None:
    """Whoever heard a leader votes for nobody for an election timeout, even after it has learned of a later term in which nobody leads yet."""
    cluster = Cluster("abc")
    cluster.snapshots[5, 2] = []
    cluster.hand_over(heard)
    cluster.settle()
    if news is not None:
        cluster.hand_over(news)
        cluster.settle()
    term = cluster["b"].term
    requests = [VoteRequest("c", "b", 4, 9, 3), VoteRequest("c", "b", 5, 9, 3), PreVoteRequest("c", "b", 6, 9, 3)]
    assert answers(cluster, *requests) == [False, False, False]
    cluster.tick("b", T - 1)
    assert answers(cluster, *requests) == [False, False, False]
    assert cluster["b"].term == term
    cluster["b"].state.election_deadline = 2 * T  # it does not campaign itself
    cluster.tick("b")
    assert answers(cluster, *requests) == [True, True, True]


def test_silence_does_not_take_a_vote_back() -> None:
    """A candidate that asks again for the vote it has got before gets the same answer, even from a voter that has just started."""
    cluster = Cluster("abc")
    assert answers(cluster, VoteRequest("a", "b", 1, 0, 0)) == [True]
    cluster.silent_after_start = True
    cluster.restart("b")
    assert answers(cluster, VoteRequest("a", "b", 1, 0, 0)) == [True]


def test_a_leader_votes_for_nobody_it_has_not_called() -> None:
    """A leader does not follow a candidate of a later term, however long ago it heard another leader."""
    cluster = led()
    cluster.run(3 * T)
    assert answers(cluster, VoteRequest("b", "a", 9, 9, 9), PreVoteRequest("b", "a", 9, 9, 9)) == [False, False]
    assert cluster["a"].role is Role.LEADER


def test_lost_time_is_like_a_start() -> None:
    """A node whose clock has jumped votes for nobody, itself included, for an election timeout from then on."""
    cluster = Cluster("abc")
    cluster.tick("b", T - 1)
    cluster["b"].lose_time()
    cluster.tick("b", T - 1)
    assert answers(cluster, VoteRequest("a", "b", 1, 0, 0)) == [False]
    assert cluster["b"].role is Role.FOLLOWER
    cluster["b"].state.election_deadline = 2 * T
    cluster.tick("b")
    assert answers(cluster, VoteRequest("a", "b", 1, 0, 0)) == [True]


# -- rounds -------------------------------------------------------------------------------------------------------------------------------


def test_a_round_that_a_quorum_answered_carries_a_lease() -> None:
    """The leader learns which of its rounds a quorum has answered; a follower has none."""
    cluster = led()
    before = cluster["a"].round_for_lease
    cluster.tick("a", H)
    cluster.pump("a")
    begun = cluster["a"].round_begun
    assert before == cluster["a"].round_for_lease == begun - 1
    cluster.hand_over(HeartbeatResponse("c", "a", 1, begun))
    assert cluster["a"].round_for_lease == begun
    assert (cluster["b"].round_for_lease, cluster["b"].round_begun) == (0, 0)


def test_answers_that_were_overtaken_take_nothing_back() -> None:
    """An answer to an earlier round that comes late changes nothing."""
    cluster = led()
    confirmed = cluster["a"].round_for_lease
    cluster.hand_over(HeartbeatResponse("b", "a", 1, confirmed - 1))
    cluster.hand_over(HeartbeatResponse("c", "a", 1, 99))  # a number that the leader has never used
    assert cluster["a"].round_for_lease == confirmed


def test_a_single_voter_confirms_its_own_rounds() -> None:
    """A cluster of one needs nobody's answer."""
    cluster = led("a")
    assert cluster["a"].round_for_lease == cluster["a"].round_begun > 0


def test_no_lease_before_the_first_commit_of_the_term() -> None:
    """However many rounds are answered: while no entry of its term is committed, the leader may not know what the one before acknowledged."""
    cluster = Cluster("abc")
    for node in "abc":
        cluster.hold_disk(node)
    cluster.drop = lambda message: isinstance(message, AppendRequest)
    cluster.tick("a", T)
    for node in "bac" * 3:
        cluster.pump(node)
        cluster.release_disk(node)
        while cluster.wire:
            cluster.deliver()
    cluster.run(2 * H, "a")
    assert cluster["a"].role is Role.LEADER
    assert cluster["a"].state.reads.confirmed > 0
    assert cluster["a"].round_for_lease == 0
    cluster.drop = lambda _message: False
    cluster.run(2 * H)
    assert cluster["a"].round_for_lease > 0


def test_a_joint_configuration_needs_both_halves() -> None:
    """Inside a joint change a round counts when a majority of the old voters and one of the new have answered it."""
    cluster = led("abc", learners="de")
    cluster.run(3 * T)
    steps = (AddVoter(member("d")), AddVoter(member("e")), Demote("b"), Demote("c"))
    cluster.change("a", JointChange(steps, leaves_by_itself=False))
    assert cluster["a"].state.configuration.is_joint
    cluster.drop = lambda message: isinstance(message, HeartbeatResponse)
    settled = cluster["a"].round_for_lease
    cluster.run(H)
    begun = cluster["a"].round_begun
    for node in "bc":
        cluster.hand_over(HeartbeatResponse(node, "a", 1, begun))
    assert cluster["a"].round_for_lease == settled < begun
    cluster.hand_over(HeartbeatResponse("d", "a", 1, begun))
    assert cluster["a"].round_for_lease == begun


def test_a_leader_that_is_leaving_does_not_count_itself() -> None:
    """From the moment its own removal is in force a leader needs a quorum of the others; once that is committed it has no lease."""
    cluster = led()
    cluster.drop = lambda message: isinstance(message, HeartbeatResponse | AppendRequest)
    cluster.change("a", Remove("a"))
    settled = cluster["a"].round_for_lease
    cluster.run(H, "a")
    begun = cluster["a"].round_begun
    cluster.hand_over(HeartbeatResponse("b", "a", 1, begun))
    assert cluster["a"].round_for_lease == settled < begun
    cluster.hand_over(HeartbeatResponse("c", "a", 1, begun))
    assert cluster["a"].round_for_lease == begun
    cluster.drop = lambda _message: False
    cluster.run(2 * H)
    assert cluster["a"].round_for_lease == 0


def test_a_member_that_was_removed_counts_no_more() -> None:
    """The answers of a server that is no voter any more, or not yet one, confirm nothing."""
    cluster = led("abcd", learners="e")
    cluster.change("a", Remove("d"))
    cluster.drop = lambda message: isinstance(message, HeartbeatResponse)
    settled = cluster["a"].round_for_lease
    cluster.run(H)
    begun = cluster["a"].round_begun
    for node in "de":
        cluster.hand_over(HeartbeatResponse(node, "a", 1, begun))
    assert cluster["a"].round_for_lease == settled < begun
    cluster.hand_over(HeartbeatResponse("b", "a", 1, begun))
    assert cluster["a"].round_for_lease == begun


def test_a_called_successor_ends_the_lease_for_the_rest_of_the_term() -> None:
    """There is no lease before the request to campaign leaves, nor after the transfer is given up: the request may still arrive."""
    cluster = led()
    cluster["a"].transfer("b")
    assert cluster["a"].round_for_lease == 0
    assert not cluster.sent_since(0, TimeoutNow)
    cluster.drop = lambda message: isinstance(message, TimeoutNow)
    cluster.run(3 * T)
    assert cluster["a"].status().transfer_target is None
    assert (cluster.leaders, cluster["a"].round_for_lease) == (["a"], 0)
    cluster.drop = lambda _message: False
    cluster["a"].transfer("b")
    cluster.settle()
    cluster["b"].transfer("a")
    cluster.run(2 * H)
    assert cluster.leaders == ["a"]
    assert cluster["a"].round_for_lease > 0


def test_a_transfer_that_calls_nobody_keeps_the_lease() -> None:
    """While the target catches up, and when it never does, nothing has left that could cost the leader its place."""
    cluster = led()
    cluster.cut("b")
    cluster.write("a", b"x")
    cluster["a"].transfer("b")
    cluster.run(T + H, "a", "c")
    assert cluster["a"].status().transfer_target is None
    assert cluster["a"].round_for_lease == cluster["a"].round_begun


def test_who_steps_down_has_no_lease() -> None:
    """A leader that learns of a later term, whoever tells it, is without a lease at once."""
    cluster = led()
    assert cluster["a"].round_for_lease > 0
    cluster.hand_over(ReadIndexRequest("c", "a", 7, 1))
    assert (cluster["a"].role, cluster["a"].round_for_lease) == (Role.FOLLOWER, 0)


# -- the length ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tick_ms", "election_timeout_ms", "drift_percent", "lease_ns"),
    [
        (20, 500, 10, 414_000_000),
        (20, 500, 1, 455_400_000),
        (100, 400, 50, 100_000_000),
        (20, 500, 100, 0),
        (10, 40, 10, 18_000_000),
        (10, 30, 10, 9_000_000),
    ],
)
def test_the_lease_is_shorter_than_the_silence(tick_ms: int, election_timeout_ms: int, drift_percent: int, lease_ns: int) -> None:
    """The lease is the election timeout less two ticks, less the drift; a drift of 100 percent switches it off."""
    config = RaftConfig(tick_ms=tick_ms, heartbeat_ms=tick_ms, election_timeout_ms=election_timeout_ms, lease_drift_percent=drift_percent)
    assert config.lease_ns == lease_ns
