"""Restoring an archive on real processes, while nodes are killed: every node has the old state or the new one, whole."""

import os
import random
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from cluster import Cluster, Node, wait_until

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(300)]

KEYS = 3_000


def fill(node: Node, marker: str) -> None:
    """Give the state some thousand keys that all hold the same marker; keys of another marker go."""
    body = [{"KV": {"Verb": "delete-tree", "Key": "k/"}}]
    requests.put(f"{node.url}/v1/txn", json=body, timeout=30).raise_for_status()
    for start in range(0, KEYS, 60):
        operations = [{"KV": {"Verb": "set", "Key": f"k/{marker}/{number}", "Value": "djE="}} for number in range(start, start + 60)]
        requests.put(f"{node.url}/v1/txn", json=operations, timeout=30).raise_for_status()


def state(node: Node) -> tuple[str, int]:
    """Which markers a node's own state has, and how many keys."""
    names = requests.get(f"{node.url}/v1/kv/k/?keys&stale", timeout=30).json()
    return "+".join(sorted({name.split("/")[1] for name in names})), len(names)


class Watcher:
    """Looks at every node's own state the whole time.

    :ivar seen: everything that was seen.
    """

    def __init__(self, nodes: list[Node]) -> None:
        self.seen: set[tuple[str, int]] = set()
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(len(nodes))
        self._running = [self._pool.submit(self._look, node) for node in nodes]

    def _look(self, node: Node) -> None:
        while not self._stopping.is_set():
            try:
                self.seen.add(state(node))
            except (requests.RequestException, ValueError):
                self._stopping.wait(0.02)

    def stop(self) -> None:
        """Stop looking; what failed in it is raised."""
        self._stopping.set()
        self._pool.shutdown()
        for one in self._running:
            one.result()


def send(node: Node, archive: bytes) -> requests.Response | None:
    """Restore through a node; None when the connection broke."""
    try:
        return requests.put(f"{node.url}/v1/snapshot", data=archive, timeout=120)
    except requests.RequestException:
        return None


@pytest.mark.parametrize("whom", ["leader", "follower", "worker"])
def test_killed_while_restoring(cluster: Cluster, whom: str) -> None:
    """Whoever is killed at some moment of a restore, nobody ever sees anything but the whole old or the whole new state; all agree at the end."""
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"seed {seed}")  # noqa: T201  # it replays the moment
    draw = random.Random(seed)
    leader = cluster.leader()
    through = cluster.followers()[0]
    victim = {"leader": leader, "follower": cluster.followers()[1], "worker": through}[whom]
    fill(leader, "new")
    archive = requests.get(f"{through.url}/v1/snapshot", timeout=60).content
    fill(leader, "old")
    for node in cluster.nodes:
        wait_until(lambda node=node: state(node) == ("old", KEYS), f"{node.name} has the old state")
    watcher = Watcher(cluster.nodes)
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(send, through, archive)
        threading.Event().wait(draw.uniform(0.0, 0.6))
        if whom == "worker":
            for pid in victim.worker_pids():
                os.kill(pid, signal.SIGKILL)
        else:
            victim.kill()
        answer = job.result()
    if whom != "worker":
        victim.start()
    cluster.wait_ready()
    expected = {("old", KEYS), ("new", KEYS)}
    if answer is not None and answer.status_code == 200:
        expected = {("new", KEYS)}
    elif answer is not None and answer.headers.get("X-Kvorum-Outcome") == "rejected":
        expected = {("old", KEYS)}
    ends = wait_until(
        lambda: len(found := {state(node) for node in cluster.nodes}) == 1 and found,
        "all nodes have the same state",
    )
    watcher.stop()
    assert ends <= expected
    assert watcher.seen <= {("old", KEYS), ("new", KEYS)}
    if whom == "follower":
        assert answer is not None
        assert answer.status_code == 200
    # Whatever became of this one, the next one works.
    assert requests.put(f"{cluster.leader().url}/v1/snapshot", data=archive, timeout=120).status_code == 200
    for node in cluster.nodes:
        wait_until(lambda node=node: state(node) == ("new", KEYS), f"{node.name} has the new state")
