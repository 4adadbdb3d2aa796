"""Answers that are given again: never older than the lease or a barrier allows, and never to somebody who may not have them."""

import json
from types import MappingProxyType
from typing import Any

import pytest
from acl_keeper import Keeper

from service.api import kept
from service.api.consistency import Freshness
from service.api.kept import Kept, KeptAnswers
from service.ipc import protocol
from service.ipc.page import LeasePage
from service.store.reader import Reader
from service.worker.response import Complete, Date

FAR = 2**62
CLIENT = MappingProxyType({"HTTP_HOST": "x"})


def head(uri: str, client: Any) -> bytes:
    """The bytes of a request."""
    lines = "".join(f"\r\n{name.removeprefix('HTTP_').replace('_', '-')}: {value}" for name, value in client.items())
    return f"GET {uri} HTTP/1.1{lines}".encode()


def answer(worker: Any, uri: str = "/v1/kv/a", client: Any = CLIENT) -> Complete:
    """The answer to a GET that needs no environment, as the web server asks for it."""
    recalled = worker.fast.recall(head(uri, client))
    if isinstance(recalled, Complete):
        return recalled
    found: Complete = worker.fast.fast("GET", uri, client, b"", recalled)
    return found


def get(worker: Any, uri: str = "/v1/kv/a", client: Any = CLIENT) -> bytes:
    """Its body."""
    return answer(worker, uri, client).body


def kept_for(worker: Any, uri: str, client: Any) -> Kept | None:
    """What is kept, were it asked for now."""
    found: Kept | None = worker.fast._kept.find(head(uri, client), worker.client.connection)
    return found


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The keys that were read from the state."""
    read: list[bytes] = []
    plain = Reader.get
    monkeypatch.setattr(Reader, "get", lambda reader, key: read.append(key) or plain(reader, key))
    return read


@pytest.mark.parametrize("uri", ["/v1/kv/a?raw", "/v1/kv/a?raw&consistent"])
@pytest.mark.usefixtures("page")
def test_the_state_is_read_once(worker: Any, reads: list[bytes], uri: str) -> None:
    """From the third time on: the first shows a client's header lines, the second is kept."""
    assert [get(worker, uri) for _ in range(5)] == [b"v"] * 5
    assert reads == [b"a"] * 2


def test_nothing_is_given_again_that_may_be_outdated(worker: Any, page: LeasePage, reads: list[bytes]) -> None:
    """Once anything newer has to be seen, the state is read again, and that is kept."""
    for _ in range(3):
        get(worker)
    page.publish(FAR, worker.put("b"))
    assert [get(worker, "/v1/kv/a?raw") for _ in range(3)] == [b"v"] * 3
    page.publish(FAR, worker.put("a", b"w"))
    del reads[:]
    assert [get(worker, "/v1/kv/a?raw") for _ in range(3)] == [b"w"] * 3
    assert reads == [b"a"]


def test_every_read_has_its_barrier(worker: Any) -> None:
    """Without a lease the agent is asked each time, once, before an answer is given again; also after a change."""
    worker.put("a", b"v")
    before = len(worker.agent.received(protocol.Barrier))
    assert [get(worker, "/v1/kv/a?raw") for _ in range(4)] == [b"v"] * 4
    assert len(worker.agent.received(protocol.Barrier)) - before == 4
    worker.put("a", b"w")
    before = len(worker.agent.received(protocol.Barrier))
    assert [get(worker, "/v1/kv/a?raw") for _ in range(2)] == [b"w"] * 2
    assert len(worker.agent.received(protocol.Barrier)) - before == 2


def test_no_answer_without_a_barrier(worker: Any) -> None:
    """What is kept is of no use to somebody who can't learn what it must hold."""
    worker.put("a", b"v")
    for _ in range(3):
        get(worker)
    worker.agent.failing = "no-leader"
    assert answer(worker).status == b"500 Internal Server Error"
    assert get(worker) == b"No cluster leader"


