"""Catalog, health, coordinates and members over HTTP. Texts, shapes and headers as recorded from Consul 1.8.7."""

import json
from typing import Any

import gevent
import pytest

from service.domain import commands
from service.domain.commands import RecordServers, ServerRecord

ONE = ServerRecord("11111111-2222-3333-4444-555555555555", "n1", "127.0.0.1:8300", voter=True, alive=True)
TWO = ServerRecord("21111111-2222-3333-4444-555555555555", "n2", "db.example:8300", voter=False, alive=True)
NODE = (
    '{"ID":"11111111-2222-3333-4444-555555555555","Node":"n1","Address":"127.0.0.1","Datacenter":"dc1","TaggedAddresses":{"lan":"127.0.0.1",'
    '"lan_ipv4":"127.0.0.1","wan":"127.0.0.1","wan_ipv4":"127.0.0.1"},"Meta":{"consul-network-segment":""},"CreateIndex":4,"ModifyIndex":4}'
)
META = '{"non_voter":"false","raft_version":"3","serf_protocol_current":"2","serf_protocol_max":"5","serf_protocol_min":"1","version":"1.8.7"}'
SERVICE = (
    '{"ID":"consul","Service":"consul","Tags":[],"Address":"","Meta":' + META + ',"Port":8300,"Weights":{"Passing":1,"Warning":1},'
    '"EnableTagOverride":false,"Proxy":{"MeshGateway":{},"Expose":{}},"Connect":{},"CreateIndex":4,"ModifyIndex":4}'
)
SERVICE_NODE = (
    NODE.replace('"Meta"', '"NodeMeta"').partition(',"CreateIndex"')[0] + ',"ServiceKind":"","ServiceID":"consul","ServiceName":"consul",'
    '"ServiceTags":[],"ServiceAddress":"","ServiceWeights":{"Passing":1,"Warning":1},"ServiceMeta":' + META + ',"ServicePort":8300,'
    '"ServiceEnableTagOverride":false,"ServiceProxy":{"MeshGateway":{},"Expose":{}},"ServiceConnect":{},"CreateIndex":4,"ModifyIndex":4}'
)
CHECK = (
    '{"Node":"n1","CheckID":"serfHealth","Name":"Serf Health Status","Status":"passing","Notes":"","Output":"Agent alive and reachable",'
    '"ServiceID":"","ServiceName":"","ServiceTags":[],"Type":"","Definition":{},"CreateIndex":4,"ModifyIndex":4}'
)
COORDINATE = '{"Node":"n1","Segment":"","Coord":{"Vec":[0,0,0,0,0,0,0,0],"Error":1.5,"Adjustment":0,"Height":0.00001}}'
TEXT = "text/plain; charset=utf-8"


def record(worker: Any, *servers: ServerRecord) -> None:
    """Let the leader have recorded these."""
    worker.agent.apply(commands.stamp(commands.encode(RecordServers(list(servers))), 1))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("catalog/nodes", f"[{NODE}]"),
        ("catalog/nodes?node-meta=a:b", "[]"),
        ("catalog/nodes?node-meta=consul-network-segment:&near=_agent", f"[{NODE}]"),
        ("catalog/node/n1", '{"Node":' + NODE + ',"Services":{"consul":' + SERVICE + "}}"),
        ("catalog/node/none", "null"),
        ("catalog/node-services/n1", '{"Node":' + NODE + ',"Services":[' + SERVICE + "]}"),
        ("catalog/services", '{"consul":[]}'),
        ("catalog/services?node-meta=a:b", "{}"),
        ("catalog/service/consul", f"[{SERVICE_NODE}]"),
        ("catalog/service/consul?tag=x", "[]"),
        ("catalog/service/none", "[]"),
        ("health/node/n1", f"[{CHECK}]"),
        ("health/node/none", "[]"),
        ("health/service/consul", '[{"Node":' + NODE + ',"Service":' + SERVICE + ',"Checks":[' + CHECK + "]}]"),
        ("health/service/none", "[]"),
        ("health/checks/consul", "[]"),
        ("health/connect/consul", "[]"),
        ("health/state/any", f"[{CHECK}]"),
        ("health/state/passing", f"[{CHECK}]"),
        ("health/state/critical", "[]"),
        ("health/state/bogus", "[]"),
    ],
)
def test_documents(worker: Any, path: str, body: str) -> None:
    """Each document is Consul's byte for byte, with the headers of a read."""
    record(worker, ONE)
    reply = worker.call("GET", f"/v1/{path}")
    assert (reply.status, reply.body.decode()) == (200, body)
    headers = {"Content-Type": "application/json", "X-Consul-Index": "4", "X-Consul-Knownleader": "true", "X-Consul-Lastcontact": "0"}
    assert reply.headers == headers | {"X-Consul-Effective-Consistency": "leader", "Content-Length": str(len(body))}
    query = "&stale" if "?" in path else "?stale"
    assert worker.call("GET", f"/v1/{path}{query}").headers["X-Consul-Effective-Consistency"] == "stale"


