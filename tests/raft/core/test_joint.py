"""Scenarios of joint consensus and learners (MJ), on the core."""

from itertools import combinations

import pytest

from raft.core.membership import AddLearner, AddVoter, Change, Demote, JointChange, LeaveJoint, Remove, Step, encode_configuration
from raft.core.messages import TimeoutNow
from raft.core.model import Boundary, Configuration, Entry, EntryKind, HardState, Promotion
from raft.core.quorum import VoteResult, is_quorum, joint_vote, jointly_agreed
from raft.core.roles import Role
from raft.errors import ChangePending, ChangeRefused, InsideJointChange, LearnerBehind, OutsideJointChange, TransferRefused
from raft.testing.cluster import QUICK, Cluster, configuration, entry, member

T = QUICK.election_ticks
H = QUICK.heartbeat_ticks


def led(ids: str = "abc", learners: str = "") -> Cluster:
    """A cluster that the first server leads; its learners have caught up."""
    cluster = Cluster([*ids, *learners], voters=ids, learners=learners)
    cluster.elect(ids[0])
    cluster.run(2 * H)
    return cluster


def joint(*steps: Step, leaves_by_itself: bool = False) -> JointChange:
    """A joint change that lasts until it is left, unless said otherwise."""
    return JointChange(steps, leaves_by_itself=leaves_by_itself)


def halves(cluster: Cluster, node: str) -> str:
    """The configuration in force at a node: incoming voters, outgoing voters, learners, learners to be."""
    found = cluster[node].status().configuration
    groups = (found.voters, found.outgoing, found.learners, found.learners_next)
    return "/".join("".join(member.id for member in group) for group in groups)


# Both majorities


def majorities(ids: tuple[str, ...]) -> list[set[str]]:
    """Every subset that is more than half, the slow way."""
    return [set(some) for size in range(len(ids) + 1) for some in combinations(ids, size) if 2 * size > len(ids)]


def test_mj_01_both_majorities() -> None:
    """Votes, commits and contact need a majority of both halves: compared with the definition for all pairs of halves of up to five ids."""
    everybody = "abcde"
    groups = [some for size in range(1, 4) for some in combinations(everybody, size)]
    for incoming in groups:
        for outgoing in groups:
            wanted = [(new, old) for new in majorities(incoming) for old in majorities(outgoing)]
            for size in range(len(everybody) + 1):
                for present in combinations(everybody, size):
                    enough = any(new | old <= set(present) for new, old in wanted)
                    assert is_quorum(incoming, outgoing, present) == enough
                    votes = {node: node in present for node in everybody}
                    assert (joint_vote(incoming, outgoing, votes) is VoteResult.WON) == enough
                    reached = {node: int(node in present) for node in everybody}
                    assert (jointly_agreed(incoming, outgoing, reached.__getitem__) >= 1) == enough


def test_mj_01_commits_elections_and_reads() -> None:
    """Inside a joint change neither half decides alone: not a commit, not a read, not an election, and contact with one half is not enough."""
    cluster = led("abc", "de")
    cluster.change("a", joint(Remove("b"), Remove("c"), AddVoter(member("d")), AddVoter(member("e"))))
    assert halves(cluster, "a") == "ade/abc//"
    for lost in (("b", "c"), ("d", "e")):
        for node in lost:
            cluster.cut(node)
        commit = cluster["a"].status().commit_index
        cluster.propose("a", b"x")
        context = cluster.read("a")
        cluster.run(H, "a")
        assert cluster["a"].status().commit_index == commit
        assert context not in cluster.servers["a"].reads
        cluster.run(T, "a")
        assert cluster["a"].role is Role.FOLLOWER, "contact with one half is not enough to lead"
        with pytest.raises(RuntimeError, match="a does not come to lead"):
            cluster.elect("a")
        cluster.heal()
        cluster.elect("a")
        cluster.run(2 * H)
    cluster.write("a", b"y")
    cluster.run(2 * H)
    assert all(cluster.commands(node)[-1] == b"y" for node in "abcde")


