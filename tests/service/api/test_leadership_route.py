"""Handing leadership over: what reaches the agent, and how its answers become HTTP, on the native path and on Consul's."""

import json
from typing import Any

import msgspec
import pytest

from service.ipc import membership, protocol

NATIVE = "/v1/cluster/transfer"
CONSUL = "/v1/operator/raft/transfer-leader"
PROBLEM = "application/problem+json"
DONE = {"members": [{"id": "i1", "name": "n1"}, {"id": "i2", "name": "n2"}], "id": "i2"}


def tell(worker: Any, answer: membership.Reply) -> None:
    """What the agent answers from now on."""
    worker.agent.members = (answer[0], msgspec.json.encode(answer[1]))


def asked(worker: Any) -> membership.Operation:
    """The last thing that the agent was asked."""
    return membership.decode(worker.agent.received(protocol.AskMembers)[-1].operation)


@pytest.mark.parametrize("method", ["PUT", "POST"])
@pytest.mark.parametrize(("query", "member", "success"), [("", "", True), ("?id=i2", "i2", True), ("?id=n2", "n2", True), ("?id=i1", "i1", False)])
def test_consul_path(worker: Any, method: str, query: str, member: str, success: bool) -> None:
    """PUT and POST hand over; success means that the one that was asked for leads, or anybody when nobody was."""
    tell(worker, (200, DONE))
    reply = worker.call(method, CONSUL + query, b"")
    assert (reply.status, reply.headers["Content-Type"], json.loads(reply.body)) == (200, "application/json", {"Success": success})
    assert asked(worker) == membership.Transfer(member)


@pytest.mark.parametrize(("query", "member"), [("", ""), ("?to=n2", "n2")])
def test_native_path(worker: Any, query: str, member: str) -> None:
    """The agent's answer is passed on."""
    tell(worker, (200, DONE))
    reply = worker.call("POST", NATIVE + query, b"")
    assert (reply.status, reply.headers["Content-Type"], json.loads(reply.body)) == (200, "application/json", DONE)
    assert asked(worker) == membership.Transfer(member)


@pytest.mark.parametrize(
    ("kind", "outcome"), [(membership.LEADS_ALREADY, "rejected"), (membership.MEMBER_SILENT, "rejected"), (membership.OUTCOME_UNKNOWN, "unknown")]
)
def test_problems(worker: Any, kind: str, outcome: str) -> None:
    """A problem keeps its status and says whether leadership may have moved: as problem+json, and as plain text on Consul's path."""
    status, told = membership.problem(kind, "because", outcome)
    tell(worker, (status, told))
    reply = worker.call("POST", NATIVE, b"")
    assert (reply.status, reply.headers["Content-Type"], reply.headers["X-Kvorum-Outcome"]) == (status, PROBLEM, outcome)
    assert json.loads(reply.body) == told
    reply = worker.call("PUT", CONSUL, b"")
    assert (reply.status, reply.headers["Content-Type"], reply.headers["X-Kvorum-Outcome"]) == (status, "text/plain; charset=utf-8", outcome)
    assert reply.body == b"because"


def test_no_leader(worker: Any) -> None:
    """Without a leader, or an agent, Consul's path answers as Consul does everywhere."""
    tell(worker, membership.problem(membership.NO_LEADER, "nobody votes"))
    reply = worker.call("PUT", CONSUL, b"")
    assert (reply.status, reply.body, reply.headers["X-Kvorum-Outcome"]) == (500, b"No cluster leader", "rejected")
    worker.agent.drop_on_propose = True
    reply = worker.call("POST", NATIVE, b"")
    assert (reply.status, reply.headers["X-Kvorum-Outcome"], json.loads(reply.body)["type"]) == (500, "unknown", "urn:kvorum:problem:outcome-unknown")
    worker.agent.stop()
    worker.until(lambda: not worker.client.connected)
    assert (worker.call("POST", NATIVE, b"").status, worker.call("PUT", CONSUL, b"").body) == (503, b"No cluster leader")


def test_bad_requests(worker: Any) -> None:
    """Other methods, a name that is none, and another datacenter never reach the agent."""
    assert worker.call("GET", CONSUL).headers["Allow"] == "OPTIONS,PUT,POST"
    assert worker.call("PUT", NATIVE, b"").headers["Allow"] == "OPTIONS,POST"
    for path in (f"{NATIVE}?to=%FF", f"{NATIVE}?to=%00"):
        reply = worker.call("POST", path, b"")
        assert (reply.status, json.loads(reply.body)["type"]) == (400, "urn:kvorum:problem:malformed")
    reply = worker.call("PUT", f"{CONSUL}?dc=elsewhere", b"")
    assert (reply.status, reply.body) == (500, b"No path to datacenter")
    assert worker.agent.received(protocol.AskMembers) == []
