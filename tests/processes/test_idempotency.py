"""Writes that are sent again, on real processes: over nodes, killed leaders and restarts (scenarios CL-01, CL-02)."""

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from cluster import Cluster, Node, wait_until

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(180)]

KEYS = 40


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Three nodes that run."""
    made = Cluster(tmp_path)
    try:
        made.start_all()
        yield made
    finally:
        made.stop_all()


def append(node: Node, key: str, number: int) -> requests.Response:
    """A transaction that can only be done once, were it not for its key: it fails when its mark is there."""
    operations: list[dict[str, Any]] = [{"KV": {"Verb": "cas", "Key": f"mark/{number}", "Value": "eA==", "Index": 0}}]
    return requests.put(f"{node.url}/v1/txn", json=operations, headers={"Idempotency-Key": key}, timeout=15)


def result(answer: requests.Response) -> tuple[int, str, str | None]:
    """What must be the same for every attempt."""
    return answer.status_code, answer.text, answer.headers.get("X-Kvorum-Index")


def test_cl_01_retries_anywhere_apply_once(cluster: Cluster) -> None:
    """Whatever became of the first attempt while its leader was killed, an attempt at another node has one effect and one answer; also after
    every node was restarted.
    """
    keys = [str(uuid.uuid4()) for _ in range(KEYS)]
    leader = cluster.leader()
    others = [node for node in cluster.nodes if node is not leader]

    def first(number: int) -> requests.Response | None:
        try:
            return append(cluster.nodes[number % 3], keys[number], number)
        except requests.RequestException:
            return None

    with ThreadPoolExecutor(8) as pool:
        attempts = [pool.submit(first, number) for number in range(KEYS)]
        attempts[KEYS // 4].result()
        leader.kill()
        seen = [attempt.result() for attempt in attempts]

    def again(number: int) -> requests.Response:
        answer: requests.Response = wait_until(
            lambda: (found := append(others[number % 2], keys[number], number)).status_code == 200 and found, f"attempt {number} has an answer"
        )
        return answer

    second = [again(number) for number in range(KEYS)]
    for one, other in zip(seen, second, strict=True):
        if one is not None and one.status_code == 200:
            assert result(other) == result(one)
            assert other.headers["Idempotency-Replayed"] == "true"
    for node in others:
        node.terminate()
    cluster.start_all()
    for number in range(KEYS):
        third = wait_until(lambda number=number: (found := append(leader, keys[number], number)).ok and found, "an answer after the restart")
        assert result(third) == result(second[number])
    assert len({answer.headers["X-Kvorum-Index"] for answer in second}) == KEYS


def test_cl_02_two_at_once_take_effect_once(cluster: Cluster) -> None:
    """The same request at all nodes at the same time is carried out at one index, and all get that answer."""
    with ThreadPoolExecutor(3) as pool:
        for number in range(KEYS):
            key = str(uuid.uuid4())
            answers = list(pool.map(lambda node, key=key, number=number: append(node, key, number), cluster.nodes))
            assert len({result(answer) for answer in answers}) == 1
            assert answers[0].status_code == 200
            assert sorted("Idempotency-Replayed" in answer.headers for answer in answers) == [False, True, True]