def test_mj_01_one_of_each_half_may_be_missing() -> None:
    """A majority of each half is enough."""
    cluster = led("abc", "de")
    cluster.change("a", joint(Remove("b"), Remove("c"), AddVoter(member("d")), AddVoter(member("e"))))
    cluster.cut("b")
    cluster.cut("e")
    cluster.write("a", b"x")
    cluster.run(2 * H)
    assert cluster.commands("a") == cluster.commands("c") == cluster.commands("d") == [b"x"]


def test_mj_01_it_is_not_left_before_both_halves_hold_it() -> None:
    """A joint change that leaves by itself stays as long as one half has not committed it: the other could decide alone otherwise."""
    cluster = led("abc", "de")
    for node in "de":
        cluster.cut(node)
    cluster.change("a", joint(Remove("b"), Remove("c"), AddVoter(member("d")), AddVoter(member("e")), leaves_by_itself=True))
    cluster.run(2 * H, "a", "b", "c")
    assert halves(cluster, "a") == "ade/abc//"
    cluster.heal()
    cluster.run(2 * H)
    assert halves(cluster, "a") == "ade///"


# Entering and leaving


def test_a_joint_change_leaves_by_itself() -> None:
    """Once it is committed the leader leaves it, without being asked; the new half decides alone then."""
    cluster = led("abc", "de")
    cluster.change("a", joint(Remove("b"), Demote("c"), AddVoter(member("d")), AddVoter(member("e")), leaves_by_itself=True))
    cluster.run(2 * H)
    assert {halves(cluster, node) for node in "acde"} == {"ade//c/"}
    cluster.cut("b")
    cluster.cut("c")
    cluster.write("a", b"x")
    cluster.run(2 * H)
    assert cluster.commands("d") == [b"x"]


def test_a_new_leader_leaves_what_the_old_one_began() -> None:
    """A joint change that leaves by itself is left by whoever leads when it is committed."""
    cluster = led("abc", "d")
    cluster.hold_disk("b")
    cluster.hold_disk("c")
    cluster.change("a", joint(Remove("c"), AddVoter(member("d")), leaves_by_itself=True))
    cluster.crash("a")
    for node in "bc":
        cluster.release_disk(node)
    cluster.elect("b")
    cluster.run(2 * H)
    assert halves(cluster, "b") == halves(cluster, "d") == "abd///"


def test_leaving_waits_for_a_transfer() -> None:
    """While leadership is handed over nothing is appended: the next leader leaves the joint change."""
    cluster = led("abc", "d")
    for node in "bc":
        cluster.hold_disk(node)
    cluster.change("a", joint(AddVoter(member("d")), Remove("c"), leaves_by_itself=True))
    cluster["a"].transfer("b")
    for node in "bc":
        cluster.release_disk(node)
    cluster.settle()
    cluster.run(2 * H)
    assert cluster.leaders == ["b"]
    assert halves(cluster, "b") == "abd///"


def test_three_named_refusals() -> None:
    """A second change inside, a leave outside and a predecessor that is not applied are refused by name, and no entry is written."""
    cluster = led("abc", "d")

    def refused(change: Change) -> None:
        before = cluster["a"].status()
        with pytest.raises(wanted):
            cluster.change("a", change)
        assert cluster["a"].status() == before

    wanted: type[ChangeRefused] = OutsideJointChange
    refused(LeaveJoint())
    for node in "bc":
        cluster.hold_disk(node)
    cluster.change("a", joint(AddVoter(member("d"))))
    wanted = ChangePending
    for change in (LeaveJoint(), Remove("b"), joint(Remove("b"))):
        refused(change)
    for node in "bc":
        cluster.release_disk(node)
    cluster.settle()
    wanted = InsideJointChange
    for change in (Remove("b"), AddLearner(member("e")), joint(Remove("b"))):
        refused(change)
    cluster.change("a", LeaveJoint())
    assert halves(cluster, "a") == "abcd///"


