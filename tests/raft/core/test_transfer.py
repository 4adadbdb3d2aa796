"""Scenarios of leadership transfer (TR) on the core."""

import pytest

from raft.core.membership import Demote, Remove
from raft.core.messages import AppendAccepted, TimeoutNow
from raft.core.roles import Role
from raft.errors import ChangeRefused, NotLeader, TransferInProgress, TransferRefused
from raft.testing.cluster import QUICK, Cluster

T = QUICK.election_ticks
H = QUICK.heartbeat_ticks


def led(ids: str = "abc", learners: str = "") -> Cluster:
    """A cluster that the first server leads; its no-op is committed everywhere."""
    cluster = Cluster([*ids, *learners], voters=ids, learners=learners)
    cluster.elect(ids[0])
    cluster.run(2 * H)
    return cluster


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
    """Three transfers amid 10,000 queued writes each: what was taken is there once and in order on every node, what was refused is not."""
    cluster = led()
    taken: list[bytes] = []
    refused = 0
    for target in "bca":
        leader = cluster.leaders[0]
        cluster.hold_disk(target)  # so that it is behind when it is named
        for number in range(12_000):
            command = b"%s%d" % (target.encode(), number)
            if number == 10_000:
                cluster[leader].transfer(target)
            try:
                cluster.propose(leader, command)
                taken.append(command)
            except TransferInProgress:
                refused += 1
            if number % 500 == 0:
                cluster.pump(leader)
        cluster.settle()
        assert cluster.leaders == [leader]
        cluster.release_disk(target)
        cluster.settle()
        assert cluster.leaders == [target]
        cluster.run(H)
        appended = cluster.servers[leader].appended
        assert {item.term for item in appended} == {cluster[target].term - 1}
        appended.clear()
    assert (len(taken), refused) == (30_000, 6_000)
    assert [cluster.commands(node) for node in "abc"] == [taken] * 3


def test_a_target_that_dies_costs_an_election_timeout() -> None:
    """When the target is gone after it was told to campaign, the leader takes proposals again, in its own term."""
    cluster = led()
    cluster["a"].transfer("b")
    cluster.pump("a")
    cluster.crash("b")
    cluster.run(T)
    cluster.write("a", b"x")
    assert (cluster.leaders, cluster["a"].term, cluster.commands("a")) == (["a"], 1, [b"x"])


def test_an_old_request_to_campaign_starts_nothing() -> None:
    """A TimeoutNow that arrives again after the transfer, or of an earlier term, changes neither leader nor term."""
    cluster = led()
    cluster["a"].transfer("b")
    cluster.settle()
    cluster.run(H)
    for node in "bc":
        cluster.hand_over(TimeoutNow("a", node, 1))
    cluster.run(2 * T)
    assert (cluster.leaders, cluster.terms) == (["b"], {2})


def test_an_answer_in_the_term_of_a_transfer_counts() -> None:
    """The new leader learns what its followers hold from the answers to its first append."""
    cluster = led()
    cluster["a"].transfer("b")
    cluster.settle()
    mark = len(cluster.sent)
    cluster.run(H)
    assert cluster.sent_since(mark, AppendAccepted) == []
    assert {peer.match_index for peer in cluster["b"].status().peers} == {2}
