"""Tokens and rules on three real nodes that deny by default: at the leader and at followers, while the leader is killed, and for those that wait."""

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from cluster import Cluster, Node, wait_until

from service.client import Client

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]

PATIENCE_SECONDS = 60.0
WAIT = "10m"
"""How long a blocking query would wait if nobody woke it: longer than a test may take."""
RULES = 'key_prefix "app/" { policy = "write" }'
RULES_LESS = RULES + ' key_prefix "app/no/" { policy = "deny" }'


class Acl:
    """A cluster with its token of management.

    :ivar policy: the id of the policy that :meth:`token` gives.
    """

    def __init__(self, cluster: Cluster, secret: str) -> None:
        self.cluster = cluster
        self.secret = secret
        self.policy = ""

    def ask(self, node: Node, method: str, path: str, body: Any = None, token: str | None = None) -> requests.Response:
        """One request; by default with the token of management."""
        headers = {"X-Consul-Token": self.secret if token is None else token}
        data = {"data": body} if isinstance(body, bytes) else {"json": body} if body is not None else {}
        return requests.request(method, f"{node.url}/v1/{path}", headers=headers, timeout=PATIENCE_SECONDS, **data)

    def make(self, path: str, body: Any) -> Any:
        """Make or change something at the leader, as soon as there is one."""
        found = wait_until(lambda: (got := self.ask(self.cluster.nodes[0], "PUT", path, body)).ok and got, f"PUT {path}", PATIENCE_SECONDS)
        return found.json()

    def token(self) -> tuple[str, str]:
        """The secret and the accessor of a new token with the policy."""
        if not self.policy:
            self.policy = self.make("acl/policy", {"Name": "app", "Rules": RULES})["ID"]
        found = self.make("acl/token", {"Policies": [{"ID": self.policy}]})
        return found["SecretID"], found["AccessorID"]

    def holds(self, node: Node, token: str) -> bool:
        """Whether the rules hold at a node: the token writes and reads below its prefix, and nothing else; nobody's token nothing.

        :raises AssertionError: something was allowed that must not be, at whatever moment.
        """
        for method, path, who in (("PUT", "kv/other", token), ("GET", "kv/other", token), ("PUT", "kv/app/x", ""), ("GET", "kv/app/x", "")):
            answer = self.ask(node, method, path, b"v" if method == "PUT" else None, who)
            assert answer.status_code in (403, 500), (node.name, method, path, answer.text)
            if answer.status_code != 403:
                return False
        value = uuid.uuid4().bytes
        written = self.ask(node, "PUT", "kv/app/x", value, token)
        read = self.ask(node, "GET", "kv/app/x?raw", None, token)
        assert {written.status_code, read.status_code} <= {200, 500}, (node.name, written.text, read.text)
        return written.status_code == 200 and read.content == value


@pytest.fixture(scope="module")
def acl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Acl]:
    """Three nodes that deny by default, for both tests: each begins without keys."""
    secret = str(uuid.uuid4())
    settings = {"KVORUM_ACL_ENABLED": "true", "KVORUM_ACL_DEFAULT_POLICY": "deny", "KVORUM_ACL_INITIAL_MANAGEMENT": secret}
    made = Cluster(tmp_path_factory.mktemp("acl"), settings=settings)
    try:
        made.start_all()
        yield Acl(made, secret)
    finally:
        made.stop_all()


def leader_of(acl: Acl) -> Node:
    """The node that leads, as the first that runs tells it."""

    def find() -> Node | None:
        running = [node for node in acl.cluster.nodes if not node.ended()]
        peer = requests.get(f"{running[0].url}/v1/status/leader", timeout=20).json()
        return next((node for node in running if node.peer == peer), None)

    found: Node = wait_until(find, "a leader is known", PATIENCE_SECONDS)
    return found


def test_rules_hold_everywhere_and_survive_the_leader(acl: Acl) -> None:
    """The same is allowed and denied at all nodes, before and after the leader is killed, and at the one that comes back; what is deleted is dead."""
    token, accessor = acl.token()
    other, _ = acl.token()
    for node in acl.cluster.nodes:
        wait_until(lambda node=node: acl.holds(node, token), f"the rules hold at {node.name}", PATIENCE_SECONDS)
    killed = leader_of(acl)
    killed.kill()
    for node in acl.cluster.nodes:
        if node is not killed:
            wait_until(lambda node=node: acl.holds(node, token), f"the rules hold at {node.name} without the leader", PATIENCE_SECONDS)
    killed.start()
    for node in acl.cluster.nodes:
        wait_until(lambda node=node: acl.holds(node, token), f"the rules hold at {node.name} again", PATIENCE_SECONDS)

    # Once a deletion is acknowledged, the token is dead at every node, at once.
    asked = acl.cluster.nodes[1]
    assert acl.ask(asked, "DELETE", f"acl/token/{accessor}").text == "true"
    for node in acl.cluster.nodes:
        for method, path in (("PUT", "kv/app/x"), ("GET", "kv/app/x"), ("GET", "kv/app/?recurse"), ("GET", "scan")):
            answer = acl.ask(node, method, path, b"v" if method == "PUT" else None, token)
            assert (answer.status_code, answer.text) == (403, "ACL not found"), (node.name, method, path)
        assert acl.holds(node, other)


def test_who_waits_is_told(acl: Acl) -> None:
    """At the leader and at a follower: who waits for a key is refused when its token or its rules go; who waits for a listing is not shown what it
    may not see any more. A scan follows the rules, too.
    """
    leader = leader_of(acl)
    assert acl.ask(leader, "DELETE", "kv/?recurse").text == "true"
    follower = next(node for node in acl.cluster.nodes if node is not leader)
    token, accessor = acl.token()
    staying, _ = acl.token()
    for key in ("app/a", "app/no/a"):
        assert acl.ask(leader, "PUT", f"kv/{key}", b"v").text == "true"
    index = acl.ask(leader, "GET", "kv/app/?recurse").headers["X-Consul-Index"]
    waiting = f"index={index}&wait={WAIT}"
    with ThreadPoolExecutor(6) as pool:
        both = (leader, follower)
        by_token = [pool.submit(acl.ask, node, "GET", f"kv/app/a?{waiting}", None, token) for node in both]
        by_rules = [pool.submit(acl.ask, node, "GET", f"kv/app/no/a?{waiting}", None, staying) for node in both]
        listed = [pool.submit(acl.ask, node, "GET", f"kv/app/?recurse&{waiting}", None, staying) for node in both]
        assert acl.ask(follower, "DELETE", f"acl/token/{accessor}").text == "true"
        assert [(one.result().status_code, one.result().text) for one in by_token] == [(403, "ACL not found")] * 2
        assert not any(one.done() for one in (*by_rules, *listed))
        acl.make(f"acl/policy/{acl.policy}", {"Name": "app", "Rules": RULES_LESS})
        assert [(one.result().status_code, one.result().text) for one in by_rules] == [(403, "Permission denied")] * 2
        assert acl.ask(leader, "PUT", "kv/app/no/b", b"v").text == "true"
        assert [[entry["Key"] for entry in one.result().json()] for one in listed] == [["app/a"]] * 2
    for node in acl.cluster.nodes:
        with Client(node.url, staying) as client:
            assert [entry.key for entry in client.scan(page=1)] == ["app/a"]
        with Client(node.url, acl.secret) as client:
            assert [entry.key for entry in client.scan(page=2)] == ["app/a", "app/no/a", "app/no/b"]