def test_nonsense_is_refused() -> None:
    """A joint change without steps, without a voter left, or with a step that makes no sense changes nothing."""
    cluster = led("ab", "d")
    before = cluster["a"].status()
    for steps, why in (
        ((), "without a single step"),
        ((Remove("a"), Remove("b")), "b is the last voter"),
        ((Remove("a"), Demote("b")), "b is the last voter"),
        ((Remove("a"), Remove("a")), "a is no member"),
        ((AddVoter(member("d")), AddVoter(member("d"))), "d. is a voter already"),
        ((Demote("d"),), "d is no voter"),
        ((AddLearner(member("b")),), "is a member already"),
        ((AddLearner(member("e"), promote=True, replaces="x"),), "can't replace x, which is no member"),
        ((AddLearner(member("e"), replaces="b"),), "only by becoming a voter"),
    ):
        with pytest.raises(ChangeRefused, match=why):
            cluster.change("a", joint(*steps))
    assert cluster["a"].status() == before


def test_the_only_voter_is_replaced() -> None:
    """In one change a cluster of one moves to another server, in either order of the steps."""
    for steps in ((Remove("a"), AddVoter(member("d"))), (AddVoter(member("d")), Remove("a"))):
        cluster = led("a", "d")
        cluster.change("a", joint(*steps, leaves_by_itself=True))
        cluster.run(3 * T)
        assert (cluster.leaders, halves(cluster, "d")) == (["d"], "d///")


# Restarts and snapshots


def test_mj_03_joint_state_in_snapshots() -> None:
    """A snapshot taken inside, a restart inside, and a server that gets the snapshot inside keep both halves and the learners to be."""
    cluster = led("abc", "de")
    cluster.change("a", joint(Demote("b"), AddVoter(member("d")), AddLearner(member("f"), promote=True)))
    inside = cluster["a"].status().configuration
    assert halves(cluster, "a") == "acd/abc/ef/b"
    assert inside.promotions == (Promotion("f"),)
    cluster.write("a", b"x")
    boundary = cluster.compact("a", cluster["a"].status().applied_index)
    assert boundary.configuration == inside
    cluster.crash("a")
    cluster.restart("a")
    assert cluster["a"].status().configuration == inside
    cluster.add_server("f")
    cluster.elect("a")
    cluster.run(2 * T)
    assert cluster["f"].status().configuration == inside
    assert cluster["f"].status().boundary_index == boundary.index
    cluster.change("a", LeaveJoint())
    cluster.run(2 * H)
    assert halves(cluster, "f").startswith("acd")


def test_an_uncommitted_configuration_enters_no_snapshot() -> None:
    """The label of a state holds the configuration at its index, not the one in force."""
    cluster = led("abc", "d")
    cluster.write("a", b"x")
    cluster.hold_disk("b")
    cluster.hold_disk("c")
    cluster.change("a", joint(AddVoter(member("d")), Remove("c")))
    applied = cluster["a"].status().applied_index
    assert cluster["a"].boundary_at(applied).configuration == configuration("abc", "d")


def test_an_undone_joint_change_is_gone() -> None:
    """Both halves, and what was to follow, are undone with the entry."""
    cluster = led("abc", "d")
    cluster.cut("a")
    cluster.change("a", joint(AddVoter(member("d")), Remove("b"), leaves_by_itself=True))
    assert halves(cluster, "a") == "acd/abc//"
    cluster.elect("b", frozen="a")
    cluster.heal()
    cluster.run(2 * H)
    assert halves(cluster, "a") == "abc//d/"


# Who leads


