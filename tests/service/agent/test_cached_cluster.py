"""Cached reads of a real cluster beside a real Redis that is frozen, killed and brought back with an older dump, all under load."""

import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import pytest
import requests

sys.path.insert(0, str(Path(__file__).parents[2] / "processes"))

from cluster import Cluster, Node, wait_until

pytestmark = [pytest.mark.processes, pytest.mark.timeout(400)]

BOUND_SECONDS = 5.0
"""What is read from the cache is never older than this, even after changes could not be told to Redis; the time to live here is 60 s."""
QUIET = [f"quiet/{number}" for number in range(20)]


@pytest.fixture
def cached(tmp_path: Path, redis_server: Any) -> Iterator[Cluster]:
    """Three nodes with a cache."""
    made = Cluster(tmp_path, settings={"KVORUM_REDIS_URL": redis_server.url})
    try:
        made.start_all()
        yield made
    finally:
        made.stop_all()


def read(node: Node, key: str) -> tuple[str, int, bytes]:
    """A cached read: whence, status, and what."""
    answer = node.get(key, "cached&raw")
    return answer.headers["X-Cache"], answer.status_code, answer.content


class Load:
    """A writer that counts up keys, and at every node a reader of cached values, until told to stop; remembers what went wrong."""

    def __init__(self, nodes: list[Node]) -> None:
        self.problems: list[str] = []
        self.served: Counter[str] = Counter()
        self.writes = 0
        self._nodes = nodes
        self._stopping = threading.Event()
        self._acknowledged: dict[str, list[tuple[float, int]]] = {f"busy/{number}": [] for number in range(8)}
        self._pool = ThreadPoolExecutor(1 + len(nodes))

    def __enter__(self) -> Self:
        self._futures = [self._pool.submit(self._write), *(self._pool.submit(self._read, node) for node in self._nodes)]
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for future in self._futures:
            future.result(30)
        self._pool.shutdown()

    def _write(self) -> None:
        session = requests.Session()
        while not self._stopping.is_set():
            for key, acknowledged in self._acknowledged.items():
                self.writes += 1
                answer = session.put(f"{self._nodes[self.writes % 3].url}/v1/kv/{key}", data=str(self.writes), timeout=15)
                if answer.status_code != 200:
                    self.problems.append(f"write of {key}: {answer.status_code} {answer.text}")
                acknowledged.append((time.monotonic(), self.writes))

    def _read(self, node: Node) -> None:
        session = requests.Session()
        while not self._stopping.is_set():
            for key, acknowledged in self._acknowledged.items():
                limit = time.monotonic() - BOUND_SECONDS
                oldest = max((value for at, value in acknowledged if at < limit), default=0)
                answer = session.get(f"{node.url}/v1/kv/{key}?cached&raw", timeout=15)
                self.served[answer.headers["X-Cache"]] += 1
                if answer.status_code not in ({200} if oldest else {200, 404}):
                    self.problems.append(f"read of {key} at {node.name}: {answer.status_code} {answer.text}")
                elif oldest and int(answer.content) < oldest:
                    self.problems.append(f"{key} at {node.name}: {answer.text} from {answer.headers['X-Cache']}; {oldest} was acknowledged before")


def everywhere(cluster: Cluster, keys: list[str], value: bytes, *, seconds: float = BOUND_SECONDS) -> None:
    """Every cached read of the keys gives the value from now + ``seconds`` on."""
    time.sleep(seconds)
    for key in keys:
        for node in cluster.nodes:
            whence, status, body = read(node, key)
            assert (status, body) == (200, value), f"{key} at {node.name} from {whence}"


def put_all(cluster: Cluster, value: bytes) -> None:
    """Write the quiet keys."""
    for number, key in enumerate(QUIET):
        assert cluster.nodes[number % 3].put(key, value).status_code == 200


def hits(cluster: Cluster, value: bytes) -> Callable[[], bool]:
    """Whether each quiet key was served by Redis at each node since, with the value.

    Each once: where processors are scarce, one of them always comes too late for the time that a node gives Redis.
    """
    left = [(node, key) for key in QUIET for node in cluster.nodes]

    def all_hit() -> bool:
        left[:] = [(node, key) for node, key in left if read(node, key) != ("HIT", 200, value)]
        return not left

    return all_hit


def test_commits_are_served_at_every_node(cached: Cluster) -> None:
    """What is put at one node becomes a hit at all others, and so do its successor, its deletion, and what is put after the leader was killed."""
    for value in (b"first", b"second"):
        assert cached.nodes[0].put("a", value).status_code == 200
        for node in cached.nodes:
            assert wait_until(lambda node=node: read(node, "a")[0] == "HIT" and read(node, "a")[2], "a hit") in {b"first", b"second"}
            wait_until(lambda node=node, value=value: read(node, "a") == ("HIT", 200, value), f"{value!r} is a hit at {node.name}")
    assert requests.delete(f"{cached.nodes[1].url}/v1/kv/a", timeout=15).text == "true"
    for node in cached.nodes:
        wait_until(lambda node=node: read(node, "a")[:2] == ("HIT", 404), f"the deletion is a hit at {node.name}")
    leader = cached.leader()
    leader.kill()
    others = [node for node in cached.nodes if node is not leader]
    wait_until(lambda: others[0].put("a", b"third").status_code == 200, "the others go on")
    for node in others:
        wait_until(lambda node=node: read(node, "a") == ("HIT", 200, b"third"), f"it is a hit at {node.name}")


def test_redis_under_load(cached: Cluster, redis_server: Any) -> None:
    """Frozen, killed, restored from an older dump: no request fails, and nothing older than the bound is served, long as the time to live is."""
    with Load(cached.nodes) as load:
        put_all(cached, b"before")
        wait_until(hits(cached, b"before"), "the quiet keys are hits")
        wait_until(lambda: load.served["HIT"] > 100, "the load is served by Redis")
        redis_server.client.save()
        shutil.copy(redis_server.directory / "dump.rdb", redis_server.directory / "aside.rdb")

        redis_server.freeze()
        bypassed = load.served["BYPASS"]
        put_all(cached, b"frozen")
        wait_until(lambda: load.served["BYPASS"] > bypassed + 10, "the load is served without Redis")
        redis_server.thaw()
        everywhere(cached, QUIET, b"frozen")
        wait_until(hits(cached, b"frozen"), "the quiet keys are hits again")

        redis_server.kill()
        put_all(cached, b"killed")
        everywhere(cached, QUIET, b"killed", seconds=0)
        shutil.copy(redis_server.directory / "aside.rdb", redis_server.directory / "dump.rdb")
        redis_server.start()
        everywhere(cached, QUIET, b"killed", seconds=0)
    wait_until(hits(cached, b"killed"), "the quiet keys are hits once more")
    assert load.problems == []
    for node in cached.nodes:
        failures, recoveries = (node.log().count(f"the cache is {what}") for what in ("not told of changes", "told of changes again"))
        assert failures <= recoveries + 1, "one line when Redis fails, however many changes it misses"
        assert "Traceback" not in node.log()
