"""``/v1/txn`` on the wire. Everything expected here was recorded from Consul 1.8.7, but for the operations on its catalog and for what crashed it."""

import json
from collections.abc import Callable
from typing import Any

import gevent
import pytest

from service.ipc import protocol

TEXT = "text/plain; charset=utf-8"
READ_ONLY = ',"Index":0,"LastContact":0,"KnownLeader":true,"ConsistencyLevel":""'
FIELD = "Go struct field KVTxnOp.KV."
SEE = "See https://www.consul.io/docs/agent/options.html#txn_max_req_len."


def kv(**fields: Any) -> str:
    """A body of one operation."""
    return json.dumps([{"KV": fields}])


def put(worker: Any, body: str | bytes, uri: str = "/v1/txn", **headers: str) -> Any:
    """Send a transaction."""
    return worker.call("PUT", uri, body.encode() if isinstance(body, str) else body, **headers)


UNREADABLE = [
    ("", "EOF"),
    (" ", "EOF"),
    ("not json", "invalid character 'o' in literal null (expecting 'u')"),
    ("{}", "json: cannot unmarshal object into Go value of type api.TxnOps"),
    ('"x"', "json: cannot unmarshal string into Go value of type api.TxnOps"),
    ("1x", "json: cannot unmarshal number into Go value of type api.TxnOps"),
    ("true", "json: cannot unmarshal bool into Go value of type api.TxnOps"),
    ("[5]", "json: cannot unmarshal number into Go value of type api.TxnOp"),
    ("[[]]", "json: cannot unmarshal array into Go value of type api.TxnOp"),
    ('[{"Bogus":{}}]', 'json: unknown field "Bogus"'),
    ('[{"KV":{"Bogus":1}}]', 'json: unknown field "Bogus"'),
    ('[{"KV":{"Bo\\"g\x7f":1}}]', r'json: unknown field "Bo\"g\u007f"'),
    ('[{"Bo\x7fgus":1}]', r'json: unknown field "Bo\u007fgus"'),
    ('[{"KV":{"Key":"a","CreateIndex":1}}]', 'json: unknown field "CreateIndex"'),
    ('[{"KV":5}]', "json: cannot unmarshal number into Go struct field TxnOp.KV of type api.KVTxnOp"),
    ('[{"Node":5}]', "json: cannot unmarshal number into Go struct field TxnOp.Node of type api.NodeTxnOp"),
    ('[{"KV":{"Verb":5}}]', f"json: cannot unmarshal number into {FIELD}Verb of type api.KVOp"),
    ('[{"KV":{"Verb":{}}}]', f"json: cannot unmarshal object into {FIELD}Verb of type api.KVOp"),
    ('[{"KV":{"Flags":-1}}]', f"json: cannot unmarshal number -1 into {FIELD}Flags of type uint64"),
    ('[{"KV":{"Flags":1e2}}]', f"json: cannot unmarshal number 1e2 into {FIELD}Flags of type uint64"),
    (kv(Verb="set", Key="k", Flags=1 << 64), f"json: cannot unmarshal number 18446744073709551616 into {FIELD}Flags of type uint64"),
    ('[{"KV":{"Index":"x"}}]', f"json: cannot unmarshal string into {FIELD}Index of type uint64"),
    ('[{"KV":{"Value":5}}]', f"json: cannot unmarshal number into {FIELD}Value of type []uint8"),
    ('[{"KV":{"Value":{}}}]', f"json: cannot unmarshal object into {FIELD}Value of type []uint8"),
    ('[{"KV":{"Value":[300]}}]', f"json: cannot unmarshal number 300 into {FIELD}Value of type uint8"),
    (kv(Verb="set", Key="a", Value="MQ"), "illegal base64 data at input byte 0"),
    ('[{"KV":{"Value":"!","Verb":5}}]', "illegal base64 data at input byte 0"),
    ('[{"KV":{"Verb":5,"Value":"!"}}]', f"json: cannot unmarshal number into {FIELD}Verb of type api.KVOp"),
    ('[{"Bogus":1},{"KV":{"Verb":5}}]', 'json: unknown field "Bogus"'),
]


@pytest.mark.parametrize(("body", "reason"), UNREADABLE)
def test_bodies_that_cannot_be_read(worker: Any, body: str, reason: str) -> None:
    """A body that Go's decoder refuses is refused with its text, as the first thing that is looked at; nothing reaches the agent."""
    for uri in ("/v1/txn", "/v1/txn?dc=nope&wait=x"):
        reply = put(worker, body, uri)
        assert (reply.status, reply.body.decode()) == (400, f"Failed to parse body: {reason}")
        assert (reply.headers["Content-Type"], reply.headers["X-Kvorum-Outcome"]) == (TEXT, "rejected")
    assert not worker.agent.received(protocol.Propose)


