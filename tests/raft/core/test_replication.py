"""Scenarios of replication (RE) and of commit safety (CS) on the core."""

from dataclasses import replace
from itertools import permutations
from random import Random

import pytest

from raft.config import RaftConfig
from raft.core.messages import AppendAccepted, AppendRejected, AppendRequest, Heartbeat, HeartbeatResponse, InstallSnapshot
from raft.core.model import HardState
from raft.errors import EmptyProposal, NotLeader, ProposalTooLarge
from raft.testing.cluster import QUICK, Cluster, entries, entry

T = QUICK.election_ticks


def led(ids: str = "abc", config: RaftConfig = QUICK) -> Cluster:
    """A cluster that the first server leads; its no-op is committed everywhere."""
    cluster = Cluster(ids, config=config)
    cluster.elect(ids[0])
    cluster.run(QUICK.heartbeat_ticks + 1)
    assert {cluster[node].status().commit_index for node in ids} == {1}
    return cluster


def commits(cluster: Cluster) -> dict[str, int]:
    """Everybody's commit index."""
    return {node: server.running.status().commit_index for node, server in cluster.servers.items() if server.node}


def test_re_01_basic_agreement() -> None:
    """Proposals get consecutive indices, commit in order and are applied once on every node, in the same order."""
    cluster = led()
    for number in range(20):
        cluster.write("abc"[number % 3], b"%d" % number)
    cluster.run(QUICK.heartbeat_ticks)
    expected = [b"%d" % number for number in range(20)]
    assert [cluster.commands(node) for node in "abc"] == [expected] * 3
    placed = cluster.servers["a"].appended
    assert [item.first_index for item in placed] == list(range(2, 22))
    assert [item.origin for item in placed[:3]] == ["a", "b", "c"]


def test_re_02_a_commit_is_a_durable_majority() -> None:
    """Entries that a follower has received but not synced do not count; with all power cut after the commit they are still there."""
    cluster = led()
    for node in "bc":
        cluster.hold_disk(node)
    cluster.write("a", b"x")
    cluster.run(2 * QUICK.heartbeat_ticks)  # they answer heartbeats: contact is no acknowledgement
    assert cluster["b"].status().last_index == 2
    assert cluster["a"].status().commit_index == 1
    cluster.release_disk("b")
    cluster.settle()
    assert cluster["a"].status().commit_index == 2
    for node in "abc":
        cluster.servers[node].disk_held = False
        cluster.restart(node)
    cluster.wire.clear()
    cluster.run(5 * T)
    cluster.run(QUICK.heartbeat_ticks)
    assert all(cluster.commands(node) == [b"x"] for node in "abc")


def test_re_02_the_leader_counts_itself_only_when_durable() -> None:
    """With its own disk held a leader of three needs both followers."""
    cluster = led()
    cluster.hold_disk("a")
    cluster.cut("c")
    cluster.write("a", b"x")
    assert cluster["a"].status().commit_index == 1
    cluster.heal()
    cluster.run(QUICK.heartbeat_ticks + 1)
    assert cluster["a"].status().commit_index == 2
    assert cluster.commands("a") == []  # applied only once it is on its own disk
    cluster.release_disk("a")
    cluster.settle()
    assert cluster.commands("a") == [b"x"]


@pytest.mark.parametrize(("ids", "away"), [("abc", "c"), ("abcde", "de")])
def test_re_03_progress_without_a_minority(ids: str, away: str) -> None:
    """With a minority cut off the rest keeps committing; after healing all logs agree."""
    cluster = led(ids)
    for node in away:
        cluster.cut(node)
    for number in range(5):
        cluster.write("a", b"%d" % number)
    assert len(cluster.commands("a")) == 5
    cluster.heal()
    cluster.run(3 * QUICK.heartbeat_ticks)
    assert cluster.leaders == ["a"]
    assert all(cluster.log_terms(node) == cluster.log_terms("a") for node in ids)
    assert all(cluster.commands(node) == cluster.commands("a") for node in ids)


