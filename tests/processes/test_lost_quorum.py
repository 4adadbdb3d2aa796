"""Two of three nodes are gone for good: the survivor is recovered, starts, has the data, and nobody of the old cluster can disturb it.

A node that comes back empty joins the new one.
"""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests
from cluster import Cluster, Node, wait_until

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(180)]

OLD_NODES_RUN_SECONDS = 3.0
"""Several election timeouts, in which the old nodes find each other and elect a leader of their own."""


def data(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run ``kvorum data``."""
    command = [sys.executable, "-P", "-m", "service.cli", "data", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def term_and_leader(node: Node) -> tuple[int, str]:
    """What a node says of itself."""
    told = node.status()["node"]
    return told["term"], told["leader_name"]


def test_survivor_goes_on_alone(cluster: Cluster) -> None:
    """Every acknowledged write is there after the recovery, new ones succeed, and the old majority, started again, changes nothing about it.

    Then the old nodes go, and one of them joins with an empty directory.
    """
    survivor, *lost = cluster.nodes
    for number in range(50):
        assert cluster.nodes[number % 3].put(f"k{number}", b"v%d" % number).text == "true"
    wait_until(lambda: survivor.get("k49", "stale&raw").status_code == 200, "the survivor has applied the last write")

    refused = data("recover", survivor.data_dir, "--yes")
    assert (refused.returncode, "in use by process" in refused.stderr) == (3, True), refused.stderr
    for node in (survivor, lost[0]):
        node.kill()
    refused = data("recover", survivor.data_dir, "--yes")
    assert refused.returncode == 3
    assert f"{lost[1].peer} answers as {lost[1].name}" in refused.stderr, refused.stderr
    assert json.loads(data("inspect", survivor.data_dir, "-o", "json").stdout)["recovery"] is None

    lost[1].kill()
    done = data("recover", survivor.data_dir, "--yes")
    assert done.returncode == 0, done.stderr
    survivor.start()
    wait_until(survivor.ready, f"the survivor is ready; its log ends with: {survivor.log()[-2000:]}")
    for number in range(50):
        assert survivor.get(f"k{number}").content == b"v%d" % number
    assert survivor.put("after", b"new").text == "true"
    alone = term_and_leader(survivor)
    assert alone[1] == survivor.name

    for node in lost:
        node.start()
    for node in lost:
        wait_until(node.ready, f"the old nodes are a cluster of their own; {node.name}'s log ends with: {node.log()[-2000:]}")
    deadline = time.monotonic() + OLD_NODES_RUN_SECONDS
    written = 0
    while time.monotonic() < deadline:
        assert survivor.put(f"beside{written}", b"1").text == "true"
        written += 1
    assert term_and_leader(survivor) == alone
    assert survivor.status()["node"]["cluster_id"] != lost[0].status()["node"]["cluster_id"]
    assert requests.get(f"{lost[0].url}/v1/kv/after", timeout=15).status_code == 404
    assert [member["Node"] for member in requests.get(f"{survivor.url}/v1/operator/raft/configuration", timeout=5).json()["Servers"]] == [
        survivor.name
    ]

    newcomer = lost[0]
    for node in lost:
        node.kill()
    shutil.rmtree(newcomer.data_dir)
    newcomer.environ |= {"KVORUM_INITIAL_CLUSTER": "", "KVORUM_JOIN": survivor.url}
    newcomer.start()
    wait_until(lambda: survivor.suffrages() == {survivor.name: "voter", newcomer.name: "voter"}, "a node that came back empty has joined")
    wait_until(newcomer.ready, "it serves")
    assert survivor.put("together", b"1").text == "true"
    assert newcomer.get("k0").content == b"v0"
    for node in (survivor, newcomer):
        assert node.terminate() == 0
        assert json.loads(data("inspect", node.data_dir, "-o", "json").stdout)["whole"] is True
