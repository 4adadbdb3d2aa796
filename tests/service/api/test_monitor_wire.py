"""Following the agent's log, and its metrics, over HTTP."""

import json
import logging
import re
import socket
from typing import Any

import pytest

from service.api.monitoring import FOLLOWERS_MAX, LINES_MAX, as_text
from service.api.routes import monitor
from service.ipc import protocol

MONITOR = "/v1/agent/monitor"
LINES = [protocol.Logged(level, 1_700_000_000_123, "raft", f"line {level}") for level in (10, 20, 30, 40)]


def follow(worker: Any, uri: str = MONITOR) -> Any:
    """Begin to follow; returns the pieces of the body once the agent knows."""
    began = len(worker.agent.received(protocol.Monitor))
    pieces = iter(worker.open("GET", uri))
    assert next(pieces) == b""
    worker.until(lambda: len(worker.agent.received(protocol.Monitor)) > began)
    return pieces


def test_lines(worker: Any) -> None:
    """Lines of the level and above come in Consul's form, from the moment on at which somebody follows."""
    pieces = follow(worker)
    assert worker.agent.received(protocol.Monitor)[-1].level == logging.INFO
    for line in LINES:
        worker.agent.send(line)
    text = next(pieces)
    while text.count(b"\n") < 3:
        text += next(pieces)
    form = "2023-11-14T22:13:20.123Z {} raft: line {}\n"
    assert text.decode() == form.format("[INFO] ", 20) + form.format("[WARN] ", 30) + form.format("[ERROR]", 40)
    pieces.close()
    worker.until(lambda: worker.agent.received(protocol.Monitor)[-1].level == 0)


def test_json_lines_and_levels(worker: Any) -> None:
    """The lowest level that anybody wants is asked of the agent; each gets what it wants."""
    errors, everything = follow(worker, f"{MONITOR}?loglevel=err"), follow(worker, f"{MONITOR}?loglevel=trace&logjson=true")
    assert [frame.level for frame in worker.agent.received(protocol.Monitor)] == [logging.ERROR, 1]
    for line in (LINES[0], LINES[3]):
        worker.agent.send(line)
    assert next(errors).endswith(b"[ERROR] raft: line 40\n")
    assert json.loads(next(everything).splitlines()[0]) == {
        "@level": "debug",
        "@message": "line 10",
        "@module": "raft",
        "@timestamp": "2023-11-14T22:13:20.123Z",
    }
    everything.close()
    worker.until(lambda: worker.agent.received(protocol.Monitor)[-1].level == logging.ERROR)
    errors.close()


def test_bad_level(worker: Any) -> None:
    """A level that there is not is refused with Consul's text."""
    assert worker.call("GET", f"{MONITOR}?loglevel=bogus")[::2] == (400, b"Bad request: Unknown log level: bogus")
    assert worker.call("PUT", MONITOR, b"").headers["Allow"] == "OPTIONS,GET"


def test_slow_reader(worker: Any) -> None:
    """Whoever reads too slowly gets the first lines and how many were left out; nothing grows without end."""
    pieces = follow(worker)
    for _ in range(LINES_MAX + 5):
        worker.app.extensions["kvorum"].monitoring._logged(LINES[1])
    text = next(pieces).decode()
    assert text.count("line 20") == LINES_MAX
    assert "5 lines were left out" in text
    pieces.close()


def test_many_followers(worker: Any) -> None:
    """There is a limit, and those who go make room."""
    kept = [follow(worker)]
    monitoring = worker.app.extensions["kvorum"].monitoring
    kept += [iter(worker.open("GET", MONITOR)) for _ in range(FOLLOWERS_MAX - 1)]
    assert [next(one) for one in kept[1:]] == [b""] * (FOLLOWERS_MAX - 1)
    reply = worker.call("GET", MONITOR)
    assert (reply.status, reply.body) == (429, b"Too many requests follow the log: 32 do already.")
    kept.pop().close()
    assert len(monitoring._followers) == FOLLOWERS_MAX - 1
    for one in kept:
        one.close()


def test_ends_with_the_node(worker: Any) -> None:
    """A node that stops ends every stream; one whose agent comes back goes on."""
    pieces = follow(worker)
    worker.agent.drop()
    worker.until(lambda: len(worker.agent.received(protocol.Monitor)) > 1)
    worker.agent.send(LINES[1])
    assert next(pieces).endswith(f"{as_text(LINES[1])}\n".encode())
    worker.agent.tell(quitting=True)
    assert list(pieces) == []


def test_client_that_goes() -> None:
    """A connection that the client closed is noticed without a write."""
    ours, theirs = socket.socketpair()
    is_gone = monitor._is_gone({"gunicorn.socket": ours})
    assert not is_gone()
    theirs.close()
    assert is_gone()
    ours.close()
    assert not monitor._is_gone({})()


@pytest.mark.parametrize("query", ["", "?format=bogus"])
def test_metrics(worker: Any, query: str) -> None:
    """The JSON has Consul's shape; numbers are numbers."""
    reply = worker.call("GET", f"/v1/agent/metrics{query}")
    told = json.loads(reply.body)
    assert list(told) == ["Timestamp", "Gauges", "Points", "Counters", "Samples"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \+0000 UTC", told["Timestamp"])
    gauges = {one["Name"]: one["Value"] for one in told["Gauges"]}
    assert (gauges["consul.raft.state.leader"], gauges["consul.raft.applied_index"], gauges["kvorum.log_entries"]) == (1, 3, 4)
    assert list(told["Gauges"][0]) == ["Name", "Value", "Labels"]
    assert b".0," not in reply.body


def test_metrics_for_prometheus(worker: Any) -> None:
    """The same numbers as text."""
    reply = worker.call("GET", "/v1/agent/metrics?format=prometheus")
    assert reply.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert b"# TYPE consul_raft_state_leader gauge\nconsul_raft_state_leader 1\n" in reply.body