def test_coordinates(worker: Any) -> None:
    """All nodes are at one place; a node that is not there is an empty 404."""
    record(worker, ONE)
    for path in ("nodes", "node/n1"):
        reply = worker.call("GET", f"/v1/coordinate/{path}")
        assert reply.body.decode() == f"[{COORDINATE}]"
        assert "X-Consul-Effective-Consistency" not in reply.headers
    assert worker.call("GET", "/v1/coordinate/node/none") == (404, {"Content-Length": "0"}, b"")
    reply = worker.call("GET", "/v1/coordinate/datacenters")
    assert reply.body.decode() == '[{"Datacenter":"dc1","AreaID":"wan","Coordinates":[' + COORDINATE + "]}]"
    assert worker.call("GET", "/v1/catalog/datacenters")[1:] == ({"Content-Type": "application/json", "Content-Length": "7"}, b'["dc1"]')


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("catalog/node/", b"Missing node name"),
        ("catalog/service/", b"Missing service name"),
        ("health/node/", b"Missing node name"),
        ("health/service/", b"Missing service name"),
        ("health/checks/", b"Missing service name"),
        ("health/state/", b"Missing check state"),
    ],
)
def test_missing_names(worker: Any, path: str, body: bytes) -> None:
    """A path without its name says which; without its slash it is redirected; writing is not allowed."""
    reply = worker.call("GET", f"/v1/{path}")
    assert (reply.status, reply.headers["Content-Type"], reply.body) == (400, TEXT, body)
    assert worker.call("GET", f"/v1/{path[:-1]}").headers["Location"] == f"/v1/{path}"
    reply = worker.call("POST", f"/v1/{path}x", b"")
    assert (reply.status, reply.headers["Allow"], reply.body) == (405, "OPTIONS,GET", b"method POST not allowed")


def test_refused_parameters(worker: Any) -> None:
    """Another datacenter, and what would have to be left out of the answer by an expression, are refused with the headers of no index."""
    reply = worker.call("GET", "/v1/catalog/nodes?dc=nope")
    assert (reply.status, reply.body) == (500, b"No path to datacenter")
    assert (reply.headers["X-Consul-Index"], reply.headers["X-Consul-Knownleader"], reply.headers["X-Consul-Lastcontact"]) == ("1", "false", "0")
    reply = worker.call("GET", "/v1/health/service/consul?filter=Node.Node==n1")
    assert (reply.status, reply.body.startswith(b"Failed to create boolean expression evaluator: ")) == (500, True)


