"""What a node tells about itself: status, agent, operator, health, metrics. Texts and shapes as recorded from Consul 1.8.7."""

import json
from typing import Any

import pytest

TEXT = "text/plain; charset=utf-8"
LEADER = "127.0.0.1:8300"


def test_status(worker: Any) -> None:
    """Leader and peers are addresses in JSON, without index headers."""
    reply = worker.call("GET", "/v1/status/leader")
    assert reply.body == b'"127.0.0.1:8300"'
    assert reply.headers == {"Content-Type": "application/json", "Content-Length": "16"}
    assert worker.call("GET", "/v1/status/leader?pretty&dc=dc1").body == b'"127.0.0.1:8300"\n'
    assert worker.call("GET", "/v1/status/peers?pretty").body == b'[\n    "127.0.0.1:8300"\n]\n'
    worker.agent.tell(leader_known=False)
    assert worker.call("GET", "/v1/status/leader").body == b'""'
    assert worker.call("GET", "/v1/status/peers").body == b'["127.0.0.1:8300"]'


@pytest.mark.parametrize("path", ["/v1/status/leader", "/v1/status/peers", "/v1/operator/raft/configuration"])
def test_refusals(worker: Any, path: str) -> None:
    """These know the common parameters and two methods."""
    assert worker.call("GET", f"{path}?dc=nope")[::2] == (500, b"No path to datacenter")
    assert worker.call("GET", f"{path}?wait=x")[::2] == (400, b"Invalid wait time")
    reply = worker.call("PUT", path, b"")
    assert (reply.status, reply.headers["Allow"], reply.body) == (405, "OPTIONS,GET", b"method PUT not allowed")
    assert worker.call("OPTIONS", path).headers["Allow"] == "OPTIONS,GET"
    assert worker.call("HEAD", path)[::2] == (405, b"")


def test_raft_configuration(worker: Any) -> None:
    """The members, with an index of 0, as clients expect it."""
    server = {"ID": "11111111-2222-3333-4444-555555555555", "Node": "n1", "Address": LEADER, "Leader": True, "ProtocolVersion": "3", "Voter": True}
    reply = worker.call("GET", "/v1/operator/raft/configuration")
    assert json.loads(reply.body) == {"Servers": [server], "Index": 0}
    assert list(json.loads(reply.body)["Servers"][0]) == list(server)


def test_agent_self(worker: Any) -> None:
    """What clients read of it is there, all statistics are texts; it also answers while the agent is away."""
    told = json.loads(worker.call("GET", "/v1/agent/self?dc=nope&stale&consistent").body)
    assert list(told) == ["Config", "DebugConfig", "Coord", "Member", "Stats", "Meta"]
    assert (told["Config"]["NodeName"], told["Config"]["Datacenter"], told["Config"]["Version"]) == ("n1", "dc1", "1.8.7")
    assert told["Stats"]["consul"] | {"leader": "true", "leader_addr": LEADER} == told["Stats"]["consul"]
    assert (told["Stats"]["raft"]["state"], told["Stats"]["raft"]["num_peers"]) == ("Leader", "0")
    assert all(isinstance(value, str) for group in told["Stats"].values() for value in group.values())
    worker.agent.stop()
    worker.until(lambda: not worker.client.connected)
    assert json.loads(worker.call("GET", "/v1/agent/self").body)["Config"]["NodeName"] == "n1"
    assert worker.call("GET", "/v1/status/leader")[::2] == (500, b"No cluster leader")


def test_greeting_and_unknown_paths(worker: Any) -> None:
    """The root greets whatever the method; an unknown path is an empty 404 without headers."""
    for method in ("GET", "PUT", "OPTIONS"):
        assert worker.call(method, "/") == (200, {"Content-Type": TEXT, "Content-Length": "12"}, b"Consul Agent")
    for path in ("/foo", "/v1", "/v1/", "/v1/KV/a", "/v2/kv/a", "/v1/status/", "/v1/status/leader/", "/v1/txn/"):
        assert worker.call("PUT", path, b"") == (404, {"Content-Length": "0"}, b"")
    assert worker.call("GET", "/foo", X_Request_Id="r").headers["X-Request-Id"] == "r"


