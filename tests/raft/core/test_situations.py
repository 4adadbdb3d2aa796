"""Situations between the numbers of the catalogue: what happens when two of its scenarios meet."""

import pytest

from raft.core.membership import AddLearner
from raft.core.messages import AppendRequest, HeartbeatResponse, InstallSnapshot, ReadIndexRequest, ReadIndexResponse
from raft.core.roles import Role
from raft.testing.cluster import QUICK, Cluster, member

T = QUICK.election_ticks
H = QUICK.heartbeat_ticks


def led(ids: str = "abc", learners: str = "") -> Cluster:
    """A cluster that the first server leads; its first entry is committed everywhere."""
    cluster = Cluster([*ids, *learners], voters=ids, learners=learners)
    cluster.elect(ids[0])
    cluster.run(2 * H)
    return cluster


def installing() -> Cluster:
    """``a`` leads five; ``c`` has been sent a state that it can't write to its disk yet. The others hold the whole log."""
    cluster = led("abcde")
    cluster.cut("c")
    for number in range(10):
        cluster.write("a", b"%d" % number)
    cluster.run(H, *"abde")
    cluster.compact("a", 8)
    cluster.heal()
    cluster.hold_disk("c")
    cluster.run(2 * H, *"abde")
    assert cluster["c"].status().boundary_index == 8
    return cluster


def test_the_leader_changes_during_an_installation() -> None:
    """A follower that installs the old leader's state goes on with the new leader's entries; that one sends no second state."""
    cluster = installing()
    cluster.crash("a")
    cluster.elect("b")
    cluster.write("b", b"new")
    mark = len(cluster.sent)
    cluster.release_disk("c")
    cluster.run(3 * H, *"bcde")
    assert cluster.sent_since(mark, InstallSnapshot) == []
    assert cluster.commands("c") == cluster.commands("b") == [*[b"%d" % number for number in range(10)], b"new"]


def test_a_crash_of_the_leader_during_an_installation_and_its_return() -> None:
    """With the sender back, and leading again, the follower ends up with its log, whatever became of the first state."""
    cluster = installing()
    cluster.restart("a")
    cluster.servers["c"].disk_held = False
    cluster.restart("c")
    cluster.elect("a")
    cluster.run(4 * H)
    assert cluster.commands("c") == cluster.commands("a") == cluster.commands("b")


def test_every_node_compacts_for_itself() -> None:
    """A follower that has cut its own log serves others by its own state once it leads."""
    cluster = led()
    cluster.cut("c")
    for number in range(10):
        cluster.write("a", b"%d" % number)
    cluster.run(H, "a", "b")
    cluster.compact("b", 9)
    assert (cluster["a"].status().first_index, cluster["b"].status().first_index) == (1, 10)
    cluster.crash("a")
    cluster.heal()
    cluster.elect("b")
    cluster.run(3 * H)
    sent = [message for message in cluster.sent if isinstance(message, InstallSnapshot)]
    assert [(message.sender, message.boundary.index) for message in sent] == [("b", 9)]
    assert cluster.commands("c") == cluster.commands("b")


def test_a_learner_that_is_added_late_gets_the_state() -> None:
    """A server that joins a cluster whose log is cut begins with the state, and is a learner by it."""
    cluster = led()
    for number in range(10):
        cluster.write("a", b"%d" % number)
    cluster.compact("a", 9)
    cluster.add_server("d")
    cluster.change("a", AddLearner(member("d")))
    cluster.run(4 * H)
    assert cluster["d"].status().boundary_index == 9
    assert cluster.commands("d") == cluster.commands("a")
    assert not cluster["d"].status().configuration.is_voter("d")
    assert "d" in cluster["d"].status().configuration


def test_an_answer_to_an_earlier_leadership_confirms_no_read() -> None:
    """Rounds count from one in each term: an answer to round 50 of the first leadership says nothing about the second."""
    cluster = led()
    cluster.run(50 * H)
    old = cluster["a"].state.reads.round
    cluster.elect("b", frozen="a")
    cluster.elect("a", frozen="b")
    cluster.run(2 * H)
    assert cluster["a"].state.reads.round < old
    cluster.drop = lambda message: message.sender in {"b", "c"}
    read = cluster.read("a")
    cluster.settle()
    for node in "bc":
        cluster.hand_over(HeartbeatResponse(node, "a", 1, old))
    cluster.settle()
    assert read not in cluster.servers["a"].reads


