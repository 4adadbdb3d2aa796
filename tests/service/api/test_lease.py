"""Default reads of one key while the agent shows a lease: they ask nobody, and are never older than it allows."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from service.ipc import protocol
from service.ipc.page import LeasePage

FAR = 2**62


def asked(worker: Any, uri: str = "/v1/kv/a") -> int:
    """How many barriers a GET costs, which must find the value."""
    before = len(worker.agent.received(protocol.Barrier))
    assert worker.call("GET", uri).status == 200
    return len(worker.agent.received(protocol.Barrier)) - before


def test_a_read_under_the_lease_asks_nobody(worker: Any, page: LeasePage) -> None:
    """Exactly as far as the state has applied is far enough."""
    page.publish(FAR, worker.agent.machine.applied_index)
    assert [asked(worker), asked(worker, "/v1/kv/a?raw"), asked(worker, "/v1/kv/a?dc=dc1")] == [0, 0, 0]


@pytest.mark.parametrize("uri", ["/v1/kv/a?consistent", "/v1/kv/a?recurse", "/v1/kv/a?keys"])
def test_other_reads_ask(worker: Any, page: LeasePage, uri: str) -> None:
    """``?consistent`` relies on no clock; what costs more than the question is not read for nothing."""
    page.publish(FAR, worker.agent.machine.applied_index)
    assert asked(worker, uri) == 1


@pytest.mark.parametrize(
    "publish",
    [
        lambda page, applied: page.publish(FAR, applied + 1),
        lambda page, applied: page.publish(time.clock_gettime_ns(time.CLOCK_BOOTTIME), applied),
        lambda page, applied: page.publish(0, applied),
    ],
    ids=["committed and not applied", "run out", "none"],
)
def test_without_it_the_agent_is_asked(worker: Any, page: LeasePage, publish: Callable[[LeasePage, int], None]) -> None:
    """A state that lacks something committed, and a lease that is over, are nothing to rely on."""
    publish(page, worker.agent.machine.applied_index)
    assert asked(worker) == 1


@pytest.mark.usefixtures("page")
def test_an_agent_that_is_gone_shows_nothing(worker: Any) -> None:
    """With the socket goes the page: another agent has another one."""
    worker.agent.drop()
    worker.until(lambda: worker.client.lease_index() is None)
    worker.until(lambda: worker.client.connected)
    assert asked(worker) == 1


def test_a_page_that_can_not_be_opened_costs_only_its_use(worker: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The worker says so, and asks as before."""
    worker.put("a", b"v")
    worker.agent.send(protocol.Lease("/proc/0/fd/0"))
    worker.until(lambda: "the lease can't be seen" in caplog.text)
    assert asked(worker) == 1
