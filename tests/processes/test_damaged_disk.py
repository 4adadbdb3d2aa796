"""Damage on the disk of real nodes: repaired from the peers, or from the log, where that is certain; refused where it is not."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from cluster import Cluster, Node, wait_until

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(180)]

VOTERS = {"n1": "voter", "n2": "voter", "n3": "voter"}
KEYS = 300
SHORT_LOG = {"KVORUM_RAFT_SNAPSHOT_THRESHOLD_ENTRIES": "100", "KVORUM_RAFT_TRAILING_ENTRIES": "10"}


def put(cluster: Cluster, key: str, value: bytes) -> bool:
    """Write at any node that answers."""
    return cluster.leader().put(key, value).text == "true"


@pytest.fixture
def cluster(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Three nodes that hold something; settings by parameter."""
    made = Cluster(tmp_path, settings=getattr(request, "param", {}))
    try:
        made.start_all()
        for number in range(KEYS):
            assert put(made, f"key/{number}", b"%d" % number * 200)
        yield made
    finally:
        made.stop_all()


def flip(path: Path, share: float) -> None:
    """Turn the bits of some bytes around, at that share of the file."""
    content = bytearray(path.read_bytes())
    begin = int(len(content) * share)
    content[begin : begin + 64] = bytes(byte ^ 0xFF for byte in content[begin : begin + 64])
    path.write_bytes(content)


def fold(path: Path) -> None:
    """Move the write-ahead log into the file, so that all that is told lies in the file."""
    import sqlite3  # noqa: PLC0415 - the standard library's will do here

    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.close()


def flip_log(directory: Path) -> None:
    """Flip bits in the middle of the log."""
    fold(directory / "log.db")
    flip(directory / "log.db", 0.5)


def cut_log(directory: Path) -> None:
    """Lose the second half of the log."""
    fold(directory / "log.db")
    path = directory / "log.db"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def lose_wal(directory: Path) -> None:
    """Lose what was acknowledged last."""
    (directory / "log.db-wal").unlink()


def lose_log(directory: Path) -> None:
    """Lose the log and nothing else."""
    for path in directory.glob("log.db*"):
        path.unlink()


def wreck_state(directory: Path) -> None:
    """Make the state unreadable."""
    path = next(directory.glob("state-*.db"))
    for companion in directory.glob("state-*.db-*"):
        companion.unlink()
    path.write_bytes(b"\x55" * path.stat().st_size)


def is_voter_again(cluster: Cluster, node: Node, old: str | None) -> bool:
    """Whether the node votes, as a new incarnation when ``old`` is given, and nobody else of its name is left."""
    other = next(one for one in cluster.nodes if one is not node)
    members = other.members()
    mine = [member for member in members if member["name"] == node.name]
    return len(members) == 3 and [member["suffrage"] for member in mine] == ["voter"] and mine[0]["id"] != old and node.ready()


def check_everything(cluster: Cluster) -> None:
    """All nodes hold all keys, and exactly the same."""
    for node in cluster.nodes:
        wait_until(node.ready, f"{node.name} is ready")
        assert len(requests.get(f"{node.url}/v1/kv/key/?keys&consistent", timeout=10).json()) == KEYS
    url = cluster.nodes[0].url
    index = requests.post(f"{url}/v1/cluster/check", timeout=15).json()["index"]

    def verdict() -> str | None:
        found: str = requests.get(f"{url}/v1/cluster/check?at={index}", timeout=15).json()["verdict"]
        return None if found == "computing" else found

    assert wait_until(verdict, "a verdict") == "equal"


@pytest.mark.parametrize("who", ["follower", "leader"])
@pytest.mark.parametrize("damage", [flip_log, cut_log, lose_wal, lose_log])
def test_a_damaged_log_is_repaired_from_the_peers(cluster: Cluster, who: str, damage: Callable[[Path], None]) -> None:
    """A node whose log is damaged sets its data aside and is a voter again, as a new incarnation; nothing is lost and nobody does anything."""
    node = cluster.leader() if who == "leader" else cluster.followers()[0]
    old = node.status()["node"]["id"]
    node.kill()
    damage(node.data_dir)
    wait_until(lambda: cluster.leader() is not node, "the others have a leader")
    node.start()
    wait_until(lambda: is_voter_again(cluster, node, old), f"it votes again; its log ends with: {node.log()[-2000:]}")
    assert len(list(node.data_dir.glob("damaged-*"))) == 1
    assert "were set aside" in node.log()
    assert "Traceback" not in node.log()
    check_everything(cluster)
    next(one for one in cluster.nodes if one is not node).kill()
    assert wait_until(lambda: node.put("counts", b"again").text == "true", "its vote counts again")


def test_an_older_copy_is_repaired_from_the_peers(cluster: Cluster) -> None:
    """A log that was put back to an older copy has forgotten what it acknowledged: the witness tells, and the node comes back anew."""
    node = cluster.followers()[0]
    old = node.status()["node"]["id"]
    copies = {path: path.read_bytes() for path in node.data_dir.glob("log.db*")}
    for number in range(20):
        assert put(cluster, "later", b"%d" % number)
    node.kill()
    for path, content in copies.items():
        path.write_bytes(content)
    node.start()
    wait_until(lambda: is_voter_again(cluster, node, old), f"it votes again; its log ends with: {node.log()[-2000:]}")
    assert "was acknowledged" in node.log()
    check_everything(cluster)


