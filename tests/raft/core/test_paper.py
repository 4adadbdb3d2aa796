"""One test a claim of the paper "In Search of an Understandable Consensus Algorithm (Extended Version)", with its section."""

from random import Random

import pytest

from raft.core.membership import encode_configuration
from raft.core.messages import AppendAccepted, AppendRejected, AppendRequest, Heartbeat, InstallSnapshot, PreVoteRequest, VoteRequest, VoteResponse
from raft.core.model import Boundary, Entry, EntryKind, HardState
from raft.core.roles import TRANSITIONS, Role
from raft.errors import InvariantViolation, NotLeader
from raft.testing.cluster import QUICK, Cluster, configuration, entries, entry

T = QUICK.election_ticks
H = QUICK.heartbeat_ticks


def led(ids: str = "abc") -> Cluster:
    """A cluster that the first server leads; its no-op is committed everywhere."""
    cluster = Cluster(ids)
    cluster.elect(ids[0])
    cluster.run(2 * H)
    return cluster


def granted(cluster: Cluster, voter: str, request: VoteRequest) -> bool:
    """What a voter answers to a request."""
    mark = len(cluster.sent)
    cluster.hand_over(request)
    cluster.pump(voter)
    (answer,) = cluster.sent_since(mark, VoteResponse)
    return isinstance(answer, VoteResponse) and answer.granted


def test_5_1_servers_start_as_followers() -> None:
    """When servers start up they begin as followers."""
    assert {Cluster("abc")[node].role for node in "abc"} == {Role.FOLLOWER}


def test_5_1_a_follower_issues_no_requests() -> None:
    """Followers are passive: without a timeout they say nothing."""
    cluster = Cluster("abc")
    cluster.run(T - 1)
    assert cluster.sent == []


def test_5_1_a_smaller_term_is_updated() -> None:
    """Whoever meets a larger term adopts it; a candidate or leader becomes a follower at once."""
    cluster = led()
    for node in "ab":
        cluster.hand_over(VoteResponse("c", node, 7, granted=False))
        assert (cluster[node].role, cluster[node].term) == (Role.FOLLOWER, 7)


def test_5_1_a_stale_request_is_rejected() -> None:
    """A request with a stale term is refused, with the present term."""
    cluster = led()
    cluster.hand_over(Heartbeat("a", "b", 4, 0, 0))
    mark = len(cluster.sent)
    cluster.hand_over(AppendRequest("a", "b", 1, 1, 1, entries(1, first=2), 0))
    cluster.pump("b")
    (answer,) = cluster.sent_since(mark, AppendRejected)
    assert answer.term == 4
    assert cluster["b"].status().last_index == 1


def test_5_1_roles_change_as_in_figure_4() -> None:
    """Only a candidate becomes leader, and a leader becomes nothing but a follower."""
    assert [role for role in Role if Role.LEADER in TRANSITIONS[role]] == [Role.CANDIDATE]
    assert TRANSITIONS[Role.LEADER] == {Role.FOLLOWER}
    state = Cluster("abc")["a"].state
    with pytest.raises(InvariantViolation, match="from follower to leader"):
        state.enter(Role.LEADER, "a shortcut")
    state.adopt_term(3)
    with pytest.raises(InvariantViolation, match="term 2 after term 3"):
        state.adopt_term(2)


def test_5_2_heartbeats_keep_authority() -> None:
    """A leader sends heartbeats to all followers while nothing else happens; nobody campaigns."""
    cluster = led()
    mark = len(cluster.sent)
    cluster.run(10 * T)
    beats = [sent.to for sent in cluster.sent_since(mark, Heartbeat)]
    assert beats.count("b") == beats.count("c") == 10 * T // H
    assert cluster.sent_since(mark, PreVoteRequest, VoteRequest) == []


