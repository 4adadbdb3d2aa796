"""Scenarios of linearizable reads (RD) on the core."""

import pytest

from raft.core.messages import AppendRequest, Heartbeat, HeartbeatResponse, ReadIndexRequest, ReadIndexResponse, VoteResponse
from raft.core.model import HardState
from raft.core.roles import Role
from raft.errors import NotLeader
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
