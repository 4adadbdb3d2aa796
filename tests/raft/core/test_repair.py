"""Scenarios of log repair (LR) and of snapshots (SN) on the core."""

from dataclasses import replace

import pytest

from raft.core.membership import AddLearner
from raft.core.messages import AppendAccepted, AppendRejected, AppendRequest, Heartbeat, InstallSnapshot
from raft.core.model import Boundary, HardState
from raft.core.progress import ProgressState
from raft.core.roles import Role
from raft.errors import InvariantViolation
from raft.testing.cluster import QUICK, Cluster, configuration, entries, entry, member

T = QUICK.election_ticks
H = QUICK.heartbeat_ticks

LEADER_7 = (1, 1, 1, 4, 4, 5, 5, 6, 6, 6)
FIGURE_7 = {
    "a": (1, 1, 1, 4, 4, 5, 5, 6, 6),
    "b": (1, 1, 1, 4),
    "c": (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6),
    "d": (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7),
    "e": (1, 1, 1, 4, 4, 4, 4),
    "f": (1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3),
}


@pytest.mark.parametrize("winner", ["l", "a", "c", "d"])
def test_lr_01_figure_7(winner: str) -> None:
    """The seven logs of the paper's figure converge to the log of whoever can be elected, and no committed entry is touched."""
    logs = {"l": LEADER_7, **FIGURE_7}
    cluster = Cluster("labcdef", logs={node: (entries(*terms), HardState(7)) for node, terms in logs.items()})
    cluster.elect(winner)
    cluster.run(10 * H)
    expected = [*logs[winner], cluster[winner].term]
    assert all(cluster.log_terms(node) == expected for node in logs)
    assert expected[:9] == list(LEADER_7[:9])  # on a majority in term 6: committed


@pytest.mark.parametrize("loser", ["b", "e", "f"])
def test_lr_01_figure_7_who_can_not_win(loser: str) -> None:
    """A server that lacks committed entries is refused by a majority."""
    logs = {"l": LEADER_7, **FIGURE_7}
    cluster = Cluster("labcdef", logs={node: (entries(*terms), HardState(7)) for node, terms in logs.items()})
    with pytest.raises(RuntimeError, match=f"{loser} does not come to lead"):
        cluster.elect(loser)


def test_lr_02_fast_backtracking() -> None:
    """Fifty diverging entries a side over five terms are healed in at most (terms + 2) round trips."""
    common = (1,) * 10
    ours = common + tuple(term for term in (3, 5, 7, 9, 11) for _ in range(10))
    theirs = common + tuple(term for term in (2, 4, 6, 8, 10) for _ in range(10))
    logs = {"a": (entries(*ours), HardState(11)), "b": (entries(*theirs), HardState(11)), "c": (entries(*ours), HardState(11))}
    cluster = Cluster("abc", logs=logs)
    cluster.elect("a")
    cluster.run(H)
    rounds = [sent for sent in cluster.sent if isinstance(sent, AppendRejected) and sent.sender == "b"]
    assert len(rounds) <= 5 + 2
    assert cluster.log_terms("b") == cluster.log_terms("a")


def test_lr_03_a_conflict_below_commit_stops_the_node() -> None:
    """An append that would replace a committed entry raises loudly, and the log stays."""
    cluster = Cluster("abc", logs={"b": (entries(1, 1, 1), HardState(1, None, 2))})
    with pytest.raises(InvariantViolation, match="entry 2 of term 5 conflicts with a committed one"):
        cluster.hand_over(AppendRequest("a", "b", 5, 1, 1, entries(5, 5, 5, first=2), 0))
    assert cluster.log_terms("b") == [1, 1, 1]


def probing_leader() -> Cluster:
    """``a`` leads with 20 entries and has heard nothing of ``b`` yet."""
    cluster = Cluster("abc", logs={node: (entries(*(1,) * 20), HardState(1)) for node in "ac"})
    cluster.drop = lambda message: "b" in {message.sender, message.to}
    cluster.elect("a")
    return cluster


def test_lr_06_late_refusal() -> None:
    """A refusal of an append from before the logs were found to agree rewinds nothing."""
    cluster = probing_leader()
    cluster.drop = lambda _message: False
    cluster.run(H)
    peer = cluster["a"].state.progress["b"]
    assert (peer.state, peer.match, peer.next) == (ProgressState.REPLICATE, 21, 22)
    for rejected in (3, 20, 21):
        cluster.hand_over(AppendRejected("b", "a", cluster["a"].term, rejected, 0, 0))
    assert (peer.state, peer.match, peer.next) == (ProgressState.REPLICATE, 21, 22)


