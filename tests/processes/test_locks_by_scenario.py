"""Sessions and locks on real processes, by the numbers of the catalogue. SL-02 stands beside the faults that it needs (``test_under_faults``)."""

import base64
import itertools
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests
from cluster import Cluster, Node, wait_until
from disturbances import WHOLE_LOG, ports
from links import Connection
from lock_log import Model, judge, read_log
from session_clients import PREFIX, Client, Plan

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]

DELAY_SECONDS = 8.0
CONTENDERS = 12
_attempts = itertools.count()


def create(node: Node, **fields: str) -> str:
    """Begin a session."""
    answer = requests.put(f"{node.url}/v1/session/create", json=fields, timeout=15)
    answer.raise_for_status()
    begun: str = answer.json()["ID"]
    return begun


def acquire(node: Node, key: str, session: str, value: bytes = b"") -> bool:
    """Try to take a lock."""
    answer = node.put(key, value or b"attempt %d" % next(_attempts), f"acquire={session}")
    answer.raise_for_status()
    return answer.text == "true"


def row(node: Node, key: str) -> dict[str, Any]:
    """A key with all that is told of it."""
    [found] = node.get(key, "consistent").json()
    held: dict[str, Any] = found
    return held


def test_sl_01_one_holder_at_a_time(tmp_path: Path) -> None:
    """Contenders at all nodes never hold one lock at once in the order of the log; LockIndex counts new holders; a holder may take it again."""
    cluster = Cluster(tmp_path, settings=WHOLE_LOG)
    plan = Plan(15, 0, "release", leaves=True)
    keys = [f"{PREFIX}{number}" for number in range(3)]
    try:
        cluster.start_all()
        first, second, third = cluster.nodes
        one, two = create(first, LockDelay="0s"), create(second, LockDelay="0s")
        assert acquire(third, "k", one)
        assert not acquire(second, "k", two)
        assert acquire(second, "k", one, b"again")
        assert (row(first, "k")["LockIndex"], row(first, "k")["Session"]) == (1, one)
        assert base64.b64decode(row(first, "k")["Value"]) == b"again"
        assert first.put("k", b"not mine", f"release={two}").text == "false"
        assert first.put("k", b"mine", f"release={one}").text == "true"
        assert acquire(second, "k", two)
        assert (row(third, "k")["LockIndex"], row(third, "k")["Session"]) == (2, two)
        clients = [Client(number, ports(cluster), plan, keys=keys, seed=1, pause_seconds=0.1) for number in range(CONTENDERS)]
        for client in clients:
            client.start()
        wait_until(lambda: all(client.told["acquire true"] > 2 for client in clients), "everybody had a lock")
        for client in clients:
            client.stopping.set()
        for client in clients:
            client.join(30)
    finally:
        cluster.stop_all()
    attempts = [attempt for client in clients for attempt in client.attempts]
    model: Model = judge(read_log(first.data_dir), attempts, (seen for client in clients for seen in client.seen))
    assert model.verdict.violations == []
    assert model.verdict.counts["lock false"] > 0


@pytest.mark.slow
def test_sl_05_lock_delay(cluster: Cluster) -> None:
    """Once a session has died, nobody takes its lock before the delay is over, at any node, before and after a failover; a release has no delay."""
    leader, followers = cluster.leader(), cluster.followers()
    one, two = create(followers[0], LockDelay=f"{DELAY_SECONDS:g}s"), create(followers[1], LockDelay="0s")
    assert acquire(leader, "k", one)
    assert leader.put("k", b"", f"release={one}").text == "true"
    assert acquire(followers[1], "k", two), "a release has no delay"
    assert followers[1].put("k", b"", f"release={two}").text == "true"
    assert acquire(followers[0], "k", one)
    lost = time.monotonic()
    assert requests.put(f"{leader.url}/v1/session/destroy/{one}", timeout=15).text == "true"
    assert [acquire(node, "k", two) for node in cluster.nodes] == [False] * 3
    leader.kill()
    leader.start()
    seen = []

    def taken() -> bool:
        for node in followers:
            answer = node.put("k", b"", f"acquire={two}")
            seen.append((answer.text, time.monotonic() - lost))
            if answer.text == "true":
                return True
        return False

    wait_until(taken, "the delay is over", 60)
    assert seen[-1][1] >= DELAY_SECONDS
    assert [text for text, _ in seen].count("false") > 0, "somebody was refused after the failover"


@pytest.mark.slow
def test_sl_06_a_paused_holder_is_fenced(cluster: Cluster) -> None:
    """A holder that sleeps beyond its TTL doesn't know that another has its lock: its plain writes go through, those that check its lock do not."""
    first, second, third = cluster.nodes
    sleeper, other = create(first, TTL="10s", LockDelay="0s"), create(second, LockDelay="0s")
    assert acquire(first, "k", sleeper)
    fence = row(first, "k")["ModifyIndex"]
    assert guarded(first, fence, b"while it holds").status_code == 200
    wait_until(lambda: acquire(second, "k", other), "the lock changes hands", 60)
    new_fence = row(second, "k")["ModifyIndex"]
    assert guarded(second, new_fence, b"the new holder").status_code == 200
    for node in cluster.nodes:
        refused = guarded(node, fence, b"the sleeper")
        assert refused.status_code == 409, refused.text
        assert [error["OpIndex"] for error in refused.json()["Errors"]] == [0]
    assert third.get("data").content == b"the new holder"
    assert first.put("data", b"the sleeper, unguarded").text == "true"
    assert second.get("data").content == b"the sleeper, unguarded", "a lock is advice: who does not check it overwrites"
    assert requests.put(f"{first.url}/v1/session/renew/{sleeper}", timeout=15).status_code == 404
    with closing(Connection(ports(cluster), 0)) as link:
        assert b"invalid session" in link.ask("PUT", f"/v1/kv/k?acquire={sleeper}").body


def guarded(node: Node, fence: int, value: bytes) -> requests.Response:
    """Write ``data`` if the lock ``k`` has not been touched since it was taken at that index."""
    operations = [
        {"KV": {"Verb": "check-index", "Key": "k", "Index": fence}},
        {"KV": {"Verb": "set", "Key": "data", "Value": base64.b64encode(value).decode()}},
    ]
    return requests.put(f"{node.url}/v1/txn", json=operations, timeout=15)