def test_the_catalog_is_not_here(worker: Any) -> None:
    """Operations on nodes, services and checks are refused by name, not carried out by half; beside one on a key Consul ignores them, too."""
    for name in ("Node", "Service", "Check"):
        reply = put(worker, f'[{{"KV":{{"Verb":"set","Key":"a"}}}},{{"{name}":{{"Verb":"get"}}}}]')
        reason = f"{name} operations are not supported: there is no catalog of nodes, services and checks here"
        assert (reply.status, reply.body.decode()) == (400, f"Failed to parse body: {reason}")
    assert worker.reader.get(b"a").row is None
    assert put(worker, '[{"KV":{"Verb":"set","Key":"a"},"Node":{"Verb":"get"}}]').status == 200


FAILING = [
    (kv(Verb="get", Key="none"), True, 'key "none" doesn\'t exist'),
    (kv(Verb="check-index", Key="k", Index=1), True, 'failed index check for key "k", current modify index 4 != 1'),
    (kv(Verb="check-index", Key="none", Index=1), True, 'failed to check index, key "none" doesn\'t exist'),
    (kv(Verb="check-session", Key="k", Session="x"), True, 'failed session check for key "k", current session "" != "x"'),
    (kv(Verb="check-session", Key="none"), True, 'failed to check session, key "none" doesn\'t exist'),
    (kv(Verb="check-not-exists", Key="k"), True, 'key "k" exists'),
    (kv(Verb="bogus", Key="k"), True, 'unknown KV verb "bogus"'),
    (kv(Verb="SET", Key="k"), True, 'unknown KV verb "SET"'),
    ('[{"KV":{"Key":"a","Namespace":"x"}}]', True, 'unknown KV verb ""'),
    ('[{"KV":{}}]', True, "Must provide key"),
    (kv(Verb="get-tree", Key=""), True, "Must provide key"),
    (kv(Verb="set", Key=""), False, "Must provide key"),
    (kv(Verb="cas", Key="none", Index=5), False, 'failed to set key "none", index is stale'),
    (kv(Verb="cas", Key="k"), False, 'failed to set key "k", index is stale'),
    (kv(Verb="cas", Key="<\n"), False, None),
    (kv(Verb="delete-cas", Key="k"), False, 'failed to delete key "k", index is stale'),
    (kv(Verb="lock", Key="k"), False, "missing session"),
    (kv(Verb="lock", Key="k", Session="x"), False, "failed session lookup: index error: UUID must be 36 characters"),
    (kv(Verb="unlock", Key="k"), False, "missing session"),
    (kv(Verb="unlock", Key="k", Session="x"), False, 'failed to unlock key "k", lock isn\'t held, or is held by another session'),
]


@pytest.mark.parametrize(("body", "read_only", "reason"), FAILING)
def test_operations_that_fail(worker: Any, body: str, read_only: bool, reason: str | None) -> None:
    """A failed operation is named with Consul's text; a transaction that only reads says more about itself, and is no entry of the log."""
    worker.put("k")
    reply = put(worker, body)
    sent = len(worker.agent.received(protocol.Propose))
    assert sent == (1 if read_only else 2)
    if reason is None:
        assert reply.status == 200
        return
    what = json.dumps(reason)
    assert (reply.status, reply.body.decode()) == (
        409,
        f'{{"Results":null,"Errors":[{{"OpIndex":0,"What":{what}}}]{READ_ONLY if read_only else ""}}}',
    )
    assert ("X-Consul-Knownleader" in reply.headers) == read_only
    assert "X-Consul-Index" not in reply.headers


def test_all_failures_are_listed(worker: Any) -> None:
    """Every operation that fails is listed by its place, and nothing is set."""
    body = '[{"KV":{"Verb":"get","Key":"q"}},{"KV":{"Verb":"set","Key":"a"}},{"KV":{"Verb":"x\\"y","Key":"a"}}]'
    errors = '[{"OpIndex":0,"What":"key \\"q\\" doesn\'t exist"},{"OpIndex":2,"What":"unknown KV verb \\"x\\\\\\"y\\""}]'
    assert put(worker, body).body.decode() == f'{{"Results":null,"Errors":{errors}}}'
    assert worker.reader.get(b"a").row is None


