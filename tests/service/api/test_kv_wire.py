"""``/v1/kv/`` on the wire. The expectations were recorded from Consul 1.8.7; both ways into the application must meet them."""

import io
import json
from collections.abc import Callable
from typing import Any

import pytest

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
NO_NAMESPACES = "Namespaces are a Consul Enterprise feature"
TOO_LARGE = "Request body(524289 bytes) too large, max size: 524288 bytes. See https://www.consul.io/docs/agent/options.html#kv_max_value_size."
SYNTAX = "strconv.ParseUint: parsing {}: invalid syntax"
UNKNOWN_SESSION = "12345678-1234-1234-1234-123456789012"
CONFLICTING_READS = "Cannot specify ?stale with ?consistent, conflicting semantics."


@pytest.fixture(params=["fast", "flask"])
def call(request: pytest.FixtureRequest, worker: Any) -> Callable[..., Any]:
    """Sends a request through the short cut, or to Flask alone."""
    app = worker.fast if request.param == "fast" else worker.app
    return lambda *arguments, **headers: worker.call(*arguments, app=app, **headers)


REFUSED_WRITES = [
    ("PUT", "a?flags=x&flags=1", 500, SYNTAX.format('"x"')),
    ("PUT", "a?flags=18446744073709551616", 500, 'strconv.ParseUint: parsing "18446744073709551616": value out of range'),
    ("PUT", "a?flags", 500, SYNTAX.format('""')),
    ("PUT", "a?flags=+1", 500, SYNTAX.format('" 1"')),
    ("PUT", "a?flags=%22a%0a%ff%c3%a9", 500, SYNTAX.format('"\\"a\\n\\xffé"')),
    ("PUT", "a?cas=zz&flags=yy", 500, SYNTAX.format('"yy"')),
    ("PUT", "a?cas=-1", 500, SYNTAX.format('"-1"')),
    ("PUT", "a?flags=%zz", 500, ""),
    ("PUT", "a?cas=1;acquire=x", 400, "Conflicting flags: acquire=x&cas=1"),
    ("PUT", "a?cas=1&acquire=a%20b&x=%2F+~!*()", 400, "Conflicting flags: acquire=a+b&cas=1&x=%2F+~%21%2A%28%29"),
    ("PUT", "a?release=&acquire=", 400, "Conflicting flags: acquire=&release="),
    ("PUT", "a?acquire=abc", 500, "failed session lookup: index error: UUID must be 36 characters"),
    ("PUT", "a?acquire", 500, "missing session"),
    ("PUT", "a?release=", 500, "missing session"),
    ("PUT", f"a?acquire={UNKNOWN_SESSION}", 500, f'invalid session "{UNKNOWN_SESSION}"'),
    ("PUT", "", 400, "Missing key name"),
    ("PUT", "a?wait=abc&index=x", 400, "Invalid wait time"),
    ("PUT", "a?stale&consistent", 400, CONFLICTING_READS),
    ("PUT", "a?dc=nope", 500, "No path to datacenter"),
    ("PUT", "a?dc=nope&flags=x", 500, SYNTAX.format('"x"')),
    ("PUT", "a?dc=nope&ns=a", 400, f'Bad request: Invalid query parameter: "ns" - {NO_NAMESPACES}'),
    ("DELETE", "", 400, "Missing key name"),
    ("DELETE", "?cas=1", 400, "Missing key name"),
    ("DELETE", "a?cas=0&recurse", 400, "Conflicting flags: cas=0&recurse="),
    ("DELETE", "a?cas", 500, SYNTAX.format('""')),
    ("DELETE", "a?dc=nope", 500, "No path to datacenter"),
]


@pytest.mark.parametrize("case", REFUSED_WRITES)
def test_refused_writes(call: Any, worker: Any, case: tuple[str, str, int, str]) -> None:
    """A write that can't be meant so has Consul's status and text, says that it was rejected, and never reaches the agent."""
    method, uri, status, text = case
    reply = call(method, f"/v1/kv/{uri}", b"v")
    assert (reply.status, reply.body.decode()) == (status, text)
    assert reply.headers.get("Content-Type") == (TEXT if text else None)
    assert reply.headers["X-Kvorum-Outcome"] == "rejected"
    assert not worker.reader.list(b"").rows


