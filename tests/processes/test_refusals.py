"""What a node refuses, and how it says so: each with a message that names the value and a documented exit code, and nothing changed."""

import json
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import requests
from cluster import Cluster, Node, free_ports, wait_until

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]


def lone_node(directory: Path, name: str = "n1", **settings: str) -> Node:
    """A cluster of one."""
    api, peer = free_ports(2)
    return Node(name, directory, api_port=api, peer_port=peer, initial="", settings=settings)


def refusal(node: Node) -> tuple[int, str]:
    """Start a node that can't start.

    :returns: exit code and log.
    """
    node.start()
    code = node.wait()
    assert "Traceback" not in node.log(), node.log()
    return code, node.log()


def test_cluster_of_one_serves(tmp_path: Path) -> None:
    """Without initial members a node is a cluster by itself."""
    node = lone_node(tmp_path)
    node.start()
    try:
        wait_until(node.ready, "the node is ready")
        assert node.put("a", b"1").text == "true"
        assert node.get("a", "raw&consistent").content == b"1"
    finally:
        assert node.terminate() == 0


@pytest.mark.parametrize(
    ("variable", "value"),
    [("KVORUM_NO_SUCH_THING", "1"), ("KVORUM_API_BIND", "127.0.0.1:99999"), ("KVORUM_RAFT_HEARTBEAT_MS", "400")],
    ids=["unknown setting", "bad port", "broken rule"],
)
def test_unusable_settings(tmp_path: Path, variable: str, value: str) -> None:
    """Exit code 2, naming setting and value; no data directory is made."""
    node = lone_node(tmp_path, **{variable: value})
    code, log = refusal(node)
    assert code == 2
    assert value in log or variable in log
    assert not node.data_dir.exists()


def test_two_nodes_with_one_name(tmp_path: Path) -> None:
    """The same name twice among the initial members: exit code 2, naming it."""
    node = lone_node(tmp_path, KVORUM_INITIAL_CLUSTER="n1=http://127.0.0.1:1001,n1=http://127.0.0.1:1002")
    code, log = refusal(node)
    assert code == 2
    assert "n1" in log


def test_directory_of_another_node(tmp_path: Path) -> None:
    """A data directory keeps its node: another name is refused with exit code 3, both names named."""
    first = lone_node(tmp_path)
    first.start()
    wait_until(first.ready, "the node is ready")
    assert first.terminate() == 0
    second = lone_node(tmp_path, name="n2", KVORUM_DATA_DIR=str(first.data_dir))
    code, log = refusal(second)
    assert code == 3
    assert "n1" in log
    assert "n2" in log


def test_directory_in_use(tmp_path: Path) -> None:
    """Exactly one process owns a data directory: a second one ends with exit code 3, the first does not notice."""
    first = lone_node(tmp_path)
    first.start()
    try:
        wait_until(first.ready, "the node is ready")
        second = lone_node(tmp_path, KVORUM_DATA_DIR=str(first.data_dir))
        second.log_path = tmp_path / "second.log"
        code, log = refusal(second)
        assert code == 3
        assert "in use" in log
        assert first.put("a", b"1").text == "true"
    finally:
        first.terminate()


def test_directory_of_a_newer_version(tmp_path: Path) -> None:
    """Data written by a newer version are left alone: exit code 3."""
    node = lone_node(tmp_path)
    node.start()
    wait_until(node.ready, "the node is ready")
    assert node.terminate() == 0
    with closing(sqlite3.connect(node.data_dir / "log.db")) as connection:
        connection.execute("PRAGMA user_version = 999")
    code, log = refusal(node)
    assert code == 3
    assert "999" in log


def test_full_disk_at_start(tmp_path: Path) -> None:
    """No space left: exit code 3 and a message that says so."""
    place = tmp_path / "small"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], capture_output=True, check=False).returncode != 0:
        pytest.skip("a small file system can't be mounted here (not root)")
    try:
        (place / "filling").write_bytes(b"x" * 60_000)
        node = lone_node(tmp_path, KVORUM_DATA_DIR=str(place / "data"), KVORUM_SOCKET_PATH=str(tmp_path / "agent.sock"))
        code, log = refusal(node)
        assert code == 3, log
        assert "full" in log.lower() or "space" in log.lower(), log
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_port_in_use(tmp_path: Path) -> None:
    """A taken address: exit code 7, naming it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        node = lone_node(tmp_path, KVORUM_PEER_BIND=f"127.0.0.1:{port}")
        code, log = refusal(node)
    assert code == 7
    assert str(port) in log


def test_members_that_disagree(tmp_path: Path) -> None:
    """Members that were given different lists don't form a cluster: whoever notices first ends with exit code 4 and names both lists."""
    cluster = Cluster(tmp_path, 2)
    cluster.nodes[1].environ["KVORUM_INITIAL_CLUSTER"] += ",n3=http://127.0.0.1:9"
    try:
        for node in cluster.nodes:
            node.start()
        noticed = wait_until(lambda: next((node for node in cluster.nodes if node.ended()), None), "a node has noticed")
        assert noticed.wait() == 4
        assert "n3=127.0.0.1:9" in noticed.log()
        assert "this node" in noticed.log()
    finally:
        cluster.stop_all()


def test_strangers_at_the_peer_port(tmp_path: Path) -> None:
    """Garbage, another cluster and bodies over the limit are refused at the peer port with a status; the node goes on."""
    node = lone_node(tmp_path)
    node.start()
    try:
        wait_until(node.ready, "the node is ready")
        url = f"http://{node.peer}/raft/v1/messages"
        assert requests.post(url, data=b"garbage", timeout=5).status_code == 400
        assert requests.get(f"http://{node.peer}/nowhere", timeout=5).status_code in {404, 405}
        with socket.create_connection(("127.0.0.1", int(node.peer.rpartition(":")[2]))) as raw:
            raw.sendall(b"POST /raft/v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
            assert b" 413 " in raw.recv(4096).split(b"\r\n")[0]
        assert node.put("a", b"1").text == "true"
    finally:
        assert node.terminate() == 0


def test_status_is_json_for_machines(tmp_path: Path) -> None:
    """``kvorum status -o json`` names role, term, vote, leader and the indexes."""
    node = lone_node(tmp_path)
    node.start()
    try:
        wait_until(node.ready, "the node is ready")
        argv = [sys.executable, "-m", "service.cli", "status", "--http-addr", node.url, "-o", "json"]
        status = json.loads(subprocess.run(argv, capture_output=True, check=True, text=True).stdout)["node"]
        assert status["role"] == "leader"
        assert status["leader"] == status["vote"] == status["id"]
        assert status["applied_index"] <= status["commit_index"] <= status["last_index"]
    finally:
        node.terminate()