def test_results(worker: Any) -> None:
    """Entries in Consul's fields: a value only for what was read, null for none, keys verbatim and escaped."""
    reply = put(
        worker,
        json.dumps(
            [
                {"KV": {"Verb": "set", "Key": "//a/../b", "Value": "MQ==", "Flags": 42}},
                {"KV": {"Verb": "set", "Key": "é\u2028<", "Value": None}},
                {"KV": {"Verb": "get", "Key": "//a/../b"}},
                {"KV": {"Verb": "delete", "Key": "none"}},
            ]
        ),
    )
    first = '{"KV":{"LockIndex":0,"Key":"//a/../b","Flags":42,"Value":%s,"CreateIndex":4,"ModifyIndex":4}}'
    second = '{"KV":{"LockIndex":0,"Key":"é\\u2028\\u003c","Flags":0,"Value":null,"CreateIndex":4,"ModifyIndex":4}}'
    rows = ",".join((first % "null", second, first % '"MQ=="'))
    assert reply.body.decode() == f'{{"Results":[{rows}],"Errors":null}}'
    assert reply.headers == {"Content-Type": "application/json", "X-Kvorum-Index": "4", "Content-Length": str(len(reply.body))}


ODD_BUT_FINE = [
    '[{"kv":{"verb":"set","KEY":"a","vAlue":"MQ=="}}]',
    '[{"KV":{"Verb":"set","Key":"z","Key":"a","Value":"M\\nQ=="}}]',
    '[{"KV":{"Verb":"set","Key":"a","Value":[49],"Flags":null,"Session":null}}] trailing',
    ' [{"KV":{"Verb":"set","Key":"a","Value":"MR=="}},{},{"KV":null}]',
]


@pytest.mark.parametrize("body", ODD_BUT_FINE)
def test_what_go_takes(worker: Any, body: str) -> None:
    """Names in any case, the last of several, line ends in base64, a list of bytes, nulls, no operation, and more behind the value."""
    reply = put(worker, body)
    assert reply.body == b'{"Results":[{"KV":{"LockIndex":0,"Key":"a","Flags":0,"Value":null,"CreateIndex":4,"ModifyIndex":4}}],"Errors":null}'
    assert worker.reader.get(b"a").row.value == b"1"


@pytest.mark.parametrize("body", ["[]", "null", "[{}]", '[{"KV":null}]', "[] x", "[null]"])
def test_nothing_to_do(worker: Any, body: str) -> None:
    """No operation at all is a transaction that only reads."""
    reply = put(worker, body)
    assert (reply.status, reply.body.decode()) == (200, f'{{"Results":[],"Errors":null{READ_ONLY}}}')
    assert (reply.headers["X-Consul-Knownleader"], reply.headers["X-Consul-Lastcontact"]) == ("true", "0")


def test_stray_bytes_in_keys(worker: Any) -> None:
    """What is no Unicode becomes U+FFFD, byte by byte, as in Go's JSON."""
    put(worker, b'[{"KV":{"Verb":"set","Key":"\xff\xc3\xe2\x82x"}},{"KV":{"Verb":"set","Key":"\\ud800y"}}]')
    assert [row.key.decode() for row in worker.reader.list(b"").rows] == ["\ufffdy", "\ufffd\ufffd\ufffd\ufffdx"]


def test_limits(make_worker: Callable[..., Any]) -> None:
    """Too many operations, a body or a value that is too long: 413 with Consul's texts; each limit is a setting."""
    worker = make_worker()
    many = "[" + ",".join(['{"KV":{"Verb":"set","Key":"a"}}'] * 65) + "]"
    assert put(worker, many)[::2] == (413, b"Transaction contains too many operations (65 > 64)")
    assert put(worker, "[" + ",".join(["{}"] * 65) + "]").status == 413
    assert put(worker, b" " * 524289)[::2] == (413, f"Request body(524289 bytes) too large, max size: 524288 bytes. {SEE}".encode())
    chunked = put(worker, b" " * 524289, Transfer_Encoding="chunked")
    assert chunked[::2] == (413, f"Request body too large, max size: 524288 bytes. {SEE}".encode())
    assert not worker.agent.received(protocol.Propose)
    raised = make_worker(txn_operations_max=65, kv_value_bytes_max=1000)
    assert put(raised, many).status == 200
    value = kv(Verb="set", Key='a"', Value="MTEx" * 500)
    assert put(raised, value)[::2] == (413, b'Value for key "a\\"" is too large (1500 > 1000 bytes)')
    assert put(make_worker(txn_bytes_max=100, kv_value_bytes_max=101), " " * 102).status == 413


