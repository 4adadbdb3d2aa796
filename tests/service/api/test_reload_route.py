"""``PUT /v1/agent/reload``, and what a worker does with settings that change."""

import json
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

from service.ipc import protocol

PATH = "/v1/agent/reload"


@pytest.fixture(autouse=True)
def same_level() -> Iterator[None]:
    """The level of the log is as it was, afterwards."""
    level = logging.getLogger().level
    yield
    logging.getLogger().setLevel(level)


def in_force(worker: Any) -> dict[str, Any]:
    """What the worker tells of its settings."""
    told: dict[str, Any] = json.loads(worker.call("GET", "/v1/agent/self").body)["DebugConfig"]["Settings"]
    return told


def test_the_agent_is_asked(worker: Any) -> None:
    """200 with an empty body and no type, whatever the query and the body, as Consul answers."""
    reply = worker.call("PUT", PATH + "?dc=nope&x=1", b"ignored")
    assert (reply.status, reply.headers, reply.body) == (200, {"Content-Length": "0"}, b"")
    assert len(worker.agent.received(protocol.AskReload)) == 1


def test_other_methods(worker: Any) -> None:
    """PUT only, by Consul's rules; nothing is reloaded by the others."""
    assert worker.call("OPTIONS", PATH).headers["Allow"] == "OPTIONS,PUT"
    for method in ("GET", "POST", "DELETE", "HEAD"):
        reply = worker.call(method, PATH)
        assert (reply.status, reply.headers["Allow"]) == (405, "OPTIONS,PUT")
    assert worker.agent.received(protocol.AskReload) == []


def test_problems(worker: Any) -> None:
    """500 with every problem on a line of its own, and that it was rejected."""
    worker.agent.problems = ["log_level: 'loud'", "workers: 'é'"]
    reply = worker.call("PUT", PATH, b"")
    assert (reply.status, reply.headers["X-Kvorum-Outcome"], reply.headers["Content-Type"]) == (500, "rejected", "text/plain; charset=utf-8")
    assert reply.body.decode().splitlines()[1:] == worker.agent.problems


def test_an_agent_that_breaks(worker: Any) -> None:
    """One that dies under it leaves it unknown; without one it is rejected, by its own name."""
    worker.agent.drop_on_propose = True
    reply = worker.call("PUT", PATH, b"")
    assert (reply.status, reply.headers["X-Kvorum-Outcome"]) == (500, "unknown")
    worker.agent.stop()
    worker.until(lambda: not worker.client.connected)
    reply = worker.call("PUT", PATH, b"")
    assert (reply.status, reply.headers["X-Kvorum-Outcome"], reply.body) == (500, "rejected", b"the agent of this node can't be reached")


def test_limits_change_while_the_worker_runs(worker: Any) -> None:
    """The longest value, the number of blocking queries and the level of the log follow at once; the rest stays."""
    assert worker.call("PUT", "/v1/kv/a", b"12345678").status == 200
    index = worker.index("/v1/kv/a")
    worker.agent.configure(kv_value_bytes_max=4, blocking_queries_max=1, log_level="error", cache_ttl_seconds=5)
    worker.until(lambda: in_force(worker)["kv_value_bytes_max"] == 4)
    reply = worker.call("PUT", "/v1/kv/a", b"12345")
    assert (reply.status, b"max size: 4 bytes" in reply.body) == (413, True)
    assert logging.getLogger().level == logging.ERROR
    assert (in_force(worker)["cache_ttl_seconds"], in_force(worker)["name"], in_force(worker)["workers"]) == (5, "n1", 1)
    operation = b'{"KV":{"Verb":"get","Key":"a"}}'
    worker.agent.configure(txn_operations_max=1)
    worker.until(lambda: in_force(worker)["txn_operations_max"] == 1)
    assert b"(2 > 1)" in worker.call("PUT", "/v1/txn", b"[%b,%b]" % (operation, operation)).body
    worker.agent.configure(txn_bytes_max=20)
    worker.until(lambda: in_force(worker)["txn_bytes_max"] == 20)
    assert worker.call("PUT", "/v1/txn", b"[%b]" % operation).status == 413
    waiting = gevent.spawn(worker.call, "GET", f"/v1/kv/a?index={index}&wait=20s")
    worker.until(lambda: worker.blocking.waiting)
    reply = worker.call("GET", f"/v1/kv/a?index={index}&wait=20s")
    assert (reply.status, reply.body) == (429, b"Too many blocking queries: 1 wait already.")
    worker.blocking.release()
    waiting.get(timeout=10)
    worker.agent.configure(kv_value_bytes_max=8)
    worker.until(lambda: in_force(worker)["kv_value_bytes_max"] == 8)
    assert worker.call("PUT", "/v1/kv/a", b"12345678").status == 200


def test_a_request_keeps_the_settings_it_began_with(worker: Any) -> None:
    """The object is swapped as a whole: who holds the old one sees nothing of the new one."""
    live = worker.app.extensions["kvorum"].live
    held = live.now
    worker.agent.configure(kv_value_bytes_max=4, blocking_queries_max=7)
    worker.until(lambda: live.now is not held)
    assert (held.kv_value_bytes_max, held.blocking_queries_max) == (worker.settings.kv_value_bytes_max, worker.settings.blocking_queries_max)
    assert (live.now.kv_value_bytes_max, live.now.blocking_queries_max) == (4, 7)


def test_a_worker_learns_what_is_in_force_before_it_serves(make_worker: Callable[..., Any], make_agent: Callable[..., Any]) -> None:
    """One that connects late (it was replaced, or its socket broke) is told first of all; :meth:`await_settings` waits for that."""
    del make_agent
    worker = make_worker()
    worker.agent.settings["kv_value_bytes_max"] = 4
    worker.agent.drop()
    worker.until(lambda: in_force(worker)["kv_value_bytes_max"] == 4)
    late = type(worker.client)(worker.agent.path)
    told: list[Any] = []
    late.on_configured = told.append
    began = time.monotonic()
    assert not late.await_settings(0.05)
    late.start()
    assert late.await_settings(10)
    assert time.monotonic() - began < 10
    assert [message.values for message in told] == [{"kv_value_bytes_max": 4}]
    late.close()


def test_no_secret_is_told(make_worker: Callable[..., Any]) -> None:
    """The settings that a worker tells are masked where they are secret."""
    worker = make_worker(redis_url="redis://:hunter2@127.0.0.1:1/0")
    assert in_force(worker)["redis_url"] == "********"
    assert b"hunter2" not in worker.call("GET", "/v1/agent/self").body