@pytest.mark.parametrize(("successor", "expected"), [("a", [b"x"]), ("c", [])], ids=["committed once", "gone"])
def test_re_04_no_quorum_no_success(successor: str, expected: list[bytes]) -> None:
    """With three of five apart nothing commits; after healing the entry is committed once, or gone everywhere, as the next leader has it or not."""
    cluster = led("abcde")
    cluster.cut("a", *"cde")
    cluster.cut("b", *"cde")
    cluster.write("a", b"x")
    cluster.run(3 * T, "a", "b")
    assert commits(cluster)["a"] == 1
    assert [cluster.commands(node) for node in "abcde"] == [[]] * 5
    if successor == "c":
        cluster.elect("c", frozen="ab")
    cluster.heal()
    cluster.elect(successor)
    cluster.run(2 * T)
    assert cluster.leaders == [successor]
    assert [cluster.commands(node) for node in "abcde"] == [expected] * 5
    assert len({tuple(cluster.log_terms(node)) for node in "abcde"}) == 1


def test_re_06_reordered_and_duplicated_appends() -> None:
    """Every order of four appends and heartbeats under way, each twice, ends in the log of in-order delivery; neither log nor commit moves back."""
    appends = [AppendRequest("a", "b", 1, index - 1, 1 if index > 1 else 0, entries(1, first=index), max(0, index - 2)) for index in range(1, 5)]
    for order in permutations(range(4)):
        cluster = Cluster("abc")
        seen = (0, 0)
        for position in (*order, *order, *range(4), *order):
            cluster.hand_over(appends[position])
            cluster.hand_over(Heartbeat("a", "b", 1, max(0, position - 1), 0))
            cluster.pump("b")
            now = (cluster["b"].status().last_index, cluster["b"].status().commit_index)
            assert now >= seen
            assert now[1] >= seen[1]
            seen = now
        assert cluster.log_terms("b") == [1, 1, 1, 1], order
        assert seen == (4, 2)


@pytest.mark.parametrize("kind", ["heartbeat", "append"])
def test_re_07_follower_commit_bound(kind: str) -> None:
    """A commit index beyond what the message itself verified moves commit only as far as the logs are known to agree."""
    cluster = Cluster("abc", logs={"b": (entries(1, 1, 2, 2), HardState(2))})
    if kind == "heartbeat":
        cluster.hand_over(AppendRequest("a", "b", 5, 1, 1, (), 0))
        cluster.hand_over(Heartbeat("a", "b", 5, 4, 1))
    else:
        cluster.hand_over(AppendRequest("a", "b", 5, 1, 1, (), 4))
    assert cluster["b"].status().commit_index == 1
    cluster.hand_over(AppendRequest("a", "b", 5, 1, 1, (entry(2, 5),), 9))
    assert cluster["b"].status().commit_index == 2
    assert cluster.log_terms("b") == [1, 5]


def test_re_08_idle_cluster_learns_the_commit() -> None:
    """Without new writes every follower has applied the leader's commit within two heartbeats."""
    cluster = led()
    cluster.write("a", b"x")
    cluster.run(2 * QUICK.heartbeat_ticks)
    assert [cluster.commands(node) for node in "abc"] == [[b"x"]] * 3


