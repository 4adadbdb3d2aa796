"""Leadership handed over again and again under a load of writes and reads."""

import itertools
from pathlib import Path

import pytest
import requests
from cluster import Cluster, wait_until
from load import Load

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(300)]

TRANSFERS = 100
ATTEMPTS_MAX = 150


def transfer(cluster: Cluster, load: Load, number: int) -> bool:
    """Hand leadership over once, asked of any node, on the native path or on Consul's; wait until a write went through since.

    :returns: whether the one that was named leads.
    """
    leader = cluster.leader()
    target = [node for node in cluster.nodes if node is not leader][number % 2]
    asked = cluster.nodes[number % 3].url
    if number % 2:
        answer = requests.post(f"{asked}/v1/cluster/transfer?to={target.name}", timeout=30)
    else:
        answer = requests.put(f"{asked}/v1/operator/raft/transfer-leader?id={target.name}", timeout=30)
    written = len(load.acknowledged)
    wait_until(lambda: len(load.acknowledged) > written, "a write is acknowledged after the transfer")
    if answer.status_code != 200:
        assert answer.headers["X-Kvorum-Outcome"] in {"rejected", "unknown"}, answer.text
        return False
    told = answer.json()
    if number % 2:
        leads: bool = [member["name"] for member in told["members"] if member["id"] == told["id"]] == [target.name]
        return leads
    return bool(told["Success"])


def test_leadership_is_handed_over_a_hundred_times(tmp_path: Path) -> None:
    """A hundred transfers that succeed, under writers and readers: no acknowledged write is lost, and every answer fits one copy of the data."""
    cluster = Cluster(tmp_path)
    try:
        cluster.start_all()
        first_term = cluster.leader().status()["node"]["term"]
        done = 0
        with Load(lambda: [node.url for node in cluster.nodes]) as load:
            for number in itertools.count():
                done += transfer(cluster, load, number)
                if done == TRANSFERS:
                    break
                assert number < ATTEMPTS_MAX, f"{done} of {number} transfers succeeded; {load.failed[-5:]}"
        last_term = cluster.leader().status()["node"]["term"]
        print(f"\n{done} of {number + 1} transfers, term {first_term} to {last_term}; {load.told}")  # noqa: T201 - a person runs this for the figure
        assert last_term >= first_term + TRANSFERS
        load.judge(cluster.nodes)
    finally:
        cluster.stop_all()
