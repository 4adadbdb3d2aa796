"""The cluster of ``kvorum dev``, its nodes made of stand-ins."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.errors import KvorumError
from service.supervisor.listening import AddressTaken
from service.supervisor.loopback import ClusterFailed, PlanInvalid, plan_cluster

pytestmark = pytest.mark.processes
Wait = Callable[..., None]
Alive = Callable[[int], bool]
STAND_INS = Path(__file__).parent / "stand_ins"
WAIT_SECONDS = 60.0


class Cluster:
    """A running loopback cluster and the nodes that it printed."""

    def __init__(self, directory: Path, port: int, nodes: int = 2, **environ: str) -> None:
        self.directory = directory
        self.events = directory / "events"
        stand_ins = [f"STAND_IN_EVENTS={self.events}", *(f"{name}={value}" for name, value in environ.items())]
        self.process = subprocess.Popen(
            [sys.executable, str(STAND_INS / "cluster.py"), str(directory / "cluster"), str(port), str(nodes), *stand_ins],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.nodes: list[dict[str, Any]] = []
        self._count = nodes

    def wait_ready(self) -> None:
        """Read one JSON line a node."""
        assert self.process.stdout is not None
        for _node in range(self._count):
            line = self.process.stdout.readline()
            assert line, self.process.communicate()[1]
            self.nodes.append(json.loads(line))

    def pids(self) -> list[int]:
        """Every process of every node."""
        return [pid for node in self.nodes for pid in (node["pids"]["supervisor"], node["pids"]["agent"], *node["pids"]["workers"])]

    def finish(self) -> tuple[int, str]:
        """Wait for the end; the exit code and what was told."""
        _output, told = self.process.communicate(timeout=WAIT_SECONDS)
        return self.process.returncode, told


@pytest.fixture
def start_cluster(tmp_path: Path, port: int) -> Iterator[Callable[..., Cluster]]:
    """Start clusters; what is left of them is killed at the end."""
    started: list[Cluster] = []

    def start(nodes: int = 2, **environ: str) -> Cluster:
        started.append(Cluster(tmp_path, port, nodes, **environ))
        return started[-1]

    yield start
    for cluster in started:
        if cluster.process.poll() is None:
            cluster.process.kill()
            cluster.process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_cluster_is_described_and_stops_without_a_trace(
    start_cluster: Callable[..., Cluster], alive: Alive, port: int, number: signal.Signals
) -> None:
    """Each line has exactly the documented fields with live processes; Ctrl-C, or the end of the terminal, ends all of them with exit code 0."""
    cluster = start_cluster()
    cluster.wait_ready()
    assert [set(node) for node in cluster.nodes] == [{"name", "api", "peer", "data_dir", "argv", "env", "pids"}] * 2
    assert [node["api"] for node in cluster.nodes] == [f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}"]
    assert [node["peer"] for node in cluster.nodes] == [f"http://127.0.0.1:{port - 200}", f"http://127.0.0.1:{port - 199}"]
    assert all(len(node["pids"]["workers"]) == 1 for node in cluster.nodes)
    assert all(alive(pid) for pid in cluster.pids())
    cluster.process.send_signal(number)
    code, told = cluster.finish()
    assert code == 0, told
    assert not any(alive(pid) for pid in cluster.pids())


def test_a_killed_node_is_left_dead_and_can_be_started_by_hand(start_cluster: Callable[..., Cluster], wait_for: Wait, alive: Alive) -> None:
    """After kill -9 of one supervisor its processes go and stay away, the others live; argv with env starts it again."""
    cluster = start_cluster()
    cluster.wait_ready()
    victim, survivor = cluster.nodes
    os.kill(victim["pids"]["supervisor"], signal.SIGKILL)
    for pid in (victim["pids"]["supervisor"], victim["pids"]["agent"], *victim["pids"]["workers"]):
        wait_for(lambda pid=pid: not alive(pid), f"the end of {pid}")
    assert all(alive(pid) for pid in (survivor["pids"]["supervisor"], survivor["pids"]["agent"]))
    events = cluster.events.read_text().count("web pid")
    with subprocess.Popen(victim["argv"], env=victim["env"], stderr=subprocess.DEVNULL) as again:
        wait_for(lambda: cluster.events.read_text().count("web pid") == events + 1, "the node started by hand")
        again.terminate()
        assert again.wait(WAIT_SECONDS) == 0
    cluster.process.send_signal(signal.SIGTERM)
    code, told = cluster.finish()
    assert code == 0
    assert "n1 ended with signal 9 (SIGKILL); it is left dead" in told


def test_a_dead_node_is_told_before_the_stop(start_cluster: Callable[..., Cluster], wait_for: Wait, alive: Alive) -> None:
    """A node whose end the command has not noticed yet when it is told to stop is named all the same, with its exit code."""
    cluster = start_cluster()
    cluster.wait_ready()
    cluster.process.send_signal(signal.SIGSTOP)
    os.kill(cluster.nodes[1]["pids"]["agent"], signal.SIGKILL)
    wait_for(lambda: not alive(cluster.nodes[1]["pids"]["supervisor"]), "the node's end")
    cluster.process.send_signal(signal.SIGTERM)
    cluster.process.send_signal(signal.SIGCONT)
    code, told = cluster.finish()
    assert code == 0
    assert "n2 ended with exit code 5; it is left dead" in told


def test_no_process_outlives_a_killed_cluster(start_cluster: Callable[..., Cluster], wait_for: Wait, alive: Alive) -> None:
    """After kill -9 of the command no process of any node is left."""
    cluster = start_cluster()
    cluster.wait_ready()
    cluster.process.kill()
    cluster.finish()
    for pid in cluster.pids():
        wait_for(lambda pid=pid: not alive(pid), f"the end of {pid}")


def test_the_command_ends_when_no_node_is_left(start_cluster: Callable[..., Cluster]) -> None:
    """When all nodes have died by themselves the exit code is 1."""
    cluster = start_cluster(nodes=1)
    cluster.wait_ready()
    os.kill(cluster.nodes[0]["pids"]["agent"], signal.SIGKILL)
    code, told = cluster.finish()
    assert code == 1
    assert "n1 ended with exit code 5" in told


def test_a_node_that_can_not_start_fails_the_cluster(start_cluster: Callable[..., Cluster]) -> None:
    """The message names the node and its exit code and shows the end of its log."""
    cluster = start_cluster(STAND_IN_AGENT="exit 3")
    code, told = cluster.finish()
    assert code == 1
    assert "ended with exit code 3 before it was ready" in told
    assert "the agent ended unasked" in told


def test_a_port_in_use_is_told_before_anything_is_made(tmp_path: Path, port: int) -> None:
    """The message names the address, and no directory appears."""
    with socket.create_server(("127.0.0.1", port)), pytest.raises(AddressTaken, match=rf"127\.0\.0\.1:{port} can't be listened on"):
        plan_cluster(1, tmp_path / "cluster", port, {})
    assert not (tmp_path / "cluster").exists()


@pytest.mark.parametrize(("nodes", "port", "expected"), [(0, 8501, "0 nodes"), (10, 8501, "10 nodes"), (3, 80, "port 80"), (3, 65_534, "port 65534")])
def test_numbers_out_of_range_are_named(tmp_path: Path, nodes: int, port: int, expected: str) -> None:
    """How many nodes and which port have limits, and the message names the value."""
    with pytest.raises(PlanInvalid, match=expected):
        plan_cluster(nodes, tmp_path, port, {})


def test_a_directory_of_another_shape_is_refused(tmp_path: Path, port: int) -> None:
    """Data of a cluster of three are not started as a cluster of one, nor with a broken description."""
    (tmp_path / "cluster.json").write_text('{"nodes": 3, "port": 8501}')
    with pytest.raises(ClusterFailed, match="a cluster of 3 nodes from port 8501"):
        plan_cluster(1, tmp_path, port, {})
    (tmp_path / "cluster.json").write_text("{")
    with pytest.raises(KvorumError, match="can't be read"):
        plan_cluster(1, tmp_path, port, {})


def test_settings_of_the_environment_hold_for_all_nodes(tmp_path: Path, port: int) -> None:
    """Timing is shared; names, addresses, directories and sockets stay each node's own."""
    plan = plan_cluster(3, tmp_path, port, {"KVORUM_RAFT_TICK_MS": "10", "KVORUM_NAME": "other", "KVORUM_SOCKET_PATH": "/tmp/one.sock"})
    assert {settings.raft_tick_ms for settings in plan.settings} == {10}
    assert [settings.name for settings in plan.settings] == ["n1", "n2", "n3"]
    assert len({settings.socket_path for settings in plan.settings}) == 3