def test_lr_06_heartbeats_do_not_reset_the_search() -> None:
    """While a long search goes on, heartbeats pass and it continues from where it was."""
    cluster = probing_leader()
    peer = cluster["a"].state.progress["b"]
    assert peer.next == 21
    cluster.hand_over(AppendRejected("b", "a", cluster["a"].term, 20, 12, 1))
    assert peer.next == 13
    for _ in range(2):
        cluster.tick("a", H)
        cluster.settle()
    assert (peer.state, peer.next) == (ProgressState.PROBE, 13)


def test_lr_06_a_late_refusal_does_not_cancel_a_snapshot() -> None:
    """With a snapshot under way a refusal of an earlier append changes nothing."""
    cluster = probing_leader()
    cluster.write("a", b"x")
    cluster.compact("a", 21)
    cluster.hand_over(AppendRejected("b", "a", cluster["a"].term, 20, 0, 0))
    cluster.pump("a")
    peer = cluster["a"].state.progress["b"]
    assert peer.state is ProgressState.SNAPSHOT
    before = (peer.next, peer.match)
    cluster.hand_over(AppendRejected("b", "a", cluster["a"].term, 20, 5, 1))
    assert (peer.state, peer.next, peer.match) == (ProgressState.SNAPSHOT, *before)


def test_lr_07_rejoin_of_a_deposed_leader() -> None:
    """An isolated leader's uncommitted tail is replaced when it returns, and it never applied any of it."""
    cluster = Cluster("abc")
    cluster.elect("a")
    cluster.write("a", b"first")
    cluster.cut("a")
    for number in range(3):
        cluster.write("a", b"tail%d" % number)
    cluster.elect("b", frozen="a")
    cluster.write("b", b"second")
    cluster.heal()
    cluster.run(2 * H)
    assert cluster["a"].role is Role.FOLLOWER
    assert cluster.log_terms("a") == cluster.log_terms("b")
    assert cluster.commands("a") == [b"first", b"second"]


def behind_compaction() -> Cluster:
    """``a`` leads; ``c`` missed twenty entries, of which the log holds the last four only."""
    cluster = Cluster("abc")
    cluster.elect("a")
    cluster.write("a", b"early")
    cluster.run(H)
    cluster.cut("c")
    for number in range(20):
        cluster.write("a", b"%d" % number)
    cluster.compact("a", 18)
    return cluster


def test_sn_01_catch_up_by_snapshot() -> None:
    """A follower behind the compaction gets the state, keeps it across a restart, and goes on by appends."""
    cluster = behind_compaction()
    mark = len(cluster.sent)
    cluster.heal()
    cluster.run(2 * H)
    assert len(cluster.sent_since(mark, InstallSnapshot)) == 1
    assert cluster.commands("c") == cluster.commands("a")
    assert cluster["c"].status().boundary_index == 18
    cluster.restart("c")
    cluster.run(2 * H)
    assert cluster.commands("c") == cluster.commands("a")
    mark = len(cluster.sent)
    cluster.write("a", b"later")
    cluster.run(H)
    assert cluster.sent_since(mark, InstallSnapshot) == []
    assert cluster.commands("c")[-1] == b"later"


def test_sn_01_a_lost_snapshot_is_sent_again() -> None:
    """When the snapshot does not arrive the leader sends another, one heartbeat later, not at once."""
    cluster = behind_compaction()
    cluster.heal()
    cluster.drop = lambda message: isinstance(message, AppendAccepted) and message.sender == "c"
    cluster.run(H)
    cluster.cut("a", "c", one_way=True)
    cluster["a"].report_snapshot("c", 0)
    mark = len(cluster.sent)
    cluster.settle()
    assert cluster.sent_since(mark, InstallSnapshot) == []
    cluster.drop = lambda _message: False
    cluster.heal()
    cluster.run(2 * H)
    assert cluster.commands("c") == cluster.commands("a")


def test_no_snapshot_for_whom_nobody_hears() -> None:
    """A peer that was silent for an election timeout gets no snapshot; as soon as it is heard of again it gets one."""
    cluster = behind_compaction()
    cluster["a"].report_unreachable("c")
    mark = len(cluster.sent)
    cluster.run(T + H, "a", "b")
    assert 0 < len(cluster.sent_since(mark, InstallSnapshot)) <= T // H + 1  # while it still counted as heard of, one a heartbeat
    mark = len(cluster.sent)
    cluster.run(3 * T, "a", "b")
    assert cluster.sent_since(mark, InstallSnapshot) == []
    cluster.heal()
    cluster.run(3 * H)
    assert len(cluster.sent_since(mark, InstallSnapshot)) == 1
    assert cluster.commands("c") == cluster.commands("a")