def test_a_failure_names_its_request(worker: Any) -> None:
    """Also where the answer would have been one that is kept."""
    worker.put("a", b"v")
    client = MappingProxyType({"HTTP_HOST": "x", "HTTP_X_REQUEST_ID": "r-1"})
    for _ in range(3):
        assert b"r-1" in answer(worker, client=client).to_bytes(Date(), 1, keeps=True)
    assert kept_for(worker, "/v1/kv/a", client) is not None
    worker.agent.failing = "no-leader"
    failed = answer(worker, client=client)
    assert failed.status == b"500 Internal Server Error"
    assert b"r-1" in failed.to_bytes(Date(), 1, keeps=True)


@pytest.mark.usefixtures("page")
def test_what_is_more_than_a_head_is_not_kept(worker: Any, reads: list[bytes]) -> None:
    """The web server says so by saying nothing; methods that change something are not even looked for."""
    for _ in range(4):
        assert worker.fast.fast("GET", "/v1/kv/a?raw", CLIENT, b"body").body == b"v"
    assert len(reads) == 4
    assert worker.fast.recall(b"PUT /v1/kv/a HTTP/1.1") is None


@pytest.mark.usefixtures("page")
def test_clients_with_other_header_lines_have_their_own(worker: Any, reads: list[bytes]) -> None:
    """Two that ask the same in turn don't drive out each other's answers."""
    clients = [CLIENT, MappingProxyType({"HTTP_HOST": "x", "HTTP_USER_AGENT": "curl"})]
    for _ in range(4):
        assert [get(worker, "/v1/kv/a?raw", client) for client in clients] == [b"v"] * 2
    assert len(reads) == 4


def test_another_agent_may_have_another_state(worker: Any, reads: list[bytes]) -> None:
    """An agent that finds its state damaged sets it aside, and is another one then: nothing of what was read before it is given again."""
    worker.put("a", b"v")
    for _ in range(3):
        get(worker)
    before = worker.client.connection
    worker.agent.drop()
    worker.until(lambda: worker.client.connection > before)
    del reads[:]
    assert get(worker, "/v1/kv/a?raw") == b"v"
    assert reads == [b"a"]
    assert kept_for(worker, "/v1/kv/a", CLIENT) is None


def test_an_answer_that_took_longer_than_the_connection() -> None:
    """It comes from the files of the agent before, which may have set them aside."""
    answers = KeptAnswers()
    made = Kept(Complete("200 OK", [], b""), 200, CLIENT, 1, Freshness(fresh=True))
    for connection in (1, 1, 2):
        answers.find(b"GET /v1/kv/a", connection)
        answers.keep(b"GET /v1/kv/a", made, 1)
    assert answers.find(b"GET /v1/kv/a", 2) is None
    answers.keep(b"GET /v1/kv/a", made, 2)
    assert answers.find(b"GET /v1/kv/a", 2) is made


