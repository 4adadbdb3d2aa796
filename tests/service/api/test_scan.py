"""``GET /v1/scan``: pages in byte order."""

import json
import random
from base64 import b64decode
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import pytest

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
