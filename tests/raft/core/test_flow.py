"""Scenarios of flow control (FC) on the core."""

from dataclasses import replace

import pytest

from raft.config import RaftConfig
from raft.core.messages import AppendAccepted, AppendRejected, AppendRequest, Heartbeat
from raft.core.model import ENTRY_OVERHEAD_BYTES, HardState
from raft.core.progress import ProgressState
from raft.core.ready import PeerContact
from raft.errors import UncommittedLimit
from raft.testing.cluster import QUICK, Cluster, entry

T = QUICK.election_ticks


def led(ids: str = "abc", config: RaftConfig = QUICK) -> Cluster:
    """A cluster that the first server leads; its no-op is committed everywhere."""
    cluster = Cluster(ids, config=config)
    cluster.elect(ids[0])
    cluster.run(QUICK.heartbeat_ticks + 1)
    assert {cluster[node].status().commit_index for node in ids} == {1}
    return cluster


SMALL = replace(QUICK, append_bytes_max=10, inflight_appends_max=3, inflight_bytes_max=1_000)


def inflight(cluster: Cluster, peer: str) -> int:
    """Unanswered appends to a peer."""
    return next(status.inflight for status in cluster["a"].status().peers if status.peer == peer)


def test_fc_01_window_full() -> None:
    """Sending pauses at the limit, resumes on an answer, and recovers from lost appends with the next heartbeats."""
    cluster = led(config=SMALL)
    cluster.hold_disk("b")
    mark = len(cluster.sent)
    for number in range(8):
        cluster.write("a", b"12345678%d" % number)
    to_b = [sent for sent in cluster.sent_since(mark, AppendRequest) if sent.to == "b"]
    assert (len(to_b), inflight(cluster, "b")) == (3, 3)
    cluster.run(5 * QUICK.heartbeat_ticks)
    assert inflight(cluster, "b") == 3
    cluster.release_disk("b")
    cluster.settle()
    assert (cluster["b"].status().last_index, inflight(cluster, "b")) == (9, 0)
    cluster.drop = lambda message: isinstance(message, AppendRequest) and message.to == "b" and bool(message.entries)
    for number in range(8):
        cluster.write("a", b"abcdefgh%d" % number)
    assert inflight(cluster, "b") == 3
    cluster.drop = lambda _message: False
    cluster.run(2 * QUICK.heartbeat_ticks)
    assert cluster["b"].status().last_index == 17


def test_fc_01_the_window_is_bounded_by_bytes_too() -> None:
    """With room for many appends, but not for their bytes, sending pauses as well, and goes on with the answers."""
    cluster = led(config=replace(SMALL, inflight_appends_max=100, inflight_bytes_max=150))
    cluster.hold_disk("b")
    mark = len(cluster.sent)
    for number in range(8):
        cluster.write("a", b"12345678%d" % number)
    assert len([sent for sent in cluster.sent_since(mark, AppendRequest) if sent.to == "b"]) == inflight(cluster, "b") == 4  # 41 bytes each
    cluster.release_disk("b")
    cluster.settle()
    assert (cluster["b"].status().last_index, inflight(cluster, "b")) == (9, 0)


def test_fc_02_one_gap_one_rewind() -> None:
    """Losing the first of the pipelined appends costs one rewind, and nothing is sent again more than once."""
    cluster = led(config=replace(SMALL, inflight_appends_max=8))
    for number in range(6):
        cluster.propose("a", b"12345678%d" % number)
        cluster.pump("a")
    lost = next(message for message in cluster.wire if message.to == "b" and isinstance(message, AppendRequest))
    cluster.wire.remove(lost)
    mark = len(cluster.sent)
    cluster.settle()
    cluster.run(QUICK.heartbeat_ticks)
    assert cluster["b"].status().last_index == 7
    assert len([sent for sent in cluster.sent_since(mark, AppendRejected) if sent.sender == "b"]) == 5
    again = [sent for sent in cluster.sent_since(mark, AppendRequest) if isinstance(sent, AppendRequest) and sent.to == "b"]
    assert sorted(item.index for sent in again for item in sent.entries) == [2, 3, 4, 5, 6, 7]  # each once: well below twice the window
    contacts = [seen.state for seen in cluster.servers["a"].observations if isinstance(seen, PeerContact) and seen.peer == "b"]
    assert contacts[-2:] == [ProgressState.PROBE, ProgressState.REPLICATE]