def test_mj_04_replace_the_leader_in_one_change() -> None:
    """The leader goes and another comes in one change; the new leader leaves the joint state; the old one can't campaign."""
    cluster = led("abc", "d")
    cluster.change("a", joint(Remove("a"), AddVoter(member("d"))))
    assert (halves(cluster, "a"), cluster["a"].role) == ("bcd/abc//", Role.LEADER)
    with pytest.raises(TransferRefused, match="a leads already"):
        cluster["a"].transfer("a")
    cluster["a"].transfer("d")
    cluster.settle()
    assert cluster.leaders == ["d"]
    cluster.run(2 * H)
    cluster.change("d", LeaveJoint())
    cluster.run(2 * H)
    assert halves(cluster, "d") == "bcd///"
    term = cluster["d"].term
    cluster.run(20 * T)
    assert (cluster.leaders, cluster["d"].term) == (["d"], term)


def test_a_leader_that_is_replaced_steps_down_when_the_change_is_left() -> None:
    """It leads through the joint state, as a voter of the old half, and steps down when the new half alone is committed."""
    cluster = led("abc", "d")
    cluster.change("a", joint(Remove("a"), AddVoter(member("d")), leaves_by_itself=True))
    cluster.run(1)
    assert cluster["a"].role is Role.FOLLOWER
    cluster.run(4 * T)
    assert cluster.leaders[0] in set("bcd")
    assert halves(cluster, cluster.leaders[0]) == "bcd///"


def test_leadership_goes_to_no_outgoing_voter() -> None:
    """A voter that is about to go is no target of a transfer."""
    cluster = led("abc", "d")
    cluster.change("a", joint(Remove("b"), AddVoter(member("d"))))
    with pytest.raises(TransferRefused, match="b is no voter"):
        cluster["a"].transfer("b")


# Learners


def test_mj_06_a_demoted_voter_waits() -> None:
    """A demoted voter votes in the old half until the change is left, and is a learner only then: it counts in no quorum and never campaigns."""
    cluster = led("abc", "d")
    cluster.change("a", joint(Demote("c"), AddVoter(member("d"))))
    assert halves(cluster, "a") == "abd/abc//c"
    cluster.change("a", LeaveJoint())
    cluster.run(2 * H)
    assert halves(cluster, "c") == "abd//c/"
    cluster.hand_over(TimeoutNow("a", "c", 1))
    assert (cluster["c"].role, cluster["c"].term) == (Role.FOLLOWER, 1)
    cluster.cut("b")
    cluster.cut("d")
    commit = cluster["a"].status().commit_index
    cluster.write("a", b"x")
    assert cluster["a"].status().commit_index == commit


def test_ms_12_no_vote_before_it_has_caught_up() -> None:
    """A server gets a vote only as a learner that keeps up: not a stranger, not one that is unreachable, not one that stopped answering."""
    cluster = led()
    with pytest.raises(LearnerBehind, match="d can't become a voter: it must be added as a learner first"):
        cluster.change("a", AddVoter(member("d")))
    cluster.add_learner("a", "d")
    for change in (AddVoter(member("d")), joint(AddVoter(member("d")), Remove("b"))):
        with pytest.raises(LearnerBehind, match="d can't become a voter: it holds 0 of 2 entries"):
            cluster.change("a", change)
    cluster.add_server("d")
    cluster.run(2 * H)
    cluster.cut("d")
    cluster.write("a", b"x")
    cluster.run(2 * T)
    with pytest.raises(LearnerBehind, match="it holds 2 of 3 entries"):
        cluster.change("a", AddVoter(member("d")))
    cluster.heal()
    cluster.run(2 * T)
    cluster.change("a", AddVoter(member("d")))
    assert halves(cluster, "a") == "abcd///"


def test_ms_12_a_round_that_takes_too_long() -> None:
    """A learner that always arrives, but an election timeout behind, is not let in while writes go on."""
    cluster = led()
    cluster.add_server("d")
    cluster.add_learner("a", "d")
    cluster.run(2 * H)
    for _ in range(4):
        cluster.hold_disk("d")
        cluster.write("a", b"x")
        cluster.run(T + 2)
        cluster.write("a", b"y")
        cluster.release_disk("d")
        cluster.settle()
        assert not next(peer for peer in cluster["a"].status().peers if peer.peer == "d").caught_up
    cluster.run(2)
    assert next(peer for peer in cluster["a"].status().peers if peer.peer == "d").caught_up


