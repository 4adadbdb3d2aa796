"""``/v1/acl/`` and what tokens may do, over HTTP. Texts and shapes as recorded from Consul 1.8.7 with ``default_policy = "deny"``."""

import json
from collections.abc import Callable
from typing import Any

import gevent
import pytest
from acl_keeper import ON, Keeper

from service.api.routing import Route
from service.domain.acl.records import POLICIES, TOKENS, Policy, row_id
from service.domain.commands import AclChange, encode, stamp
from service.ipc import protocol
from service.store import acl_rows

NOBODY = "adf4238a-882b-9ddc-4a9d-5b6758e4159e"
RULES = 'key_prefix "a/" { policy = "write" } key_prefix "a/no/" { policy = "deny" } key "b" { policy = "read" }'


@pytest.mark.parametrize(("method", "path"), [("GET", "token/self"), ("GET", "tokens"), ("PUT", "bootstrap"), ("PUT", "token"), ("GET", "policy/x")])
def test_off(worker: Any, method: str, path: str) -> None:
    """Without an ACL every route of it says so, and tokens mean nothing."""
    reply = worker.call(method, f"/v1/acl/{path}")
    assert (reply.status, reply.body) == (401, b"ACL support disabled")
    assert worker.call("PUT", "/v1/kv/k", b"v", X_Consul_Token="zz").body == b"true"


def test_nobody_is_quicker_than_the_settings(make_worker: Any) -> None:
    """Where the settings name the first token there is no bootstrap, also before the leader has written it."""
    worker = make_worker(**ON, acl_initial_management=NOBODY)
    reply = worker.call("PUT", "/v1/acl/bootstrap")
    assert (reply.status, reply.body) == (403, b"Permission denied: ACL bootstrap no longer allowed (reset index: 0)")


def test_bootstrap_once(acl: Keeper) -> None:
    """The first token is made once; the refusal names the index that a file on the node has to hold for another."""
    assert acl.first["ID"] == acl.first["SecretID"]
    assert acl.first["Hash"] == "oyrov6+GFLjo/KZAfqgxF/X4J/3LX0435DOBy9V22I0="
    index = acl.first["CreateIndex"]
    assert acl.put("/v1/acl/bootstrap", token="") == (403, f"Permission denied: ACL bootstrap no longer allowed (reset index: {index})")
    file = acl.worker.settings.data_dir / "acl-bootstrap-reset"
    file.write_text("1\n")
    assert acl.put("/v1/acl/bootstrap")[0] == 500
    file.write_text(f"{index}\n")
    assert acl.put("/v1/acl/bootstrap")[0] == 200
    assert not file.exists()


def test_commands_say_who(acl: Keeper) -> None:
    """The accessor of whoever asks, never the secret, is replicated with a change."""
    seen: list[Any] = []
    acl.worker.agent.on_command = seen.append
    acl.put("/v1/kv/k", b"v")
    acl.token("")
    assert {command.origin.actor for command in seen} == {acl.first["AccessorID"]}


def test_enforcement_on_keys(acl: Keeper) -> None:
    """Single keys are refused, listings filtered, deletions of a prefix refused for what is denied below it."""
    token = acl.token(RULES)["SecretID"]
    for key in ("a/1", "a/no/x", "b", "c"):
        assert acl.put(f"/v1/kv/{key}", b"v") == (200, "true")
    assert acl.put("/v1/kv/a/1", b"w", token) == (200, "true")
    for key in ("a/no/x", "b", "c"):
        assert acl.put(f"/v1/kv/{key}", b"w", token) == (403, "Permission denied")
    assert [acl.get(f"/v1/kv/{key}", token)[0] for key in ("a/1", "a/2", "a/no/x", "b", "c")] == [200, 404, 403, 200, 403]
    assert acl.get("/v1/kv/?keys", token) == (200, '["a/1","b"]')
    assert acl.get("/v1/kv/?keys&separator=/", token) == (200, '["a/","b"]')
    assert acl.get("/v1/kv/a/no?keys&separator=/", token) == (404, "")
    assert [row["Key"] for row in json.loads(acl.get("/v1/kv/?recurse", token)[1])] == ["a/1", "b"]
    assert acl.call("DELETE", "/v1/kv/a/?recurse", token=token).status == 403
    assert acl.call("DELETE", "/v1/kv/a/1?recurse", token=token).body == b"true"
    assert acl.get("/v1/kv/b", "") == (403, "Permission denied")
    assert acl.get("/v1/kv/b", NOBODY) == (403, "ACL not found")