def test_sn_03_old_snapshot_ignored() -> None:
    """A snapshot at or below the commit index changes nothing and is answered with the commit index."""
    cluster = Cluster("abc")
    cluster.elect("a")
    for number in range(5):
        cluster.write("a", b"%d" % number)
    cluster.run(2 * H)
    before, mark = cluster["b"].status(), len(cluster.sent)
    for index in (1, 6):
        cluster.hand_over(InstallSnapshot("a", "b", 1, Boundary(index, 1, configuration("abc"))))
    cluster.pump("b")
    assert cluster["b"].status() == before
    assert cluster.sent_since(mark, AppendAccepted) == [AppendAccepted("b", "a", 1, 6)] * 2


def test_sn_03_two_snapshots_in_quick_succession() -> None:
    """A second snapshot during the first's installation is answered once the first is in place, and the leader goes on from there."""
    cluster = behind_compaction()
    cluster.heal()
    cluster.hold_disk("c")
    cluster.run(H, "a")
    assert cluster["c"].status().boundary_index == 18
    cluster.compact("a", 21)
    cluster.hand_over(InstallSnapshot("a", "c", 1, cluster["a"].state.log.boundary))
    mark = len(cluster.sent)
    cluster.settle()
    assert [sent for sent in cluster.sent_since(mark, AppendAccepted) if sent.sender == "c"] == []
    cluster.release_disk("c")
    cluster.run(3 * H)
    assert cluster.commands("c") == cluster.commands("a")


def test_nothing_is_answered_that_waits_behind_an_installation() -> None:
    """An append that arrives while a snapshot is being installed is not acknowledged: it could not be durable."""
    cluster = behind_compaction()
    cluster.heal()
    cluster.hold_disk("c")
    cluster.run(H, "a")
    mark = len(cluster.sent)
    cluster.hand_over(AppendRequest("a", "c", 1, 18, 1, (entry(19, 1, b"16"),), 18))
    cluster.settle()
    assert cluster.sent_since(mark, AppendAccepted, AppendRejected) == []
    assert cluster["c"].status().last_index == 18
    cluster.hand_over(Heartbeat("a", "c", 1, 18, 9))
    cluster.settle()
    assert cluster["c"].leader == "a"


def test_sn_04_a_snapshot_that_matches_the_log_keeps_the_tail() -> None:
    """When the log already holds the snapshot's last entry, it only commits; what comes after stays."""
    cluster = Cluster("abc", logs={"b": (entries(1, 1, 1, 1), HardState(1))})
    cluster.snapshots[2, 1] = list(entries(1, 1))
    cluster.hand_over(InstallSnapshot("a", "b", 1, Boundary(2, 1, configuration("abc"))))
    cluster.settle()
    assert (cluster["b"].status().last_index, cluster["b"].status().commit_index, cluster["b"].status().boundary_index) == (4, 2, 0)
    assert cluster.sent == [AppendAccepted("b", "a", 1, 2)]


@pytest.mark.parametrize("log", [(1, 1), (1, 1, 1, 1, 1)], ids=["shorter", "of another term"])
def test_a_snapshot_that_does_not_match_replaces_the_log(log: tuple[int, ...]) -> None:
    """When the log does not hold the snapshot's last entry, nothing of it stays."""
    cluster = Cluster("abc", logs={"b": (entries(*log), HardState(4))})
    cluster.snapshots[4, 3] = list(entries(1, 1, 2, 3))
    cluster.hand_over(InstallSnapshot("a", "b", 4, Boundary(4, 3, configuration("abd"))))
    cluster.settle()
    status = cluster["b"].status()
    assert (status.first_index, status.last_index, status.commit_index, status.applied_index) == (5, 4, 4, 4)
    assert status.configuration == configuration("abd")


def test_sn_06_a_crash_before_the_install_keeps_the_old_state() -> None:
    """Until the step of the disk is done a restart finds the old log; after it the new one, in full."""
    cluster = behind_compaction()
    cluster.heal()
    cluster.hold_disk("c")
    cluster.run(H, "a")
    cluster.servers["c"].disk_held = False
    cluster.restart("c")
    assert (cluster["c"].status().boundary_index, cluster["c"].status().last_index) == (0, 2)
    cluster.run(3 * H)
    cluster.restart("c")
    status = cluster["c"].status()
    assert (status.boundary_index, status.applied_index, status.configuration) == (18, 18, configuration("abc"))


