"""Removing peers, and the autopilot's configuration and health, over HTTP. Texts and shapes as recorded from Consul 1.8.7."""

import json
from typing import Any

import msgspec
import pytest

from service.ipc import membership, protocol

PEER = "/v1/operator/raft/peer"
CONFIGURATION = "/v1/operator/autopilot/configuration"
HEALTH = "/v1/operator/autopilot/health"
ID = "11111111-2222-3333-4444-555555555555"
PARSING = b"Bad request: Error parsing autopilot config: "


def asked(worker: Any) -> membership.Operation:
    """The last thing that the agent was asked about the membership."""
    return membership.decode(worker.agent.received(protocol.AskMembers)[-1].operation)


@pytest.mark.parametrize("query", [f"id={ID}", "address=127.0.0.1:8300"])
def test_remove_peer(worker: Any, query: str) -> None:
    """A member is named by its id or its address, and removed for good."""
    reply = worker.call("DELETE", f"{PEER}?{query}")
    assert reply == (200, {"Content-Length": "0"}, b"")
    assert asked(worker) == membership.Remove(ID)


@pytest.mark.parametrize(
    ("query", "status", "body"),
    [
        ("", 400, "Bad request: Must specify either ?id with the server's ID or ?address with IP:port of peer to remove"),
        ("?id=a&address=b", 400, "Bad request: Must specify only one of ?id or ?address"),
        ("?address=1.2.3.4:1", 500, 'address "1.2.3.4:1" was not found in the Raft configuration'),
        ("?address=", 500, 'address "" was not found in the Raft configuration'),
        ("?id=zzz", 500, 'id "zzz" was not found in the Raft configuration'),
        ("?id=n1", 500, 'id "n1" was not found in the Raft configuration'),
        ("?id=a&dc=nope", 500, "No path to datacenter"),
    ],
)
def test_remove_nobody(worker: Any, query: str, status: int, body: str) -> None:
    """Whoever is not named exactly stays."""
    reply = worker.call("DELETE", PEER + query)
    assert (reply.status, reply.body.decode(), reply.headers["X-Kvorum-Outcome"]) == (status, body, "rejected")
    assert not worker.agent.received(protocol.AskMembers)
    assert worker.call("GET", PEER).headers["Allow"] == "OPTIONS,DELETE"


@pytest.mark.parametrize(
    ("kind", "outcome", "text"),
    [
        (membership.REFUSED, "rejected", "because"),
        (membership.OUTCOME_UNKNOWN, "unknown", "because"),
        (membership.NO_LEADER, "rejected", "No cluster leader"),
        (membership.NO_SUCH_MEMBER, "rejected", f'id "{ID}" was not found in the Raft configuration'),
    ],
)
def test_removal_that_fails(worker: Any, kind: str, outcome: str, text: str) -> None:
    """What the leader says is passed on, with the outcome."""
    status, told = membership.problem(kind, "because", outcome)
    worker.agent.members = (status, msgspec.json.encode(told))
    reply = worker.call("DELETE", f"{PEER}?id={ID}")
    assert (reply.status, reply.body.decode(), reply.headers["X-Kvorum-Outcome"]) == (500, text, outcome)


def test_configuration(worker: Any) -> None:
    """The record is replaced whole: what is left out is zero. The condition is about its ModifyIndex."""
    default = (
        b'{"CleanupDeadServers":false,"LastContactThreshold":"200ms","MaxTrailingLogs":250,"MinQuorum":0,"ServerStabilizationTime":"10s",'
        b'"RedundancyZoneTag":"","DisableUpgradeMigration":false,"UpgradeVersionTag":"","CreateIndex":%d,"ModifyIndex":%d}'
    )
    assert worker.call("GET", CONFIGURATION)[1:] == ({"Content-Type": "application/json", "Content-Length": "237"}, default % (0, 0))
    reply = worker.call("PUT", CONFIGURATION, b'{"CleanupDeadServers":true,"LastContactThreshold":"1s","MaxTrailingLogs":300}')
    assert reply[::2] == (200, b"true")
    found = json.loads(worker.call("GET", f"{CONFIGURATION}?stale&pretty").body)
    index = found["ModifyIndex"]
    assert (found["CleanupDeadServers"], found["LastContactThreshold"], found["MaxTrailingLogs"]) == (True, "1s", 300)
    assert (found["ServerStabilizationTime"], found["CreateIndex"]) == ("0s", index)
    for cas in (0, 1, index + 1):
        assert worker.call("PUT", f"{CONFIGURATION}?cas={cas}", b"{}").body == b"false"
    body = b'{"cleanupdeadservers":false,"LASTCONTACTTHRESHOLD":200000000,"MaxTrailingLogs":250,"ServerStabilizationTime":"10s","ModifyIndex":9}'
    assert worker.call("PUT", f"{CONFIGURATION}?cas={index}", body).body == b"true"
    assert worker.call("GET", CONFIGURATION).body == default % (index, index + 4)
    assert worker.call("PUT", CONFIGURATION, b"null").body == b"true"
    assert json.loads(worker.call("GET", CONFIGURATION).body)["MaxTrailingLogs"] == 0


