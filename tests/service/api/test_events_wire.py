"""Events over HTTP. Texts, shapes and headers as recorded from Consul 1.8.7."""

import json
from typing import Any

import gevent
import pytest

from service.domain import commands
from service.domain.commands import FireEvent
from service.domain.events import KEPT, index_of

LIST = "/v1/event/list"
TEXT = "text/plain; charset=utf-8"
TOO_LONG = b'1 error occurred:\n\t* error broadcasting event to segment "": user event exceeds configured limit of 512 bytes before encoding\n\n'


def fire(worker: Any, name: str, body: bytes = b"x") -> dict[str, Any]:
    """Fire an event; returns what the answer says."""
    reply = worker.call("PUT", f"/v1/event/fire/{name}", body)
    assert reply.status == 200, reply
    told: dict[str, Any] = json.loads(reply.body)
    return told


def names(worker: Any, query: str = "") -> list[str]:
    """The names of the events that are listed."""
    return [event["Name"] for event in json.loads(worker.call("GET", LIST + query).body)]


def test_fire(worker: Any) -> None:
    """The answer is the event, its LTime not known yet, without headers of an index."""
    reply = worker.call("PUT", "/v1/event/fire/deploy", b"hello")
    told = json.loads(reply.body)
    form = '{"ID":"%s","Name":"deploy","Payload":"aGVsbG8=","NodeFilter":"","ServiceFilter":"","TagFilter":"","Version":1,"LTime":0}'
    assert reply.body.decode() == form % told["ID"]
    assert {name for name in reply.headers if name != "Content-Length"} == {"Content-Type"}
    assert fire(worker, "a%2Fb", b"\x00\xff")["Payload"] == "AP8="
    empty = worker.call("PUT", "/v1/event/fire/empty?pretty&dc=dc1")
    assert b'    "Payload": null,\n' in empty.body
    assert empty.body.endswith(b"}\n")
    assert names(worker) == ["deploy", "a/b", "empty"]


def test_list(worker: Any) -> None:
    """Events stand in the order of their firing, LTimes grow from 2; the index is that of the newest shown, made of its id."""
    reply = worker.call("GET", LIST)
    assert (reply.body, reply.headers["X-Consul-Index"], reply.headers["Content-Type"]) == (b"[]", "1", "application/json")
    assert "X-Consul-Knownleader" not in reply.headers
    first, second = fire(worker, "a", b"1"), fire(worker, "b", b"2")
    reply = worker.call("GET", LIST)
    assert json.loads(reply.body) == [first | {"LTime": 2}, second | {"LTime": 3}]
    assert reply.headers["X-Consul-Index"] == str(index_of(second["ID"]))
    assert worker.call("GET", f"{LIST}?name=a").headers["X-Consul-Index"] == str(index_of(first["ID"]))
    assert worker.call("GET", f"{LIST}?name=none").headers["X-Consul-Index"] == "1"
    assert names(worker, "?stale&consistent&dc=nope&ns=x&node=other") == ["a", "b"]


def test_index_of_an_event() -> None:
    """The index is what Consul's clients compute from an id (the pairs were recorded from a real one)."""
    assert index_of("9b1c3bdf-95eb-db23-303c-cf35759b7616") == 12331125069365423413
    assert index_of("eddb9862-86c0-1ff5-a93a-dac21e022f37") == 4963321521864061122


def test_list_without_a_leader(worker: Any) -> None:
    """The list is the node's own, so it needs nobody else."""
    fire(worker, "a")
    worker.agent.failing = "no-leader"
    assert names(worker) == ["a"]
    reply = worker.call("PUT", "/v1/event/fire/b", b"")
    assert (reply.status, reply.body) == (500, b"No cluster leader")


def test_filters(worker: Any) -> None:
    """An event for other nodes, or for the nodes of a service, is answered like any other and not listed here."""
    assert fire(worker, "mine?node=%5En")["NodeFilter"] == "^n"
    fire(worker, "other?node=n2")
    told = fire(worker, "web?node=x&service=web&tag=t")
    assert (told["NodeFilter"], told["ServiceFilter"], told["TagFilter"]) == ("x", "web", "t")
    assert names(worker) == ["mine"]