def test_enforcement_in_transactions(acl: Keeper) -> None:
    """Writes that are not allowed fail one by one, and with them the whole; what is read is filtered."""
    token = acl.token(RULES)["SecretID"]
    acl.put("/v1/kv/c", b"v")
    wanted = [{"KV": {"Verb": "set", "Key": key, "Value": "MQ=="}} for key in ("a/1", "b", "")]
    denied = '{"Results":null,"Errors":[{"OpIndex":1,"What":"Permission denied"},{"OpIndex":2,"What":"Must provide key"}]}'
    assert acl.put("/v1/txn", wanted, token) == (409, denied)
    assert acl.get("/v1/kv/a/1")[0] == 404
    assert acl.put("/v1/txn", [{"KV": {"Verb": "get", "Key": "c"}}], token)[1].startswith('{"Results":[],"Errors":null')
    assert acl.put("/v1/txn", [{"KV": {"Verb": "check-index", "Key": "c", "Index": 1}}], token)[0] == 409


def test_lost_permission_ends_a_wait(acl: Keeper) -> None:
    """Who waits for a key is told when the permission is taken away, and not what became of the key later."""
    made = acl.token(RULES)
    acl.put("/v1/kv/a/1", b"v")
    index = acl.call("GET", "/v1/kv/a/1", token=made["SecretID"]).headers["X-Consul-Index"]
    waiting = gevent.spawn(acl.get, f"/v1/kv/a/1?index={index}&wait=60s", made["SecretID"])
    while not acl.worker.agent.received(protocol.Watch):
        gevent.sleep(0.01)
    assert acl.call("DELETE", f"/v1/acl/token/{made['AccessorID']}").body == b"true"
    assert waiting.get(timeout=30) == (403, "ACL not found")


def test_changes_take_effect_at_once(acl: Keeper) -> None:
    """A policy that is changed or deleted holds for the next request, however often the token was resolved before."""
    made = acl.token(RULES)
    id_ = made["Policies"][0]["ID"]
    assert acl.put("/v1/kv/a/1", b"v", made["SecretID"])[0] == 200
    assert acl.put(f"/v1/acl/policy/{id_}", {"Name": "p", "Rules": 'key_prefix "" { policy = "read" }'})[0] == 200
    assert acl.put("/v1/kv/a/1", b"v", made["SecretID"]) == (403, "Permission denied")
    assert acl.get("/v1/kv/a/1", made["SecretID"])[0] == 200
    assert acl.call("DELETE", f"/v1/acl/policy/{id_}").body == b"true"
    assert acl.get("/v1/kv/a/1", made["SecretID"]) == (403, "Permission denied")


def test_a_write_of_who_is_known_asks_for_no_barrier(acl: Keeper) -> None:
    """Once a token was looked up, keys are written, deleted and changed together without asking anybody first."""
    token = acl.token(RULES)["SecretID"]
    assert acl.put("/v1/kv/a/1", b"v", token) == (200, "true")
    agent = acl.worker.agent
    before = len(agent.received(protocol.Barrier))
    assert acl.put("/v1/kv/a/1", b"w", token) == (200, "true")
    assert acl.put("/v1/kv/a/1?cas=1", b"x", token) == (200, "false")
    assert acl.put("/v1/txn", [{"KV": {"Verb": "set", "Key": "a/2", "Value": "MQ=="}}], token)[0] == 200
    assert acl.call("PUT", "/v1/kv/a/3", b"y", token, Idempotency_Key="once").body == b"true"
    assert acl.call("DELETE", "/v1/kv/a/1", token=token).body == b"true"
    assert acl.call("DELETE", "/v1/kv/a/z?recurse", token=token).body == b"true"
    assert len(agent.received(protocol.Barrier)) == before
    assert acl.put("/v1/kv/b", b"w", token) == (403, "Permission denied")
    assert len(agent.received(protocol.Barrier)) == before + 1  # who is refused is refused by what is true now


