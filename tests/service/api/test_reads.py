"""Reads after a barrier: the local state must have what the barrier promised."""

import threading
import time
from typing import Any

import gevent
import pytest

from service.api import reads as module
from service.ipc import protocol


def promise(worker: Any, index: int, generation: int = 1) -> None:
    """Let every barrier promise more than there is."""
    worker.client.barrier = lambda **_: (index, generation)


@pytest.mark.parametrize("uri", ["/v1/kv/a?raw", "/v1/kv/?keys"])
def test_waits_for_the_promised_index(worker: Any, uri: str) -> None:
    """A read whose state is older than the barrier waits for it."""
    worker.put("a", b"1")
    promise(worker, worker.agent.machine.applied_index + 1)
    job = gevent.spawn(worker.call, "GET", uri)
    gevent.sleep(0.02)
    assert not job.ready()
    worker.agent.apply(None)
    worker.until(job.ready)
    assert job.value.status == 200


def test_gives_up(worker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A promise that is not kept in time is an error that names the index, never an old answer."""
    monkeypatch.setattr(module, "CATCH_UP_SECONDS", 0.02)
    worker.put("a", b"1")
    promise(worker, 10_000)
    reply = worker.call("GET", "/v1/kv/a")
    assert (reply.status, reply.body) == (500, b"the local state did not reach index 10000 within 0.02 s")
    assert worker.call("GET", "/v1/kv/a?stale").status == 200


def test_another_generation_is_opened(worker: Any) -> None:
    """A barrier that names another state file has it opened before the read."""
    worker.put("a", b"1")
    opened: list[int] = []
    reopen = worker.reader.reopen
    worker.reader.reopen = lambda: (opened.append(1), reopen())[1]
    promise(worker, 1, generation=2)
    assert worker.call("GET", "/v1/kv/a?raw").body == b"1"
    assert opened == [1]


@pytest.mark.parametrize("uri", ["/v1/kv/a", "/v1/kv/?keys", "/v1/kv/?recurse", "/v1/kv/a?index=1"])
def test_only_a_consistent_read_insists_on_a_quorum(worker: Any, uri: str) -> None:
    """The lease will do for a default read; with ``?consistent`` a quorum is asked, whatever is read."""
    worker.put("a", b"1")
    for parameter, lease in (("", True), ("consistent", False)):
        before = len(worker.agent.received(protocol.Barrier))
        worker.call("GET", f"{uri}{'&' if '?' in uri else '?'}{parameter}")
        (barrier,) = worker.agent.received(protocol.Barrier)[before:]
        assert barrier.lease is lease


def test_listings_leave_the_hub_free(worker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing runs in a thread: meanwhile the hub goes on."""
    worker.put("a", b"1")
    entered, leave = threading.Event(), threading.Event()
    list_ = worker.reader.list

    def slow(prefix: bytes) -> Any:
        entered.set()
        assert leave.wait(10)
        return list_(prefix)

    monkeypatch.setattr(worker.reader, "list", slow)
    job = gevent.spawn(worker.call, "GET", "/v1/kv/?recurse")
    worker.until(entered.is_set)
    assert worker.call("GET", "/v1/kv/a?raw").body == b"1"
    assert not job.ready()
    leave.set()
    worker.until(job.ready)
    assert job.value.status == 200


def test_a_listing_that_takes_too_long(worker: Any) -> None:
    """A listing that was given up is an error with a text."""

    def give_up(_: bytes) -> Any:
        raise TimeoutError("the listing took too long and was given up")

    worker.reader.list = give_up
    reply = worker.call("GET", "/v1/kv/?recurse")
    assert (reply.status, reply.body) == (500, b"the listing took too long and was given up")


def test_no_state_yet(make_worker: Any) -> None:
    """A worker that starts before the agent has made its files says so, and serves as soon as they are there."""
    worker = make_worker()
    current = worker.settings.data_dir / "CURRENT"
    hidden = current.rename(current.with_name("hidden"))
    worker.reader.close()
    worker.agent.tell(generation=2)
    began = time.monotonic()
    reply = worker.call("GET", "/v1/kv/a?stale")
    assert (reply.status, b"there is no state" in reply.body) == (500, True)
    assert time.monotonic() - began < 5
    hidden.rename(current)
    assert worker.call("GET", "/v1/kv/a").status == 404
