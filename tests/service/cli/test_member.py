"""``kvorum member``: what is sent, what is shown, and how it ends."""

import json
from collections.abc import Callable
from typing import Any

import pytest

Run = Callable[..., Any]
MEMBERS = {
    "cluster_id": "c1",
    "index": 7,
    "committed": True,
    "joint": False,
    "members": [
        {"id": "i1", "name": "n1", "address": "h1:8300", "suffrage": "voter", "leader": True, "promotion": None, "caught_up": None},
        {
            "id": "i2",
            "name": "n2",
            "address": "h2:8300",
            "suffrage": "learner",
            "leader": False,
            "promotion": {"replaces": "i0"},
            "caught_up": False,
            "match_index": 5,
            "next_index": 6,
            "state": "replicate",
            "last_contact_ms": 40,
        },
    ],
}


def test_the_list(node: Any, kvorum: Run) -> None:
    """Every field is in the table, what is not known as a dash; JSON is what the node said; --stale asks the node itself."""
    node.members = MEMBERS
    lines = kvorum("member", "list").out.decode().splitlines()
    assert lines[1].split() == ["n1", "i1", "h1:8300", "voter", "yes", "-", "-", "-", "-", "-", "-"]
    shown = ["n2", "i2", "h2:8300", "learner", "no", "no", "5", "6", "replicate", "40", "ms", "ago", "voter,", "replacing", "i0"]
    assert lines[2].split() == shown
    assert json.loads(kvorum("member", "list", "--stale", "-o", "json").out) == MEMBERS
    assert node.requests == [("GET", "/v1/cluster/members"), ("GET", "/v1/cluster/members?stale")]


@pytest.mark.parametrize(
    ("arguments", "request_", "body"),
    [
        (("add", "n4", "h4:1"), ("POST", ""), {"name": "n4", "address": "h4:1", "voter": True}),
        (("add", "n4", "h4:1", "--learner"), ("POST", ""), {"name": "n4", "address": "h4:1", "voter": False}),
        (("replace", "n1", "n4", "h4:1"), ("POST", ""), {"name": "n4", "address": "h4:1", "voter": True, "replaces": "n1"}),
        (("promote", "n4"), ("POST", "/n4/promote"), None),
        (("demote", "n4"), ("POST", "/n4/demote"), None),
        (("remove", "n4"), ("DELETE", "/n4"), None),
    ],
)
def test_changes(node: Any, kvorum: Run, arguments: tuple[str, ...], request_: tuple[str, str], body: dict[str, Any] | None) -> None:
    """Each command is one request; the members as they are then are printed, what was done is said on standard error."""
    node.members = MEMBERS
    ran = kvorum("member", *arguments, "-o", "json")
    assert (ran.code, json.loads(ran.out)) == (0, MEMBERS)
    assert arguments[1] in ran.err or arguments[2] in ran.err
    assert node.requests == [(request_[0], "/v1/cluster/members" + request_[1])]
    assert (json.loads(node.bodies[0]) if node.bodies[0] else None) == body


@pytest.mark.parametrize(
    ("arguments", "query", "ends"),
    [
        ((), "", (0, "n1 leads now\n")),
        (("n1",), "?to=n1", (0, "n1 leads now\n")),
        (("i1",), "?to=i1", (0, "n1 leads now\n")),
        (("n2",), "?to=n2", (1, "n1 leads now, not n2: an election came in between\n")),
        (("a&b/c",), "?to=a%26b%2Fc", (1, "n1 leads now, not a&b/c: an election came in between\n")),
    ],
)
def test_transfer(node: Any, kvorum: Run, arguments: tuple[str, ...], query: str, ends: tuple[int, str]) -> None:
    """Leadership is handed over by one request; that somebody else leads than was asked for is a failure that is told."""
    node.members = MEMBERS | {"id": "i1"}
    ran = kvorum("member", "transfer", *arguments, "-o", "json")
    assert (json.loads(ran.out), ran.code, ran.err) == (node.members, *ends)
    assert node.requests == [("POST", f"/v1/cluster/transfer{query}")]


@pytest.mark.parametrize(("status", "outcome", "code"), [(409, "rejected", 1), (404, "rejected", 1), (500, "unknown", 9)])
def test_refusals(node: Any, kvorum: Run, status: int, outcome: str, code: int) -> None:
    """A problem is told by its detail, without the JSON around it; an unknown outcome has an exit code of its own."""
    node.fail(status, json.dumps({"detail": "n4 is alive", "type": "urn:kvorum:problem:refused"}), outcome)
    ran = kvorum("member", "remove", "n4")
    assert ran.code == code
    assert ran.err == f"kvorum: error: http://{node.address} answered {status}: n4 is alive\n"