WRITES = {
    "put": ("PUT", "/v1/kv/a/1", b"w"),
    "put once": ("PUT", "/v1/kv/a/1", b"w"),
    "delete": ("DELETE", "/v1/kv/a/1", b""),
    "delete tree": ("DELETE", "/v1/kv/a/1?recurse", b""),
    "transaction": ("PUT", "/v1/txn", [{"KV": {"Verb": "set", "Key": "a/1", "Value": "dw=="}}]),
}


@pytest.mark.parametrize("what", WRITES)
@pytest.mark.parametrize("change", ["token", "policy", "another"])
def test_a_permission_counts_when_the_write_is_applied(acl: Keeper, what: str, change: str) -> None:
    """The ACL changes while a write is on its way: what was allowed until then is refused, and what still is, is done."""
    made = acl.token(RULES)
    assert acl.put("/v1/kv/a/1", b"v", made["SecretID"]) == (200, "true")
    agent, (method, path, body) = acl.worker.agent, WRITES[what]
    machine = agent.machine

    def meanwhile(_: Any) -> None:
        agent.on_command = lambda _: None
        seen = acl.worker.reader.tables(acl_rows.indexes)[0][acl_rows.TABLE]
        change_ = AclChange(seen, [Policy("0" * 36, "other", "", "")]) if change == "another" else AclChange(seen, deletes=[row_id(*gone)])
        machine.apply([(machine.applied_index + 1, 1, stamp(encode(change_), 1_000))])

    gone = (TOKENS, made["AccessorID"]) if change == "token" else (POLICIES, made["Policies"][0]["ID"])
    agent.on_command = meanwhile
    reply = acl.call(method, path, body, made["SecretID"], **({"Idempotency_Key": "once"} if what == "put once" else {}))
    if change == "another":
        assert reply.status == 200
        assert acl.get("/v1/kv/a/1?raw") == ((404, "") if "delete" in what else (200, "w"))
        return
    denied = {"token": "ACL not found", "policy": "Permission denied"}[change]
    assert (reply.status, denied in reply.body.decode()) == (409 if what == "transaction" and change == "policy" else 403, True)
    assert acl.get("/v1/kv/a/1?raw") == (200, "v")


def test_a_change_is_judged_again_when_the_acl_has_moved(acl: Keeper) -> None:
    """Of two that make the same policy at once, one is refused: nobody's judgement is applied to another ACL."""
    machine = acl.worker.agent.machine

    def meanwhile(command: Any) -> None:
        acl.worker.agent.on_command = lambda _: None
        data = stamp(encode(AclChange(command.seen_index, command.puts)), 1_000)
        machine.apply([(machine.applied_index + 1, 1, data)])

    acl.worker.agent.on_command = meanwhile
    assert acl.put("/v1/acl/policy", {"Name": "twice"}) == (500, 'Invalid Policy: A Policy with Name "twice" already exists')


def test_secrets_may_be_kept_as_hashes_only(make_worker: Callable[..., Any]) -> None:
    """With ``acl_secrets=hashed`` a secret is shown once; the token works, and can be changed by what was read of it."""
    acl = Keeper(make_worker(**ON, acl_secrets="hashed"))
    made = acl.token(RULES)
    path = f"/v1/acl/token/{made['AccessorID']}"
    shown = json.loads(acl.get(path)[1])
    assert shown["SecretID"] == "<hidden>"
    assert acl.put(path, shown)[0] == 200
    assert acl.put("/v1/kv/a/1", b"v", made["SecretID"])[0] == 200
    files = b"".join(path.read_bytes() for path in acl.worker.settings.data_dir.glob("state-*.db*"))
    assert made["AccessorID"].encode() in files
    assert made["SecretID"].encode() not in files