def test_sn_06_the_machine_is_late_with_its_reports() -> None:
    """While a snapshot is being installed the machine may still report what it had been given before; the applied index is the old one until then."""
    cluster = behind_compaction()
    cluster.servers["c"].apply_held = True
    cluster.restart("c")
    cluster.hand_over(AppendRequest("b", "c", 1, 2, 1, (), 2))
    cluster.pump("c")
    cluster.heal()
    cluster.hold_disk("c")
    cluster.run(H, "a")
    assert (cluster["c"].status().boundary_index, cluster["c"].status().applied_index) == (18, 0)
    cluster["c"].applied_to(2)
    assert cluster["c"].status().applied_index == 2
    cluster.servers["c"].apply_held = False
    cluster.release_disk("c")
    cluster.run(2 * H)
    assert cluster.commands("c") == cluster.commands("a")


def test_sn_06_a_label_names_the_configuration_at_its_index() -> None:
    """A state is labelled with the membership that its entries brought, not with a later one that may yet be undone."""
    cluster = Cluster("abc")
    cluster.elect("a")
    cluster.write("a", b"x")
    cluster.cut("a")
    cluster.change("a", AddLearner(member("z")))
    assert cluster.compact("a", 2) == Boundary(2, 1, configuration("abc"))
    cluster.elect("b", frozen="a")
    cluster.heal()
    cluster.run(2 * H)
    cluster.restart("a")
    assert cluster["a"].status().configuration == configuration("abc")


def test_sn_07_install_while_writes_continue() -> None:
    """A follower that installs more slowly than the leader compacts catches up all the same, thanks to the entries that are kept."""
    cluster = behind_compaction()
    cluster.heal()
    for number in range(30):
        cluster.hold_disk("c")
        cluster.write("a", b"more%d" % number)
        cluster.run(1)
        last = cluster["a"].status().applied_index
        if number % 10 == 9:
            cluster.compact("a", last - 5)
            cluster.release_disk("c")
    cluster.run(3 * H)
    assert cluster.commands("c") == cluster.commands("a")
    assert len(cluster.sent_since(0, InstallSnapshot)) <= 4


@pytest.mark.parametrize("answer_lost", [False, True])
def test_sn_09_snapshot_at_the_leaders_last_index(answer_lost: bool) -> None:
    """Without later writes the receiver leaves the snapshot state, also when the answer was lost."""
    cluster = behind_compaction()
    cluster.compact("a", 22)
    lost = [answer_lost]
    cluster.drop = lambda message: isinstance(message, AppendAccepted) and message.sender == "c" and bool(lost) and lost.pop()
    cluster.heal()
    cluster.run(4 * H)
    peer = cluster["a"].state.progress["c"]
    assert (peer.state, peer.match) == (ProgressState.REPLICATE, 22)


def test_sn_09_an_older_snapshot_suffices() -> None:
    """A follower that reports an older index which the log continues is replicated to, without another snapshot."""
    cluster = behind_compaction()
    cluster.heal()
    cluster.drop = lambda message: isinstance(message, InstallSnapshot)
    cluster.run(H)
    peer = cluster["a"].state.progress["c"]
    assert peer.state is ProgressState.SNAPSHOT
    cluster.hand_over(AppendAccepted("c", "a", 1, 10))
    assert peer.state is ProgressState.SNAPSHOT  # the log begins later
    cluster.hand_over(AppendAccepted("c", "a", 1, 18))
    assert (peer.state, peer.next) == (ProgressState.REPLICATE, 19)


def test_sn_12_term_not_lowered_by_a_snapshot() -> None:
    """A snapshot that ends in an earlier term leaves term and vote alone."""
    cluster = Cluster("abc", logs={"b": ((), HardState(7, "c"))})
    cluster.snapshots[9, 3] = []
    cluster.hand_over(InstallSnapshot("a", "b", 7, Boundary(9, 3, configuration("abc"))))
    cluster.settle()
    assert (cluster["b"].term, cluster["b"].status().vote) == (7, "c")
    cluster.restart("b")
    assert (cluster["b"].term, cluster["b"].status().vote) == (7, "c")


def test_a_boundary_is_named_for_applied_entries_only() -> None:
    """A label can be had for what is applied and still in the log; anything else is a bug of the caller."""
    cluster = behind_compaction()
    assert cluster["a"].boundary_at(20) == Boundary(20, 1, configuration("abc"))
    for index in (17, 23):
        with pytest.raises(InvariantViolation, match=f"no boundary at {index}"):
            cluster["a"].boundary_at(index)


def test_large_entries_travel_in_pieces() -> None:
    """An append holds no more than its limit, and one entry always."""
    cluster = Cluster("abc", config=replace(QUICK, append_bytes_max=80))
    cluster.elect("a")
    mark = len(cluster.sent)
    cluster.write("a", b"x" * 50, b"y" * 4, b"z" * 4, b"w" * 4)
    sizes = [[len(item.data) for item in sent.entries] for sent in cluster.sent_since(mark, AppendRequest) if sent.to == "b"]
    assert [size for size in sizes if size] == [[50], [4, 4], [4]]
