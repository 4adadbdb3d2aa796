"""``GET /v1/scan``: pages in byte order."""

import json
import random
from base64 import b64decode
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import pytest
from acl_keeper import Keeper

from service.domain.commands import KvPut, encode
from service.store import scans
from service.store.reader import Reader

KEYS = [b"a", b"a/", b"a/1", b"a/2", b"a0", b"b", b"\xc3\xbc", b"\xff", b"\xff\xff"]


def fill(worker: Any, keys: list[bytes] = KEYS) -> None:
    """Set keys, in any order."""
    for key in random.Random(7).sample(keys, len(keys)):
        worker.client.propose(encode(KvPut(key, b"v" + key, 2**63)))


def scan(worker: Any, query: str = "") -> tuple[list[dict[str, Any]], str | None]:
    """The entries of a page, and where the next begins."""
    reply = worker.call("GET", f"/v1/scan?{query}")
    assert (reply.status, reply.headers["Content-Type"]) == (200, "application/json")
    found = json.loads(reply.body)
    return found["entries"], found["next"]


@pytest.mark.parametrize("limit", [1, 2, 3, len(KEYS), 1000])
@pytest.mark.parametrize("prefix", [b"", b"a", b"a/", b"\xff", b"none"])
def test_pages_are_the_whole(worker: Any, prefix: bytes, limit: int) -> None:
    """Following ``next`` shows each key once, in byte order, whatever bytes it is of, and ends."""
    fill(worker)
    expected = [key for key in sorted(KEYS) if key.startswith(prefix)]
    values: list[bytes] = []
    start: str | None = ""
    pages = 0
    while start is not None:
        entries, start = scan(worker, f"prefix={quote(prefix)}&limit={limit}&start={start}")
        assert len(entries) == limit or start is None
        values += [b64decode(entry["Value"]) for entry in entries]
        pages += 1
    assert values == [b"v" + key for key in expected]
    assert pages == max(1, -(-len(expected) // limit))


def test_an_entry_is_that_of_the_kv_route(worker: Any) -> None:
    """Same fields, same text; the index is that of all keys."""
    index = worker.put("a", b"v")
    reply = worker.call("GET", "/v1/scan")
    assert reply.body == b'{"entries":%b,"next":null}' % worker.call("GET", "/v1/kv/a").body
    assert (reply.headers["X-Consul-Index"], reply.headers["X-Consul-Knownleader"]) == (str(index), "true")
    assert json.loads(worker.call("GET", "/v1/scan?pretty").body) == json.loads(reply.body)


def test_where_it_begins(worker: Any) -> None:
    """At the start or behind it, never before the prefix; past its end there is nothing."""
    fill(worker)
    assert [entry["Key"] for entry in scan(worker, "start=a/11&limit=2")[0]] == ["a/2", "a0"]
    assert [entry["Key"] for entry in scan(worker, "prefix=a/&start=a")[0]] == ["a/", "a/1", "a/2"]
    assert scan(worker, "prefix=a/&start=b") == ([], None)


def test_nothing_asked_nothing_given(worker: Any) -> None:
    """A limit of 0 is an empty page after which nothing follows: whoever loops over pages ends."""
    fill(worker)
    assert scan(worker, "limit=0") == ([], None)


def test_a_page_ends_by_its_bytes(worker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of long values is shorter than asked for, but never empty; nothing is left out between it and the next."""
    monkeypatch.setattr(scans, "PAGE_BYTES", 10)
    keys = [b"k%d" % number for number in range(7)]
    fill(worker, keys)
    seen: list[bytes] = []
    start: str | None = ""
    while start is not None:
        entries, start = scan(worker, f"start={start}")
        assert 1 <= len(entries) <= 2
        seen += [entry["Key"].encode() for entry in entries]
        assert start is None or unquote_to_bytes(start) not in seen
    assert seen == keys


def test_a_page_is_of_one_moment(worker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that changes between the moment of a page and the reading of its row is in it as it was."""
    fill(worker, [b"a", b"b"])
    plain = Reader.tables

    def overtaken(self: Reader, read: Any) -> Any:
        def late(connection: Any) -> Any:
            worker.agent.machine.apply([(worker.agent.machine.applied_index + 1, 1, (1).to_bytes(8, "big") + encode(KvPut(b"b", b"new")))])
            return read(connection)

        return plain(self, late)

    monkeypatch.setattr(Reader, "tables", overtaken)
    assert [b64decode(entry["Value"]) for entry in scan(worker)[0]] == [b"va", b"vb"]
    monkeypatch.undo()
    assert [b64decode(entry["Value"]) for entry in scan(worker)[0]] == [b"va", b"new"]


@pytest.mark.parametrize("query", ["", "stale", "consistent", "consistency=stale", "consistency=available"])
def test_modes(worker: Any, query: str) -> None:
    """It takes every mode of a read, and tells which kind of answer it gave."""
    fill(worker)
    reply = worker.call("GET", f"/v1/scan?{query}")
    assert reply.headers["X-Kvorum-Consistency"] == ("stale" if "stale" in query else "leader")
    worker.agent.failing = "no-leader"
    worker.agent.tell(leader_known=False, leading=False)
    worker.until(lambda: not worker.client.node_state.leader_known)
    reply = worker.call("GET", f"/v1/scan?{query}")
    alone = "stale" in query or "available" in query
    assert (reply.status, json.loads(reply.body).get("detail")) == ((200, None) if alone else (503, "No cluster leader"))


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("limit=10001", "limit is '10001'; a number from 0 to 10000 was expected"),
        ("limit=-1", "limit is '-1'; a number from 0 to 10000 was expected"),
        ("limit=", "limit is ''; a number from 0 to 10000 was expected"),
        ("limit=" + "9" * 50, f"limit is '{'9' * 50}'; a number from 0 to 10000 was expected"),
        ("index=7", "/v1/scan does not wait for changes; GET /v1/kv/PREFIX?recurse&index=N does"),
        ("consistency=x", 'Invalid consistency "x", one of default, consistent, stale, available was expected'),
    ],
)
def test_nonsense(worker: Any, query: str, text: str) -> None:
    """What can't be meant is a problem that names the value and what is allowed."""
    reply = worker.call("GET", f"/v1/scan?{query}")
    assert (reply.status, reply.headers["Content-Type"]) == (400, "application/problem+json")
    assert json.loads(reply.body)["detail"] == text


RULES = """key_prefix "" { policy = "read" }
key_prefix "a/" { policy = "deny" }
key_prefix "a/seen/" { policy = "list" }
key "a/2" { policy = "write" }
key "b" { policy = "deny" }
"""
SEEN = [b"a", b"a/2", b"a/seen/1", b"a/seen/2", b"a0", b"c", b"\xff"]
HIDDEN = [b"a/", b"a/1", b"a/20", b"a/seen", b"a/z", b"b"]


@pytest.mark.parametrize("limit", [1, 2, 3, 6, 7, 100])
def test_only_what_may_be_read(acl: Keeper, limit: int) -> None:
    """Pages have the readable keys and nothing else, each page but the last as many as it was asked for; no cursor names a key that is hidden."""
    fill(acl.worker, SEEN + HIDDEN)
    token = acl.token(RULES)["SecretID"]
    values: list[bytes] = []
    start: str | None = ""
    while start is not None:
        reply = acl.call("GET", f"/v1/scan?limit={limit}&start={start}", token=token)
        assert reply.status == 200
        found = json.loads(reply.body)
        start = found["next"]
        assert len(found["entries"]) == limit or start is None
        assert start is None or unquote_to_bytes(start) in SEEN
        values += [b64decode(entry["Value"]) for entry in found["entries"]]
    assert values == [b"v" + key for key in SEEN]


def test_from_within_what_is_hidden(acl: Keeper) -> None:
    """A prefix or a start that is hidden is no error: what follows is what may be read."""
    fill(acl.worker, SEEN + HIDDEN)
    token = acl.token(RULES)["SecretID"]
    for query, expected in (
        ("prefix=b", []),
        ("prefix=a/1", []),
        ("prefix=a/2", ["a/2"]),
        ("prefix=a/&start=a/1", ["a/2", "a/seen/1", "a/seen/2"]),
        ("prefix=a/s", ["a/seen/1", "a/seen/2"]),
        ("prefix=a&start=a/seen/11&limit=9", ["a/seen/2", "a0"]),
        ("start=b&limit=1", ["c"]),
    ):
        status, body = acl.get(f"/v1/scan?{query}", token)
        assert (status, [entry["Key"] for entry in json.loads(body)["entries"]]) == (200, expected), query


def test_hidden_keys_are_not_looked_at(acl: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many keys lie before the first that may be read, they do not count for the bytes of a page."""
    monkeypatch.setattr(scans, "PAGE_BYTES", 10)
    fill(acl.worker, [b"b%03d" % number for number in range(500)] + [b"x", b"y"])
    token = acl.token('key_prefix "" { policy = "read" } key_prefix "b" { policy = "deny" }')["SecretID"]
    found = json.loads(acl.get("/v1/scan", token)[1])
    assert ([entry["Key"] for entry in found["entries"]], found["next"]) == (["x", "y"], None)


def test_who_may_not(acl: Keeper) -> None:
    """Nobody's token sees nothing where all is denied; an unknown one is refused, and one that was deleted from then on."""
    fill(acl.worker)
    assert acl.get("/v1/scan", "") == (200, '{"entries":[],"next":null}')
    made = acl.token('key "a" { policy = "read" }')
    assert [entry["Key"] for entry in json.loads(acl.get("/v1/scan", made["SecretID"])[1])["entries"]] == ["a"]
    assert acl.call("DELETE", f"/v1/acl/token/{made['AccessorID']}").status == 200
    for query in ("", "stale", "consistency=available"):
        assert acl.get(f"/v1/scan?{query}", made["SecretID"]) == (403, "ACL not found")
    assert len(json.loads(acl.get("/v1/scan")[1])["entries"]) == len(KEYS)
