"""``?consistency`` and ``?max_stale``: what a read gets while there is a leader, and while there is none."""

import time
from typing import Any

import gevent
import pytest

from service.ipc import protocol

EFFECTIVE = "X-Kvorum-Consistency"
NO_LEADER = (500, b"No cluster leader")


def alone(worker: Any, seconds: float) -> None:
    """From now on the node knows of no leader, and heard of one that long ago."""
    worker.agent.failing = "no-leader"
    contact = time.clock_gettime(time.CLOCK_BOOTTIME) - seconds
    worker.agent.tell(leader_known=False, leading=False, contact=contact)
    worker.until(lambda: not worker.client.node_state.leader_known)


def following(worker: Any, seconds: float) -> None:
    """From now on the node follows a leader that it heard of that long ago."""
    worker.agent.tell(leading=False, contact=time.clock_gettime(time.CLOCK_BOOTTIME) - seconds)
    worker.until(lambda: not worker.client.node_state.leading)


def barriers(worker: Any) -> int:
    """How often the agent was asked."""
    return len(worker.agent.received(protocol.Barrier))


@pytest.mark.parametrize(("mode", "flag", "asked"), [("default", "", 1), ("consistent", "consistent", 1), ("stale", "stale", 0)])
def test_modes_that_have_a_flag(worker: Any, mode: str, flag: str, asked: int) -> None:
    """They are the flags by another name: the same answer, the same questions to the agent."""
    worker.put("a", b"v")
    before = barriers(worker)
    reply = worker.call("GET", f"/v1/kv/a?consistency={mode}")
    frames = worker.agent.received(protocol.Barrier)[before:]
    assert reply == worker.call("GET", f"/v1/kv/a?{flag}")
    assert [frame.lease for frame in frames] == [mode == "default"] * asked


@pytest.mark.parametrize("uri", ["/v1/kv/a?raw", "/v1/kv/a?recurse&x", "/v1/session/list?x", "/v1/catalog/nodes?x"])
def test_available_asks_the_leader_while_there_is_one(worker: Any, uri: str) -> None:
    """With a leader ``available`` is a default read, and says so."""
    worker.put("a", b"v")
    before = barriers(worker)
    reply = worker.call("GET", uri + "&consistency=available")
    assert (reply.status, reply.headers[EFFECTIVE]) == (200, "leader")
    assert barriers(worker) == before + 1


@pytest.mark.parametrize("uri", ["/v1/kv/a?raw", "/v1/kv/a?recurse&x", "/v1/session/list?x", "/v1/catalog/nodes?x"])
def test_available_gives_what_there_is_without_a_leader(worker: Any, uri: str) -> None:
    """Without a leader it gives at once what the node has, and its age; a default read fails."""
    worker.put("a", b"v")
    alone(worker, 5)
    before = barriers(worker)
    reply = worker.call("GET", uri + "&consistency=available")
    assert (reply.status, reply.headers[EFFECTIVE], reply.headers["X-Consul-Knownleader"]) == (200, "stale", "false")
    assert 5000 <= int(reply.headers["X-Consul-Lastcontact"]) < 60_000
    assert barriers(worker) == before
    refused = worker.call("GET", uri)
    assert (refused.status, refused.body) == NO_LEADER


def test_available_does_not_wait_long_for_a_leader_that_is_gone(worker: Any) -> None:
    """A leader that is known and does not answer is given up soon, not after the time that a default read would wait."""
    worker.put("a", b"v")
    following(worker, 0.5)
    worker.agent.mute = True
    job = gevent.spawn(worker.call, "GET", "/v1/kv/a?raw&consistency=available")
    worker.until(job.ready, 10)
    assert (job.value.status, job.value.body, job.value.headers[EFFECTIVE]) == (200, b"v", "stale")


def test_available_waits_for_changes_too(worker: Any) -> None:
    """A blocking query without a leader answers with what the node applies meanwhile."""
    index = worker.put("a", b"v")
    alone(worker, 1)
    job = gevent.spawn(worker.call, "GET", f"/v1/kv/a?raw&consistency=available&index={index}&wait=60s")
    worker.until(lambda: worker.blocking.waiting == 1)
    worker.agent.failing = ""
    worker.put("a", b"w")
    worker.until(job.ready)
    assert (job.value.body, job.value.headers[EFFECTIVE]) == (b"w", "stale")


def test_available_transactions(worker: Any) -> None:
    """A transaction that only reads is as any other read."""
    worker.put("a", b"v")
    alone(worker, 5)
    body = b'[{"KV":{"Verb":"get","Key":"a"}}]'
    reply = worker.call("PUT", "/v1/txn?consistency=available", body)
    assert (reply.status, reply.headers[EFFECTIVE]) == (200, "stale")
    assert int(reply.headers["X-Consul-Lastcontact"]) >= 5000
    assert worker.call("PUT", "/v1/txn", body).status == 500


@pytest.mark.parametrize(("age", "limit", "asked"), [(5, "1s", 1), (5, "1m", 0), (5, "0s", 0), (5, "-1s", 0), (0, "10s", 0)])
def test_what_is_too_old_goes_to_the_leader(worker: Any, age: float, limit: str, asked: int) -> None:
    """A stale read older than ``max_stale`` is a default read instead; a limit of nothing limits nothing, as in Consul."""
    worker.put("a", b"v")
    following(worker, age)
    before = barriers(worker)
    for spelling in ("stale", "consistency=stale"):
        reply = worker.call("GET", f"/v1/kv/a?raw&{spelling}&max_stale={limit}")
        assert reply.status == 200
        assert reply.headers.get(EFFECTIVE) == (("leader" if asked else "stale") if limit not in {"0s", "-1s"} else None)
        assert (reply.headers["X-Consul-Lastcontact"] == "0") is (asked == 1 or age == 0) or age == 0
    assert barriers(worker) == before + 2 * asked


def test_too_old_and_no_leader(worker: Any) -> None:
    """What is older than allowed is never given: without a leader that is the error of a default read, also with ``available``."""
    worker.put("a", b"v")
    alone(worker, 5)
    for spelling in ("stale", "consistency=available"):
        reply = worker.call("GET", f"/v1/kv/a?{spelling}&max_stale=1s")
        assert (reply.status, reply.body) == NO_LEADER
        assert worker.call("GET", f"/v1/kv/a?{spelling}&max_stale=1h").status == 200


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("consistency=strong", 'Invalid consistency "strong", one of default, consistent, stale, available was expected'),
        ("consistency", 'Invalid consistency "", one of default, consistent, stale, available was expected'),
        ("consistency=stale&consistent", "Cannot specify ?consistency=stale with ?consistent, conflicting semantics."),
        ("consistency=available&stale", "Cannot specify ?consistency=available with ?stale, conflicting semantics."),
        ("consistency=default&stale", "Cannot specify ?consistency=default with ?stale, conflicting semantics."),
        ("consistency=available&cached", "Cannot specify ?consistency=available with ?cached, conflicting semantics."),
        ("consistency=available&max_stale=5", 'Invalid max_stale value "5"'),
    ],
)
def test_nonsense(worker: Any, query: str, text: str) -> None:
    """What can't be meant is refused, with the value."""
    reply = worker.call("GET", f"/v1/kv/a?{query}")
    assert (reply.status, reply.body.decode()) == (400, text)