REFUSED_BY_QUERY = [
    ("?dc=nope", "[]", 500, b"No path to datacenter"),
    ("?dc=nope", kv(Verb="set", Key="a"), 500, b"No path to datacenter"),
    ("?index=x", "[]", 400, b"Invalid index"),
    ("?wait=x", "[]", 400, b"Invalid wait time"),
    ("?stale&consistent", "[]", 400, b"Cannot specify ?stale with ?consistent, conflicting semantics."),
]


@pytest.mark.parametrize(("query", "body", "status", "text"), REFUSED_BY_QUERY)
def test_refused_by_the_query(worker: Any, query: str, body: str, status: int, text: bytes) -> None:
    """Options of reads are checked where something is only read; a datacenter always."""
    assert put(worker, body, "/v1/txn" + query)[::2] == (status, text)
    assert worker.reader.get(b"a").row is None


def test_options_that_do_not_matter(worker: Any) -> None:
    """A transaction that writes does not look at the options of reads, and none looks at namespaces, index and wait."""
    assert put(worker, kv(Verb="set", Key="a"), "/v1/txn?stale&consistent&index=x&wait=y&ns=z").status == 200
    assert put(worker, "[]", "/v1/txn?index=5000&wait=5m&ns=z&cached", X_Consul_Namespace="x").status == 200


def test_pretty(worker: Any) -> None:
    """Both forms are indented on demand."""
    assert (
        put(worker, kv(Verb="cas", Key="a", Index=9), "/v1/txn?pretty")
        .body.decode()
        .startswith('{\n    "Results": null,\n    "Errors": [\n        {\n')
    )
    assert put(worker, "[]", "/v1/txn?pretty").body.decode().endswith('"KnownLeader": true,\n    "ConsistencyLevel": ""\n}\n')


def test_reads_are_fresh_unless_told_otherwise(worker: Any) -> None:
    """A transaction that only reads asks for a barrier, under the lease by default; a stale one asks nobody and tells its age in both units."""
    worker.put("k")
    body = kv(Verb="get", Key="k")
    put(worker, body)
    put(worker, body, "/v1/txn?consistent")
    assert [barrier.lease for barrier in worker.agent.received(protocol.Barrier)] == [True, False]
    worker.agent.tell(leading=False, leader_known=False, contact=0.0)
    worker.until(lambda: not worker.client.node_state.leader_known)
    reply = put(worker, body, "/v1/txn?stale")
    assert len(worker.agent.received(protocol.Barrier)) == 2
    assert (reply.headers["X-Consul-Knownleader"], reply.headers["X-Consul-Lastcontact"]) == ("false", "9223372036854")
    assert b'"LastContact":9223372036854000000,"KnownLeader":false,' in reply.body


def test_failures_of_the_agent(worker: Any) -> None:
    """A transaction whose outcome nobody knows says so; one that was refused says that."""
    for failing, outcome in (("unknown", "unknown"), ("rejected", "rejected"), ("no-leader", "rejected")):
        worker.agent.failing = failing
        reply = put(worker, kv(Verb="set", Key="a"))
        assert (reply.status, reply.headers["X-Kvorum-Outcome"]) == (500, outcome)


def test_methods(worker: Any) -> None:
    """Only PUT; the method is looked at first."""
    assert worker.call("POST", "/v1/txn", b"[]")[::2] == (405, b"method POST not allowed")
    assert worker.call("OPTIONS", "/v1/txn").headers["Allow"] == "OPTIONS,PUT"


def test_blocking_queries_wake_for_every_key(worker: Any) -> None:
    """A transaction wakes whoever waits for one of its keys, for a prefix of one, or for a key that it deletes."""
    first, second, old = worker.put("a/1"), worker.put("a/2"), worker.put("old")
    waiting = [
        gevent.spawn(worker.call, "GET", f"/v1/kv/{uri}index={index}&wait=60s")
        for uri, index in (("a/1?", first), ("a/2?", second), ("a/?recurse&", second), ("old?", old), ("new?", old))
    ]
    worker.until(lambda: worker.blocking.waiting == 5)
    assert (
        put(worker, json.dumps([{"KV": {"Verb": verb, "Key": key}} for verb, key in (("set", "a/1"), ("set", "new"), ("delete-tree", "old"))])).status
        == 200
    )
    index = worker.reader.get(b"a/1").index
    woken = [greenlet.get(timeout=10) for number, greenlet in enumerate(waiting) if number != 1]
    assert [(reply.status, int(reply.headers["X-Consul-Index"])) for reply in woken] == [(200, index), (200, index), (404, index), (200, index)]
    assert worker.blocking.waiting == 1
    waiting[1].kill()
