"""Scenarios of membership changes, one server at a time (MS), on the core."""

from dataclasses import replace

import pytest

from raft.core.membership import AddLearner, AddVoter, Demote, Remove, encode_configuration
from raft.core.messages import AppendRequest, PreVoteRequest, TimeoutNow, VoteRequest, VoteResponse
from raft.core.model import Entry, EntryKind, HardState
from raft.core.ready import ConfigurationChanged
from raft.core.roles import Role
from raft.errors import ChangePending, ChangeRefused, MalformedMessage, NotLeader
from raft.testing.cluster import QUICK, Cluster, configuration, entries, entry, member

T = QUICK.election_ticks
H = QUICK.heartbeat_ticks


def led(ids: str = "abc", learners: str = "") -> Cluster:
    """A cluster that the first server leads; its no-op is committed everywhere."""
    cluster = Cluster([*ids, *learners], voters=ids, learners=learners)
    cluster.elect(ids[0])
    cluster.run(2 * H)
    return cluster


def voters(cluster: Cluster, node: str) -> str:
    """The voters of the configuration in force at a node."""
    return "".join(cluster[node].status().configuration.voter_ids)


def configured(index: int, term: int, ids: str) -> Entry:
    """A configuration entry."""
    return Entry(index, term, EntryKind.CONFIGURATION, encode_configuration(configuration(ids)))


def test_ms_01_grow_and_shrink() -> None:
    """From five down to one and up to three again: removed servers get nothing new, one that is added again catches up."""
    cluster = led("abcde")
    for number, node in enumerate("edcb"):
        cluster.change("a", Remove(node))
        cluster.write("a", b"down%d" % number)
    assert voters(cluster, "a") == "a"
    mark = len(cluster.sent)
    cluster.write("a", b"alone")
    cluster.run(2 * H)
    assert [sent for sent in cluster.sent_since(mark) if sent.sender == "a" and not isinstance(sent, VoteResponse)] == []
    for node in "bc":
        cluster.add_voter("a", node)
        cluster.run(H)
        cluster.write("a", b"up-%s" % node.encode())
    cluster.run(2 * H)
    assert voters(cluster, "c") == "abc"
    assert cluster.commands("b") == cluster.commands("c") == cluster.commands("a")
    assert b"alone" not in cluster.commands("e")


def test_ms_02_one_change_at_a_time() -> None:
    """A second change is refused until the first commits, and the refusal changes nothing."""
    cluster = led()
    for node in "bc":
        cluster.hold_disk(node)
    cluster.change("a", AddLearner(member("d")))
    before = cluster["a"].status()
    with pytest.raises(ChangePending, match="the change at index 2 is not applied yet"):
        cluster.change("a", AddLearner(member("e")))
    assert cluster["a"].status() == before
    for node in "bc":
        cluster.release_disk(node)
    cluster.settle()
    cluster.change("a", AddLearner(member("e")))
    assert [found.id for found in cluster["a"].status().configuration.learners] == ["d", "e"]


def test_ms_02_right_after_an_election() -> None:
    """A new leader with an uncommitted change in its log refuses another until that is committed."""
    cluster = Cluster("abc", logs={"a": ((entry(1, 1), configured(2, 1, "abcd")), HardState(1))})
    cluster.drop = lambda message: isinstance(message, AppendRequest)
    cluster.add_server("d")
    cluster.elect("a")
    assert voters(cluster, "a") == "abcd"
    with pytest.raises(ChangeRefused, match="nothing of this term is committed yet"):
        cluster.change("a", Remove("d"))
    cluster.drop = lambda _message: False
    cluster.run(2 * H)
    cluster.change("a", Remove("d"))
    assert voters(cluster, "a") == "abc"


def test_ms_03_2015_bug_one_add_one_remove() -> None:
    """A leader must commit something of its own term before it changes the membership: so no two disjoint majorities can commit."""
    cluster = led("abcd")
    cluster.add_server("e")
    cluster.add_learner("a", "e")
    cluster.cut("a", "b", "c", "d")
    cluster.change("a", AddVoter(member("e")))  # on a (and e) only
    cluster.elect("b", frozen="a")
    cluster.change("b", Remove("d"))  # after the no-op of its term is committed
    cluster.settle()
    assert voters(cluster, "b") == "abc"
    cluster.write("b", b"x")
    assert cluster.commands("b") == [b"x"]
    cluster.cut("b")
    cluster.cut("c", "a", "e", "d")
    cluster.heal()
    cluster.cut("b")
    cluster.cut("c")
    with pytest.raises(RuntimeError, match="a does not come to lead"):
        cluster.elect("a")  # a, d, e are a majority of a to e, but d knows of the later term's entries
    assert cluster.commands("a") == []


def test_ms_03_no_change_before_a_commit_of_the_term() -> None:
    """The rule itself: without a commit of its term a leader refuses every change."""
    cluster = Cluster("abc")
    cluster.drop = lambda message: isinstance(message, AppendRequest)
    cluster.elect("a")
    for change in (AddVoter(member("d")), Remove("c"), Demote("c")):
        with pytest.raises(ChangeRefused, match="nothing of this term is committed yet"):
            cluster.change("a", change)


