"""``/v1/cluster/check``: a check begins with POST and is looked at with GET; every refusal is a problem that says its outcome."""

import json
from typing import Any

import pytest

from service.api.routes.check import PATH, routes
from service.api.routes.node import Node
from service.domain.commands import CheckState, encode
from service.domain.results import WriteResult
from service.domain.results import encode as encode_result
from service.errors import BackendError, NoLeader, OutcomeUnknown
from service.settings import load


class Backend:
    """The agent as the route sees it.

    :ivar error: raised instead of an answer.
    """

    def __init__(self, error: BackendError | None = None) -> None:
        self.error = error
        self.asked: list[object] = []

    def propose(self, command: bytes) -> bytes:
        """Apply a command at index 17."""
        self.asked.append(command)
        if self.error:
            raise self.error
        return encode_result(WriteResult(ok=True, index=17))

    def check(self, index: int) -> dict[str, Any]:
        """Everybody agrees."""
        self.asked.append(index)
        if self.error:
            raise self.error
        return {"index": index, "verdict": "equal", "nodes": []}


def answer(backend: Backend, method: str, query: str = "") -> tuple[int, dict[str, str], Any]:
    """One request."""
    node = Node(backend, load({"KVORUM_NAME": "n1", "KVORUM_DATA_DIR": "/nowhere"}))  # type: ignore[arg-type]  # as much of it as is asked
    (route,) = routes(node)
    assert route.path == PATH
    status, headers, body = route.answer({"REQUEST_METHOD": method, "QUERY_STRING": query})
    return status, dict(headers), json.loads(body) if body.startswith(b"{") else body


def test_begin_and_look() -> None:
    """POST proposes a check and tells its index; GET with that index tells how far everybody is."""
    backend = Backend()
    assert answer(backend, "POST")[::2] == (200, {"index": 17})
    assert answer(backend, "GET", "at=17&pretty")[::2] == (200, {"index": 17, "verdict": "equal", "nodes": []})
    assert backend.asked == [encode(CheckState()), 17]


@pytest.mark.parametrize("query", ["", "at=", "at=0", "at=-1", "at=x", "at=1.5", "at=9223372036854775808", "at=" + "9" * 99, "at=%D9%A1", "index=17"])
def test_bad_index(query: str) -> None:
    """An index that is none is a problem that names it; nobody is asked."""
    backend = Backend()
    status, headers, problem = answer(backend, "GET", query)
    assert (status, headers["Content-Type"], problem["type"]) == (400, "application/problem+json", "urn:kvorum:problem:malformed")
    assert "a number from 1" in problem["detail"]
    assert backend.asked == []


@pytest.mark.parametrize(("error", "status", "outcome"), [(NoLeader(), 503, "rejected"), (OutcomeUnknown("the connection broke"), 500, "unknown")])
def test_failures(error: BackendError, status: int, outcome: str) -> None:
    """A check that did not begin says so, and one that may have begun says that."""
    found, headers, problem = answer(Backend(error), "POST")
    assert (found, headers["X-Kvorum-Outcome"], problem["outcome"], problem["status"]) == (status, outcome, outcome, status)
    found, headers, problem = answer(Backend(error), "GET", "at=1")
    assert (found, "X-Kvorum-Outcome" in headers, problem["type"]) == (503, False, "urn:kvorum:problem:no-leader")


def test_other_methods() -> None:
    """Any other method is not allowed, and the answer says which are."""
    status, headers, _ = answer(Backend(), "PUT")
    assert (status, headers["Allow"]) == (405, "OPTIONS,GET,POST")