@pytest.mark.parametrize(
    ("uri", "status", "body"),
    [
        ("", 400, b"Missing name"),
        ("n?tag=consul", 500, b"Cannot provide tag filter without service filter"),
        ("n?node=%28", 500, b"Invalid node filter: error parsing regexp: missing closing ): `(`"),
        ("n?service=%28", 500, b"Invalid service filter: error parsing regexp: missing closing ): `(`"),
        ("n?service=a&tag=%28", 500, b"Invalid tag filter: error parsing regexp: missing closing ): `(`"),
        ("n?node=%5Ba", 500, b"Invalid node filter: error parsing regexp: missing closing ]: `[a`"),
        ("n?node=a%2A%2A", 500, b"Invalid node filter: error parsing regexp: invalid nested repetition operator: `**`"),
        ("n?node=%2A", 500, b"Invalid node filter: error parsing regexp: missing argument to repetition operator: `*`"),
        ("n?node=a%5C", 500, b"Invalid node filter: error parsing regexp: trailing backslash at end of expression: ``"),
        ("n?node=%28%3F%3Da%29", 500, b"Invalid node filter: error parsing regexp: invalid or unsupported Perl syntax: `(?=`"),
        ("n?dc=nope", 500, b"No path to datacenter"),
    ],
)
def test_refusals(worker: Any, uri: str, status: int, body: bytes) -> None:
    """What can't be is refused with Consul's text, and nothing is fired."""
    reply = worker.call("PUT", f"/v1/event/fire/{uri}", b"x")
    assert (reply.status, reply.headers["Content-Type"], reply.body) == (status, TEXT, body)
    assert names(worker) == []


@pytest.mark.parametrize("expression", ["(a%2B)%2B%24", "(a|b)*c", ".*.*.*.*x", "((x*)y)*"])
def test_costly_filters(worker: Any, expression: str) -> None:
    """An expression that could keep every worker busy is refused."""
    reply = worker.call("PUT", f"/v1/event/fire/n?node={expression}", b"x")
    assert reply.status == 500
    assert b"expression too costly: at most 3 repetitions" in reply.body


def test_too_long(worker: Any) -> None:
    """The name counts twice; what a Consul takes is taken (the longest payloads were found out with a real one)."""
    assert len(fire(worker, "a", b"x" * 414)["Payload"]) == 552
    assert worker.call("PUT", "/v1/event/fire/a", b"x" * 415)[::2] == (500, TOO_LONG)
    assert worker.call("PUT", "/v1/event/fire/a", b"x" * 10_000)[::2] == (500, TOO_LONG)
    assert worker.call("PUT", f"/v1/event/fire/{'a' * 300}", b"")[::2] == (500, TOO_LONG)
    fire(worker, "a" * 200, b"x" * 14)


def test_methods(worker: Any) -> None:
    """One method each; without its slash the path is redirected."""
    reply = worker.call("GET", "/v1/event/fire/n")
    assert (reply.status, reply.headers["Allow"], reply.body) == (405, "OPTIONS,PUT", b"method GET not allowed")
    reply = worker.call("PUT", LIST, b"")
    assert (reply.status, reply.headers["Allow"]) == (405, "OPTIONS,GET")
    assert worker.call("GET", "/v1/event/fire").headers["Location"] == "/v1/event/fire/"
    assert worker.call("GET", f"{LIST}?index=abc")[::2] == (400, b"Invalid index")


def test_blocking(worker: Any) -> None:
    """A list waits for another newest event of its name, whatever the numbers, and for nothing else."""
    fire(worker, "a")
    index = worker.index(f"{LIST}?name=a")
    waiting = gevent.spawn(worker.call, "GET", f"{LIST}?name=a&index={index}&wait=30s")
    worker.until(lambda: worker.blocking.waiting == 1)
    fire(worker, "b")
    worker.put("k")
    gevent.sleep(0.05)
    assert not waiting.ready()
    second = fire(worker, "a", b"2")
    reply = waiting.get(timeout=10)
    assert [event["ID"] for event in json.loads(reply.body)][-1] == second["ID"]
    assert worker.index(f"{LIST}?name=a&index={index}&wait=30s") == index_of(second["ID"]) != index
    worker.until(lambda: worker.blocking.waiting == 0)


def test_waiting_for_the_first(worker: Any) -> None:
    """A list that is empty has the index 1, and waits for the first event; it gives up in time."""
    assert worker.index(f"{LIST}?name=a&index=1&wait=10ms") == 1
    waiting = gevent.spawn(worker.call, "GET", f"{LIST}?name=a&index=1&wait=30s")
    worker.until(lambda: worker.blocking.waiting == 1)
    fire(worker, "a")
    assert json.loads(waiting.get(timeout=10).body)[0]["Name"] == "a"


def test_bounded(worker: Any) -> None:
    """The newest 256 are kept, on every node the same ones."""
    for number in range(KEPT + 2):
        worker.agent.apply(_entry(FireEvent(f"00000000-0000-0000-0000-{number:012}", f"e{number}".encode())))
    assert names(worker) == [f"e{number}" for number in range(2, KEPT + 2)]


def _entry(command: FireEvent) -> bytes:
    return commands.stamp(commands.encode(command), 1)