def test_ms_06_configuration_follows_truncation() -> None:
    """A configuration is in force once appended, and undone everywhere when its entry is truncated."""
    cluster = led()
    cluster.add_server("d")
    cluster.add_learner("a", "d")
    cluster.cut("a")
    cluster.change("a", AddVoter(member("d")))
    assert voters(cluster, "a") == "abcd"
    assert {peer.peer for peer in cluster["a"].status().peers} == {"b", "c", "d"}
    cluster.elect("b", frozen="a")
    cluster.heal()
    cluster.run(2 * H)
    assert cluster["a"].role is Role.FOLLOWER
    assert voters(cluster, "a") == "abc"
    assert cluster["a"].status().configuration_index == 2
    changes = ["".join(seen.configuration.voter_ids) for seen in cluster.servers["a"].observations if isinstance(seen, ConfigurationChanged)]
    assert changes == ["abc", "abc", "abcd", "abc"]
    cluster.restart("a")
    assert voters(cluster, "a") == "abc"


def test_ms_06_a_replaced_configuration_gives_way_to_the_one_that_replaces_it() -> None:
    """When a truncated configuration is replaced by another one in the same append, that one is in force."""
    cluster = Cluster("abc", logs={"b": ((entry(1, 1), configured(2, 1, "abcd")), HardState(1))})
    cluster.hand_over(AppendRequest("a", "b", 2, 1, 1, (entry(2, 2), configured(3, 2, "ab")), 0))
    assert (voters(cluster, "b"), cluster["b"].status().configuration_index) == ("ab", 3)


def test_ms_08_leader_removes_itself() -> None:
    """It does not count itself, leads until the change is committed, steps down then, and can't be elected afterwards."""
    cluster = led()
    for node in "bc":
        cluster.hold_disk(node)
    cluster.change("a", Remove("a"))
    assert cluster["a"].role is Role.LEADER
    cluster.release_disk("b")
    cluster.settle()
    assert cluster["a"].status().commit_index == 1  # b alone is no majority of b and c, and a does not count
    cluster.release_disk("c")
    cluster.settle()
    assert (cluster["a"].role, cluster["a"].status().commit_index) == (Role.FOLLOWER, 2)
    cluster.run(5 * T, "a")
    assert (cluster["a"].role, cluster["a"].term) == (Role.FOLLOWER, 1)
    cluster.run(5 * T)
    assert len(cluster.leaders) == 1
    assert cluster.leaders[0] in {"b", "c"}
    assert voters(cluster, cluster.leaders[0]) == "bc"


def test_ms_08_a_leader_that_demotes_itself_steps_down() -> None:
    """A leader that becomes a learner leads until that is committed, and follows then."""
    cluster = led()
    cluster.change("a", Demote("a"))
    assert cluster["a"].role is Role.FOLLOWER
    cluster.run(3 * T)
    assert cluster.leaders[0] in {"b", "c"}
    cluster.write(cluster.leaders[0], b"x")
    cluster.run(2 * H)
    assert cluster.commands("a") == [b"x"]


def test_ms_10_disruptive_removed_server() -> None:
    """A removed server that never learned of it does not depose the leader over 100 election timeouts."""
    cluster = led("abcd")
    cluster.cut("d")
    cluster.change("a", Remove("d"))
    cluster.heal()
    cluster.run(100 * T)
    assert (cluster.leaders, cluster["a"].term) == (["a"], 1)


def test_ms_10_a_server_being_removed_with_a_full_log() -> None:
    """One whose log is as good as anybody's, and that hears no heartbeats, can't depose the leader either."""
    cluster = led("abcd")
    cluster.hold_disk("b")
    cluster.hold_disk("c")
    cluster.change("a", Remove("d"))
    cluster.release_disk("b")
    cluster.release_disk("c")
    cluster.cut("a", "d", one_way=True)
    cluster.run(100 * T)
    assert (cluster.leaders, cluster["a"].term) == (["a"], 1)


def test_ms_11_votes_ignore_the_voters_own_view() -> None:
    """A server that is not in its own configuration votes for, and takes entries from, candidates that it does not know."""
    cluster = Cluster("abc")
    cluster.add_server("d")
    cluster.hand_over(VoteRequest("x", "d", 3, 0, 0))
    cluster.pump("d")
    assert cluster.sent == [VoteResponse("d", "x", 3, granted=True)]
    cluster.hand_over(AppendRequest("x", "d", 3, 0, 0, entries(3), 1))
    assert (cluster["d"].status().commit_index, cluster["d"].leader) == (1, "x")