def test_a_damaged_state_is_built_anew_from_the_log(cluster: Cluster) -> None:
    """While the log reaches back to the beginning the node keeps its identity, asks nobody, and replays it."""
    node = cluster.followers()[0]
    old = node.status()["node"]["id"]
    node.kill()
    wreck_state(node.data_dir)
    node.start()
    wait_until(node.ready, f"it is ready; its log ends with: {node.log()[-2000:]}")
    assert node.status()["node"]["id"] == old
    assert len(list(node.data_dir.glob("damaged-state-*"))) == 1
    check_everything(cluster)


def test_a_lone_node_builds_its_state_anew(tmp_path: Path) -> None:
    """A whole log is enough: no peers are needed, and everything acknowledged is there."""
    cluster = Cluster(tmp_path, 1)
    node = cluster.nodes[0]
    try:
        cluster.start_all()
        assert node.put("a", b"1").text == "true"
        node.kill()
        wreck_state(node.data_dir)
        node.start()
        wait_until(node.ready, "it is ready")
        assert node.get("a").content == b"1"
    finally:
        cluster.stop_all()


@pytest.mark.parametrize("cluster", [SHORT_LOG], indirect=True)
def test_a_damaged_state_behind_a_short_log(cluster: Cluster) -> None:
    """When the log does not reach back, the state comes from the peers, and the node is a new incarnation."""
    node = cluster.followers()[0]
    wait_until(lambda: node.status()["node"]["snapshot_index"] > 0, "its log is shortened")
    old = node.status()["node"]["id"]
    node.kill()
    wreck_state(node.data_dir)
    node.start()
    wait_until(lambda: is_voter_again(cluster, node, old), f"it votes again; its log ends with: {node.log()[-2000:]}")
    check_everything(cluster)


@pytest.mark.parametrize("cluster", [SHORT_LOG], indirect=True)
def test_a_damaged_snapshot_is_passed_over(cluster: Cluster) -> None:
    """A stored snapshot whose bytes have changed is never used: the node that was sent it starts from its state."""
    node, leader = cluster.followers()[0], cluster.leader()
    node.kill()
    for number in range(150):
        assert leader.put("more", b"%d" % number).text == "true"
    node.start()
    wait_until(lambda: list((node.data_dir / "snapshots").glob("*.state")), "it was sent a snapshot")
    wait_until(node.ready, "it is ready")
    old = node.status()["node"]["id"]
    node.kill()
    for path in (node.data_dir / "snapshots").glob("*.state"):
        flip(path, 0.5)
    node.start()
    wait_until(node.ready, f"it is ready; its log ends with: {node.log()[-2000:]}")
    assert node.status()["node"]["id"] == old
    check_everything(cluster)


@pytest.mark.parametrize("cluster", [SHORT_LOG], indirect=True)
def test_damage_that_is_met_while_running(cluster: Cluster) -> None:
    """A leader that finds its state damaged when a follower needs it heals in its process; its readers do not keep the damaged file.

    Where it had stored a snapshot before, in time for the follower that was away, it remains who it was; otherwise it is a new incarnation.
    """
    late = cluster.followers()[0]
    late.kill()
    for number in range(150):
        assert put(cluster, "more", b"%d" % number)
    node = cluster.leader()
    agent = node.agent_pid()
    path = next(node.data_dir.glob("state-*.db"))
    with path.open("r+b") as file:
        file.write(b"\x55" * path.stat().st_size)
    late.start()
    wait_until(lambda: "set aside" in node.log(), "it has found the damage")
    wait_until(lambda: is_voter_again(cluster, node, None), "it votes again")
    assert node.agent_pid() == agent
    wait_until(late.ready, "the follower is ready")
    check_everything(cluster)
    assert node.get("more", "raw&stale").content == b"149"
    assert "Traceback" not in node.log()


def test_two_damaged_of_three_refuse(cluster: Cluster) -> None:
    """Without a quorum of the others the damaged data may be the last copy: both refuse with exit code 3, say why, and set nothing aside."""
    nodes = cluster.followers()
    for node in nodes:
        node.kill()
        flip_log(node.data_dir)
    for node in nodes:
        node.start()
    for node in nodes:
        assert node.wait(60) == 3
        assert "not repaired: no quorum of the others can do without these data" in node.log()
        assert "no leader" in node.log()
        assert not list(node.data_dir.glob("damaged-*"))
        assert (node.data_dir / "log.db").exists()


def test_a_lone_node_refuses(tmp_path: Path) -> None:
    """A cluster of one has nobody to ask: exit code 3, and the damaged log stays where it is."""
    cluster = Cluster(tmp_path, 1)
    node = cluster.nodes[0]
    try:
        cluster.start_all()
        for number in range(100):
            assert node.put(f"key/{number}", bytes(500)).text == "true"
        node.kill()
        flip_log(node.data_dir)
        node.start()
        assert node.wait() == 3
        assert "may be the last copy" in node.log()
        assert not list(node.data_dir.glob("damaged-*"))
    finally:
        cluster.stop_all()


def test_repair_can_be_switched_off(cluster: Cluster) -> None:
    """With ``KVORUM_REPAIR=refuse`` the node ends with exit code 3 and names the setting; a start without it repairs."""
    node = cluster.followers()[0]
    node.kill()
    flip_log(node.data_dir)
    node.environ["KVORUM_REPAIR"] = "refuse"
    node.start()
    assert node.wait() == 3
    assert "the setting repair is 'refuse'" in node.log()
    del node.environ["KVORUM_REPAIR"]
    node.start()
    wait_until(lambda: is_voter_again(cluster, node, None), "it votes again")
    shutil.rmtree(next(node.data_dir.glob("damaged-*")))
    check_everything(cluster)
