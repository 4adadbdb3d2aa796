"""The short cut before Flask: the same answers, only sooner."""

from functools import cache
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.worker.response import Complete, Date

PARAMETERS = ["raw", "stale", "consistent", "pretty", "cached", "flags=7", "flags=x", "cas=0", "cas=1", "acquire=x", "dc=dc1", "dc=no"]
PARAMETERS += ["ns=x", "wait=1x", "%zz", "index=0", "index=1&wait=1ms", "index=9999&wait=1ms", "index=x", "keys", "recurse", "separator=/"]
SEGMENTS = ["a", "b c", "a%20b", "%2F", "..", ".x", "", "\xc3\xbc", "%0a", "<&>", "x" * 300]

of_keys = st.tuples(
    st.sampled_from(["GET", "PUT", "DELETE", "HEAD", "OPTIONS", "FOO"]),
    st.builds(
        lambda segments, query: "/v1/kv/" + "/".join(segments) + ("?" + "&".join(query) if query else ""),
        st.lists(st.sampled_from(SEGMENTS), max_size=3),
        st.lists(st.sampled_from(PARAMETERS), max_size=3),
    ),
    st.one_of(st.none(), st.binary(max_size=8)),
)
BODIES = [b"", b"{", b"[]", b"null", b'[{"KV":{"Verb":"set","Key":"a","Value":"dg=="}},{"KV":{"Verb":"set","Key":"<b>","Flags":7}}]']
BODIES += [b'[{"KV":{"Verb":"get","Key":"a"}}]', b'[{"KV":{"Verb":"cas","Key":"a","Index":1,"Value":"eA=="}},{"KV":{"Verb":"delete","Key":"b"}}]']
transactions = st.tuples(
    st.sampled_from(["PUT", "PUT", "PUT", "GET", "POST"]),
    st.builds(
        lambda path, query: path + ("?" + "&".join(query) if query else ""),
        st.sampled_from(["/v1/txn", "/v1/txn", "/v1/txn", "/v1/txn/", "/v1//txn", "/v1/t%78n"]),
        st.lists(st.sampled_from(PARAMETERS), max_size=2),
    ),
    st.sampled_from(BODIES),
)
requests = st.one_of(of_keys, transactions)


def read(answer: Complete) -> tuple[int, dict[str, str], bytes]:
    """An answer as the test's client tells it, without what the web server adds."""
    head, _, body = answer.to_bytes(Date(), 1, keeps=True).partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:])
    return int(lines[0].split()[1]), {name: headers[name] for name in headers if name not in ("Server", "Date", "Connection")}, body


@cache
def client(length: int | None) -> MappingProxyType[str, str]:
    """The headers of a request: one object for the same lines, as the web server does it."""
    return MappingProxyType({"HTTP_HOST": "localhost", "HTTP_X_REQUEST_ID": "r"} | ({} if length is None else {"CONTENT_LENGTH": str(length)}))


@pytest.fixture
def pair(make_worker: Any) -> tuple[Any, Any]:
    """Two workers, each with a store of its own."""
    return make_worker(), make_worker()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(requests, min_size=1, max_size=6))
def test_answers_are_identical(pair: tuple[Any, Any], script: list[tuple[str, str, bytes | None]]) -> None:
    """The same requests, one by one, have the same answers with and without the short cut."""
    fast, flask = pair
    for method, uri, body in script:
        assert fast.call(method, uri, body) == flask.call(method, uri, body, app=flask.app), (method, uri, body)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(requests, min_size=1, max_size=12))
def test_answers_without_an_environment_are_identical(pair: tuple[Any, Any], script: list[tuple[str, str, bytes | None]]) -> None:
    """What is answered to the web server directly is what WSGI answers, header by header; what is not is left to WSGI."""
    direct, through = pair
    for method, uri, body in script:
        answer = direct.fast.fast(method, uri, client(None if body is None else len(body)), body or b"")
        if answer is None:
            direct.call(method, uri, body)
            through.call(method, uri, body)
            continue
        assert read(answer) == through.call(method, uri, body, X_Request_Id="r"), (method, uri, body)


def test_the_usual_needs_no_environment(worker: Any) -> None:
    """GET and PUT of one key are answered directly, a chunked body and one that is too long included, and transactions; nothing else is."""
    chunked, long = {"HTTP_TRANSFER_ENCODING": "chunked"}, {"CONTENT_LENGTH": "600000"}
    assert worker.fast.fast("PUT", "/v1/kv/a", chunked, b"v").body == b"true"
    assert worker.fast.fast("GET", "/v1/kv/a?raw", {}, b"").body == b"v"
    assert worker.fast.fast("PUT", "/v1/kv/a", long, b"x" * 600_000).status.startswith(b"413 ")
    assert worker.fast.fast("PUT", "/v1/txn?pretty", client(len(BODIES[-2])), BODIES[-2]).status == b"200 OK"
    for method, uri in (
        ("DELETE", "/v1/kv/a"),
        ("GET", "/v1/kv/?keys"),
        ("PUT", "/v1/kv/a?keys"),
        ("PUT", "/v1/kv/a?index=1"),
        ("GET", "/v1/status/leader"),
        ("HEAD", "/v1/kv/a"),
        ("GET", "/v1/txn"),
        ("PUT", "/v1/txn/"),
        ("PUT", "/v1/txn?index=1"),
    ):
        assert worker.fast.fast(method, uri, {}, b"") is None


@pytest.mark.parametrize("uri", ["/v1/kv/a", "/v1/kv/a/b?raw", "/v1/kv/a?stale&pretty"])
def test_usual_requests_do_not_reach_flask(worker: Any, uri: str) -> None:
    """What is usual is answered without Flask."""

    def flask(*_: Any) -> Any:
        raise AssertionError("Flask was called")

    worker.fast._app = flask
    assert worker.call("GET", uri).status == 404
    assert worker.call("PUT", uri, b"v").body.strip() == b"true"


@pytest.mark.parametrize(
    "uri",
    ["/v1/kv/a%20b", "/v1/kv/", "/v1/kv/%61?keys", "/v1/kv/a//b", "/v1/kv/.a", "/v1/status/leader", "/v1/kv/a?wait=z"],
)
def test_unusual_requests_reach_flask(worker: Any, uri: str) -> None:
    """Everything else is Flask's."""
    seen = []
    flask = worker.fast._app

    def count(environ: Any, start_response: Any) -> Any:
        seen.append(environ["RAW_URI"])
        return flask(environ, start_response)

    worker.fast._app = count
    worker.call("GET", uri)
    assert seen == [uri]


def test_unexpected_failure(worker: Any, caplog: pytest.LogCaptureFixture) -> None:
    """An error nobody foresaw is an answer, too: logged, without a traceback in it, and a write's outcome is unknown."""

    def fail(_: bytes) -> bytes:
        raise ZeroDivisionError

    worker.client.propose = fail
    for app in (worker.fast, worker.app):
        reply = worker.call("PUT", "/v1/kv/a", b"v", app=app)
        assert (reply.status, reply.headers["X-Kvorum-Outcome"]) == (500, "unknown")
        assert b"Traceback" not in reply.body
    assert caplog.text.count("ZeroDivisionError") >= 2


def test_requests_are_counted(worker: Any) -> None:
    """Both ways count what they answer."""
    worker.call("GET", "/v1/kv/a")
    worker.call("GET", "/v1/kv/a", app=worker.app)
    worker.call("PATCH", "/v1/kv//a")
    assert worker.app.extensions["kvorum"].requests.counts == {("GET", 404): 2, ("other", 301): 1}
