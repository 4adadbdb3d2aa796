"""Disks that are really full, below real nodes that are written to: nothing acknowledged is lost, and the nodes heal without a hand."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import requests
from cluster import Cluster, Node, wait_until
from small_disk import fill, leave, small_disk

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(240)]

DISK_MEBIBYTES = 48
HEALED_SECONDS = 30.0
"""The target: so long after there is room every node is ready."""
VALUE_BYTES = 4_000


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[list[Path]]:
    """A file system for each of three nodes."""
    with ExitStack() as stack:
        yield [stack.enter_context(small_disk(tmp_path / "disks" / f"n{number}", DISK_MEBIBYTES)) for number in (1, 2, 3)]


@pytest.fixture
def cluster(tmp_path: Path, disks: list[Path], request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Three nodes, each on a disk of its own; settings by parameter."""
    made = Cluster(tmp_path, settings=getattr(request, "param", {}))
    for node, disk in zip(made.nodes, disks, strict=True):
        node.data_dir = disk / "data"
        node.environ |= {"KVORUM_DATA_DIR": str(node.data_dir), "KVORUM_SOCKET_PATH": str(tmp_path / f"{node.name}.sock")}
    try:
        made.start_all()
        yield made
    finally:
        made.stop_all()


class Writers:
    """Write to every node, each key once, and remember what was acknowledged, and what was called impossible."""

    def __init__(self, nodes: list[Node]) -> None:
        self.acknowledged: dict[str, bytes] = {}
        self.rejected: set[str] = set()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(node,)) for node in nodes]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End all of them."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _write(self, node: Node) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            key = f"{node.name}/{number}"
            value = f"{key}:".encode() * (VALUE_BYTES // (len(key) + 1))
            with suppress(requests.RequestException):
                answer = node.put(key, value, seconds=20)
                if answer.text == "true":
                    self.acknowledged[key] = value
                elif answer.headers.get("X-Kvorum-Outcome") == "rejected":
                    self.rejected.add(key)
                    self._stop.wait(0.05)


def is_waiting(node: Node) -> bool:
    """Whether the node says that it waits for room."""
    return "disk full" in node.unready()


def check_everything(cluster: Cluster, writers: Writers) -> None:
    """What was acknowledged is there, what was rejected is not, and all nodes hold the same."""
    assert writers.acknowledged
    for node in cluster.nodes:
        held = {row["Key"]: row["ModifyIndex"] for row in requests.get(f"{node.url}/v1/kv/?recurse&consistent", timeout=30).json()}
        assert not writers.acknowledged.keys() - held.keys()
        assert not writers.rejected & held.keys()
    last = list(writers.acknowledged)[-20:]
    assert all(cluster.nodes[0].get(key, "raw&consistent").content == writers.acknowledged[key] for key in last)
    index = requests.post(f"{cluster.nodes[0].url}/v1/cluster/check", timeout=15).json()["index"]
    verdict = wait_until(
        lambda: next(
            (v for v in [requests.get(f"{cluster.nodes[0].url}/v1/cluster/check?at={index}", timeout=15).json()["verdict"]] if v != "computing"), None
        ),
        "a verdict",
    )
    assert verdict == "equal"


@pytest.mark.parametrize("full", ["leader", "follower", "leader and follower", "all"])
def test_full_disks_heal_by_themselves(cluster: Cluster, disks: list[Path], full: str) -> None:
    """Nodes whose disks are full say so and serve what they have; a quorum of the others goes on; all are ready 30 s after there is room."""
    leader = cluster.leader()
    follower = cluster.followers()[0]
    nodes = {"leader": [leader], "follower": [follower], "leader and follower": [leader, follower], "all": cluster.nodes}[full]
    pids = [node.agent_pid() for node in nodes]
    assert leader.put("before", b"1").text == "true"
    for node in nodes:
        wait_until(lambda node=node: node.get("before", "raw&stale").content == b"1", "it is everywhere")  # type: ignore[misc]  # the loop's
    writers = Writers(cluster.nodes)
    try:
        ballast = [fill(disks[cluster.nodes.index(node)]) for node in nodes]
        if full == "all":  # the first two make a quorum impossible; the third has nothing to write any more
            wait_until(lambda: sum(map(is_waiting, nodes)) >= 2, "two nodes say that their disks are full")
        else:
            for node in nodes:
                wait_until(lambda node=node: is_waiting(node), f"{node.name} says that its disk is full")  # type: ignore[misc]  # the loop's
        waiting = [node for node in nodes if is_waiting(node)]
        for node in waiting:
            assert requests.get(f"{node.url}/livez", timeout=5).status_code == 200
            assert node.get("before", "raw&stale").content == b"1"
        if len(nodes) == 1:
            rest = [node for node in cluster.nodes if node not in nodes]
            before = len(writers.acknowledged)
            wait_until(lambda: len(writers.acknowledged) > before + 20, "the others go on")
            assert rest[0].put("meanwhile", b"1").text == "true"
        for file in ballast:
            file.unlink()
        for node in cluster.nodes:
            wait_until(node.ready, f"{node.name} is ready again; its log ends with: {node.log()[-2000:]}", HEALED_SECONDS)
        before = len(writers.acknowledged)
        wait_until(lambda: len(writers.acknowledged) > before + 20, "writes are acknowledged again")
    finally:
        writers.stop()
    assert [node.agent_pid() for node in nodes] == pids, "no process has ended"
    check_everything(cluster, writers)
    assert all("Traceback" not in node.log() for node in cluster.nodes)


SHORT_LOG = {"KVORUM_RAFT_SNAPSHOT_THRESHOLD_ENTRIES": "200", "KVORUM_RAFT_TRAILING_ENTRIES": "20"}


@pytest.mark.parametrize("cluster", [SHORT_LOG], indirect=True)
@pytest.mark.parametrize("full", ["sender", "receiver"])
def test_a_snapshot_without_room(cluster: Cluster, disks: list[Path], full: str) -> None:
    """A follower that is far behind gets its snapshot once there is room, on the leader's disk or on its own; neither process ends."""
    leader = cluster.leader()
    late = cluster.followers()[0]
    late.kill()
    values = {f"key/{number}": bytes([number % 256]) * 20_000 for number in range(450)}
    for key, value in values.items():
        assert leader.put(key, value).text == "true"
    wait_until(lambda: leader.status()["node"]["snapshot_index"] > 100, "the log is shortened")
    # Enough to run, too little for a copy of 9 MB.
    ballast = leave(disks[cluster.nodes.index(leader if full == "sender" else late)], 6)
    for number in range(500):  # the log begins behind any snapshot that was stored before
        assert leader.put("small", b"%d" % number).text == "true"
    late.start()
    if full == "sender":
        wait_until(lambda: "gets no snapshot for now" in leader.log(), "the leader says that there is no room for it")
    else:
        wait_until(lambda: "a snapshot from" in late.log() or is_waiting(late), "the snapshot was refused for want of room")
    assert leader.put("meanwhile", b"1").text == "true"
    pids = [node.agent_pid() for node in cluster.nodes]
    ballast.unlink()
    wait_until(late.ready, f"the follower is ready; its log ends with: {late.log()[-2000:]}", HEALED_SECONDS)
    wait_until(lambda: late.get("meanwhile", "raw&stale").content == b"1", "the follower has caught up", HEALED_SECONDS)
    assert all(late.get(key, "raw&stale").content == value for key, value in values.items())
    assert [node.agent_pid() for node in cluster.nodes] == pids
    assert cluster.leader() is leader
