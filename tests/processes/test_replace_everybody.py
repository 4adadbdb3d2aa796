"""A cluster under a writing load whose every member is replaced, one by one, between growing to five and shrinking to three again."""

from pathlib import Path

import pytest
import requests
from cluster import Cluster, Node, wait_until
from load import Load

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(600)]

PATIENCE_SECONDS = 60.0


class Changing:
    """The cluster as it changes: which nodes are in use now."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.in_use = list(cluster.nodes)

    def urls(self) -> list[str]:
        """Where to write."""
        return [node.url for node in self.in_use]

    def await_voters(self) -> None:
        """Wait until exactly the nodes in use vote."""
        wanted = {node.name: "voter" for node in self.in_use}
        wait_until(lambda: self.in_use[0].suffrages() == wanted, f"the voters are {sorted(wanted)}", PATIENCE_SECONDS)

    def join(self, name: str, **settings: str) -> Node:
        """Start another node."""
        node = self.cluster.newcomer(name, ",".join(self.urls()), **settings)
        node.start()
        return node

    def grow(self, name: str) -> None:
        """One more voter."""
        node = self.join(name)
        wait_until(lambda: self.in_use[0].suffrages().get(name) == "voter", f"{name} votes", PATIENCE_SECONDS)
        wait_until(node.ready, f"{name} is ready", PATIENCE_SECONDS)
        self.in_use.append(node)

    def replace(self, old: Node, name: str) -> None:
        """Another node takes the place of one that runs."""
        new = self.join(name, KVORUM_JOIN_AS="by-hand")
        wait_until(lambda: "waiting to be added" in new.unready(), f"{name} waits", PATIENCE_SECONDS)
        rest = [node for node in self.in_use if node is not old]
        fields = {"name": name, "address": new.peer, "replaces": old.name}
        answer = requests.post(f"{rest[0].url}/v1/cluster/members", json=fields, timeout=30)
        assert answer.status_code == 200, answer.text
        wanted = {node.name for node in rest} | {name}
        wait_until(lambda: set(rest[0].suffrages()) == wanted, f"{name} has the place of {old.name}", PATIENCE_SECONDS)
        self.in_use = [*rest, new]
        wait_until(lambda: "removed" in old.unready(), f"{old.name} knows that it was removed", PATIENCE_SECONDS)
        assert old.terminate() == 0

    def shrink(self, node: Node) -> None:
        """One voter less."""
        rest = [other for other in self.in_use if other is not node]
        answer = requests.delete(f"{rest[0].url}/v1/cluster/members/{node.name}", timeout=30)
        assert answer.status_code == 200, answer.text
        self.in_use = rest
        assert node.terminate() == 0


def test_everybody_is_replaced_under_load(tmp_path: Path) -> None:
    """Grow from 3 to 5, replace all five one by one, the leader among them, shrink to 3: no acknowledged write is lost, no answer is wrong."""
    cluster = Cluster(tmp_path)
    try:
        cluster.start_all()
        changing = Changing(cluster)
        with Load(changing.urls) as load:
            changing.grow("n4")
            changing.grow("n5")
            changing.await_voters()
            for number, old in enumerate(list(changing.in_use), 1):
                changing.replace(old, f"r{number}")
            changing.await_voters()
            for node in changing.in_use[:2]:
                changing.shrink(node)
            changing.await_voters()
        print("\n" + load.told)  # noqa: T201 - the figure is what a person runs this for
        assert len(load.acknowledged) > 100, load.failed[-5:]
        assert [node.name for node in changing.in_use] == ["r3", "r4", "r5"]
        load.judge(changing.in_use)
    finally:
        cluster.stop_all()