def test_5_2_a_silent_leader_is_replaced() -> None:
    """A follower that hears nothing for an election timeout begins an election: next term, a vote for itself, requests to the others."""
    cluster = led()
    cluster.crash("a")
    cluster.tick("b", 2 * T)
    cluster.tick("c", T)
    mark = len(cluster.sent)
    cluster.settle()
    requests = cluster.sent_since(mark, VoteRequest)
    assert {(sent.sender, sent.to, sent.term) for sent in requests} == {("b", "a", 2), ("b", "c", 2)}
    assert cluster.servers["b"].log.hard_state().vote == "b"


@pytest.mark.parametrize(("ids", "needed"), [("a", 0), ("abc", 1), ("abcd", 2), ("abcde", 2)])
def test_5_2_a_majority_elects(ids: str, needed: int) -> None:
    """A candidate wins with the votes of a majority, its own among them, and not with fewer."""
    cluster = Cluster(ids)
    cluster.drop = lambda message: isinstance(message, VoteRequest)
    cluster.run(T, "a")
    for number, voter in enumerate(ids[1 : needed + 1]):
        assert cluster["a"].role is Role.CANDIDATE, number
        cluster.hand_over(VoteResponse(voter, "a", 1, granted=True))
    assert cluster["a"].role is Role.LEADER


def test_5_2_first_come_first_served() -> None:
    """A server votes for at most one candidate a term, the first; it says yes to that one again."""
    cluster = Cluster("abc")
    assert granted(cluster, "c", VoteRequest("a", "c", 1, 0, 0))
    assert not granted(cluster, "c", VoteRequest("b", "c", 1, 0, 0))
    assert granted(cluster, "c", VoteRequest("a", "c", 1, 0, 0))
    assert granted(cluster, "c", VoteRequest("b", "c", 2, 0, 0))


def test_5_2_a_leader_of_the_term_is_recognised() -> None:
    """A candidate that hears of a leader with a term as large as its own recognises it."""
    cluster = Cluster("abc")
    cluster.drop = lambda message: isinstance(message, VoteRequest)
    cluster.run(T, "a")
    cluster.hand_over(AppendRequest("b", "a", 1, 0, 0, (), 0))
    assert (cluster["a"].role, cluster["a"].leader) == (Role.FOLLOWER, "b")


def test_5_2_timeouts_are_random_from_an_interval() -> None:
    """Timeouts are spread over [T, 2T), and each node draws its own."""
    cluster = Cluster("a")
    state = cluster["a"].state
    state._jitter = Random(1).randrange
    drawn = set()
    for _ in range(300):
        state.restart_election_timer()
        drawn.add(state.election_deadline)
    assert drawn == set(range(T, 2 * T))


def test_5_3_a_command_becomes_an_entry_and_is_replicated() -> None:
    """The leader appends a command with its term and sends it to the others in parallel."""
    cluster = led()
    mark = len(cluster.sent)
    cluster.propose("a", b"x")
    cluster.pump("a")
    appended = Entry(2, 1, EntryKind.COMMAND, b"x")
    assert {(sent.to, sent.entries) for sent in cluster.sent_since(mark, AppendRequest) if isinstance(sent, AppendRequest)} == {
        ("b", (appended,)),
        ("c", (appended,)),
    }


def test_5_3_committed_on_a_majority() -> None:
    """An entry is committed once its leader has it on a majority, and all before it; the followers learn of it later."""
    cluster = led("abcde")
    for node in "cde":
        cluster.cut(node)
    cluster.write("a", b"x", b"y")
    assert cluster["a"].status().commit_index == 1
    cluster.hand_over(AppendAccepted("c", "a", 1, 3))
    assert cluster["a"].status().commit_index == 1  # c is cut off: nothing arrives
    cluster.heal()
    cluster.hand_over(AppendAccepted("c", "a", 1, 2))
    assert cluster["a"].status().commit_index == 2
    assert cluster["b"].status().commit_index == 1


def test_5_3_followers_apply_in_log_order() -> None:
    """A follower applies committed entries in log order."""
    cluster = led()
    for number in range(10):
        cluster.write("a", b"%d" % number)
    cluster.run(H)
    assert [item.index for item in cluster.servers["b"].applied] == list(range(1, 12))


