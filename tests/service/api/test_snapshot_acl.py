"""The ACL in archives, over HTTP: tokens, policies and roles are saved and come back, also those of a Consul; what can't be used changes nothing."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest
from acl_keeper import ON, Keeper

from service.archive import acl_records, msgpack, records
from service.archive.container import Reader, Writer
from service.archive.msgpack import Unpacker
from service.domain import commands
from service.domain.acl.records import (
    ANONYMOUS_ID,
    ANONYMOUS_SECRET,
    NodeIdentity,
    Policy,
    Role,
    Token,
    anonymous_token,
    made,
    management_policy,
    management_token,
    secret_hash,
)
from service.ipc import protocol
from service.store import acl_rows

REAL = Path(__file__).parents[1] / "archive" / "consul-1.8.7-acl.tgz"
REAL_FIRST, REAL_FULL = "ab39e9cd-5f97-1c27-9ea4-3679a6bae43d", "0d3279a3-563d-3c25-b17a-1503d341e7a5"
SNAPSHOT = "/v1/snapshot"
KEY_RULES = 'key_prefix "a/" { policy = "write" }'


def archive(*packed: bytes, left_out: str = "") -> bytes:
    """An archive of some records."""
    spool = io.BytesIO()
    writer = Writer(spool)
    writer.write(records.pack_header(3, left_out) + b"".join(packed))
    return b"".join(writer.finish(3, 1, 0))


def numbers(data: bytes) -> set[int]:
    """Which kinds of records an archive has."""
    found: set[int] = set()
    Reader(io.BytesIO(data).read).read_all(lambda read: found.update(record.number for record in records.read(Unpacker(read))[1]))
    return found


def everything(acl: Keeper) -> tuple[Any, Any, Any]:
    """All tokens, policies and roles, as the API shows them."""
    accessors = [one["AccessorID"] for one in json.loads(acl.get("/v1/acl/tokens")[1])]
    tokens = [acl.get(f"/v1/acl/token/{one}") for one in sorted(accessors)]
    return tokens, acl.get("/v1/acl/policies"), acl.get("/v1/acl/roles")


def stored(worker: Any) -> acl_rows.Everything:
    """The whole ACL as it is kept."""
    found: acl_rows.Everything = worker.reader.tables(acl_rows.everything)[0]
    return found


def test_saved_and_restored(acl: Keeper) -> None:
    """A token that was deleted works again, one that was made since does not, rules are those of the archive; nothing of a record is lost."""
    kept = acl.token(KEY_RULES)
    role = {"Name": "r", "Policies": [{"Name": "p"}], "ServiceIdentities": [{"ServiceName": "web"}]}
    assert acl.put("/v1/acl/role", role)[0] == 200
    assert acl.put("/v1/acl/token", {"Roles": [{"Name": "r"}], "ExpirationTTL": "10h", "Local": True})[0] == 200
    before = everything(acl)
    saved = acl.call("GET", SNAPSHOT)
    assert (saved.status, saved.headers.get("X-Kvorum-Left-Out")) == (200, None)
    assert acl.call("DELETE", f"/v1/acl/token/{kept['AccessorID']}").status == 200
    assert acl.put(f"/v1/acl/policy/{kept['Policies'][0]['ID']}", {"Name": "p", "Rules": ""})[0] == 200
    since = acl.token(KEY_RULES, "since")["SecretID"]
    assert acl.put("/v1/kv/a/1", b"v", since) == (200, "true")
    assert acl.put(SNAPSHOT, saved.body) == (200, "")
    assert everything(acl) == before
    assert acl.put("/v1/kv/a/1", b"v", kept["SecretID"]) == (200, "true")
    assert acl.put("/v1/kv/a/1", b"v", since) == (403, "ACL not found")
    assert stored(acl.worker).last_index == acl.worker.agent.machine.applied_index - 1


def test_of_a_consul(acl: Keeper) -> None:
    """Its tokens do here what they did there, the first one manages, and those of this cluster are gone. What has no place is counted in a header."""
    reply = acl.call("PUT", SNAPSHOT, REAL.read_bytes())
    assert reply.status == 200
    assert reply.headers["X-Kvorum-Skipped"].split(", ")[1] == "1 ACL tokens of a login or of the ACL before Consul 1.4"
    assert acl.get("/v1/acl/tokens") == (403, "ACL not found")
    acl.secret = REAL_FIRST
    assert acl.put("/v1/kv/app/x", b"v", REAL_FULL) == (200, "true")
    assert acl.get("/v1/kv/app/x?raw", REAL_FULL) == (200, "v")
    assert acl.put("/v1/kv/other", b"v", REAL_FULL) == (403, "Permission denied")
    assert acl.put("/v1/kv/other", b"v") == (200, "true")
    assert acl.get("/v1/kv/other?raw", REAL_FULL) == (200, "v")
    own = json.loads(acl.get("/v1/acl/token/self", REAL_FULL)[1])
    assert [one["Name"] for one in own["Policies"]] == ["app", "ro"]
    assert [one["Name"] for one in own["Roles"]] == ["r"]
    assert json.loads(acl.get("/v1/acl/token/self", REAL_FIRST)[1])["Hash"] == "oyrov6+GFLjo/KZAfqgxF/X4J/3LX0435DOBy9V22I0="
    assert acl.put("/v1/acl/bootstrap", token="")[1].startswith("Permission denied: ACL bootstrap no longer allowed (reset index: ")
    assert acl.put("/v1/acl/policy", {"Name": "new"})[0] == 200


def test_without_an_acl_in_it(acl: Keeper) -> None:
    """The keys of a cluster without an ACL do not lock everybody out of this one."""
    token = acl.token(KEY_RULES)["SecretID"]
    before = everything(acl)
    assert acl.put(SNAPSHOT, archive(records.pack_index(b"acl-tokens", 9)))[0] == 200
    assert everything(acl) == before
    assert acl.put("/v1/kv/a/1", b"v", token) == (200, "true")


def test_a_wait_ends_when_the_token_is_gone(acl: Keeper) -> None:
    """Who waits with a token that the archive lacks is told, and not what becomes of the key."""
    saved = acl.call("GET", SNAPSHOT).body
    token = acl.token(KEY_RULES)["SecretID"]
    acl.put("/v1/kv/a/1", b"v")
    waiting = gevent.spawn(acl.get, f"/v1/kv/a/1?index={acl.worker.agent.machine.applied_index + 100}&wait=60s", token)
    acl.worker.until(lambda: acl.worker.agent.received(protocol.Watch))
    assert acl.put(SNAPSHOT, saved)[0] == 200
    assert waiting.get(timeout=30) == (403, "ACL not found")


def test_hashed_secrets_are_in_no_archive(make_worker: Callable[..., Any]) -> None:
    """With ``acl_secrets=hashed`` an archive has nothing of the ACL, and says so; restored, it leaves the ACL as it is."""
    acl = Keeper(make_worker(**ON, acl_secrets="hashed"))
    token = acl.token(KEY_RULES)["SecretID"]
    before = everything(acl)
    saved = acl.call("GET", SNAPSHOT)
    assert saved.headers["X-Kvorum-Left-Out"] == "3 ACL tokens, 2 ACL policies"
    assert numbers(saved.body).isdisjoint(records.RESTORED_ACL)
    assert acl.put(SNAPSHOT, saved.body)[0] == 200
    assert everything(acl) == before
    assert acl.put("/v1/kv/a/1", b"v", token) == (200, "true")


def test_hashed_secrets_of_an_archive(make_worker: Callable[..., Any]) -> None:
    """With ``acl_secrets=hashed`` the tokens of an archive work, and no command holds a secret of them."""
    acl = Keeper(make_worker(**ON, acl_secrets="hashed"))
    proposed: list[bytes] = []
    acl.worker.agent.on_command = lambda command: proposed.append(commands.encode(command))
    assert acl.put(SNAPSHOT, REAL.read_bytes())[0] == 200
    written = b"".join(proposed)
    assert secret_hash(REAL_FULL) in written
    assert REAL_FULL.encode() not in written
    assert acl.put("/v1/kv/app/x", b"v", REAL_FULL) == (200, "true")
    assert {token.secret for token in stored(acl.worker).tokens.values()} == {"", ANONYMOUS_SECRET}


def test_a_secret_that_was_not_kept(acl: Keeper) -> None:
    """A token of a time when secrets were not kept keeps the whole ACL out: an archive without it would be another ACL."""
    machine = acl.worker.agent.machine
    lost = made(Token("11111111-aaaa-4aaa-8aaa-111111111111", secret_hash("x"), ""))
    acl.worker.agent.apply(commands.stamp(commands.encode(commands.AclChange(stored(acl.worker).last_index, [lost])), 1))
    saved = acl.call("GET", SNAPSHOT)
    assert saved.headers["X-Kvorum-Left-Out"] == "3 ACL tokens, 1 ACL policies"
    assert numbers(saved.body).isdisjoint(records.RESTORED_ACL)
    assert machine.applied_index > 0


def test_secrets_that_are_known_and_not_to_be_told(make_worker: Callable[..., Any]) -> None:
    """With ``acl_secrets=hashed`` no archive holds a secret, those of a time when they were kept neither."""
    worker = make_worker(acl_secrets="hashed")
    worker.agent.apply(commands.stamp(commands.encode(commands.AclChange(0, [made(Token(ID, secret_hash("known"), "known"))])), 1))
    saved = worker.call("GET", SNAPSHOT)
    assert saved.headers["X-Kvorum-Left-Out"] == "1 ACL tokens"
    assert numbers(saved.body).isdisjoint(records.RESTORED_ACL)


def test_only_for_management(acl: Keeper) -> None:
    """Whoever may not manage the ACL neither saves nor restores, whatever else is allowed."""
    most = "".join(f'{resource}_prefix "" {{ policy = "write" }}\n' for resource in ("key", "session", "event", "node", "service", "agent", "query"))
    saved = acl.call("GET", SNAPSHOT).body
    for secret in (acl.token(most + 'operator = "write" acl = "read"')["SecretID"], ""):
        assert acl.get(SNAPSHOT, secret) == (403, "Permission denied")
        assert acl.put(SNAPSHOT, saved, secret) == (403, "Permission denied")


def test_the_archive_of_a_worker_without_an_acl(worker: Any) -> None:
    """Where there never was an ACL there is nothing to leave out; a restored one lies there until the ACL is switched on."""
    saved = worker.call("GET", SNAPSHOT)
    assert "X-Kvorum-Left-Out" not in saved.headers
    assert numbers(saved.body).isdisjoint(records.RESTORED_ACL)
    assert worker.call("PUT", SNAPSHOT, REAL.read_bytes()).status == 200
    assert len(stored(worker).tokens) == 6
    assert numbers(worker.call("GET", SNAPSHOT).body) >= records.RESTORED_ACL


ID, OTHER = "11111111-aaaa-4aaa-8aaa-111111111111", "22222222-bbbb-4bbb-8bbb-222222222222"


def token(accessor: str = ID, secret: str = OTHER, **fields: Any) -> bytes:
    """The record of a token."""
    return acl_records.pack_token(made(Token(accessor, secret_hash(secret), secret, **fields)), {}, {})


def policy(id_: str = ID, name: str = "p", rules: str = "") -> bytes:
    """The record of a policy."""
    return acl_records.pack_policy(Policy(id_, name, "", rules))


def role(id_: str = ID, name: str = "r", nodes: tuple[str, ...] = ()) -> bytes:
    """The record of a role."""
    return acl_records.pack_role(Role(id_, name, "", [], [], [NodeIdentity(one, "dc1") for one in nodes]), {})


@pytest.mark.parametrize(
    ("packed", "text"),
    [
        ([token("x")], "the ACL token 'x' at byte 12 of \"state.bin\" has the id 'x', which is no UUID"),
        ([token(secret="")], "SecretID is empty, in a record of ACL tokens at byte 12"),
        ([token(), token(secret="s")], f"the ACL token '{ID}' at byte 335 of \"state.bin\" has the id of another"),
        ([token(), token(OTHER)], "has the secret of another"),
        ([token(ANONYMOUS_ID)], "has the accessor or the secret of the anonymous one, but not both"),
        ([token(secret=ANONYMOUS_SECRET)], "has the accessor or the secret of the anonymous one, but not both"),
        ([token(node_identities=[NodeIdentity("A", "dc1")])], "has an identity with the name 'A', which can't be one"),
        ([policy("")], "has the id '', which is no UUID"),
        ([policy(name="a b")], "the ACL policy 'a b' at byte 12 of \"state.bin\" has a name that can't be one"),
        ([policy(rules='key "a" {')], "the ACL policy 'p' at byte 12 of \"state.bin\" has rules that can't be used: Failed to parse ACL rules"),
        ([policy(rules='key "a" { policy = "all" }')], "has rules that can't be used: Invalid key policy"),
        ([policy(), policy(OTHER)], "has the name of another"),
        ([policy(), policy(name="q")], "has the id of another"),
        ([role(name="")], "has a name that can't be one"),
        ([role(), role(OTHER)], "has the name of another"),
        ([role(), role(name="q")], "has the id of another"),
        ([role(nodes=("",))], "has an identity with the name '', which can't be one"),
        ([b"\x11\xc0"], 'the record at byte 12 of "state.bin" is no map'),
        ([b"\x13" + msgpack.mapping([(b"Rules", msgpack.integer(1))])], "Rules is 1, no text, in a record of ACL policies at byte 12"),
        ([b"\x17" + msgpack.mapping([(b"Policies", msgpack.integer(1))])], "Policies is 1, no list, in a record of ACL roles at byte 12"),
    ],
)
def test_refused(acl: Keeper, packed: list[bytes], text: str) -> None:
    """The answer names the record and what is wrong with it; nothing was proposed, so nothing was changed."""
    before, index = stored(acl.worker), acl.worker.agent.machine.applied_index
    good = [acl_records.pack_policy(management_policy()), acl_records.pack_token(anonymous_token(), {}, {})]
    reply = acl.call("PUT", SNAPSHOT, archive(*packed, *good))
    assert (reply.status, reply.headers["X-Kvorum-Outcome"]) == (500, "rejected")
    assert text in reply.body.decode()
    assert (stored(acl.worker), acl.worker.agent.machine.applied_index) == (before, index)


def test_ids_of_different_kinds_do_not_meet(acl: Keeper) -> None:
    """A token, a policy and a role with one id, and policies and roles with one name, are all there."""
    first = acl_records.pack_token(management_token(OTHER, acl.secret, "", keep=True), {}, {})
    assert acl.put(SNAPSHOT, archive(first, token(secret="s"), policy(), role(name="p"), acl_records.pack_policy(management_policy())))[0] == 200
    found = stored(acl.worker)
    assert (set(found.tokens), set(found.roles)) == ({ID, OTHER}, {ID})
    assert ID in found.policies