def test_fc_04_bounded_uncommitted_tail() -> None:
    """A leader without a quorum refuses proposals over the limit; the counter is zero again after the commit, and for a new leader."""
    cluster = led(config=replace(QUICK, uncommitted_bytes_max=200, proposal_bytes_max=100))
    cluster.cut("a")
    cluster.write("a", b"x" * 90)
    before = cluster["a"].status()
    with pytest.raises(UncommittedLimit, match="201 uncommitted bytes would be over the limit of 200 bytes"):
        cluster.propose("a", b"y" * (79 - ENTRY_OVERHEAD_BYTES))
    assert cluster["a"].status() == before
    cluster.write("a", b"y" * (78 - ENTRY_OVERHEAD_BYTES))
    assert cluster["a"].status().uncommitted_bytes == 200
    cluster.heal()
    cluster.run(2 * QUICK.heartbeat_ticks)
    assert cluster["a"].status().uncommitted_bytes == 0
    cluster.cut("a")
    cluster.write("a", b"z" * 50)
    cluster.elect("b")
    assert (cluster["a"].status().uncommitted_bytes, cluster["b"].status().uncommitted_bytes) == (0, 0)
    cluster.restart("a")
    assert cluster["a"].status().uncommitted_bytes == 0


def test_fc_04_the_tail_of_an_earlier_term_does_not_free_room() -> None:
    """When a new leader commits a tail that it never counted, its own uncommitted bytes stay counted."""
    cluster = Cluster("abc", logs={"a": ([entry(1, 1, b"o" * 80)], HardState(1))})
    cluster.drop = lambda message: isinstance(message, AppendRequest)
    cluster.elect("a")
    cluster.propose("a", b"n" * 30)
    cluster.settle()
    term = cluster["a"].term
    for node in "bc":
        cluster.hand_over(AppendAccepted(node, "a", term, 2))
    cluster.settle()
    assert cluster["a"].status().commit_index == 2
    assert cluster["a"].status().uncommitted_bytes == 30 + ENTRY_OVERHEAD_BYTES


def test_fc_04_a_large_first_proposal_is_taken() -> None:
    """With nothing uncommitted one batch over the limit is taken: it could never be otherwise."""
    cluster = led(config=replace(QUICK, uncommitted_bytes_max=100, proposal_bytes_max=100))
    cluster.write("a", b"x" * 80, b"y" * 80)
    assert len(cluster.commands("a")) == 2


def test_fc_05_one_hung_peer() -> None:
    """A peer that takes everything and never answers costs the others nothing: the same messages at the same ticks, and reads as soon."""
    histories = []
    for hung in (False, True):
        cluster = led(config=SMALL)
        cluster.drop = (lambda message: message.sender == "c") if hung else (lambda _message: False)
        mark = len(cluster.sent)
        for number in range(3 * T):
            cluster.write("a", b"%d" % number)
            for node in "ab":
                read = cluster.read(node)
                cluster.settle()
                assert cluster.servers[node].reads.get(read) == number + 2
            cluster.run(1)
        histories.append([sent for sent in cluster.sent_since(mark, AppendRequest, Heartbeat) if sent.to == "b"])
        assert cluster.leaders == ["a"]
        assert len(cluster.commands("b")) >= 3 * T - 1
    assert histories[0] == histories[1]


def test_fc_06_paged_apply_across_crashes() -> None:
    """A node that stops between pages and starts again applies every entry, none twice, none skipped."""
    cluster = Cluster("a", config=replace(QUICK, apply_bytes_max=80))
    cluster.elect("a")
    for number in range(9):
        cluster.write("a", b"abcd%d" % number)
    cluster.compact("a", 5)
    cluster.servers["a"].apply_held = True
    cluster.write("a", *[b"tail%d" % number for number in range(9)])
    pages = [len(cluster.servers["a"].unapplied)]
    cluster.servers["a"].apply_held = False
    cluster.restart("a")
    cluster.elect("a")
    cluster.settle()
    assert pages[0] == 9
    assert cluster.commands("a") == [*[b"abcd%d" % number for number in range(9)], *[b"tail%d" % number for number in range(9)]]
