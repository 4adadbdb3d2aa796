"""Membership on real processes: who joins, who leaves, who comes back empty, and who is refused."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from cluster import Cluster, Node, free_ports, wait_until

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(180)]

VOTERS = {"n1": "voter", "n2": "voter", "n3": "voter"}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Three nodes that are ready."""
    made = Cluster(tmp_path)
    try:
        made.start_all()
        yield made
    finally:
        made.stop_all()


def kvorum(node: Node, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command against a node."""
    argv = [sys.executable, "-m", "service.cli", *arguments, "--http-addr", node.url]
    return subprocess.run(argv, capture_output=True, text=True, check=False, env=node.environ | {"KVORUM_INITIAL_CLUSTER": "", "KVORUM_JOIN": ""})


def test_grow_and_shrink(cluster: Cluster) -> None:
    """Two nodes join, one by a URL and one by a peer address; they become voters by themselves and hold what was written. Two are removed."""
    first = cluster.nodes[0]
    assert first.put("before", b"1").text == "true"
    by_url = cluster.newcomer("n4", join=f"http://127.0.0.1:1,{cluster.followers()[0].url}")
    by_peer = cluster.newcomer("n5", join=cluster.followers()[1].peer)
    by_url.start()
    by_peer.start()
    wait_until(lambda: first.suffrages() == VOTERS | {"n4": "voter", "n5": "voter"}, "five voters")
    cluster.wait_ready()
    for node in (by_url, by_peer):
        assert node.get("before").content == b"1"
        assert node.put(f"by/{node.name}", b"x").text == "true"
    for node in [node for node in cluster.followers() if node.name in {"n1", "n2", "n3"}][:2]:
        done = kvorum(by_peer, "member", "remove", node.name, "-o", "json")
        assert done.returncode == 0, done.stderr
        assert node.name not in [member["name"] for member in json.loads(done.stdout)["members"]]
        wait_until(lambda node=node: "removed" in node.unready(), "the removed node says so")  # type: ignore[misc]  # mypy knows no default here
        assert "was removed from cluster" in node.log()
        assert node.get("before", "raw&stale").content == b"1"
    assert len(by_url.suffrages()) == 3
    assert by_url.put("after", b"1").text == "true"


def test_removed_node_never_disturbs(cluster: Cluster) -> None:
    """A removed node stays outside over a restart, and the term of the others stays what it was."""
    gone = cluster.followers()[0]
    leader = cluster.leader()
    term = leader.status()["node"]["term"]
    assert requests.delete(f"{gone.url}/v1/cluster/members/{gone.name}", timeout=20).status_code == 200
    wait_until(lambda: "removed" in gone.unready(), "it says that it was removed")
    assert gone.terminate() == 0
    gone.start()
    wait_until(lambda: "removed" in gone.unready(), "it still knows")
    assert gone.put("x", b"1").headers["X-Kvorum-Outcome"] == "rejected"
    assert leader.put("still", b"works").text == "true"
    assert leader.status()["node"]["term"] == term


def test_leader_removes_itself(cluster: Cluster) -> None:
    """The removal of the leader is acknowledged; it hands over before, in one term, and the two others go on without it."""
    leader = cluster.leader()
    rest = [node for node in cluster.nodes if node is not leader]
    term = leader.status()["node"]["term"]
    answer = requests.delete(f"{rest[0].url}/v1/cluster/members/{leader.name}", timeout=20)
    assert answer.status_code == 200, answer.text
    assert rest[0].put("after", b"1").text == "true"
    assert set(rest[0].suffrages()) == {node.name for node in rest}
    assert rest[0].status()["node"]["term"] == term + 1
    wait_until(lambda: "removed" in leader.unready(), "the old leader says that it was removed")


def test_wiped_node_replaces_itself(cluster: Cluster) -> None:
    """A node whose directory is lost comes back as a voter without anybody's help; its old id is gone, and it counts again."""
    node = cluster.followers()[0]
    assert node.put("before", b"1").text == "true"
    old = node.status()["node"]["id"]
    node.kill()
    node.wipe()
    node.start()
    others = [other for other in cluster.nodes if other is not node]
    wait_until(lambda: node.status()["node"]["id"] in _voters(others[0]), "the new incarnation votes")
    members = others[0].members()
    assert old not in [member["id"] for member in members]
    assert sorted(member["name"] for member in members) == ["n1", "n2", "n3"]
    assert "came back empty" in node.log()
    wait_until(lambda: node.get("before", "raw&stale").content == b"1", "it holds what was written")
    other = cluster.followers()[0] if cluster.followers()[0] is not node else cluster.followers()[1]
    other.kill()
    assert node.put("counts", b"again").text == "true"


def _voters(node: Node) -> list[str]:
    return [member["id"] for member in node.members() if member["suffrage"] == "voter"]


def test_second_node_of_a_name(cluster: Cluster) -> None:
    """A second live node of a member's name is refused with exit code 4, named by both addresses; the member does not notice."""
    before = cluster.nodes[0].members()
    twin = cluster.newcomer("n2", join=cluster.nodes[0].url)
    twin.data_dir = twin.data_dir.with_name("twin")
    twin.environ["KVORUM_DATA_DIR"] = str(twin.data_dir)
    twin.log_path = twin.log_path.with_name("twin.log")
    twin.start()
    assert twin.wait() == 4
    assert cluster.nodes[1].peer in twin.log()
    assert twin.peer in twin.log()
    cluster.nodes.remove(twin)
    assert [member["id"] for member in cluster.nodes[0].members()] == [member["id"] for member in before]


def test_refused_additions(cluster: Cluster, tmp_path: Path) -> None:
    """An address where nobody answers, a node of another cluster, a taken name, a member nobody knows: each refused with its reason."""
    node = cluster.followers()[0]
    [port] = free_ports(1)
    nobody = f"127.0.0.1:{port}"
    api, peer = free_ports(2)
    stranger = Node("other", tmp_path, api_port=api, peer_port=peer, initial="", settings={})
    stranger.start()
    try:
        wait_until(stranger.ready, "the other cluster is ready")
        theirs = stranger.status()["node"]["cluster_id"]
        for fields, status, kind, text in (
            ({"name": "n4", "address": nobody}, 502, "unreachable", nobody),
            ({"name": "other", "address": stranger.peer}, 409, "wrong-cluster", theirs),
            ({"name": "n9", "address": stranger.peer}, 409, "refused", "but is other"),
            ({"name": "n4", "address": "127.0.0.1:99999"}, 400, "malformed", "99999"),
            ({"name": "a/b", "address": nobody}, 400, "malformed", "a/b"),
            ({"name": "n4", "address": nobody, "colour": "blue"}, 400, "malformed", "colour"),
        ):
            answer = requests.post(f"{node.url}/v1/cluster/members", json=fields, timeout=20)
            assert (answer.status_code, answer.headers["X-Kvorum-Outcome"]) == (status, "rejected"), answer.text
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert answer.json()["type"].endswith(f":{kind}")
            assert text in answer.json()["detail"]
        answer = requests.delete(f"{node.url}/v1/cluster/members/n7", timeout=20)
        assert (answer.status_code, "'n7'" in answer.json()["detail"]) == (404, True)
        ran = kvorum(node, "member", "add", "n4", nobody)
        assert ran.returncode == 1
        assert nobody in ran.stderr
    finally:
        stranger.terminate()
    assert node.suffrages() == VOTERS


def test_by_hand(cluster: Cluster) -> None:
    """A node that waits is added by hand as a learner, promoted, demoted, and shown so at every node; Consul's route shows it as no voter."""
    node = cluster.followers()[0]
    newcomer = cluster.newcomer("n4", join=node.url, KVORUM_JOIN_AS="by-hand")
    newcomer.start()
    wait_until(lambda: "waiting to be added" in newcomer.unready(), "it says what it waits for")
    added = kvorum(node, "member", "add", "n4", newcomer.peer, "--learner")
    assert added.returncode == 0, added.stderr
    wait_until(lambda: next(member for member in node.members() if member["name"] == "n4")["caught_up"], "the learner has caught up")
    servers = requests.get(f"{node.url}/v1/operator/raft/configuration", timeout=5).json()["Servers"]
    assert {server["Node"]: server["Voter"] for server in servers} == {"n1": True, "n2": True, "n3": True, "n4": False}
    for verb, suffrage in (("promote", "voter"), ("demote", "learner")):
        done = kvorum(node, "member", verb, "n4")
        assert done.returncode == 0, done.stderr
        wait_until(lambda suffrage=suffrage: newcomer.suffrages()["n4"] == suffrage, "the newcomer knows")  # type: ignore[misc]  # as above
    listed = kvorum(newcomer, "member", "list")
    assert [line.split()[0] for line in listed.stdout.splitlines()] == ["NAME", "n1", "n2", "n3", "n4"]
    stale = kvorum(newcomer, "member", "list", "--stale", "-o", "json")
    assert len(json.loads(stale.stdout)["members"]) == 4


def test_joined_node_that_is_wiped_twice(cluster: Cluster) -> None:
    """A node that joined loses its disk, and once more before it was a voter again: one member of its name is left, the last one."""
    newcomer = cluster.newcomer("n4", join=cluster.nodes[0].url)
    newcomer.start()
    wait_until(lambda: cluster.nodes[0].suffrages() == VOTERS | {"n4": "voter"}, "it votes")
    for _ in range(2):
        newcomer.kill()
        newcomer.wipe()
        newcomer.start()
        wait_until(lambda: newcomer.status()["node"]["cluster_id"], "it was added again")
    wait_until(lambda: newcomer.status()["node"]["id"] in _voters(cluster.nodes[0]), "it votes again")
    wait_until(lambda: cluster.nodes[0].suffrages() == VOTERS | {"n4": "voter"}, "one member has its name")


def test_members_without_a_quorum(cluster: Cluster) -> None:
    """Without a leader a change is rejected and the list refused, but for ?stale."""
    node = cluster.followers()[0]
    for other in cluster.nodes:
        if other is not node:
            other.kill()
    wait_until(lambda: "no leader" in node.unready(), "the node knows no leader")
    answer = requests.delete(f"{node.url}/v1/cluster/members/n1", timeout=30)
    assert (answer.status_code, answer.headers["X-Kvorum-Outcome"]) == (503, "rejected")
    assert requests.get(f"{node.url}/v1/cluster/members", timeout=30).status_code == 503
    assert {member["name"] for member in node.members("stale")} == {"n1", "n2", "n3"}