def test_absence_and_listings_are_kept_too(worker: Any, page: LeasePage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that is not there, names and entries: all of them until something is written."""
    uris = ["/v1/kv/none", "/v1/kv/a?keys", "/v1/kv/a?recurse"]
    page.publish(FAR, worker.put("a/b", b"v"))
    first = [[get(worker, uri) for _ in range(2)] for uri in uris]
    page.publish(FAR, worker.agent.machine.applied_index)
    with monkeypatch.context() as patched:
        patched.setattr("service.api.reads.Reads.read", None)
        assert [get(worker, uri) for uri in uris] == [again for _, again in first]
    page.publish(FAR, worker.put("a/c", b"v"))
    assert get(worker, "/v1/kv/a?keys") == b'["a","a/b","a/c"]'


@pytest.mark.parametrize("uri", ["/v1/kv/a?stale", "/v1/kv/a?consistency=available", "/v1/kv/a?consistency=stale&max_stale=1h"])
@pytest.mark.usefixtures("page")
def test_what_may_be_old_is_read(worker: Any, reads: list[bytes], uri: str) -> None:
    """Who takes what this node has gets what it has now, never something older."""
    for _ in range(4):
        get(worker, uri)
    assert len(reads) == 4


@pytest.mark.usefixtures("page")
def test_a_client_with_new_header_lines_each_time(worker: Any, reads: list[bytes]) -> None:
    """An identifier of each request, say: its answers would never be asked for again, so they take no room."""
    for number in range(5):
        get(worker, client=MappingProxyType({"HTTP_HOST": "x", "HTTP_TRACEPARENT": str(number)}))
    assert len(reads) == 5
    assert kept_for(worker, "/v1/kv/a", CLIENT) is None


def test_somebody_else_asks_the_same(acl: Keeper) -> None:
    """Other header lines are another request: a token opens nothing to whoever comes behind it."""
    acl.put("/v1/kv/a", b"v")
    keeper, nobody = MappingProxyType({"HTTP_X_CONSUL_TOKEN": acl.secret}), MappingProxyType({})
    for _ in range(3):
        assert get(acl.worker, "/v1/kv/a?raw", keeper) == b"v"
        assert get(acl.worker, "/v1/kv/a?raw", nobody) == b"Permission denied"


def test_a_permission_that_is_gone(acl: Keeper) -> None:
    """It is gone for what is kept as well, at once."""
    rules = 'key "a" { policy = "read" }'
    token = acl.token(rules)
    acl.put("/v1/kv/a", b"v")
    client = MappingProxyType({"HTTP_X_CONSUL_TOKEN": token["SecretID"]})
    assert [get(acl.worker, "/v1/kv/a?raw", client) for _ in range(3)] == [b"v"] * 3
    assert kept_for(acl.worker, "/v1/kv/a?raw", client) is not None
    assert acl.worker.call("DELETE", f"/v1/acl/token/{token['AccessorID']}", X_Consul_Token=acl.secret).status == 200
    assert get(acl.worker, "/v1/kv/a?raw", client) == b"ACL not found"


def test_a_decision_that_is_older_than_the_value(acl: Keeper) -> None:
    """An answer is as new as the oldest thing it comes from: a permission that was looked up before the value was read."""
    token = acl.token('key "a" { policy = "read" }')
    acl.put("/v1/kv/a", b"v")
    client = MappingProxyType({"HTTP_X_CONSUL_TOKEN": token["SecretID"]})
    get(acl.worker, client=client)
    resolver = acl.worker.app.extensions["kvorum"].kv.permissions._resolver
    plain = resolver.resolve

    def resolve_and_write(secret: str) -> Any:
        resolver.resolve = plain
        found = plain(secret)
        before = resolver.as_of
        acl.put("/v1/kv/b", b"v")
        resolver.as_of = before
        return found

    resolver.resolve = resolve_and_write
    found = get(acl.worker, client=client)
    kept_answer = kept_for(acl.worker, "/v1/kv/a", client)
    assert found == kept_answer.answer.body
    assert kept_answer.as_of == acl.worker.agent.machine.applied_index - 1


def test_a_token_that_expires(acl: Keeper) -> None:
    """What depends on the time is not kept."""
    policy = acl.token('key "a" { policy = "read" }')["Policies"]
    token = json.loads(acl.put("/v1/acl/token", {"Policies": policy, "ExpirationTTL": "1h"})[1])
    acl.put("/v1/kv/a", b"v")
    client = MappingProxyType({"HTTP_X_CONSUL_TOKEN": token["SecretID"]})
    assert [get(acl.worker, "/v1/kv/a?raw", client) for _ in range(3)] == [b"v"] * 3
    assert kept_for(acl.worker, "/v1/kv/a?raw", client) is None


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """When there is too much, all of it goes; what is too long does not come in."""
    monkeypatch.setattr(kept, "BYTES_MAX", 10_000)
    monkeypatch.setattr(kept, "ANSWER_BYTES_MAX", 2_000)
    answers = KeptAnswers()
    answers.find(b"/", 1)

    def keep(asked: bytes, length: int) -> bool:
        answers.keep(asked, Kept(Complete("200 OK", [], b"x" * length), 200, CLIENT, 1, Freshness(fresh=True)), 1)
        return answers.find(asked, 1) is not None

    assert not keep(b"/first", 1)  # this client's header lines are new
    assert not keep(b"/long", 2_000)
    assert [keep(b"/same", 1_000) for _ in range(100)] == [True] * 100
    assert answers.find(b"/same", 1)
    assert all(keep(b"/%d" % number, 1_000) for number in range(100))
    assert answers._bytes == sum(one.answer.bytes_kept + len(asked) for asked, one in answers._by_head.items()) <= 10_000