def test_failed_server(worker: Any) -> None:
    """A server that is not heard of is critical; it stays in the catalog and is left out of what passes."""
    record(worker, ONE, TWO)
    record(worker, ONE, TWO.__class__(TWO.id, TWO.name, TWO.address, TWO.voter, alive=False))
    checks = json.loads(worker.call("GET", "/v1/health/state/critical").body)
    assert [(one["Node"], one["Status"], one["Output"], one["CreateIndex"], one["ModifyIndex"]) for one in checks] == [
        ("n2", "critical", "Agent not live or unreachable", 4, 5)
    ]
    assert [one["Node"]["Node"] for one in json.loads(worker.call("GET", "/v1/health/service/consul?passing").body)] == ["n1"]
    assert len(json.loads(worker.call("GET", "/v1/catalog/nodes").body)) == 2
    assert (worker.index("/v1/catalog/nodes"), worker.index("/v1/health/state/any"), worker.index("/v1/health/service/consul")) == (4, 5, 5)
    told = {one["Name"]: one for one in json.loads(worker.call("GET", "/v1/agent/members").body)}
    assert (told["n1"]["Status"], told["n2"]["Status"]) == (1, 4)
    assert (told["n2"]["Addr"], told["n2"]["Tags"]["nonvoter"], "nonvoter" in told["n1"]["Tags"]) == ("db.example", "1", False)


def test_blocking(worker: Any) -> None:
    """A watch of nodes or checks wakes when these change, and for nothing else."""
    record(worker, ONE)
    nodes = gevent.spawn(worker.call, "GET", "/v1/catalog/nodes?index=4&wait=30s")
    checks = gevent.spawn(worker.call, "GET", "/v1/health/state/any?index=4&wait=30s")
    worker.until(lambda: worker.blocking.waiting == 2)
    worker.put("k")
    record(worker, ONE)
    record(worker, ONE.__class__(ONE.id, ONE.name, ONE.address, ONE.voter, alive=False))
    assert json.loads(checks.get(timeout=10).body)[0]["Status"] == "critical"
    gevent.sleep(0.05)
    assert not nodes.ready()
    record(worker, TWO)
    assert [one["Node"] for one in json.loads(nodes.get(timeout=10).body)] == ["n2"]


def test_members(worker: Any) -> None:
    """Before anything was recorded the configuration tells who they are; they are told without a leader, too."""
    reply = worker.call("GET", "/v1/agent/members?segment=_all")
    told = json.loads(reply.body)
    assert [(one["Name"], one["Addr"], one["Port"], one["Status"]) for one in told] == [("n1", "127.0.0.1", 8300, 1)]
    assert told[0]["Tags"] | {"role": "consul", "dc": "dc1", "build": "1.8.7:", "segment": "", "vsn": "2"} == told[0]["Tags"]
    assert {name for name in reply.headers if name != "Content-Length"} == {"Content-Type"}
    record(worker, ONE, TWO)
    worker.agent.failing = "no-leader"
    assert [one["Name"] for one in json.loads(worker.call("GET", "/v1/agent/members").body)] == ["n1", "n2"]
    assert [one["Name"] for one in json.loads(worker.call("GET", "/v1/agent/members?wan=1").body)] == ["n1.dc1", "n2.dc1"]
    text = b"Network segments are not supported in this version of Consul"
    assert worker.call("GET", "/v1/agent/members?segment=x")[::2] == (500, text)


def test_nothing_is_registered(worker: Any) -> None:
    """A node has no services and no checks of its own; registering any is refused and says so."""
    assert worker.call("GET", "/v1/agent/services").body == worker.call("GET", "/v1/agent/checks").body == b"{}"
    assert worker.call("GET", "/v1/agent/service/web")[::2] == (404, b"unknown service ID: web")
    reply = worker.call("GET", "/v1/agent/health/service/name/web")
    assert (reply.status, reply.headers["X-Consul-Reason"], reply.body) == (404, "ServiceName web Not Found", b"[]")
    for path in ("agent/service/register", "agent/check/pass/a", "catalog/register", "agent/maintenance", "agent/leave", "agent/force-leave/n1"):
        reply = worker.call("PUT", f"/v1/{path}", b"{}")
        assert (reply.status, reply.headers["X-Kvorum-Outcome"]) == (501, "rejected")
        reply = worker.call("GET", f"/v1/{path}")
        if path != "agent/service/register":
            assert (reply.status, reply.headers["Allow"]) == (405, "OPTIONS,PUT")