REFUSED_READS = [
    ("a?stale&consistent", 400, CONFLICTING_READS),
    ("a?cached&consistent", 400, "Cannot specify ?cached with ?consistent, conflicting semantics."),
    ("?recurse&stale&consistent&wait=z", 400, CONFLICTING_READS),
    ("a?consistent&max_stale=1ms", 400, CONFLICTING_READS),
    ("a?max_stale=abc", 400, 'Invalid max_stale value "abc"'),
    ("a?index=-1", 400, "Invalid index"),
    ("a?index=%2B5", 400, "Invalid index"),
    ("?keys&wait=10", 400, "Invalid wait time"),
    ("?raw", 400, "Missing key name"),
    ("?dc=nope", 400, "Missing key name"),
    ("?ns=a", 400, "Missing key name"),
    ("a?dc=nope", 500, "No path to datacenter"),
    ("a?ns=default", 400, f'Bad request: Invalid query parameter: "ns" - {NO_NAMESPACES}'),
]


@pytest.mark.parametrize(("uri", "status", "text"), REFUSED_READS)
def test_refused_reads(call: Any, uri: str, status: int, text: str) -> None:
    """A read that can't be meant so has Consul's status and text, and no index headers."""
    reply = call("GET", f"/v1/kv/{uri}")
    assert (reply.status, reply.body.decode(), reply.headers["Content-Type"]) == (status, text, TEXT)
    assert not any(name.startswith("X-") for name in reply.headers)


@pytest.mark.parametrize(
    ("header", "value", "text"),
    [
        ("X_Consul_Namespace", "x", f'Bad request: Invalid header: "X-Consul-Namespace" - {NO_NAMESPACES}'),
        ("Cache_Control", "max-age=abc", "Invalid Cache-Control header."),
    ],
)
def test_refused_headers(call: Any, header: str, value: str, text: str) -> None:
    """Headers that Consul refuses are refused with its text."""
    reply = call("GET", "/v1/kv/a", **{header: value})
    assert (reply.status, reply.body.decode()) == (400, text)


@pytest.mark.parametrize("value", ["max-age", "max-age , stale-if-error", "no-cache", "max-age=5, must-revalidate", "Max-Age=-1", ""])
def test_cache_control_that_is_taken(call: Any, value: str) -> None:
    """A directive without its number is none."""
    assert call("PUT", "/v1/kv/a", b"v", Cache_Control=value).body == b"true"


@pytest.mark.parametrize(
    "query", ["", *["?dc=dc1", "?dc=", "?ns=", "?token=x", "?filter=x", "?stale", "?consistent=false", "?max_stale=1s", "?index=0", "?leader"]]
)
def test_reads(call: Any, worker: Any, query: str) -> None:
    """Whatever is no reason to refuse answers with the entry and the index headers."""
    index = worker.put("a", b"v")
    reply = call("GET", f"/v1/kv/a{query}")
    assert reply.body == b'[{"LockIndex":0,"Key":"a","Flags":0,"Value":"dg==","CreateIndex":%d,"ModifyIndex":%d}]' % (index, index)
    expected = {"Content-Type": JSON, "X-Consul-Index": str(index), "X-Consul-Knownleader": "true", "X-Consul-Lastcontact": "0"}
    assert reply.headers == expected | {"ETag": f'"{index}"', "Content-Length": str(len(reply.body))}


def test_missing_key(call: Any) -> None:
    """A key that is not there is an empty 404 with index headers and without a Content-Type; an empty store has index 1."""
    reply = call("GET", "/v1/kv/none")
    assert (reply.status, reply.body) == (404, b"")
    assert reply.headers == {"X-Consul-Index": "1", "X-Consul-Knownleader": "true", "X-Consul-Lastcontact": "0", "Content-Length": "0"}


def test_raw(call: Any, worker: Any) -> None:
    """``?raw`` gives the bytes, and the headers that keep a browser from running them."""
    value = bytes(range(256))
    worker.put("a", value)
    reply = call("GET", "/v1/kv/a?raw")
    assert (reply.status, reply.body, reply.headers["Content-Type"]) == (200, value, "text/plain")
    assert (reply.headers["X-Content-Type-Options"], reply.headers["Content-Security-Policy"]) == ("nosniff", "sandbox")
    assert call("GET", "/v1/kv/none?raw").status == 404


def test_puts(call: Any, worker: Any) -> None:
    """A PUT stores its body verbatim with its flags, and answers true; an unmet condition answers false and changes nothing."""
    assert call("PUT", "/v1/kv/a?flags=3&unknown=1&recurse", b"flags=5", Content_Type="application/x-www-form-urlencoded").body == b"true"
    row = worker.reader.get(b"a").row
    assert (row.value, row.flags) == (b"flags=5", 3)
    assert call("PUT", "/v1/kv/a?cas=0", b"no").body == b"false"
    assert call("PUT", f"/v1/kv/a?cas={row.modify_index}&pretty", b"yes").body == b"true\n"
    assert call("PUT", f"/v1/kv/a?cas={row.modify_index}&pretty", b"no").body == b"false\n"
    row = worker.reader.get(b"a").row
    assert (row.value, row.flags) == (b"yes", 0)
    assert call("PUT", f"/v1/kv/a?release={UNKNOWN_SESSION}", b"no").body == b"false"
    reply = call("PUT", "/v1/kv/a")
    row = worker.reader.get(b"a").row
    version = {"X-Kvorum-Index": str(row.modify_index), "ETag": f'"{row.modify_index}"'}
    assert (reply.status, reply.headers) == (200, {"Content-Type": JSON, "Content-Length": "4"} | version)
    assert row.value == b""


