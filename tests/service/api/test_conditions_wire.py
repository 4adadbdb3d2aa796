"""Entity tags, log indexes of writes, and conditional requests; both ways into the application."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from service.domain import commands
from service.domain.commands import KvConditional, KvDelete, KvPut


@pytest.fixture(params=["fast", "flask"])
def call(request: pytest.FixtureRequest, worker: Any) -> Callable[..., Any]:
    """Sends a request through the short cut, or to Flask alone."""
    app = worker.fast if request.param == "fast" else worker.app
    return lambda *arguments, **headers: worker.call(*arguments, app=app, **headers)


def test_a_write_tells_its_index_and_the_version_of_its_key(call: Any, worker: Any) -> None:
    """The index is that of the log entry; the tag is the key's ModifyIndex, which a write of the same value leaves where it was."""
    first = call("PUT", "/v1/kv/a", b"v").headers
    again = call("PUT", "/v1/kv/a", b"v").headers
    assert (first["X-Kvorum-Index"], first["ETag"]) == ("4", '"4"')
    assert (again["X-Kvorum-Index"], again["ETag"]) == ("5", '"4"')
    assert call("GET", "/v1/kv/a").headers["ETag"] == '"4"'
    refused = call("PUT", "/v1/kv/a?cas=9", b"w")
    assert (refused.body, refused.headers["X-Kvorum-Index"], refused.headers["ETag"]) == (b"false", "6", '"4"')
    gone = call("DELETE", "/v1/kv/a").headers
    assert gone["X-Kvorum-Index"] == "7"
    assert "ETag" not in gone
    worker.put("t/a")
    assert call("DELETE", "/v1/kv/t?recurse").headers["X-Kvorum-Index"] == "9"


def test_a_lock_tells_them_too(call: Any, worker: Any) -> None:
    """Taking a lock moves the key's version; taking it again does not. What a transaction changed has one index and no one tag."""
    session = json.loads(worker.call("PUT", "/v1/session/create").body)["ID"]
    first = call("PUT", f"/v1/kv/a?acquire={session}", b"v").headers
    again = call("PUT", f"/v1/kv/a?acquire={session}", b"v").headers
    assert (first["X-Kvorum-Index"], first["ETag"]) == ("5", '"5"')
    assert (again["X-Kvorum-Index"], again["ETag"]) == ("6", '"5"')
    headers = call("PUT", "/v1/txn", b'[{"KV":{"Verb":"set","Key":"b","Value":"eA=="}}]').headers
    assert headers["X-Kvorum-Index"] == "7"
    assert "ETag" not in headers


@pytest.mark.parametrize(
    ("tags", "status"),
    [
        ('"4"', 304),
        ("*", 304),
        ('W/"4"', 304),
        ('"1", "4"', 304),
        (' "x,y" ,"4" ', 304),
        ('"5"', 200),
        ('"04"', 200),
        ("4", 200),
        ('"4', 200),
        ('"4" "5"', 200),
        ("", 200),
    ],
)
def test_a_client_that_has_it_is_told_so(call: Any, worker: Any, tags: str, status: int) -> None:
    """A read with the tag that the client has is an empty 304 with all headers but those of the body; any other text changes nothing."""
    worker.put("a", b"v")
    plain = call("GET", "/v1/kv/a?raw")
    reply = call("GET", "/v1/kv/a?raw", If_None_Match=tags)
    assert reply.status == status
    if status == 200:
        assert reply == plain
        return
    assert reply.body == b""
    assert reply.headers == {name: plain.headers[name] for name in ("X-Consul-Index", "X-Consul-Knownleader", "X-Consul-Lastcontact", "ETag")}
    assert call("GET", "/v1/kv/none", If_None_Match="*").status == 404