def test_5_3_a_leader_tries_for_ever() -> None:
    """A follower that lost messages, or runs slowly, gets every entry in the end."""
    cluster = led()
    random = Random(3)
    cluster.drop = lambda message: message.to == "c" and isinstance(message, AppendRequest) and random.random() < 0.8
    for number in range(20):
        cluster.write("a", b"%d" % number)
        cluster.run(1)
    cluster.run(20 * T)
    assert cluster.commands("c") == cluster.commands("a")


def test_5_3_the_consistency_check() -> None:
    """A follower refuses entries whose predecessor it does not hold in the same term, and takes those whose it does."""
    cluster = Cluster("abc", logs={"b": (entries(1, 2), HardState(2))})
    for index, term, accepted in ((3, 2, False), (2, 1, False), (2, 2, True), (0, 0, True)):
        mark = len(cluster.sent)
        cluster.hand_over(AppendRequest("a", "b", 3, index, term, (), 0))
        cluster.pump("b")
        assert len(cluster.sent_since(mark, AppendAccepted)) == accepted, (index, term)


@pytest.mark.parametrize("follower", [(1, 1, 1, 4, 4, 5, 5, 6, 6), (1, 1, 1, 4), (1, 1, 1, 4, 4, 4, 4), (1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3)])
def test_5_3_conflicting_entries_are_overwritten(follower: tuple[int, ...]) -> None:
    """The leader makes a follower's log like its own, whatever is missing or extra there (figure 7)."""
    leader = (1, 1, 1, 4, 4, 5, 5, 6, 6, 6)
    cluster = Cluster(
        "abc", logs={"a": (entries(*leader), HardState(6)), "b": (entries(*follower), HardState(6)), "c": (entries(*leader), HardState(6))}
    )
    cluster.elect("a")
    cluster.run(5 * H)
    assert cluster.log_terms("b") == [*leader, cluster["a"].term]


def test_5_3_a_leader_never_overwrites_its_own_log() -> None:
    """Leader append-only: whatever it is told, a leader removes nothing."""
    cluster = led()
    cluster.write("a", b"x")
    before = cluster.log_terms("a")
    for message in (AppendRejected("b", "a", 1, 2, 0, 0), AppendAccepted("b", "a", 1, 0), AppendRejected("c", "a", 1, 1, 0, 0)):
        cluster.hand_over(message)
        cluster.settle()
    assert cluster.log_terms("a")[: len(before)] == before


def test_5_4_1_the_voter_refuses_a_shorter_log() -> None:
    """The election restriction: a candidate must hold all committed entries, so a majority refuses one with a worse log."""
    cluster = Cluster("abc", logs={"a": (entries(1), HardState(1)), "b": (entries(1, 1), HardState(1)), "c": (entries(1, 1), HardState(1))})
    with pytest.raises(RuntimeError, match="a does not come to lead"):
        cluster.elect("a")


def test_5_4_2_entries_of_earlier_terms_commit_indirectly() -> None:
    """Counting replicas commits entries of the present term only (figure 8)."""
    cluster = Cluster("abc", logs={"a": (entries(1, 2), HardState(2))})
    cluster.drop = lambda message: isinstance(message, AppendRequest)
    cluster.elect("a")
    term = cluster["a"].term
    for node in "bc":
        cluster.hand_over(AppendAccepted(node, "a", term, 2))
    assert cluster["a"].status().commit_index == 0
    cluster.hand_over(AppendAccepted("b", "a", term, 3))
    assert cluster["a"].status().commit_index == 3


def test_5_4_3_a_committed_entry_is_in_every_later_leader() -> None:
    """Leader completeness, over a row of leaders."""
    cluster = led()
    for leader in "bcab":
        cluster.write(cluster.leaders[0], b"from-%s" % leader.encode())
        committed = cluster.commands(cluster.leaders[0])
        cluster.cut(cluster.leaders[0])
        cluster.elect(leader)
        cluster.settle()
        assert cluster.commands(leader)[: len(committed)] == committed
        cluster.heal()
        cluster.run(2 * H)


