"""``Idempotency-Key``: a write that may be sent twice takes effect once; both ways into the application."""

import json
from collections.abc import Callable
from typing import Any

import pytest

REPLAYED = "Idempotency-Replayed"


@pytest.fixture(params=["fast", "flask"])
def call(request: pytest.FixtureRequest, worker: Any) -> Callable[..., Any]:
    """Sends a request through the short cut, or to Flask alone."""
    app = worker.fast if request.param == "fast" else worker.app
    return lambda *arguments, **headers: worker.call(*arguments, app=app, **headers)


TXN = b'[{"KV":{"Verb":"set","Key":"t","Value":"eA=="}},{"KV":{"Verb":"get","Key":"t"}}]'
WRITES = [
    ("PUT", "/v1/kv/a", b"v", {}),
    ("PUT", "/v1/kv/a?flags=7&pretty", b"v", {}),
    ("PUT", "/v1/kv/a?cas=1", b"v", {}),
    ("PUT", "/v1/kv/a", b"v", {"If_Match": '"1"'}),
    ("PUT", "/v1/kv/a?acquire=12345678-1234-1234-1234-123456789012", b"v", {}),
    ("DELETE", "/v1/kv/a", None, {}),
    ("DELETE", "/v1/kv/a?recurse", None, {}),
    ("PUT", "/v1/txn", TXN, {}),
    ("PUT", "/v1/txn", b'[{"KV":{"Verb":"delete","Key":"x"}},{"KV":{"Verb":"check-index","Key":"none","Index":1}}]', {}),
    ("PUT", "/v1/session/create", b'{"TTL":"10s"}', {}),
    ("PUT", "/v1/session/destroy/12345678-1234-1234-1234-123456789012", None, {}),
]


@pytest.mark.parametrize("write", WRITES)
def test_the_same_answer_again(call: Any, worker: Any, write: tuple[str, str, bytes | None, dict[str, str]]) -> None:
    """The second of two alike changes nothing and has the answer of the first, whatever that was, with a header that says so."""
    method, uri, body, headers = write
    first = call(method, uri, body, Idempotency_Key="k", X_Request_Id="one", X_Change_Reason="because", **headers)
    assert REPLAYED not in first.headers
    call("PUT", "/v1/kv/a", b"changed meanwhile")
    before = worker.reader.list(b"").rows
    again = call(method, uri, body, Idempotency_Key="k", X_Request_Id="two", **headers)
    assert again.headers.pop(REPLAYED) == "true"
    for reply in (first, again):
        reply.headers.pop("X-Request-Id", None)
    assert again == first
    assert worker.reader.list(b"").rows == before
    assert len(worker.reader.sessions().sessions) == ("session/create" in uri)


@pytest.mark.parametrize(
    "other", [("PUT", "/v1/kv/a", b"w"), ("PUT", "/v1/kv/a?flags=1", b"v"), ("PUT", "/v1/kv/b", b"v"), ("DELETE", "/v1/kv/a", None)]
)
def test_a_key_stands_for_one_request(call: Any, worker: Any, other: tuple[str, str, bytes | None]) -> None:
    """Another request under a key that is taken is a 422 that changes nothing and says so."""
    assert call("PUT", "/v1/kv/a", b"v", Idempotency_Key="k").body == b"true"
    reply = call(*other, Idempotency_Key="k")
    assert (reply.status, reply.headers["Content-Type"], reply.headers["X-Kvorum-Outcome"]) == (422, "application/problem+json", "rejected")
    assert 'Idempotency-Key "k" stands for another request, which was carried out at index 4' in json.loads(reply.body)["detail"]
    assert [row.value for row in worker.reader.list(b"").rows] == [b"v"]


def test_cl_04_lost_answers(call: Any, worker: Any) -> None:
    """The answer to a cas write is lost. Without a key the retry says false, though the value is there; with one it says true."""
    for key, headers, expected in (("a", {}, b"false"), ("b", {"Idempotency_Key": "k"}, b"true")):
        worker.agent.drop_on_propose = True
        lost = call("PUT", f"/v1/kv/{key}?cas=0", b"mine", **headers)
        assert (lost.status, lost.headers["X-Kvorum-Outcome"]) == (500, "unknown")
        worker.agent.drop_on_propose = False
        worker.until(lambda: worker.client.connected)
        assert call("PUT", f"/v1/kv/{key}?cas=0", b"mine", **headers).body == expected
        assert worker.reader.get(key.encode()).row.value == b"mine"


def test_cl_03_what_is_forgotten_is_not_done_twice(make_worker: Any) -> None:
    """Once a key is forgotten, a retry that says since when it asks is refused, and its outcome is unknown; others are done again."""
    worker = make_worker(idempotency_entries=2)
    first = worker.call("PUT", "/v1/kv/a", b"v", Idempotency_Key="k", X_Kvorum_Since="3")
    assert first.body == b"true"
    for _ in range(3):
        worker.put("a", b"newer")
    reply = worker.call("PUT", "/v1/kv/a", b"v", Idempotency_Key="k", X_Kvorum_Since="3")
    assert (reply.status, reply.headers["X-Kvorum-Outcome"]) == (409, "unknown")
    assert json.loads(reply.body)["type"].endswith("idempotency-key-forgotten")
    assert worker.reader.get(b"a").row.value == b"newer"
    assert worker.call("PUT", "/v1/kv/a", b"v", Idempotency_Key="new", X_Kvorum_Since=first.headers["X-Kvorum-Index"]).body == b"true"
    assert worker.call("PUT", "/v1/kv/a", b"v", Idempotency_Key="k").body == b"true"


def test_limits_in_force_travel_along(worker: Any) -> None:
    """A changed setting counts from the next request on."""
    worker.agent.configure(idempotency_bytes=1)
    worker.until(lambda: worker.app.extensions["kvorum"].live.now.idempotency_bytes == 1)
    for key in ("one", "two"):
        worker.call("PUT", "/v1/kv/a", b"v", Idempotency_Key=key)
    assert REPLAYED in worker.call("PUT", "/v1/kv/a", b"v", Idempotency_Key="two").headers
    assert REPLAYED not in worker.call("PUT", "/v1/kv/a", b"v", Idempotency_Key="one").headers


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ({"Idempotency_Key": ""}, 'Idempotency-Key is "", 0 long; 1 to 255 printable characters of ASCII can be.'),
        ({"Idempotency_Key": "\xe9"}, 'Idempotency-Key is "é", 1 long; 1 to 255 printable characters of ASCII can be.'),
        ({"Idempotency_Key": "x" * 256}, f'Idempotency-Key is "{"x" * 255}", 256 long; 1 to 255 printable characters of ASCII can be.'),
        ({"Idempotency_Key": "k", "X_Kvorum_Since": "-1"}, 'X-Kvorum-Since is "-1"; a log index was expected.'),
    ],
)
def test_nonsense(call: Any, worker: Any, headers: dict[str, str], text: str) -> None:
    """A key or an index that can't be is refused with the value and the limit; nothing is proposed."""
    for method, uri in (("PUT", "/v1/kv/a"), ("DELETE", "/v1/kv/a"), ("PUT", "/v1/session/create")):
        reply = call(method, uri, b"", **headers)
        assert (reply.status, reply.body.decode(), reply.headers["X-Kvorum-Outcome"]) == (400, text, "rejected")
    assert worker.agent.machine.applied_index == 3


def test_reads_pass_it_over(call: Any, worker: Any) -> None:
    """On a read the header means nothing."""
    worker.put("a")
    assert call("GET", "/v1/kv/a", Idempotency_Key="k") == call("GET", "/v1/kv/a")