def test_an_answer_to_a_round_that_was_never_begun_confirms_no_later_one() -> None:
    """A round number from the future counts as the last that was begun, not as one to come."""
    cluster = led()
    cluster.drop = lambda message: message.sender in {"b", "c"}
    for node in "bc":
        cluster.hand_over(HeartbeatResponse(node, "a", 1, 1_000_000))
    read = cluster.read("a")
    cluster.settle()
    assert read not in cluster.servers["a"].reads


def test_a_forwarded_read_waits_for_the_first_commit_of_the_term() -> None:
    """A follower that asks a fresh leader gets its answer only when that has committed something of its own."""
    cluster = Cluster("abc")
    cluster.drop = lambda message: isinstance(message, AppendRequest)
    cluster.elect("a")
    cluster.run(H)
    read = cluster.read("b")
    cluster.run(2 * H)
    assert cluster.servers["b"].reads == {}
    cluster.drop = lambda _message: False
    cluster.run(2 * H)
    assert cluster.servers["b"].reads == {read: 1}


def test_a_transfer_refuses_the_reads_that_wait() -> None:
    """Reads that the old leader could not confirm are refused when the new one takes over: nobody is left waiting."""
    cluster = led()
    cluster.cut("a", "c")
    cluster.drop = lambda message: isinstance(message, HeartbeatResponse)
    own = cluster.read("a")
    cluster["a"].step(ReadIndexRequest("b", "a", 1, 77))
    cluster["a"].transfer("b")
    cluster.settle()
    assert cluster.leaders == ["b"]
    assert cluster.servers["a"].reads == {own: 0}
    assert [sent for sent in cluster.sent if isinstance(sent, ReadIndexResponse)] == [ReadIndexResponse("a", "b", 2, 77, 0)]


def test_a_follower_that_reaches_everybody_but_the_leader() -> None:
    """When one link is cut the leader stays, however often the follower beyond it asks around; it catches up when the link is back."""
    cluster = led()
    cluster.cut("a", "c")
    for number in range(5):
        cluster.write("a", b"%d" % number)
        cluster.run(10 * T)
    assert (cluster.leaders, cluster.terms) == (["a"], {1})
    assert cluster["c"].role is Role.PRE_CANDIDATE
    assert cluster.commands("b") == cluster.commands("a")
    cluster.heal()
    cluster.run(2 * H)
    assert cluster.commands("c") == cluster.commands("a")


@pytest.mark.parametrize("bridge", ["a", "b"])
def test_one_node_that_reaches_both_halves(bridge: str) -> None:
    """Five nodes of which only one reaches the two on either side find one leader that commits, whether or not that one led before."""
    cluster = led("abcde")
    left, right = [node for node in "abcde" if node != bridge][:2], [node for node in "abcde" if node != bridge][2:]
    for node in left:
        cluster.cut(node, *right)
    cluster.run(10 * T)
    latest = max(cluster.leaders, key=lambda node: cluster[node].term)
    cluster.write(latest, b"x")
    cluster.run(2 * H)
    assert cluster.commands(latest) == [b"x"]
    assert sum(cluster.commands(node) == [b"x"] for node in "abcde") >= 3


@pytest.mark.parametrize("order", ["abc", "cab", "bca"])
def test_a_change_meets_a_crash_of_its_leader(order: str) -> None:
    """When the leader dies with a change on its own disk only, the change is undone, or carried out: as the next leader holds it or not."""
    cluster = led()
    cluster.cut("a")
    cluster.change("a", AddLearner(member("z")))
    cluster.crash("a")
    cluster.heal()
    cluster.restart("a")
    successor = order[0]
    cluster.elect(successor)
    cluster.run(2 * H)
    learners = {node: [found.id for found in cluster[node].status().configuration.learners] for node in "abc"}
    assert learners == dict.fromkeys("abc", ["z"] if successor == "a" else [])
