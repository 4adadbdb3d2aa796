"""``/v1/session/``, and locks on ``/v1/kv/``, on the wire. Everything expected here was recorded from Consul 1.8.7."""

import json
import re
from typing import Any

import gevent
import pytest

from service.ipc import protocol

TEXT = "text/plain; charset=utf-8"
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
UNKNOWN = "adf4238a-882b-9ddc-4a9d-5b6758e4159e"
NOT_36 = "failed session lookup: index error: UUID must be 36 characters"
SECOND = 10**9
MISFIT = "json: cannot unmarshal {} into Go struct field {} of type {}"


def put(worker: Any, uri: str, body: str | None = None) -> Any:
    """A PUT below ``/v1/session/``."""
    return worker.call("PUT", "/v1/session/" + uri, None if body is None else body.encode())


def create(worker: Any, **fields: Any) -> str:
    """Begin a session and give its id."""
    reply = put(worker, "create", json.dumps(fields))
    index = reply.headers.pop("X-Kvorum-Index")
    assert int(index) == worker.agent.machine.applied_index
    assert (reply.status, reply.headers) == (200, {"Content-Type": "application/json", "Content-Length": str(len(reply.body))})
    found: str = json.loads(reply.body)["ID"]
    assert reply.body.decode() == f'{{"ID":"{found}"}}'
    assert UUID.fullmatch(found)
    return found


def about(worker: Any, id_: str) -> Any:
    """The one session of an answer to info."""
    found = json.loads(worker.call("GET", f"/v1/session/info/{id_}").body)
    assert len(found) == 1
    return found[0]


def test_the_fields_in_order(worker: Any) -> None:
    """A session with Consul's defaults, field by field."""
    id_ = create(worker)
    reply = worker.call("GET", f"/v1/session/info/{id_}")
    assert reply.body.decode() == (
        f'[{{"ID":"{id_}","Name":"","Node":"n1","LockDelay":15000000000,"Behavior":"release","TTL":"","NodeChecks":["serfHealth"],'
        '"ServiceChecks":null,"CreateIndex":4,"ModifyIndex":4}]'
    )
    headers = {name: reply.headers[name] for name in ("X-Consul-Index", "X-Consul-Knownleader", "X-Consul-Lastcontact")}
    assert headers == {"X-Consul-Index": "4", "X-Consul-Knownleader": "true", "X-Consul-Lastcontact": "0"}
    assert worker.call("GET", f"/v1/session/info/{id_}?pretty").body.decode().startswith('[\n    {\n        "ID": "')


@pytest.mark.parametrize("body", [None, "", "null", "{}", "{} x", '{"Bogus":1,"ID":"x","LockDelay":null,"Name":null,"TTL":null,"Namespace":5}'])
def test_bodies_that_say_nothing(worker: Any, body: str | None) -> None:
    """No body, null, unknown names and nulls mean the defaults; an id that is given is ignored."""
    assert put(worker, "create", body).status == 200


