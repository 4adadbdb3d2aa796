"""Scenarios of elections (EL) on the core."""

from collections import deque
from random import Random
from typing import Any

import pytest

from raft.core.log import RaftLog
from raft.core.membership import ConfigurationTrail
from raft.core.messages import (
    AppendAccepted,
    AppendRejected,
    AppendRequest,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    Message,
    PreVoteRequest,
    PreVoteResponse,
    ProposeResponse,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from raft.core.model import Boundary, Configuration, HardState
from raft.core.node import RaftNode
from raft.core.progress import Progress
from raft.core.reads import ReadQueue
from raft.core.roles import Role
from raft.core.state import State
from raft.errors import MalformedMessage, WrongRecipient
from raft.testing.cluster import QUICK, Cluster, configuration, entries

T = QUICK.election_ticks

STALE: tuple[Message, ...] = (
    PreVoteRequest("b", "a", 2, 9, 9),
    PreVoteResponse("b", "a", 2, granted=False),
    VoteRequest("b", "a", 2, 9, 9, transfer=True),
    VoteResponse("b", "a", 2, granted=True),
    AppendRequest("b", "a", 2, 0, 0, entries(2), 1),
    AppendAccepted("b", "a", 2, 9),
    AppendRejected("b", "a", 2, 1, 0, 0),
    Heartbeat("b", "a", 2, 1, 1),
    HeartbeatResponse("b", "a", 2, 9),
    InstallSnapshot("b", "a", 2, Boundary(9, 2, configuration("abc"))),
    TimeoutNow("b", "a", 2),
)


def in_role(role: Role) -> Cluster:
    """Three nodes of which ``a`` has the role, in term 3 at least."""
    cluster = Cluster("abc", logs={node: ((), HardState(3)) for node in "abc"})
    if role is Role.LEADER:
        cluster.elect("a")
    elif role is not Role.FOLLOWER:
        cluster.drop = lambda message: isinstance(message, VoteRequest if role is Role.CANDIDATE else PreVoteRequest)
        cluster.run(T, "a")
    assert cluster["a"].role is role
    return cluster


def knowledge(value: Any) -> Any:
    """All that a node knows, its timers and what it knows of others included, as plain values; not what waits to be sent."""
    if isinstance(value, Progress):
        return {name: knowledge(getattr(value, name)) for name in Progress.__slots__}
    if isinstance(value, State | RaftLog | ConfigurationTrail | ReadQueue):
        return {name: knowledge(item) for name, item in vars(value).items() if name != "outbox"}
    if isinstance(value, dict):
        return {key: knowledge(item) for key, item in value.items()}
    return tuple(value) if isinstance(value, list | deque) else value


def test_el_01_first_election() -> None:
    """The first to time out leads after one round of votes, everybody agrees, and the term stays for two election timeouts."""
    cluster = Cluster("abc")
    cluster.run(T)
    assert cluster.leaders == ["a"]
    assert len(cluster.sent_since(0, VoteRequest)) == 2
    cluster.run(2 * T)
    assert cluster.terms == {1}
    assert {cluster[node].leader for node in "abc"} == {"a"}


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("message", STALE, ids=lambda message: type(message).__name__)
def test_el_02_stale_term_traffic(role: Role, message: Message) -> None:
    """A message of an earlier term leaves all that a node knows as it is, its timers too; the answer, if any, carries the present term."""
    cluster = in_role(role)
    cluster.tick("a")
    cluster.pump("a")
    before, term, mark = knowledge(cluster["a"].state), cluster["a"].term, len(cluster.sent)
    cluster.hand_over(message)
    assert knowledge(cluster["a"].state) == before
    cluster.pump("a")
    assert cluster.servers["a"].log.hard_state().term == term
    answers = [sent for sent in cluster.sent_since(mark) if sent.to == "b"]
    assert all(answer.term == term for answer in answers)
    expected = {"PreVoteRequest": 1, "VoteRequest": 1, "AppendRequest": 1, "Heartbeat": 1, "InstallSnapshot": 1}
    assert len(answers) == expected.get(type(message).__name__, 0)


def test_el_02_an_acknowledgement_of_an_earlier_leadership_does_not_count() -> None:
    """What a follower once held for this leader's former term says nothing about the entries of the present one."""
    cluster = in_role(Role.LEADER)
    cluster.drop = lambda message: isinstance(message, AppendRequest)
    cluster.write("a", b"x")
    status = cluster["a"].status()
    for node in "bc":
        cluster.hand_over(AppendAccepted(node, "a", status.term - 1, status.last_index))
    assert cluster["a"].status().commit_index == status.commit_index < status.last_index
    cluster.hand_over(AppendAccepted("b", "a", status.term, status.last_index))
    assert cluster["a"].status().commit_index == status.last_index


def test_el_02_stale_append_makes_an_old_leader_step_down() -> None:
    """A leader that is a term behind learns of the present one from the refusal of its append."""
    cluster = Cluster("abc")
    cluster.elect("a")
    cluster.cut("a")
    cluster.elect("b", frozen="a")
    assert cluster["a"].role is Role.LEADER
    cluster.heal()
    cluster.write("a", b"lost")
    assert (cluster["a"].role, cluster["a"].term) == (Role.FOLLOWER, cluster["b"].term)


@pytest.mark.parametrize("crash_at", ["before the write", "after the write"])
def test_el_04_one_vote_a_term_across_crashes(crash_at: str) -> None:
    """No grant leaves before term and vote are on the disk, in one step; after a restart the other candidate gets none."""
    cluster = Cluster("abc")
    cluster.hold_disk("c")
    cluster.hand_over(VoteRequest("a", "c", 1, 0, 0))
    cluster.pump("c")
    assert cluster.sent_since(0, VoteResponse) == []
    (ready,) = cluster.servers["c"].unwritten
    assert ready.hard_state == HardState(1, "a", 0)
    if crash_at == "after the write":
        cluster.persist("c")
        assert cluster.sent_since(0, VoteResponse) == [VoteResponse("c", "a", 1, granted=True)]
    cluster.servers["c"].disk_held = False
    cluster.restart("c")
    mark = len(cluster.sent)
    cluster.hand_over(VoteRequest("b", "c", 1, 0, 0))
    cluster.pump("c")
    assert cluster.sent_since(mark) == [VoteResponse("c", "b", 1, granted=crash_at == "before the write")]


@pytest.mark.parametrize("power_cut", [False, True])
def test_el_04_a_vote_in_a_term_that_is_on_the_disk(power_cut: bool) -> None:
    """A vote given in a term that was written before, without a vote, is written too before the grant leaves."""
    cluster = Cluster("abc")
    cluster.hand_over(VoteResponse("b", "c", 3, granted=False))
    cluster.settle()
    assert cluster.servers["c"].log.hard_state() == HardState(3, None, 0)
    cluster.hand_over(VoteRequest("a", "c", 3, 0, 0))
    cluster.pump("c")
    assert VoteResponse("c", "a", 3, granted=True) in cluster.sent
    if power_cut:
        cluster.restart("c")
    cluster.hand_over(VoteRequest("b", "c", 3, 0, 0))
    cluster.pump("c")
    assert VoteResponse("c", "b", 3, granted=False) in cluster.sent


def test_el_04_a_vote_of_an_earlier_term_than_the_log_is_not_a_vote() -> None:
    """A hard state behind the last entry's term gives the node that later term, without a vote."""
    node = Cluster("abc", logs={"a": (entries(1, 3), HardState(2, "b", 1))})["a"]
    assert (node.term, node.status().vote) == (3, None)


@pytest.mark.parametrize(
    ("own", "last_index", "last_term", "granted"),
    [
        ((), 0, 0, True),
        ((1, 1), 2, 1, True),
        ((1, 1), 3, 1, True),
        ((1, 1), 1, 1, False),
        ((1, 1), 1, 2, True),
        ((1, 2), 9, 1, False),
        ((2,), 1, 2, True),
        ((1, 1, 3), 2, 3, False),
    ],
)
@pytest.mark.parametrize("pre_vote", [False, True])
def test_el_06_up_to_date_comparison(own: tuple[int, ...], last_index: int, last_term: int, granted: bool, pre_vote: bool) -> None:
    """Votes and pre-votes go to logs that end in a later term, or in the same one and are as long; to nobody else."""
    cluster = Cluster("abc", logs={"a": (entries(*own), HardState(4))})
    cluster.hand_over((PreVoteRequest if pre_vote else VoteRequest)("b", "a", 5, last_index, last_term))
    cluster.pump("a")
    (answer,) = cluster.sent
    assert isinstance(answer, PreVoteResponse if pre_vote else VoteResponse)
    assert answer.granted is granted


def test_el_07_split_votes_do_not_livelock() -> None:
    """Five nodes with clocks in step elect a leader for each of 1,000 seeds, and each drawn timeout lies in [T, 2T)."""
    drawn = set()
    for seed in range(1_000):
        random = Random(seed)
        cluster = Cluster("abcde")
        for server in cluster.servers.values():
            server.running.state._jitter = random.randrange
            server.running.state.restart_election_timer()
        for _ in range(20 * T):
            cluster.run(1)
            drawn.update(server.running.state.election_deadline for server in cluster.servers.values())
            if cluster.leaders:
                break
        assert cluster.leaders, f"seed {seed}"
    assert drawn == set(range(T, 2 * T))


def test_el_07_timeouts_are_drawn_for_every_candidacy() -> None:
    """Each new campaign waits a newly drawn time."""
    cluster = Cluster("ab")
    draws = iter([3, 7, 1])
    cluster["a"].state._jitter = lambda _: next(draws)
    deadlines = []
    for _ in range(3):
        cluster["a"].state.election_elapsed = cluster["a"].state.election_deadline
        cluster["a"].tick()
        deadlines.append(cluster["a"].state.election_deadline)
    assert deadlines == [T + 3, T + 7, T + 1]


def test_el_09_own_vote_counts_only_when_durable() -> None:
    """A candidate whose own vote is still being written does not win with one other vote of three; it wins when the write ends."""
    cluster = Cluster("abc")
    cluster.tick("a", T)
    cluster.settle()
    assert cluster["a"].role is Role.LEADER  # with a quick disk
    slow = Cluster("abc")
    slow.tick("a", T)
    slow.hold_disk("a")
    slow.settle()
    assert slow["a"].role is Role.CANDIDATE
    assert slow.sent_since(0, VoteRequest) == []  # they wait for the disk as well
    slow.hand_over(VoteResponse("b", "a", 1, granted=True))
    assert slow["a"].role is Role.CANDIDATE
    slow.release_disk("a")
    assert slow["a"].role is Role.LEADER


def test_el_09_a_late_write_of_a_vote_elects_no_loser() -> None:
    """When the candidate was refused by a majority before its own vote was written, the end of that write and a late grant elect nobody."""
    cluster = Cluster("abcde")
    cluster.tick("a", T)
    cluster.hold_disk("a")
    cluster.settle()
    for node in "bcd":
        cluster.hand_over(VoteResponse(node, "a", 1, granted=False))
    assert cluster["a"].role is Role.FOLLOWER
    cluster.drop = lambda _message: True
    cluster.release_disk("a")
    for node in "bcde":
        cluster.hand_over(VoteResponse(node, "a", 1, granted=True))
    assert (cluster["a"].role, cluster["a"].term, cluster["a"].status().vote) == (Role.FOLLOWER, 1, "a")


def test_el_09_a_late_write_of_a_vote_does_not_leak_into_the_next_term() -> None:
    """When the term has moved on before the own vote was written, the end of that write elects nobody."""
    cluster = Cluster("abc")
    cluster.tick("a", T)
    cluster.hold_disk("a")
    cluster.settle()
    cluster.hand_over(Heartbeat("b", "a", 5, 0, 1))
    cluster.pump("a")
    cluster.release_disk("a")
    assert (cluster["a"].role, cluster["a"].leader, cluster["a"].term) == (Role.FOLLOWER, "b", 5)


def test_el_09_a_second_candidacy_needs_its_own_write() -> None:
    """The vote of term 1 reaching the disk does not count for the candidacy of term 2."""
    cluster = Cluster("abc")
    cluster.tick("a", T)
    cluster.hold_disk("a")
    cluster.settle()
    cluster.hand_over(TimeoutNow("b", "a", 1))
    cluster.pump("a")
    assert (cluster["a"].role, cluster["a"].term) == (Role.CANDIDATE, 2)
    cluster.hand_over(VoteResponse("b", "a", 2, granted=True))
    while len(cluster.servers["a"].unwritten) > 1:
        cluster.persist("a")
    assert cluster["a"].role is Role.CANDIDATE
    cluster.release_disk("a")
    assert cluster["a"].role is Role.LEADER


def test_el_10_old_leader_returns() -> None:
    """The new leader stays when the old one returns; with two of three down nobody leads; with a quorum somebody does again."""
    cluster = Cluster("abc")
    cluster.elect("a")
    cluster.cut("a")
    cluster.elect("b")
    term = cluster["b"].term
    cluster.heal()
    cluster.run(3 * T)
    assert (cluster.leaders, cluster.terms) == (["b"], {term})
    cluster.crash("a")
    cluster.crash("c")
    cluster.run(5 * T)
    assert cluster.leaders == []
    cluster.restart("c")
    cluster.run(5 * T)
    assert len(cluster.leaders) == 1


@pytest.mark.parametrize("role", [Role.PRE_CANDIDATE, Role.CANDIDATE])
@pytest.mark.parametrize("kind", ["append", "heartbeat", "snapshot"])
def test_el_11_candidate_gives_way(role: Role, kind: str) -> None:
    """The leader of a candidate's own term makes it follow at once; it keeps the vote of that term."""
    cluster = in_role(role)
    term, vote = cluster["a"].term, cluster["a"].status().vote
    message: Message = Heartbeat("b", "a", term, 0, 1)
    if kind == "append":
        message = AppendRequest("b", "a", term, 0, 0, entries(term), 0)
    elif kind == "snapshot":
        message = InstallSnapshot("b", "a", term, Boundary(5, term, configuration("abc")))
        cluster.snapshots[5, term] = []
    cluster.hand_over(message)
    cluster.pump("a")
    assert (cluster["a"].role, cluster["a"].leader, cluster["a"].term) == (Role.FOLLOWER, "b", term)
    assert cluster["a"].status().vote == vote
    mark = len(cluster.sent)
    cluster.hand_over(VoteRequest("c", "a", term, 9, term))
    cluster.pump("a")
    assert cluster.sent_since(mark) == [VoteResponse("a", "c", term, granted=False)]


@pytest.mark.parametrize("role", [Role.PRE_CANDIDATE, Role.CANDIDATE, Role.LEADER])
@pytest.mark.parametrize(
    "answer",
    [
        VoteResponse("b", "a", 9, granted=False),
        PreVoteResponse("b", "a", 9, granted=False),
        AppendRejected("b", "a", 9, 1, 0, 0),
        HeartbeatResponse("b", "a", 9, 0),
    ],
    ids=lambda message: type(message).__name__,
)
def test_el_11_a_later_term_makes_everybody_follow(role: Role, answer: Message) -> None:
    """An answer of a later term ends a candidacy or a leadership, with the vote of the new term unspent."""
    cluster = in_role(role)
    cluster.hand_over(answer)
    assert (cluster["a"].role, cluster["a"].term, cluster["a"].leader) == (Role.FOLLOWER, 9, None)
    assert cluster["a"].status().vote is None


@pytest.mark.parametrize("role", [Role.PRE_CANDIDATE, Role.CANDIDATE])
def test_el_12_refused_by_a_majority(role: Role) -> None:
    """Two refusals of three make the candidate follow without waiting; grants that come late change nothing."""
    cluster = in_role(role)
    term, answer = cluster["a"].term, VoteResponse if role is Role.CANDIDATE else PreVoteResponse
    cluster.hand_over(answer("b", "a", term, granted=False))
    cluster.hand_over(answer("b", "a", term, granted=False))
    assert cluster["a"].role is role  # one voter, however often it says so
    cluster.hand_over(answer("c", "a", term, granted=False))
    assert (cluster["a"].role, cluster["a"].term) == (Role.FOLLOWER, term)
    for voter in "bc":
        cluster.hand_over(VoteResponse(voter, "a", term, granted=True))
        cluster.hand_over(PreVoteResponse(voter, "a", term + 1, granted=True))
    assert (cluster["a"].role, cluster["a"].term) == (Role.FOLLOWER, term)


@pytest.mark.parametrize(
    "membership",
    [Configuration(), configuration("bc"), configuration("bc", "a")],
    ids=["no configuration", "removed", "learner"],
)
def test_el_13_nothing_to_campaign_with(membership: Configuration) -> None:
    """Without a configuration, out of it, or as a learner a node waits for ever in its term, and says nothing."""
    cluster = Cluster("a", voters=(), logs={})
    cluster.servers["a"].log.reset(Boundary(3, 2, membership), HardState(2))
    cluster.snapshots[3, 2] = []
    cluster.restart("a")
    cluster.run(100 * T)
    assert (cluster["a"].role, cluster["a"].term, cluster.sent) == (Role.FOLLOWER, 2, [])
    cluster.hand_over(TimeoutNow("b", "a", 2))
    cluster.settle()
    assert (cluster["a"].role, cluster["a"].term, cluster.sent) == (Role.FOLLOWER, 2, [])


def test_an_answer_counts_once_however_often_it_arrives() -> None:
    """Two votes of five, the own among them, do not become three by arriving twice; and a voter's first answer stands."""
    cluster = Cluster("abcde")
    cluster.drop = lambda message: isinstance(message, VoteRequest)
    cluster.run(T, "a")
    for granted in (True, True, False):
        cluster.hand_over(VoteResponse("b", "a", 1, granted=granted))
    assert cluster["a"].role is Role.CANDIDATE
    cluster.hand_over(VoteResponse("c", "a", 1, granted=True))
    assert cluster["a"].role is Role.LEADER


def test_a_candidate_that_restarts_has_spent_its_vote() -> None:
    """A vote for oneself is a vote: after a restart nobody else gets it in that term."""
    cluster = Cluster("abc")
    cluster.drop = lambda message: isinstance(message, VoteRequest)
    cluster.run(T, "a")
    cluster.restart("a")
    assert (cluster["a"].role, cluster["a"].term) == (Role.FOLLOWER, 1)
    cluster.hand_over(VoteRequest("b", "a", 1, 0, 0))
    cluster.pump("a")
    assert cluster.sent[-1] == VoteResponse("a", "b", 1, granted=False)


@pytest.mark.parametrize("granted", [True, False])
def test_only_a_granted_vote_makes_the_voter_wait(granted: bool) -> None:
    """Who voted for somebody waits anew; a candidate with a bad log delays nobody's own campaign."""
    cluster = Cluster("abc", logs={"a": (entries(1, 1), HardState(1))})
    cluster.tick("a", T - 1)
    cluster.hand_over(VoteRequest("b", "a", 2, 2 if granted else 1, 1))
    cluster.tick("a")
    assert cluster["a"].role is (Role.FOLLOWER if granted else Role.PRE_CANDIDATE)


def test_a_lone_voter_elects_itself() -> None:
    """A cluster of one leads after its first timeout, without a message."""
    cluster = Cluster("a")
    cluster.run(T)
    assert (cluster.leaders, cluster.terms, cluster.sent) == (["a"], {1}, [])


def test_a_leader_hears_itself_however_late_it_won() -> None:
    """A candidate that won only after T of waiting refuses votes and pre-votes as any leader does: nobody deposes it without need."""
    cluster = Cluster("abc")
    cluster.servers["a"].jitter = T - 1
    cluster.restart("a")
    cluster.drop = lambda message: isinstance(message, VoteResponse)
    cluster.tick("a", 2 * T - 1)
    cluster.settle()
    cluster.tick("a", T)  # the answers are late, but not too late
    term = cluster["a"].term
    cluster.hand_over(VoteResponse("b", "a", term, granted=True))
    assert cluster["a"].role is Role.LEADER
    cluster.drop = lambda _message: False
    mark = len(cluster.sent)
    cluster.hand_over(PreVoteRequest("c", "a", term + 1, 9, term))
    cluster.hand_over(VoteRequest("c", "a", term + 1, 9, term))
    cluster.pump("a")
    assert cluster["a"].role is Role.LEADER
    assert [sent for sent in cluster.sent_since(mark) if isinstance(sent, PreVoteResponse)] == [PreVoteResponse("a", "c", term, granted=False)]


def test_the_log_compares_itself() -> None:
    """The comparison is the log's own, so that nobody else can get it wrong."""
    assert RaftLog(Boundary(), entries(1, 2), 0, 0).is_up_to_date(2, 2)


def test_a_wrong_recipient_is_refused() -> None:
    """A message for another id, as for an earlier incarnation, is refused and changes nothing."""
    node: RaftNode = Cluster("abc")["a"]
    before = node.status()
    with pytest.raises(WrongRecipient, match="a message for b; this is a"):
        node.step(Heartbeat("c", "b", 9, 0, 0))
    with pytest.raises(MalformedMessage, match="not for the core"):
        node.step(ProposeResponse("c", "a", 9, 1, ()))
    assert node.status() == before