def test_readers_see_no_secrets(acl: Keeper) -> None:
    """Who may read the ACL but not write it gets the tokens without what they could be used by."""
    reader = acl.token('acl = "read"')["SecretID"]
    assert json.loads(acl.get(f"/v1/acl/token/{acl.first['AccessorID']}", reader)[1])["SecretID"] == "<hidden>"
    assert acl.secret not in acl.get("/v1/acl/tokens", reader)[1]
    assert acl.put("/v1/acl/token", {}, reader) == (403, "Permission denied")


@pytest.mark.parametrize(
    ("rules", "method", "path", "status"),
    [
        ('operator = "read"', "GET", "/v1/cluster/status", 200),
        ('operator = "read"', "POST", "/v1/cluster/check", 403),
        ('operator = "write"', "POST", "/v1/cluster/check", 200),
        ('agent_prefix "" { policy = "read" }', "GET", "/v1/agent/self", 200),
        ('agent_prefix "" { policy = "read" }', "PUT", "/v1/agent/reload", 403),
        ('agent_prefix "" { policy = "write" }', "PUT", "/v1/agent/reload", 200),
        ('operator = "read"', "GET", "/v1/operator/autopilot/configuration", 200),
        ('operator = "read"', "PUT", "/v1/operator/autopilot/configuration", 403),
        ("", "GET", "/v1/cluster/status", 403),
        ("", "GET", "/v1/operator/raft/configuration", 403),
        ("", "GET", "/v1/agent/members", 200),
        ("", "GET", "/v1/status/leader", 200),
    ],
)
def test_routes_of_operators(acl: Keeper, rules: str, method: str, path: str, status: int) -> None:
    """What tells of the cluster needs the operator's or the agent's rule; what changes it, the right to write."""
    assert acl.call(method, path, b"{}" if method == "PUT" else b"", acl.token(rules)["SecretID"]).status == status


def test_a_route_that_nobody_has_declared_needs_everything(acl: Keeper) -> None:
    """A new route is closed until somebody says what it needs."""
    route = acl.worker.app.extensions["kvorum"].kv.permissions.guard(Route("/v1/new", None, lambda _: (200, [], b"")))
    environ = {"REQUEST_METHOD": "GET", "QUERY_STRING": "", "HTTP_X_CONSUL_TOKEN": acl.token('operator = "write"')["SecretID"]}
    assert route.answer(environ)[0] == 403
    assert route.answer(environ | {"HTTP_X_CONSUL_TOKEN": acl.secret})[0] == 200


def test_bearer_and_query(acl: Keeper) -> None:
    """A token comes in the query, in Consul's header or as a bearer's; the query counts most."""
    assert acl.worker.call("GET", "/v1/acl/tokens", Authorization=f"Bearer {acl.secret}").status == 200
    assert acl.worker.call("GET", f"/v1/acl/tokens?token={acl.secret}", X_Consul_Token="bad").status == 200
    assert acl.worker.call("GET", "/v1/acl/tokens", Authorization=f"Basic {acl.secret}").status == 403


@pytest.mark.parametrize("carrier", ["header", "bearer", "query"])
def test_tokens_of_requests_that_are_answered_directly(acl: Keeper, carrier: str) -> None:
    """The short cut before WSGI's environment knows each way in which a token comes, and lets nobody in without one."""
    headers = {"header": {"HTTP_X_CONSUL_TOKEN": acl.secret}, "bearer": {"HTTP_AUTHORIZATION": f"Bearer {acl.secret}"}, "query": {}}[carrier]
    query = f"?token={acl.secret}" if carrier == "query" else ""
    fast = acl.worker.fast.fast
    assert fast("PUT", f"/v1/kv/a{query}", headers, b"v").body == b"true"
    assert fast("GET", f"/v1/kv/a{query}", headers, b"").status == b"200 OK"
    assert [fast(method, "/v1/kv/a", {}, b"").status for method in ("GET", "PUT")] == [b"403 Forbidden"] * 2
    assert fast("GET", "/v1/kv/a?token=bad", {}, b"").body == b"ACL not found"
