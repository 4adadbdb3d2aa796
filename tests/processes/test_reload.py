"""Real nodes whose settings change while they run: by SIGHUP, over HTTP and by the command line, beside writes, and over every replaced worker."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from cluster import Cluster, Node, wait_until

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]

DEFAULT_VALUE_BYTES = 524_288


class Files:
    """A settings file for each node of a cluster."""

    def __init__(self, cluster: Cluster) -> None:
        for node in cluster.nodes:
            self.path(node).write_text("")
            node.environ["KVORUM_CONFIG_FILE"] = str(self.path(node))

    def path(self, node: Node) -> Path:
        """The file of a node."""
        return node.data_dir.with_suffix(".toml")

    def write(self, node: Node, text: str) -> None:
        """Replace a node's file."""
        self.path(node).write_text(text)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[tuple[Cluster, Files]]:
    """Three nodes with a file each; none is started yet."""
    cluster = Cluster(tmp_path)
    try:
        yield cluster, Files(cluster)
    finally:
        cluster.stop_all()


def reload(node: Node) -> requests.Response:
    """Ask a node to read its settings again."""
    return requests.put(f"{node.url}/v1/agent/reload", timeout=20)


def in_force(node: Node) -> dict[str, Any]:
    """The settings that a node's web worker tells."""
    told: dict[str, Any] = requests.get(f"{node.url}/v1/agent/self", timeout=5).json()["DebugConfig"]["Settings"]
    return told


def number(node: Node, name: str) -> float:
    """One of the agent's numbers."""
    lines = requests.get(f"{node.url}/metrics", timeout=5).text.splitlines()
    return next((float(line.split()[1]) for line in lines if line.startswith(f"kvorum_agent_{name} ")), -1.0)


class Writers:
    """One writer a node, each with keys of its own; remembers what was acknowledged."""

    def __init__(self, nodes: list[Node]) -> None:
        self.acknowledged: dict[str, bytes] = {}
        self.refused: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(node,)) for node in nodes]
        for thread in self._threads:
            thread.start()

    def _write(self, node: Node) -> None:
        count = 0
        while not self._stop.wait(0.01):
            key, value = f"{node.name}/{count}", b"%d" % count
            answer = node.put(key, value)
            if answer.text == "true":
                self.acknowledged[key] = value
            else:
                self.refused.append(f"{node.name}: {answer.status_code} {answer.text}")
            count += 1

    def finish(self) -> None:
        """Stop writing."""
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_settings_change_beside_writes(made: tuple[Cluster, Files]) -> None:
    """Valid files take effect at once, by each of the three ways, invalid ones not at all; no write is refused or lost meanwhile."""
    cluster, files = made
    cluster.start_all()
    writers = Writers(cluster.nodes)
    try:
        for turn, node in enumerate(cluster.nodes, 1):
            files.write(node, f"kv_value_bytes_max = {4_000 + turn}\nraft_heartbeat_ms = {20 * turn}\nlog_level = 'debug'\n")
        first, second, third = cluster.nodes
        answer = reload(first)
        assert (answer.status_code, answer.content, answer.headers.get("Content-Type")) == (200, b"", None)
        os.kill(second.process.pid, signal.SIGHUP)
        argv = [sys.executable, "-m", "service.cli", "reload", "--http-addr", third.url]
        assert subprocess.run(argv, capture_output=True, check=False, timeout=60).returncode == 0
        for turn, node in enumerate(cluster.nodes, 1):
            wait_until(lambda node=node: number(node, "config_reloads_total") == 1, "the reload")
            wait_until(lambda node=node: '"level": "debug"' in node.log(), "a line of the new level")
            assert node.put("a", b"x" * (4_001 + turn)).status_code == 413
            assert node.put("a", b"x" * (4_000 + turn)).text == "true"
            assert f"raft_heartbeat_ms: 100 -> {20 * turn}" in node.log()
        for node in cluster.nodes:
            before = in_force(node)
            files.write(node, "kv_value_bytes_max = 5000\nlog_level = 'loud'\nspeed = 9\nraft_heartbeat_ms = 400\n")
            answer = reload(node)
            assert (answer.status_code, answer.headers["X-Kvorum-Outcome"]) == (500, "rejected")
            assert "log_level: 'loud'" in answer.text
            assert f"speed: no such setting (from {files.path(node)})" in answer.text
            files.write(node, "kv_value_bytes_max = 5000\nworkers = 2\ndatacenter = 'dc2'\n")
            os.kill(node.process.pid, signal.SIGHUP)
            wait_until(lambda node=node: number(node, "config_reload_failures_total") == 2, "the refusal")
            assert "workers: can't change from 1 to 2 while the node runs; it needs a restart" in node.log()
            assert in_force(node) == before
            assert node.put("a", b"x" * 5_000).status_code == 413
            assert number(node, "config_last_reload_successful") == 0
    finally:
        writers.finish()
    assert writers.refused == []
    assert len(writers.acknowledged) > 30
    for node in cluster.nodes:
        held = requests.get(f"{node.url}/v1/kv/?keys&consistent", timeout=20).json()
        assert writers.acknowledged.keys() <= set(held)


def test_a_replaced_worker_has_what_was_reloaded(made: tuple[Cluster, Files]) -> None:
    """A web worker that is killed after a reload, and one that gunicorn replaces by itself, begin with the settings in force."""
    cluster, files = made
    cluster.start_all()
    node = cluster.nodes[0]
    files.write(node, "kv_value_bytes_max = 10\n")
    assert reload(node).status_code == 200
    files.write(node, "kv_value_bytes_max = 20\n")  # read by nobody: it must not get in force by the back door
    old = node.worker_pids()
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: node.worker_pids() and not set(node.worker_pids()) & set(old), "a new worker")
    wait_until(node.ready, "it serves")
    for _attempt in range(5):
        assert node.put("a", b"x" * 11).status_code == 413
        assert node.put("a", b"x" * 10).text == "true"
    assert in_force(node)["kv_value_bytes_max"] == 10
    assert node.terminate() == 0
    node.start()
    wait_until(node.ready, "the node is back")
    assert in_force(node)["kv_value_bytes_max"] == 20


def test_a_node_that_waits_for_its_cluster_reloads(made: tuple[Cluster, Files]) -> None:
    """Before the cluster is formed a reload works, and the node takes part with what was reloaded; one whose file has gone says so."""
    cluster, files = made
    first, second, third = cluster.nodes
    for node in (first, second):
        node.start()
        wait_until(lambda node=node: requests.get(f"{node.url}/livez", timeout=5).status_code == 200, "it lives")
        files.write(node, "raft_forwarding = 0\n")
        wait_until(lambda node=node: reload(node).status_code == 200, "the agent took it")
    files.path(first).unlink()
    answer = reload(first)
    assert (answer.status_code, "No such file" in answer.text, str(files.path(first)) in answer.text) == (500, True, True)
    third.start()
    cluster.wait_ready()
    leader = cluster.leader()
    follower = next(node for node in (first, second) if node is not leader)
    answer = follower.put("a", b"1")
    assert (answer.status_code, answer.headers["X-Kvorum-Outcome"]) == (500, "rejected")
    assert leader.put("a", b"1").text == "true"
    files.write(follower, "raft_forwarding = 1\n")
    assert reload(follower).status_code == 200
    assert follower.put("a", b"2").text == "true"
    assert follower.get("a", "raw&consistent").content == b"2"
    assert in_force(follower)["kv_value_bytes_max"] == DEFAULT_VALUE_BYTES