def test_ms_11_a_voter_that_lags_is_needed_and_votes() -> None:
    """A server that is a voter by a configuration which has not reached it yet gives the vote that decides."""
    cluster = led()
    cluster.add_server("d")
    cluster.add_learner("a", "d")
    cluster.cut("d")
    cluster.change("a", AddVoter(member("d")))
    cluster.run(H, "a", "b", "c")
    cluster.heal()
    cluster.crash("a")
    assert not cluster["d"].status().configuration.is_voter("d")
    mark = len(cluster.sent)
    cluster.elect("b")  # three of four, d among them
    granted = {sent.sender for sent in cluster.sent_since(mark, VoteResponse) if isinstance(sent, VoteResponse) and sent.granted}
    assert granted == {"c", "d"}


def test_ms_12_a_learner_that_can_not_be_reached_stalls_nothing() -> None:
    """A server that joins without a vote and can't be reached costs no commit, and is told the rest once it is there."""
    cluster = led()
    cluster.change("a", AddLearner(member("d")))
    cluster.cut("c")
    cluster.write("a", b"x")
    assert cluster.commands("a") == [b"x"]
    cluster.add_server("d")
    cluster.run(3 * H, "a", "b", "d")
    assert cluster.commands("d") == [b"x"]


def test_ms_14_quorum_shrinks_under_a_pending_entry() -> None:
    """An entry that lacks one answer commits when the removal that lowers the quorum does."""
    cluster = led("abcd")
    cluster.cut("d")
    cluster.cut("c")
    cluster.propose("a", b"x")
    cluster.settle()
    assert cluster["a"].status().commit_index == 1  # two of four
    cluster.change("a", Remove("d"))
    assert cluster["a"].status().commit_index == 3  # two of three hold it and the removal
    cluster.heal()
    cluster.run(2 * H)
    assert cluster.commands("c") == [b"x"]


def test_mj_06_learners_never_decide() -> None:
    """A learner counts in no quorum, does not campaign even when told to, and gets what the others get."""
    cluster = led("abc", "de")
    cluster.cut("a", "b", "c")
    cluster.write("a", b"x")
    assert cluster["a"].status().commit_index == 1
    cluster.hand_over(TimeoutNow("a", "d", 1))
    assert (cluster["d"].role, cluster["d"].term) == (Role.FOLLOWER, 1)
    cluster.heal()
    cluster.run(2 * H)
    assert cluster.commands("d") == cluster.commands("e") == [b"x"]
    mark = len(cluster.sent)
    cluster.crash("a")
    cluster.run(5 * T)
    asked = {sent.to for sent in cluster.sent_since(mark, PreVoteRequest, VoteRequest)}
    assert asked <= {"a", "b", "c"}


def test_who_does_not_lead_changes_nothing() -> None:
    """A follower refuses a change and names the leader."""
    with pytest.raises(NotLeader, match="the leader is a"):
        led().change("b", Remove("c"))


def test_a_malformed_configuration_is_refused_before_anything_changes() -> None:
    """An append with bytes that are no configuration leaves term, leader, timer and log as they were."""
    cluster = led()
    cluster.tick("b", 1)
    state = cluster["b"].state
    before = (cluster["b"].status(), state.election_elapsed, state.verified)
    broken = Entry(2, 9, EntryKind.CONFIGURATION, b"{")
    with pytest.raises(MalformedMessage, match="no configuration"):
        cluster["b"].step(AppendRequest("c", "b", 9, 1, 1, (broken,), 0))
    assert (cluster["b"].status(), state.election_elapsed, state.verified) == before


def test_a_change_of_two_nodes_tracks_members() -> None:
    """The leader keeps what it knows of the members that stay, and forgets who goes."""
    cluster = led("abcd")
    cluster.write("a", b"x")
    known = {peer.peer: peer.match_index for peer in cluster["a"].status().peers}
    cluster.hold_disk("a")
    cluster["a"].change(Remove("d"), 99)
    assert {peer.peer: peer.match_index for peer in cluster["a"].status().peers} == {node: known[node] for node in "bc"}


def test_a_configuration_survives_restart_and_compaction() -> None:
    """After a restart from a compacted log the last configuration is in force."""
    cluster = Cluster("ab", config=replace(QUICK))
    cluster.elect("a")
    cluster.change("a", AddLearner(member("z")))
    cluster.write("a", b"x")
    cluster.compact("a", 3)
    cluster.restart("a")
    assert cluster["a"].status().configuration == configuration("ab", "z")


def test_ms_08_a_leader_whose_removal_nobody_else_holds() -> None:
    """A leader that lost its place before anybody else held that change leads again and completes it: nobody else could be elected."""
    cluster = led("ab")
    cluster.cut("a")
    cluster.change("a", Remove("a"))
    cluster.run(2 * T)
    assert cluster.leaders == []
    cluster.heal()
    cluster.run(6 * T)
    assert cluster.leaders == ["b"]
    assert voters(cluster, "a") == voters(cluster, "b") == "b"
    term = cluster["b"].term
    cluster.run(20 * T)
    assert (cluster.leaders, cluster["b"].term) == (["b"], term)