def test_paths_are_guarded(worker: Any) -> None:
    """Unclean paths are redirected and unprintable ones refused before the method is looked at."""
    assert worker.call("PATCH", "/v1/kv//a").headers["Location"] == "/v1/kv/a"
    assert worker.call("GET", "/v1/kv?raw").headers["Location"] == "/v1/kv/?raw"
    for path, location in (("/v1/kv?", "/v1/kv/"), ("/v1//kv?", "/v1/kv/"), ("/v1//kv/?", "/v1/kv/?"), ("/v1/kv//a?", "/v1/kv/a?")):
        assert worker.call("GET", path).headers["Location"] == location
    assert worker.call("FOO", "/x%0a").status == 400
    assert worker.call("OPTIONS", "*").status == 200
    assert worker.call("GET", "*").status == 400


@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "OPTIONS", "DELETE"])
@pytest.mark.parametrize("path", ["/v1/kv/a", "/v1/txn", "/v1/session/renew/x", "/v1/session/list", "/v1/event/list", "/v1/status/leader"])
def test_escapes_of_the_query_come_first(worker: Any, method: str, path: str) -> None:
    """A query that can't be read is refused before method and body are looked at."""
    reply = worker.call(method, f"{path}?a=%zz", b"[{")
    assert (reply.status, reply.body) == (500, b"")


def test_flask_test_client(worker: Any) -> None:
    """The application also runs where the server does not tell the raw target."""
    client = worker.app.test_client()
    assert client.put("/v1/kv/a%20b", data=b"v").data == b"true"
    assert client.get("/v1/kv/a%20b?raw", environ_overrides={"RAW_URI": None}).data == b"v"
    assert worker.reader.get(b"a b").row.value == b"v"


def test_liveness_and_readiness(worker: Any) -> None:
    """Live means that the worker answers; ready names what is missing: the agent, a leader, the node's own reason, or that it stops."""
    assert worker.call("GET", "/livez")[::2] == (200, b"ok\n")
    assert worker.call("GET", "/readyz")[::2] == (200, b"ok\n")
    assert worker.call("GET", "/readyz?verbose").body == b"[+] agent\n[+] leader\n[+] state\n[+] stopping\nready\n"
    for changes, problem in (
        ({"leader_known": False}, b"no leader is known"),
        ({"reason": "catching up"}, b"catching up"),
        ({"quitting": True}, b"the node is stopping"),
    ):
        before = worker.agent.node_state
        worker.agent.tell(**changes)
        worker.until(lambda expected=changes: all(getattr(worker.client.node_state, name) == value for name, value in expected.items()))
        assert worker.call("GET", "/readyz")[::2] == (503, problem + b"\n")
        worker.agent.tell(**{name: getattr(before, name) for name in changes})
        worker.until(lambda expected=before: worker.client.node_state == expected)
    worker.agent.stop()
    worker.until(lambda: not worker.client.connected)
    reply = worker.call("GET", "/readyz?verbose")
    assert reply.status == 503
    assert b"[-] agent: the agent of this node can't be reached" in reply.body
    assert worker.call("GET", "/livez").status == 200


def test_metrics(worker: Any) -> None:
    """The text holds the worker's counts and the node's numbers, and is complete without the agent."""
    worker.call("GET", "/v1/kv/a")
    worker.call("GET", "/v1/kv/a?index=9999&wait=1ms")
    reply = worker.call("GET", "/metrics")
    assert reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    text = reply.body.decode()
    assert 'kvorum_http_requests_total{method="GET",status="404"' in text
    count = next(line for line in text.splitlines() if line.startswith("kvorum_http_request_seconds_count"))
    assert count.endswith(" 1.0"), "a blocking query must not count as a slow request"
    for line in (
        "kvorum_agent_term 2.0",
        "kvorum_agent_log_entries 4.0",
        "# TYPE kvorum_agent_disk_writes_total counter",
        "kvorum_agent_disk_writes_total 7.0",
        "kvorum_agent_leading 1.0",
    ):
        assert line in text.splitlines()
    worker.agent.stop()
    worker.until(lambda: not worker.client.connected)
    assert "kvorum_worker_agent_connected" in worker.call("GET", "/metrics").body.decode()