def test_5_5_requests_are_idempotent() -> None:
    """A request that arrives again after its answer was lost changes nothing."""
    cluster = led()
    request = AppendRequest("a", "b", 1, 1, 1, (entry(2, 1),), 1)
    cluster.hand_over(request)
    cluster.settle()
    before = cluster["b"].status()
    cluster.hand_over(request)
    cluster.pump("b")
    assert cluster["b"].status() == before


def test_5_6_safety_does_not_depend_on_time() -> None:
    """With clocks that run at any speed nobody applies a different entry; only progress suffers."""
    cluster = Cluster("abc")
    random = Random(5)
    for number in range(300):
        cluster.tick(random.choice("abc"), random.randrange(2 * T))
        for leader in cluster.leaders:
            cluster.propose(leader, b"%d" % number)
        cluster.settle()
    assert len(cluster.commands("a")) > 0  # and the cluster compares every applied entry


def test_6_a_configuration_is_used_at_once() -> None:
    """A server uses the latest configuration in its log, committed or not."""
    cluster = Cluster("abc")
    from_leader = Entry(1, 1, EntryKind.CONFIGURATION, b'{"voters":[["x","x","x:1"]],"learners":[],"outgoing":[]}')
    cluster.hand_over(AppendRequest("x", "b", 1, 0, 0, (from_leader,), 0))
    assert cluster["b"].status().configuration.voter_ids == ("x",)
    assert cluster["b"].status().commit_index == 0


def test_6_votes_are_refused_while_a_leader_lives() -> None:
    """A server that hears of a leader within the minimum election timeout disregards requests for votes and their terms."""
    cluster = led()
    mark = len(cluster.sent)
    cluster.hand_over(VoteRequest("c", "b", 50, 99, 49))
    cluster.pump("b")
    assert cluster.sent_since(mark) == []
    assert cluster["b"].term == 1


def test_7_a_snapshot_carries_index_term_and_configuration() -> None:
    """What a leader sends to one that is far behind names the last index and term it stands for, and the configuration."""
    cluster = led()
    cluster.cut("c")
    for number in range(5):
        cluster.write("a", b"%d" % number)
    cluster.compact("a", 5)
    cluster.heal()
    cluster.run(2 * H)
    (sent,) = cluster.sent_since(0, InstallSnapshot)
    assert isinstance(sent, InstallSnapshot)
    assert sent.boundary == Boundary(5, 1, configuration("abc"))


def test_8_clients_are_sent_to_the_leader() -> None:
    """A server that does not lead names the leader, or passes the command on."""
    cluster = led()
    cluster.write("b", b"x")
    assert cluster.commands("a") == [b"x"]
    with pytest.raises(NotLeader) as caught:
        cluster["b"].transfer("c")
    assert caught.value.leader == "a"


def test_8_a_leader_commits_a_no_op_at_the_start_of_its_term() -> None:
    """So it learns which entries are committed."""
    cluster = led()
    cluster.elect("b", frozen="a")
    assert cluster.servers["b"].applied[1:] == [Entry(2, 2, EntryKind.NOOP, b"")]


def test_the_first_term_begins_with_the_configuration() -> None:
    """The log of a cluster begins with its first configuration, so that a server that is sent the log knows it at every index."""
    cluster = led()
    assert cluster.servers["b"].applied == [Entry(1, 1, EntryKind.CONFIGURATION, encode_configuration(configuration("abc")))]
    cluster.add_server("d")
    cluster.add_learner("a", "d")
    cluster.run(2 * H)
    assert cluster["d"].boundary_at(1).configuration == configuration("abc")


def test_8_a_read_is_confirmed_by_a_majority() -> None:
    """A leader exchanges heartbeats with a majority before it answers a read."""
    cluster = led()
    cluster.cut("a")
    context = cluster.read("a")
    cluster.settle()
    assert context not in cluster.servers["a"].reads
    cluster.heal()
    cluster.run(H)
    assert cluster.servers["a"].reads[context] == 1