def test_re_10_message_economy() -> None:
    """Ten entries on three idle nodes cost at most 42 requests, a second of idleness at most 60, and nothing is sent to a follower twice."""
    cluster = led()
    mark = len(cluster.sent)
    for number in range(10):
        cluster.write("a", b"%d" % number)
    assert len([sent for sent in cluster.sent_since(mark) if sent.sender == "a"]) <= 42
    idle = Cluster("abc", config=RaftConfig())
    idle.elect("a")
    idle.run(2 * T)
    mark = len(idle.sent)
    idle.run(1_000 // RaftConfig().tick_ms)
    assert len([sent for sent in idle.sent_since(mark) if sent.sender == "a"]) <= 60
    assert idle.sent_since(mark, AppendRequest, AppendAccepted) == []
    mark = len(idle.sent)
    idle.write("a", *[b"x" * 1_000] * 100)
    replicated = sum(len(item.data) for sent in idle.sent_since(mark, AppendRequest) if isinstance(sent, AppendRequest) for item in sent.entries)
    assert replicated == 2 * 100_000


def figure_8() -> Cluster:
    """Five servers as in part (c) of the paper's figure 8: ``a`` leads again, and its entry of term 2 is on three disks."""
    logs = {node: (entries(1), HardState(3)) for node in "bcd"}
    logs["a"] = (entries(1, 2), HardState(3))
    logs["e"] = (entries(1, 3), HardState(3))
    cluster = Cluster("abcde", logs=logs)
    for node in "de":
        cluster.cut(node)
    cluster.drop = lambda message: (
        isinstance(message, AppendRequest) and any(item.term > 3 for item in message.entries) and _cut_short(cluster, message)
    )
    cluster.elect("a", frozen="de")
    return cluster


def _cut_short(cluster: Cluster, message: AppendRequest) -> bool:
    """Let only the entries of earlier terms through, as an append that was small would."""
    old = tuple(item for item in message.entries if item.term <= 3)
    if old:
        cluster.wire.append(replace(message, entries=old))
    return True


def test_cs_01_figure_8() -> None:
    """An entry of an earlier term on a majority is not committed; when its leader crashes the rival may overwrite it."""
    cluster = figure_8()
    for node in "bc":
        cluster.hand_over(AppendRequest("a", node, cluster["a"].term, 1, 1, entries(2, first=2), 0))
        cluster.settle()
    assert [cluster.log_terms(node) for node in "abc"] == [[1, 2, cluster["a"].term], [1, 2], [1, 2]]
    assert commits(cluster)["a"] == 0
    cluster.crash("a")
    cluster.drop = lambda _message: False
    cluster.heal()
    cluster.wire.clear()
    cluster["e"].step(Heartbeat("d", "e", cluster["b"].term, 0, 0))  # it learns of the term
    cluster.elect("e")
    cluster.run(2 * QUICK.heartbeat_ticks)
    term = cluster["e"].term
    assert [cluster.log_terms(node) for node in "bcde"] == [[1, 3, term]] * 4
    assert all(b"2/2" not in cluster.commands(node) for node in "bcde")  # nobody was told that it was committed


def test_cs_02_figure_8_the_other_ending() -> None:
    """When an entry of the present term reaches a majority everything before it commits at once, and the rival can't win any more."""
    cluster = figure_8()
    cluster.drop = lambda _message: False
    cluster.run(2 * QUICK.heartbeat_ticks, "a", "b", "c")
    assert commits(cluster)["a"] == 3
    assert cluster.log_terms("b") == [1, 2, cluster["a"].term]
    cluster.crash("a")
    cluster.heal()
    with pytest.raises(RuntimeError, match="e does not come to lead"):
        cluster.elect("e")
    cluster.elect("b")
    cluster.run(2 * QUICK.heartbeat_ticks)
    assert cluster.log_terms("e")[:2] == [1, 2]


def test_cs_03_no_op_at_term_start() -> None:
    """A new leader appends an entry of its term at once; entries of earlier terms commit with it, not before."""
    cluster = Cluster("abc", logs={node: (entries(1, 1), HardState(1)) for node in "abc"})
    cluster.drop = lambda message: isinstance(message, AppendRequest)
    cluster.elect("a")
    assert cluster.log_terms("a") == [1, 1, 2]
    term = cluster["a"].term
    cluster.hand_over(AppendAccepted("b", "a", term, 2))
    cluster.hand_over(AppendAccepted("c", "a", term, 2))
    cluster.settle()
    assert commits(cluster)["a"] == 0
    cluster.hand_over(AppendAccepted("b", "a", term, 3))
    assert commits(cluster)["a"] == 3


@pytest.mark.parametrize(("ids", "up", "commits_then"), [("ab", "a", False), ("abcd", "ab", False), ("abcd", "abc", True)])
def test_half_is_no_majority(ids: str, up: str, commits_then: bool) -> None:
    """With an even number of voters a half commits nothing, one more does."""
    cluster = led(ids)
    for node in set(ids) - set(up):
        cluster.cut(node)
    cluster.write("a", b"x")
    assert (cluster.commands("a") == [b"x"]) is commits_then


def test_a_commit_survives_a_leader_that_forgets_it() -> None:
    """A leader that restarts without its commit index finds it again, not lower, once an entry of its new term is committed."""
    cluster = led()
    for number in range(3):
        cluster.write("a", b"%d" % number)
    cluster.restart("a")
    cluster.elect("a")
    cluster.run(QUICK.heartbeat_ticks + 1)
    assert commits(cluster) == {"a": 5, "b": 5, "c": 5}
    assert cluster.commands("a") == [b"0", b"1", b"2"]


def test_a_follower_that_restarts_goes_on_from_its_disk() -> None:
    """What a follower had written is not sent again; what it had only received is."""
    cluster = led()
    cluster.write("a", b"written")
    cluster.hold_disk("b")
    cluster.write("a", b"received")
    cluster.servers["b"].disk_held = False
    cluster.restart("b")
    mark = len(cluster.sent)
    cluster.run(2 * QUICK.heartbeat_ticks)
    again = {item.data for sent in cluster.sent_since(mark, AppendRequest) if isinstance(sent, AppendRequest) for item in sent.entries}
    assert again == {b"received"}
    assert cluster.commands("b") == [b"written", b"received"]


def _deliver_late(cluster: Cluster, random: Random) -> None:
    """The last messages arrive once more, in another order."""
    for message in random.sample(cluster.sent[-20:], min(20, len(cluster.sent))):
        if not isinstance(message, InstallSnapshot):
            cluster.hand_over(message)


@pytest.mark.parametrize("seed", range(4))
def test_cs_08_figure_8_randomised(seed: int) -> None:
    """Five nodes; leaders cut or crashed and brought back at random, messages late and out of order: nobody applies a different entry."""
    random = Random(seed)
    cluster = Cluster("abcde")
    down: set[str] = set()
    for number in range(250):  # 1,000 rounds over the four seeds
        for server in cluster.servers.values():
            server.jitter = random.randrange(T)
        for leader in cluster.leaders:
            cluster.propose(leader, b"%d" % number)
        cluster.run(random.randrange(1, T))
        if number > 50 and random.random() < 0.7:
            _deliver_late(cluster, random)
        for leader in cluster.leaders:
            if random.random() < 0.5 and len(down) < 2:
                cluster.crash(leader)
                down.add(leader)
            elif random.random() < 0.5:
                cluster.cut(leader)
        if down and random.random() < 0.5:
            back = random.choice(sorted(down))
            cluster.restart(back)
            down.remove(back)
        if random.random() < 0.5:
            cluster.heal()
    for node in down:
        cluster.restart(node)
    cluster.heal()
    cluster.run(10 * T)
    assert len(cluster.leaders) == 1
    cluster.write(cluster.leaders[0], b"end")
    cluster.run(2 * T)
    assert len({tuple(cluster.commands(node)) for node in "abcde"}) == 1
    assert len(cluster.commands("a")) > 10


def test_bad_proposals_change_nothing() -> None:
    """An empty batch, a command over the limit, and a node that knows no leader: each refusal names its reason and leaves the node equal."""
    cluster = led(config=replace(QUICK, proposal_bytes_max=10))
    for node in "ab":
        before = cluster[node].status()
        with pytest.raises(EmptyProposal):
            cluster.propose(node)
        with pytest.raises(ProposalTooLarge, match="a proposal of 11 bytes is over the limit of 10 bytes"):
            cluster.propose(node, b"ok", b"x" * 11)
        assert cluster[node].status() == before
    with pytest.raises(NotLeader, match="no leader is known"):
        Cluster("abc").propose("a", b"x")


def test_an_empty_command_is_a_command() -> None:
    """An empty byte string is a legal proposal."""
    cluster = led()
    cluster.write("b", b"")
    assert cluster.commands("a") == [b""]


def test_answers_that_fit_nothing_change_nothing() -> None:
    """Answers of strangers, and one about an index that the leader does not have, are passed over."""
    cluster = led()
    before = cluster["a"].status()
    term = before.term
    for message in (
        AppendAccepted("b", "a", term, 99),
        AppendAccepted("x", "a", term, 1),
        AppendRejected("x", "a", term, 1, 0, 0),
        HeartbeatResponse("x", "a", term, 1),
    ):
        cluster.hand_over(message)
    assert cluster["a"].status() == before


def test_followers_pass_over_what_is_for_leaders() -> None:
    """Answers that reach a node which does not lead any more are dropped."""
    cluster = led()
    before = cluster["b"].status()
    for message in (AppendAccepted("c", "b", 1, 1), AppendRejected("c", "b", 1, 1, 0, 0), HeartbeatResponse("c", "b", 1, 1)):
        cluster.hand_over(message)
    cluster["b"].report_unreachable("c")
    cluster["b"].report_snapshot("c", 0)
    assert cluster["b"].status() == before


def test_an_unreachable_peer_is_probed() -> None:
    """When the transport lost messages to a follower, the leader searches again for what it holds; a stranger's name changes nothing."""
    cluster = led()
    cluster["a"].report_unreachable("b")
    cluster["a"].report_unreachable("x")
    assert [(peer.peer, peer.state) for peer in cluster["a"].status().peers] == [("b", "probe"), ("c", "replicate")]
    cluster.write("a", b"x")
    assert [(peer.peer, peer.state) for peer in cluster["a"].status().peers] == [("b", "replicate"), ("c", "replicate")]