def test_size_limit(call: Any, worker: Any) -> None:
    """Exactly the limit is stored; one byte more is refused with Consul's text, also when the length is not told, after the parameters."""
    assert call("PUT", "/v1/kv/a", b"x" * 524288).body == b"true"
    reply = call("PUT", "/v1/kv/a", b"x" * 524289)
    assert (reply.status, reply.body.decode(), reply.headers["X-Kvorum-Outcome"]) == (413, TOO_LARGE, "rejected")
    assert call("PUT", "/v1/kv/a?flags=zz", b"x" * 524289).body.decode() == SYNTAX.format('"zz"')
    assert call("PUT", "/v1/kv/a", b"y" * 524289, Transfer_Encoding="chunked").status == 413
    assert call("PUT", "/v1/kv/b", b"abcd", Transfer_Encoding="chunked").body == b"true"
    assert [row.value for row in worker.reader.list(b"").rows] == [b"x" * 524288, b"abcd"]


def test_short_body(call: Any, worker: Any) -> None:
    """A body that ends before its announced length is not stored; one without a length is empty."""
    reply = call("PUT", "/v1/kv/b", b"abc", announced=9)
    assert (reply.status, reply.body) == (400, b"The request's body ended after 3 of 9 bytes.")
    assert worker.reader.get(b"b").row is None
    assert call("PUT", "/v1/kv/b").body == b"true"
    assert worker.reader.get(b"b").row.value == b""


def test_deletes(call: Any, worker: Any) -> None:
    """DELETE takes one key, or a whole prefix of bytes with ``?recurse``; a missing key counts as deleted."""
    first = worker.put("t/a")
    for key in ("t/b", "t", "tt", "u"):
        worker.put(key)
    assert call("DELETE", "/v1/kv/t").body == b"true"
    assert call("DELETE", "/v1/kv/none").body == b"true"
    assert call("DELETE", "/v1/kv/none?cas=7").body == b"true"
    assert call("DELETE", f"/v1/kv/t/a?cas={first + 1}").body == b"false"
    assert call("DELETE", "/v1/kv/t/a?cas=0").body == b"false"
    assert call("DELETE", f"/v1/kv/t/a?cas={first}&pretty").body == b"true\n"
    assert worker.reader.keys(b"").keys == [b"t/b", b"tt", b"u"]
    assert call("DELETE", "/v1/kv/t?recurse=false").body == b"true"
    assert worker.reader.keys(b"").keys == [b"u"]


def test_listings(call: Any, worker: Any) -> None:
    """``?recurse`` gives entries and ``?keys`` names, under a prefix of bytes, in byte order; ``?keys`` wins; a separator folds."""
    for key in ("t/b/c", "t/a", "t/b", "tx", "u"):
        worker.put(key)
    entries = json.loads(call("GET", "/v1/kv/t?recurse&separator=/&raw").body)
    assert [entry["Key"] for entry in entries] == ["t/a", "t/b", "t/b/c", "tx"]
    assert list(entries[0]) == ["LockIndex", "Key", "Flags", "Value", "CreateIndex", "ModifyIndex"]
    assert call("GET", "/v1/kv/t?recurse&keys").body == b'["t/a","t/b","t/b/c","tx"]'
    assert call("GET", "/v1/kv/t/?keys&separator=%2F").body == b'["t/a","t/b","t/b/"]'
    assert call("GET", "/v1/kv/?keys&seperator=/").body == b'["t/","tx","u"]'
    assert call("GET", "/v1/kv/t/b?keys&pretty").body == b'[\n    "t/b",\n    "t/b/c"\n]\n'
    assert call("GET", "/v1/kv/nope?recurse").status == call("GET", "/v1/kv/nope?keys").status == 404


def test_empty_root(call: Any) -> None:
    """The names of an empty store are an empty list; its entries are not found."""
    assert (call("GET", "/v1/kv/?keys").status, call("GET", "/v1/kv/?keys").body) == (200, b"[]")
    assert call("GET", "/v1/kv/?recurse").status == 404


