"""``/v1/cluster/members``: what reaches the agent, and how its answers become HTTP."""

import json
from typing import Any

import msgspec
import pytest

from service.ipc import membership, protocol

MEMBERS = "/v1/cluster/members"
PROBLEM = "application/problem+json"


def asked(worker: Any) -> membership.Operation:
    """The last thing that the agent was asked."""
    return membership.decode(worker.agent.received(protocol.AskMembers)[-1].operation)


@pytest.mark.parametrize(
    ("method", "path", "body", "operation"),
    [
        ("GET", "", None, membership.Members()),
        ("GET", "?stale", None, membership.Members(stale=True)),
        ("POST", "", {"name": "n4", "address": "h4"}, membership.Add("n4", "h4:8300")),
        (
            "POST",
            "",
            {"name": "n4", "address": "http://h4:1/", "voter": False, "replaces": "n1", "id": "i"},
            membership.Add("n4", "h4:1", voter=False, replaces="n1", id="i"),
        ),
        ("POST", "/n1/promote", None, membership.Promote("n1")),
        ("POST", "/n1/demote", None, membership.Demote("n1")),
        ("DELETE", "/11111111-2222", None, membership.Remove("11111111-2222")),
    ],
)
def test_requests(worker: Any, method: str, path: str, body: dict[str, Any] | None, operation: membership.Operation) -> None:
    """Each method and path is one operation; the agent's answer is passed on as JSON."""
    reply = worker.call(method, MEMBERS + path, None if body is None else json.dumps(body).encode())
    assert (reply.status, reply.headers["Content-Type"], json.loads(reply.body)) == (200, "application/json", {"members": []})
    assert asked(worker) == operation


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "can't be used"),
        (b"[]", "Expected `object`"),
        (b'{"name":"n4"}', "address"),
        (b'{"name":"n4","address":"h:0"}', "'0'"),
        (b'{"name":"a b","address":"h"}', "'a b'"),
        (b'{"name":"n4","address":"h","weight":1}', "weight"),
        (b'{"name":"n4","address":"h","voter":"yes"}', "voter"),
        (b"x" * 20_000, "20000"),
    ],
)
def test_bad_bodies(worker: Any, body: bytes, text: str) -> None:
    """A body that can't be used is a problem that names what, and never reaches the agent."""
    reply = worker.call("POST", MEMBERS, body)
    assert (reply.status, reply.headers["Content-Type"], reply.headers["X-Kvorum-Outcome"]) == (400, PROBLEM, "rejected")
    told = json.loads(reply.body)
    assert (told["type"], told["status"], told["outcome"]) == ("urn:kvorum:problem:malformed", 400, "rejected")
    assert text in told["detail"]
    assert worker.agent.received(protocol.AskMembers) == []


@pytest.mark.parametrize(("kind", "outcome"), [("member-alive", "rejected"), ("no-such-member", "rejected"), ("outcome-unknown", "unknown")])
def test_problems_of_the_agent(worker: Any, kind: str, outcome: str) -> None:
    """The agent's problems keep status, type and detail; the header says what became of the change, but not of a list."""
    status, told = membership.problem(kind, "because", outcome)
    worker.agent.members = (status, msgspec.json.encode(told))
    reply = worker.call("DELETE", f"{MEMBERS}/n1")
    assert (reply.status, reply.headers["Content-Type"], reply.headers["X-Kvorum-Outcome"]) == (status, PROBLEM, outcome)
    assert json.loads(reply.body) == told
    assert "X-Kvorum-Outcome" not in worker.call("GET", MEMBERS).headers
    assert worker.call("DELETE", f"{MEMBERS}/n1?pretty").body.startswith(b"{\n    ")


def test_an_agent_that_breaks(worker: Any) -> None:
    """A change whose agent dies under it has an unknown outcome; without an agent it is rejected."""
    worker.agent.drop_on_propose = True
    reply = worker.call("DELETE", f"{MEMBERS}/n1")
    assert (reply.status, reply.headers["X-Kvorum-Outcome"], json.loads(reply.body)["outcome"]) == (500, "unknown", "unknown")
    worker.agent.stop()
    worker.until(lambda: not worker.client.connected)
    reply = worker.call("DELETE", f"{MEMBERS}/n1")
    assert (reply.status, reply.headers["X-Kvorum-Outcome"], json.loads(reply.body)["outcome"]) == (503, "rejected", "rejected")
    assert worker.call("GET", MEMBERS).status == 503


def test_other_methods(worker: Any) -> None:
    """Each path knows its methods."""
    assert worker.call("PUT", MEMBERS, b"").headers["Allow"] == "OPTIONS,GET,POST"
    assert worker.call("GET", f"{MEMBERS}/n1").headers["Allow"] == "OPTIONS,DELETE"
    assert worker.call("GET", f"{MEMBERS}/n1/promote").headers["Allow"] == "OPTIONS,POST"