def test_a_learner_promotes_itself() -> None:
    """A learner that is to become a voter does so as soon as it has caught up, also under another leader than the one that added it."""
    cluster = led()
    cluster.change("a", AddLearner(member("d"), promote=True))
    cluster.run(2 * T, "a", "b", "c")
    assert halves(cluster, "a") == "abc//d/"
    cluster.crash("a")
    cluster.elect("b")
    cluster.add_server("d")
    cluster.run(2 * T)
    assert halves(cluster, "b") == halves(cluster, "d") == "abcd///"
    assert cluster["b"].status().configuration.promotions == ()


def test_a_learner_takes_a_place() -> None:
    """A learner that replaces a member does so in one change, whether that member is reachable or not; the old one counts until then."""
    for lost in (True, False):
        cluster = led()
        if lost:
            cluster.crash("c")
        cluster.change("a", AddLearner(member("d"), promote=True, replaces="c"))
        assert halves(cluster, "a") == "abc//d/"
        cluster.add_server("d")
        cluster.run(2 * T)
        assert halves(cluster, "a") == halves(cluster, "d") == "abd///"


def test_promotions_follow_what_happens_to_their_members() -> None:
    """Whoever is removed is not promoted; whose place is gone replaces nobody; a promotion by hand ends the other."""
    cluster = led("abc")
    cluster.change("a", AddLearner(member("d"), promote=True, replaces="c"))
    cluster.change("a", AddLearner(member("e"), promote=True, replaces="d"))
    cluster.change("a", Remove("c"))
    assert cluster["a"].status().configuration.promotions == (Promotion("d"), Promotion("e", "d"))
    cluster.change("a", Remove("d"))
    assert cluster["a"].status().configuration.promotions == (Promotion("e"),)
    cluster.add_server("e")
    cluster.run(2 * T)
    assert halves(cluster, "a") == "abe///"


def test_promotion_waits_while_another_change_is_pending() -> None:
    """One change at a time holds for the leader itself too."""
    cluster = led("abc")
    cluster.add_server("d")
    cluster.change("a", AddLearner(member("d"), promote=True))
    for node in "bc":
        cluster.hold_disk(node)
    cluster.run(T // 2)
    index = cluster["a"].status().configuration_index
    cluster.run(T // 2 - 1)
    assert cluster["a"].status().configuration_index == index
    for node in "bc":
        cluster.release_disk(node)
    cluster.run(2 * T)
    assert halves(cluster, "a") == "abcd///"


def test_a_configuration_from_before_has_no_joint_fields() -> None:
    """The bytes of a configuration outside a joint change hold nothing of it."""
    assert encode_configuration(configuration("a")) == b'{"voters":[["a","name-a","a:1"]]}'


def test_a_joint_boundary_starts_a_server() -> None:
    """A log that begins inside a joint change has both halves in force from the first moment."""
    inside = Configuration(voters=(member("b"),), outgoing=(member("a"),))
    cluster = Cluster("")
    for node in "ab":
        cluster.add_server(node, first=Boundary(configuration=inside))
    cluster.cut("b")
    with pytest.raises(RuntimeError, match="a does not come to lead"):
        cluster.elect("a")
    cluster.heal()
    cluster.elect("a")
    cluster.run(2 * H)
    cluster.change("a", LeaveJoint())
    assert cluster["a"].role is Role.FOLLOWER


def test_a_configuration_entry_of_a_joint_change_is_followed() -> None:
    """A follower that restarts with a joint configuration in its log uses both halves, committed or not."""
    inside = Entry(2, 1, EntryKind.CONFIGURATION, encode_configuration(Configuration((member("a"), member("d")), (), configuration("abc").voters)))
    cluster = Cluster("abc", logs={"a": ((entry(1, 1), inside), HardState(1))})
    assert halves(cluster, "a") == "ad/abc//"
