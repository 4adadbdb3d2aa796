"""``kvorum dev`` with real agents and web servers: three nodes on loopback, used through the command line."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.client import Client

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(300)]
KVORUM = (sys.executable, "-m", "service.cli")
Wait = Callable[..., None]
Alive = Callable[[int], bool]
WAIT_SECONDS = 60.0
"""Longer than the stop of a whole cluster takes, which may be over 10 s by the settings; no test asserts a time."""


class Cluster:
    """A running ``kvorum dev`` and the nodes that it printed."""

    def __init__(self, directory: Path, port: int) -> None:
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("KVORUM_", "CONSUL_"))}
        self.process = subprocess.Popen(
            [*KVORUM, "dev", "--data-dir", str(directory), "--port", str(port), "--json"],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        lines = [self.process.stdout.readline() for _node in range(3)]
        assert all(lines), self.process.communicate()[1]
        self.nodes: list[dict[str, Any]] = [json.loads(line) for line in lines]

    def run(self, node: int, *arguments: str) -> tuple[int, bytes, str]:
        """Run the command line against one node."""
        done = subprocess.run([*KVORUM, *arguments, "--http-addr", self.nodes[node]["api"]], capture_output=True, check=False, timeout=60)
        return done.returncode, done.stdout, done.stderr.decode()

    def pids(self, node: int) -> list[int]:
        """The processes of one node."""
        pids = self.nodes[node]["pids"]
        return [pids["supervisor"], pids["agent"], *pids["workers"]]

    def leader(self) -> int:
        """The position of the node that leads."""
        with Client(self.nodes[0]["api"]) as client:
            address = client.leader()
        return next(position for position, node in enumerate(self.nodes) if node["peer"] == f"http://{address}")


@pytest.fixture
def cluster(tmp_path: Path, port: int) -> Iterator[Cluster]:
    """Three nodes; whatever is left of them is killed at the end."""
    running = Cluster(tmp_path / "cluster", port)
    yield running
    if running.process.poll() is None:
        running.process.kill()
        running.process.communicate()
    for log in sorted((tmp_path / "cluster").glob("*/node.log")):
        print(f"--- {log.parent.name}\n{log.read_text(errors='replace')[-4000:]}")  # noqa: T201 - pytest shows it when the test failed


def test_what_was_written_survives_its_leader(cluster: Cluster, tmp_path: Path, wait_for: Wait, alive: Alive) -> None:
    """Import at one node, kill the leader, read everything at another, start the dead one by hand, read it there; Ctrl-C leaves nothing."""
    files = tmp_path / "files"
    files.mkdir()
    for number in range(60):
        (files / f"f{number}").write_bytes(os.urandom(number * 37))
    code, out, err = cluster.run(1, "kv", "import", str(files), "--prefix", "p/", "-o", "json")
    assert (code, json.loads(out)["written"]) == (0, 60), err
    leader = cluster.leader()
    survivor = (leader + 1) % 3
    os.kill(cluster.nodes[leader]["pids"]["supervisor"], signal.SIGKILL)
    for pid in cluster.pids(leader):
        wait_for(lambda pid=pid: not alive(pid), f"the end of {pid}")
    wait_for(lambda: cluster.run(survivor, "kv", "get", "p/f1", "--consistent")[0] == 0, "another leader")
    code, _out, err = cluster.run(survivor, "kv", "export", "p/", "--format", "dir", "--to", str(tmp_path / "out"), "--consistent")
    assert code == 0, err
    assert {path.name: path.read_bytes() for path in files.iterdir()} == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert cluster.run(survivor, "kv", "put", "after", "the leader's death")[0] == 0
    dead = cluster.nodes[leader]
    with subprocess.Popen(dead["argv"], env=dead["env"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as again:
        wait_for(lambda: cluster.run(leader, "healthcheck", "--ready")[0] == 0, "the node started by hand")
        assert cluster.run(leader, "kv", "get", "after")[1] == b"the leader's death"
        again.terminate()
        assert again.wait(WAIT_SECONDS) == 0
    cluster.process.send_signal(signal.SIGINT)
    _output, told = cluster.process.communicate(timeout=WAIT_SECONDS)
    assert cluster.process.returncode == 0, told
    assert not any(alive(pid) for node in range(3) for pid in cluster.pids(node))


def test_no_process_outlives_kill_9(cluster: Cluster, wait_for: Wait, alive: Alive) -> None:
    """After kill -9 of the command no supervisor, agent, web server or worker is left."""
    pids = [pid for node in range(3) for pid in cluster.pids(node)]
    assert len(pids) == 9
    cluster.process.kill()
    cluster.process.communicate()
    for pid in pids:
        wait_for(lambda pid=pid: not alive(pid), f"the end of {pid}")


def test_status_names_leader_and_peers(cluster: Cluster) -> None:
    """Every node names the same leader; the leader knows of its two peers."""
    nodes = [json.loads(cluster.run(position, "status", "-o", "json")[1])["node"] for position in range(3)]
    assert len({node["leader"] for node in nodes}) == 1
    assert [node["name"] for node in nodes] == ["n1", "n2", "n3"]
    code, out, _err = cluster.run(cluster.leader(), "status")
    assert code == 0
    assert b"leader" in out
    assert out.count(b"replicate") == 2


def test_an_agent_or_a_web_server_that_dies_takes_the_node_down(cluster: Cluster, wait_for: Wait, alive: Alive) -> None:
    """A killed agent ends all of its node, while a killed worker is replaced and the node serves on."""
    worker = cluster.nodes[0]["pids"]["workers"][0]
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: not alive(worker), "the worker's end")
    wait_for(lambda: cluster.run(0, "healthcheck", "--ready")[0] == 0, "the worker's successor")
    os.kill(cluster.nodes[1]["pids"]["agent"], signal.SIGKILL)
    for pid in cluster.pids(1):
        wait_for(lambda pid=pid: not alive(pid), f"the end of {pid}")
    # Where it led, an election comes first, which may take longer than the node lets a write wait.
    wait_for(lambda: cluster.run(2, "kv", "put", "k", "v")[0] == 0, "a write at the third node")
    cluster.process.send_signal(signal.SIGTERM)
    _output, told = cluster.process.communicate(timeout=WAIT_SECONDS)
    assert "n2 ended with exit code 5" in told