TAKEN: list[tuple[str, dict[str, Any]]] = [
    ('{"LockDelay":5}', {"LockDelay": 5 * SECOND}),
    ('{"LockDelay":999}', {"LockDelay": 999 * SECOND}),
    ('{"LockDelay":1000}', {"LockDelay": 1000}),
    ('{"LockDelay":-5}', {"LockDelay": -5 * SECOND}),
    ('{"LockDelay":1.5}', {"LockDelay": SECOND}),
    ('{"LockDelay":0.5}', {"LockDelay": 0}),
    ('{"LockDelay":1e30}', {"LockDelay": 0}),
    ('{"LockDelay":9223372036854775807}', {"LockDelay": 0}),
    ('{"LockDelay":true}', {"LockDelay": 0}),
    ('{"LockDelay":[]}', {"LockDelay": 0}),
    ('{"LockDelay":"0s"}', {"LockDelay": 0}),
    ('{"LockDelay":"500ms"}', {"LockDelay": SECOND // 2}),
    ('{"LockDelay":"500ns"}', {"LockDelay": 500 * SECOND}),
    ('{"LockDelay":"-5s"}', {"LockDelay": -5 * SECOND * SECOND}),
    ('{"LockDelay":"1000000h"}', {"LockDelay": 3600 * 10**6 * SECOND}),
    ('{"name":"low","NODE":"n1","lockdelay":"3s","LOCKDELAY":"4s"}', {"Name": "low", "LockDelay": 4 * SECOND}),
    ('{"Node":"N1"}', {"Node": "N1"}),
    ('{"TTL":"10s"}', {"TTL": "10s"}),
    ('{"TTL":"+10s"}', {"TTL": "+10s"}),
    ('{"TTL":"86400s"}', {"TTL": "86400s"}),
    ('{"TTL":"1h1m1.5s"}', {"TTL": "1h1m1.5s"}),
    ('{"TTL":"0"}', {"TTL": "0"}),
    ('{"Behavior":""}', {"Behavior": "release"}),
    ('{"Behavior":"delete"}', {"Behavior": "delete"}),
    ('{"NodeChecks":null}', {"NodeChecks": None}),
    ('{"NodeChecks":[]}', {"NodeChecks": []}),
    ('{"NodeChecks":[null]}', {"NodeChecks": ["serfHealth"]}),
    ('{"NodeChecks":["serfHealth","serfHealth"]}', {"NodeChecks": ["serfHealth", "serfHealth"]}),
    ('{"Checks":null}', {"NodeChecks": []}),
    ('{"Checks":["serfHealth"]}', {"NodeChecks": ["serfHealth"]}),
    ('{"Checks":[],"NodeChecks":["serfHealth"]}', {"NodeChecks": []}),
    ('{"Checks":["serfHealth"],"NodeChecks":[]}', {"NodeChecks": []}),
    ('{"ServiceChecks":[]}', {"ServiceChecks": []}),
    ('{"ServiceChecks":[{"id":"serfHealth","namespace":"q"}]}', {"ServiceChecks": [{"ID": "serfHealth", "Namespace": "q"}]}),
    ('{"Name":"<é\\u2028\\u0000\\ud800"}', {"Name": "<é\u2028\0\ufffd"}),
]


@pytest.mark.parametrize(("body", "fields"), TAKEN)
def test_fields_that_are_taken(worker: Any, body: str, fields: dict[str, Any]) -> None:
    """What a body says comes back as Consul understands it."""
    id_ = json.loads(put(worker, "create", body).body)["ID"]
    found = about(worker, id_)
    assert {name: found[name] for name in fields} == fields


REFUSED = [
    ("not json", 400, "Request decode failed: invalid character 'o' in literal null (expecting 'u')"),
    ('{"Name":"x"', 400, "Request decode failed: unexpected EOF"),
    ("[]", 400, "Request decode failed: json: cannot unmarshal array into Go value of type struct { LockDelay interface {}; *structs.Alias }"),
    ("5", 400, "Request decode failed: json: cannot unmarshal number into Go value of type struct { LockDelay interface {}; *structs.Alias }"),
    ('{"Name":5}', 400, "Request decode failed: " + MISFIT.format("number", ".Name", "string")),
    ('{"LockDelay":"5","Name":5}', 400, "Request decode failed: " + MISFIT.format("number", ".Name", "string")),
    ('{"ID":5}', 400, "Request decode failed: " + MISFIT.format("number", ".ID", "string")),
    ('{"Behavior":5}', 400, "Request decode failed: " + MISFIT.format("number", ".Behavior", "structs.SessionBehavior")),
    ('{"NodeChecks":"x"}', 400, "Request decode failed: " + MISFIT.format("string", ".NodeChecks", "[]string")),
    ('{"NodeChecks":[1]}', 400, "Request decode failed: " + MISFIT.format("number", ".NodeChecks", "string")),
    ('{"Checks":{}}', 400, "Request decode failed: " + MISFIT.format("object", ".Checks", "[]types.CheckID")),
    ('{"Checks":[5]}', 400, "Request decode failed: " + MISFIT.format("number", ".Checks", "types.CheckID")),
    ('{"ServiceChecks":{}}', 400, "Request decode failed: " + MISFIT.format("object", ".ServiceChecks", "[]structs.ServiceCheck")),
    ('{"ServiceChecks":["x"]}', 400, "Request decode failed: " + MISFIT.format("string", ".ServiceChecks", "structs.ServiceCheck")),
    ('{"ServiceChecks":[{"ID":5}]}', 400, "Request decode failed: " + MISFIT.format("number", "ServiceCheck.ServiceChecks.ID", "string")),
    ('{"CreateIndex":-1}', 400, "Request decode failed: " + MISFIT.format("number -1", ".CreateIndex", "uint64")),
    ('{"LockDelay":"5"}', 400, 'Request decode failed: time: missing unit in duration "5"'),
    ('{"LockDelay":""}', 400, 'Request decode failed: time: invalid duration ""'),
    ('{"Node":"","Behavior":"x","TTL":"abc"}', 500, "Must provide Node"),
    ('{"Behavior":"bogus","TTL":"abc","Node":"nope"}', 500, "Invalid Behavior setting 'bogus'"),
    ('{"TTL":"abc","Node":"nope"}', 500, "Session TTL 'abc' invalid: time: invalid duration \"abc\""),
    ('{"TTL":"10"}', 500, "Session TTL '10' invalid: time: missing unit in duration \"10\""),
    ('{"TTL":"9.999s"}', 500, "Invalid Session TTL '9999000000', must be between [10s=24h0m0s]"),
    ('{"TTL":"86400.5s"}', 500, "Invalid Session TTL '86400500000000', must be between [10s=24h0m0s]"),
    ('{"TTL":"-10s"}', 500, "Invalid Session TTL '-10000000000', must be between [10s=24h0m0s]"),
    ('{"Node":"nope","Checks":["q"]}', 500, "Missing node registration"),
    ('{"Checks":["q"],"NodeChecks":["z"]}', 500, "Missing check 'q' registration"),
    ('{"NodeChecks":["serfHealth","x"],"ServiceChecks":[{"ID":"z"}]}', 500, "Missing check 'x' registration"),
    ('{"ServiceChecks":[null]}', 500, "Missing check '' registration"),
]


@pytest.mark.parametrize(("body", "status", "text"), REFUSED)
def test_sessions_that_are_refused(worker: Any, body: str, status: int, text: str) -> None:
    """What can't be meant so has Consul's status and text, in the order in which Consul looks; nothing reaches the log."""
    reply = put(worker, "create", body)
    assert (reply.status, reply.body.decode()) == (status, text)
    assert (reply.headers["Content-Type"], reply.headers["X-Kvorum-Outcome"]) == (TEXT, "rejected")
    assert not worker.agent.received(protocol.Propose)


WRITES = [
    ("create?dc=nope", "{}", 500, "No path to datacenter"),
    ("create?dc=nope", "x", 400, "Request decode failed: invalid character 'x' looking for beginning of value"),
    ("create?ns=a", "{}", 400, 'Bad request: Invalid query parameter: "ns" - Namespaces are a Consul Enterprise feature'),
    ("destroy/x", None, 500, NOT_36),
    ("destroy/", None, 400, "Missing session"),
    ("destroy/?dc=nope", None, 400, "Missing session"),
    ("destroy/x?dc=nope", None, 500, "No path to datacenter"),
    (f"destroy/{UNKNOWN}", None, 200, "true"),
    (f"destroy/{UNKNOWN}?pretty", None, 200, "true\n"),
    ("renew/", None, 400, "Missing session"),
    ("renew/x?max_stale=x", None, 400, 'Invalid max_stale value "x"'),
    ("renew/?stale&consistent", None, 400, "Cannot specify ?stale with ?consistent, conflicting semantics."),
    ("renew/x", None, 500, NOT_36),
    ("renew/x?dc=nope", None, 500, "No path to datacenter"),
    (f"renew/{UNKNOWN}", None, 404, f"Session id '{UNKNOWN}' not found"),
    ("renew/" + "1" * 36, None, 404, f"Session id '{'1' * 36}' not found"),
    (
        "renew/11111111-1111-1111-1111-1111111111zz",
        None,
        500,
        "failed session lookup: index error: Invalid UUID: encoding/hex: invalid byte: U+007A 'z'",
    ),
    ("create/", None, 404, ""),
    ("", None, 404, ""),
]


@pytest.mark.parametrize(("uri", "body", "status", "text"), WRITES)
def test_writes(worker: Any, uri: str, body: str | None, status: int, text: str) -> None:
    """Every refusal, and the answers to ids that are of no session. None carries index headers."""
    reply = put(worker, uri, body)
    assert (reply.status, reply.body.decode()) == (status, text)
    assert "X-Consul-Index" not in reply.headers


def test_writes_do_not_look_at_options_of_reads(worker: Any) -> None:
    """Neither nonsense nor conflicts in them matter, but in a renewal, which reads the session."""
    assert put(worker, "create?stale&consistent&index=x&wait=y&dc=dc1", "{}").status == 200
    for uri, status in (("create", 200), (f"destroy/{UNKNOWN}", 200), (f"renew/{UNKNOWN}", 400)):
        assert worker.call("PUT", f"/v1/session/{uri}", b"", Cache_Control="max-age=x").status == status


READS = [
    ("info/", 400, "Missing session", None),
    ("info/x", 500, NOT_36, "1"),
    ("info/a/b", 500, NOT_36, "1"),
    (f"info/{UNKNOWN}?dc=nope", 500, "No path to datacenter", "1"),
    ("list?dc=nope", 500, "No path to datacenter", "1"),
    ("node/?dc=nope", 400, "Missing node name", None),
    ("node/n1?dc=nope", 500, "No path to datacenter", "1"),
    ("list?stale&consistent", 400, "Cannot specify ?stale with ?consistent, conflicting semantics.", None),
    ("list/", 404, "", None),
    ("list", 200, "[]", "1"),
    (f"info/{UNKNOWN}", 200, "[]", "1"),
    ("info/" + "1" * 36, 200, "[]", "1"),
    ("node/n1", 200, "[]", "1"),
]


@pytest.mark.parametrize(("uri", "status", "text", "index"), READS)
def test_reads(worker: Any, uri: str, status: int, text: str, index: str | None) -> None:
    """Reads of nothing, and refusals; some of these carry index headers that know no leader, as Consul's do."""
    reply = worker.call("GET", "/v1/session/" + uri)
    assert (reply.status, reply.body.decode(), reply.headers.get("X-Consul-Index")) == (status, text, index)
    if index:
        assert reply.headers["X-Consul-Knownleader"] == ("false" if status == 500 else "true")


def test_lists(worker: Any) -> None:
    """All sessions, or those of a node whatever its case, in the order of their ids, with the index of the table."""
    ids = sorted(create(worker) for _ in range(3))
    other = create(worker, Node="N1")
    for uri in ("list", "node/n1", "node/N1"):
        reply = worker.call("GET", f"/v1/session/{uri}")
        assert [found["ID"] for found in json.loads(reply.body)] == sorted([*ids, other])
        assert reply.headers["X-Consul-Index"] == "7"
    assert put(worker, f"destroy/{other.upper()}").body == b"true"
    worker.put("key")
    reply = worker.call("GET", f"/v1/session/info/{ids[0].upper()}")
    assert (json.loads(reply.body)[0]["ID"], reply.headers["X-Consul-Index"]) == (ids[0], "8")


def test_redirections(worker: Any) -> None:
    """Paths that need something behind them are redirected to their slash."""
    for name in ("info", "node", "renew", "destroy"):
        method = "PUT" if name in {"renew", "destroy"} else "GET"
        reply = worker.call(method, f"/v1/session/{name}")
        assert (reply.status, reply.headers["Location"]) == (301, f"/v1/session/{name}/")


def test_methods(worker: Any) -> None:
    """The method is looked at before anything else."""
    for name, allowed in (("create", "PUT"), ("destroy/x", "PUT"), ("renew/x", "PUT"), ("info/x", "GET"), ("list", "GET"), ("node/x", "GET")):
        for method in {"GET", "PUT", "POST", "DELETE"} - {allowed}:
            reply = worker.call(method, f"/v1/session/{name}")
            assert (reply.status, reply.headers["Allow"], reply.body.decode()) == (405, f"OPTIONS,{allowed}", f"method {method} not allowed")
        assert worker.call("OPTIONS", f"/v1/session/{name}").headers["Allow"] == f"OPTIONS,{allowed}"


def test_renewals(worker: Any) -> None:
    """A renewal gives the session and moves no index; it goes through the log, also for a session without a TTL."""
    for fields in ({}, {"TTL": "10s"}):
        id_ = create(worker, **fields)
        before = worker.call("GET", f"/v1/session/info/{id_}")
        sent = len(worker.agent.received(protocol.Propose))
        assert put(worker, f"renew/{id_}")[::2] == (200, before.body)
        assert worker.call("GET", f"/v1/session/info/{id_}") == before
        assert len(worker.agent.received(protocol.Propose)) == sent + 1


def test_writes_that_fail(worker: Any) -> None:
    """What nobody knows the outcome of says so."""
    for failing, outcome in (("unknown", "unknown"), ("no-leader", "rejected")):
        worker.agent.failing = failing
        for uri in ("create", f"renew/{UNKNOWN}", f"destroy/{UNKNOWN}"):
            reply = put(worker, uri)
            assert (reply.status, reply.headers["X-Kvorum-Outcome"]) == (500, outcome)


def test_locks(worker: Any) -> None:
    """Acquire, contend, release: true and false as Consul says them, and the entry with its session."""
    one, two = create(worker, LockDelay="0s"), create(worker, LockDelay="0s")
    assert worker.call("PUT", f"/v1/kv/a?acquire={one}&flags=3", b"1").body == b"true"
    entry = json.loads(worker.call("GET", "/v1/kv/a").body)[0]
    assert list(entry) == ["LockIndex", "Key", "Flags", "Value", "Session", "CreateIndex", "ModifyIndex"]
    assert (entry["LockIndex"], entry["Flags"], entry["Session"]) == (1, 3, one)
    assert worker.call("PUT", f"/v1/kv/a?acquire={two}", b"2").body == b"false"
    assert worker.call("PUT", f"/v1/kv/a?release={two}", b"2").body == b"false"
    assert worker.call("PUT", "/v1/kv/a?release=x", b"2").body == b"false"
    assert worker.call("PUT", f"/v1/kv/a?release={one}&pretty", b"3").body == b"true\n"
    assert worker.call("PUT", f"/v1/kv/a?acquire={two}").body == b"true"
    entry = json.loads(worker.call("GET", "/v1/kv/a").body)[0]
    assert (entry["LockIndex"], entry["Flags"], entry["Value"], entry["Session"]) == (2, 0, None, two)
    put(worker, f"destroy/{two}")
    assert "Session" not in json.loads(worker.call("GET", "/v1/kv/a").body)[0]
    assert worker.call("PUT", f"/v1/kv/a?acquire={two}").body.decode() == f'invalid session "{two}"'


def waiting(worker: Any, uri: str) -> Any:
    """A request that waits for a change."""
    before = worker.blocking.waiting
    index = worker.index(uri)
    greenlet = gevent.spawn(worker.call, "GET", f"{uri}?index={index}&wait=60s")
    worker.until(lambda: worker.blocking.waiting == before + 1)
    return greenlet


def test_waiting_for_sessions(worker: Any) -> None:
    """Lists wake when any session begins or ends, info when its own does; renewals and keys wake nobody."""
    one, two = create(worker), create(worker)
    queries = [waiting(worker, f"/v1/session/{uri}") for uri in ("list", "node/n1", f"info/{one}", f"info/{two}")]
    put(worker, f"renew/{one}")
    worker.put("key")
    gevent.sleep(0)
    assert worker.blocking.waiting == 4
    put(worker, f"destroy/{two}")
    for query in (queries[0], queries[1], queries[3]):
        reply = query.get(timeout=10)
        assert (reply.status, int(reply.headers["X-Consul-Index"])) == (200, worker.index("/v1/session/list"))
    assert worker.blocking.waiting == 1
    put(worker, f"destroy/{one}")
    assert queries[2].get(timeout=10).body == b"[]"


def test_waiting_for_a_lock(worker: Any) -> None:
    """A key wakes its watchers when it is locked, and when it is lost with its session; a refused attempt wakes nobody."""
    one, two = create(worker, Behavior="delete"), create(worker)
    worker.put("k")
    query = waiting(worker, "/v1/kv/k")
    worker.call("PUT", f"/v1/kv/k?acquire={one}", b"v")
    assert json.loads(query.get(timeout=10).body)[0]["Session"] == one
    query = waiting(worker, "/v1/kv/k")
    assert worker.call("PUT", f"/v1/kv/k?acquire={two}", b"v").body == b"false"
    put(worker, f"destroy/{one}")
    reply = query.get(timeout=10)
    assert (reply.status, int(reply.headers["X-Consul-Index"])) == (404, worker.index("/v1/session/list"))