@pytest.mark.parametrize(
    ("query", "body", "text"),
    [
        ("", b"bad", PARSING + b"invalid character 'b' looking for beginning of value"),
        ("", b"", PARSING + b"EOF"),
        ("", b"[]", PARSING + b"json: cannot unmarshal array into Go value of type api.AutopilotConfiguration"),
        ("", b'{"Bogus":1}', PARSING + b'json: unknown field "Bogus"'),
        ("", b'{"LastContactThreshold":"abc"}', PARSING + b'time: invalid duration "abc"'),
        (
            "",
            b'{"MaxTrailingLogs":-1}',
            PARSING + b"json: cannot unmarshal number -1 into Go struct field AutopilotConfiguration.MaxTrailingLogs of type uint64",
        ),
        (
            "",
            b'{"MaxTrailingLogs":"a"}',
            PARSING + b"json: cannot unmarshal string into Go struct field AutopilotConfiguration.MaxTrailingLogs of type uint64",
        ),
        ("?cas=abc", b"{}", b'Bad request: Error parsing cas value: strconv.ParseUint: parsing "abc": invalid syntax'),
    ],
)
def test_bad_configurations(worker: Any, query: str, body: bytes, text: bytes) -> None:
    """What can't be read is refused with Go's text and changes nothing."""
    before = worker.call("GET", CONFIGURATION).body
    assert worker.call("PUT", CONFIGURATION + query, body)[::2] == (400, text)
    assert worker.call("GET", CONFIGURATION).body == before
    assert worker.call("DELETE", CONFIGURATION).headers["Allow"] == "OPTIONS,GET,PUT"


SERVER = {
    "id": ID,
    "name": "n1",
    "address": "127.0.0.1:8300",
    "alive": True,
    "leader": True,
    "last_contact_ms": 0,
    "last_term": 2,
    "last_index": 8,
    "healthy": True,
    "voter": True,
    "stable_since_ms": 1_700_000_000_123,
}


def test_health(worker: Any) -> None:
    """The leader's view in Consul's form; 429 when a server is not well."""
    worker.agent.members = (200, msgspec.json.encode({"healthy": True, "failure_tolerance": 0, "servers": [SERVER]}))
    reply = worker.call("GET", HEALTH)
    told = json.loads(reply.body)
    assert (reply.status, list(told), told["Healthy"], told["FailureTolerance"]) == (200, ["Healthy", "FailureTolerance", "Servers"], True, 0)
    server = (
        '{"ID":"11111111-2222-3333-4444-555555555555","Name":"n1","Address":"127.0.0.1:8300","SerfStatus":"alive","Version":"1.8.7","Leader":true,'
        '"LastContact":"0s","LastTerm":2,"LastIndex":8,"Healthy":true,"Voter":true,"StableSince":"2023-11-14T22:13:20Z"}'
    )
    assert reply.body.decode().endswith(f'"Servers":[{server}]}}')
    assert asked(worker) == membership.Health()
    gone = SERVER | {"alive": False, "healthy": False, "last_contact_ms": None, "leader": False}
    slow = SERVER | {"healthy": False, "last_contact_ms": 1250}
    worker.agent.members = (200, msgspec.json.encode({"healthy": False, "failure_tolerance": 0, "servers": [gone, slow]}))
    reply = worker.call("GET", HEALTH)
    first, second = json.loads(reply.body)["Servers"]
    assert reply.status == 429
    assert (first["SerfStatus"], first["LastContact"], first["StableSince"]) == ("failed", "-1ns", "0001-01-01T00:00:00Z")
    assert second["LastContact"] == "1.25s"
    status, told = membership.problem(membership.NO_LEADER, "because")
    worker.agent.members = (status, msgspec.json.encode(told))
    assert worker.call("GET", HEALTH)[::2] == (500, b"No cluster leader")
    assert worker.call("PUT", HEALTH, b"").headers["Allow"] == "OPTIONS,GET"