WRITES = [
    ("If_Match", '"4"', True),
    ("If_Match", "*", True),
    ("If_Match", '"3", "4"', True),
    ("If_Match", '"5"', False),
    ("If_Match", 'W/"4"', False),
    ("If_Match", '"none"', False),
    ("If_Match", '"' + "4" * 30 + '"', False),
    ("If_None_Match", "*", False),
    ("If_None_Match", '"4"', False),
    ("If_None_Match", 'W/"4"', False),
    ("If_None_Match", '"5"', True),
]


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize("case", WRITES)
def test_conditional_writes(call: Any, worker: Any, method: str, case: tuple[str, str, bool]) -> None:
    """A write under a condition that holds is one as any other; under one that does not, it is a 412 that names the key's index."""
    header, tags, holds = case
    worker.put("a", b"v")
    reply = call(method, "/v1/kv/a", b"w", **{header: tags})
    row = worker.reader.get(b"a").row
    if holds:
        assert (reply.status, reply.body) == (200, b"true")
        assert row is None if method == "DELETE" else row.value == b"w"
        return
    problem = json.loads(reply.body)
    assert (reply.status, problem["status"], problem["modify_index"]) == (412, 412, 4)
    assert (reply.headers["Content-Type"], reply.headers["X-Kvorum-Outcome"], reply.headers["ETag"]) == (
        "application/problem+json",
        "rejected",
        '"4"',
    )
    assert (row.value, row.modify_index) == (b"v", 4)


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_a_key_that_is_not_there(call: Any, method: str) -> None:
    """No tag matches a key that does not exist, not even ``*``: nothing is deleted or made."""
    for tags in ("*", '"4"'):
        reply = call(method, "/v1/kv/a", b"w", If_Match=tags)
        assert (reply.status, json.loads(reply.body)["modify_index"]) == (412, 0)
        assert "ETag" not in reply.headers
    assert call("GET", "/v1/kv/a").status == 404
    assert call(method, "/v1/kv/a", b"w", If_None_Match="*").body == b"true"


@pytest.mark.parametrize(
    ("uri", "headers", "text"),
    [
        ("a?cas=5", {"If_Match": '"4"'}, 'Conflicting conditions: cas=5 and If-Match: "4" can\'t both hold.'),
        ("a?cas=0", {"If_Match": "*"}, "Conflicting conditions: cas=0 and If-Match: * can't both hold."),
        ("a?cas=4", {"If_None_Match": "*"}, "Conflicting conditions: cas=4 and If-None-Match: * can't both hold."),
        ("a", {"If_Match": "4"}, 'If-Match is "4"; entity tags look like "42", in quotes, with commas between them, or *.'),
        ("a", {"If_None_Match": ""}, 'If-None-Match is ""; entity tags look like "42", in quotes, with commas between them, or *.'),
    ],
)
def test_nonsense(call: Any, worker: Any, uri: str, headers: dict[str, str], text: str) -> None:
    """Conditions that can't be read, or can never hold together with ``?cas``, are a 400 that changes nothing."""
    worker.put("a", b"v")
    for method in ("PUT", "DELETE"):
        reply = call(method, f"/v1/kv/{uri}", b"w", **headers)
        assert (reply.status, reply.body.decode(), reply.headers["X-Kvorum-Outcome"]) == (400, text, "rejected")
    assert worker.reader.get(b"a").row.modify_index == 4


def test_trees_have_no_version(call: Any, worker: Any) -> None:
    """Deleting a prefix is about no one key, so a condition is refused; a listing has no tag."""
    worker.put("a/b")
    reply = call("DELETE", "/v1/kv/a?recurse", If_Match="*")
    assert (reply.status, reply.body) == (400, b"If-Match is a condition on one key; ?recurse deletes many.")
    assert "ETag" not in call("GET", "/v1/kv/a?recurse").headers


def test_with_cas_and_locks(call: Any, worker: Any) -> None:
    """Beside a condition of Consul's the header counts first: 412 when it fails, false when only the other does."""
    worker.put("a", b"v")
    assert call("PUT", "/v1/kv/a?cas=4", b"w", If_Match='"4", "9"').body == b"true"
    assert call("PUT", "/v1/kv/a?cas=4", b"x", If_Match='"4"').status == 412
    assert call("PUT", "/v1/kv/a?cas=4", b"x", If_None_Match='"9"').body == b"false"
    session = json.loads(worker.call("PUT", "/v1/session/create").body)["ID"]
    assert call("PUT", f"/v1/kv/a?acquire={session}", b"y", If_Match='"9"').status == 412
    assert call("PUT", f"/v1/kv/a?acquire={session}", b"y", If_Match="*").body == b"true"


def test_judged_where_it_is_applied(call: Any, worker: Any) -> None:
    """The condition travels with the command: a key that changes between the request and its entry fails it. A plain write carries none."""
    worker.put("a", b"v")
    seen: list[Any] = []

    def meanwhile(command: Any) -> None:
        seen.append(command)
        if len(seen) == 1:
            worker.agent.apply(None)
            worker.agent.machine.apply([(worker.agent.machine.applied_index + 1, 1, _entry(KvPut(b"a", b"other")))])

    worker.agent.on_command = meanwhile
    assert call("DELETE", "/v1/kv/a", If_Match='"4"').status == 412
    assert call("DELETE", "/v1/kv/a").body == b"true"
    assert [type(command) for command in seen] == [KvConditional, KvDelete]


def _entry(command: Any) -> bytes:
    return commands.stamp(commands.encode(command), 1)