@pytest.mark.parametrize(
    ("path", "key"),
    [("a%20b", b"a b"), ("a+b", b"a+b"), ("a%2Fb", b"a/b"), ("\xc3\xbc", b"\xc3\xbc"), ("%FF", b"\xff"), ("x" * 8000, b"x" * 8000), ("a#b", b"a#b")],
)
def test_keys(call: Any, worker: Any, path: str, key: bytes) -> None:
    """A key is what the path decodes to, byte for byte."""
    assert call("PUT", f"/v1/kv/{path}", b"v").body == b"true"
    assert worker.reader.get(key).row.value == b"v"
    assert call("GET", f"/v1/kv/{path}?raw").body == b"v"


@pytest.mark.parametrize("method", ["POST", "PATCH", "FOO", "get", "HEAD"])
def test_methods(call: Any, method: str) -> None:
    """Another method is refused before anything else is looked at, with the methods that are served."""
    reply = call(method, "/v1/kv/?stale&consistent", b"")
    text = b"" if method == "HEAD" else f"method {method} not allowed".encode()
    assert (reply.status, reply.body, reply.headers["Allow"]) == (405, text, "OPTIONS,GET,PUT,DELETE")
    assert call("OPTIONS", "/v1/kv/a").headers == {"Allow": "OPTIONS,GET,PUT,DELETE", "Content-Length": "0"}


@pytest.mark.parametrize("kind", ["no-leader", "rejected", "unknown"])
def test_failures(call: Any, worker: Any, kind: str) -> None:
    """A write that fails says whether it may have happened; a read without a leader has Consul's text."""
    worker.agent.failing = kind
    for method in ("PUT", "DELETE"):
        reply = call(method, "/v1/kv/a", b"v")
        assert (reply.status, reply.headers["Content-Type"]) == (500, TEXT)
        assert reply.headers["X-Kvorum-Outcome"] == ("unknown" if kind == "unknown" else "rejected")
    for uri in ("a", "?keys", "a?consistent"):
        reply = call("GET", f"/v1/kv/{uri}")
        assert reply.status == 500
        assert "X-Kvorum-Outcome" not in reply.headers
        if kind == "no-leader":
            assert reply.body == b"No cluster leader"
    assert call("GET", "/v1/kv/a?stale").status == 404


def test_stale_reads_tell_their_age(call: Any, worker: Any) -> None:
    """``?stale`` says whether a leader is known and how long ago this node heard from it, and asks nobody."""
    worker.agent.tell(leader_known=False, leading=False, contact=1.0)
    worker.until(lambda: not worker.client.node_state.leader_known)
    barriers = len(worker.agent.frames)
    reply = call("GET", "/v1/kv/a?stale")
    assert (reply.status, reply.headers["X-Consul-Knownleader"]) == (404, "false")
    assert int(reply.headers["X-Consul-Lastcontact"]) > 1000
    worker.agent.tell(leader_known=True, contact=0.0)
    worker.until(lambda: worker.client.node_state.leader_known)
    assert call("GET", "/v1/kv/?keys&stale").headers["X-Consul-Lastcontact"] == "9223372036854"
    assert len(worker.agent.frames) == barriers


def test_origin(call: Any, worker: Any) -> None:
    """The request's id comes back and is replicated with the reason; an id that is no plain text is ignored; a long reason is refused."""
    seen: list[Any] = []
    worker.agent.on_command = seen.append
    reply = call("PUT", "/v1/kv/a", b"v", X_Request_Id="r-1", X_Change_Reason="größer".encode().decode("latin-1"))
    assert reply.headers["X-Request-Id"] == "r-1"
    assert (seen[0].origin.request_id, seen[0].origin.reason) == ("r-1", "größer")
    assert "X-Request-Id" not in call("PUT", "/v1/kv/a", b"v", X_Request_Id="\xff").headers
    reply = call("DELETE", "/v1/kv/a", X_Change_Reason="x" * 1025)
    assert (reply.status, reply.body) == (400, b"X-Change-Reason is 1025 bytes long; at most 1024 are allowed.")


def test_restored_snapshot(call: Any, worker: Any) -> None:
    """After a snapshot was restored, a read opens the new state file, whose indexes may be lower."""
    index = worker.put("a", b"old")
    picture = io.BytesIO()
    capture = worker.agent.machine.capture()
    capture.write(picture.write)
    worker.put("a", b"new")
    picture.seek(0)
    worker.agent.machine.restore(capture.index, capture.term, picture.read)
    capture.close()
    reply = call("GET", "/v1/kv/a?raw")
    assert (reply.body, reply.headers["X-Consul-Index"]) == (b"old", str(index))
    assert call("GET", "/v1/kv/?recurse").headers["X-Consul-Index"] == str(index)
