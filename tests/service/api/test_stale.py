"""Scenario RD-09 at the HTTP API: what ``?stale`` promises while the node hears of no leader, and what it never does."""

from typing import Any

import gevent


def alone(worker: Any) -> None:
    """From now on the node knows of no leader, and can confirm nothing."""
    worker.agent.failing = "no-leader"
    worker.agent.tell(leader_known=False, leading=False, contact=1.0)
    worker.until(lambda: not worker.client.node_state.leader_known)


def test_rd_09_stale_mode_is_honest(worker: Any) -> None:
    """A node without a leader answers what it has, says that it knows no leader and how old it may be, and its index never goes back."""
    seen = 0
    for number in range(20):
        if number == 10:
            alone(worker)
        if number < 10:
            worker.put("a", b"%d" % number)
        else:
            worker.agent.apply(None)  # entries that were committed before it was alone
        reply = worker.call("GET", "/v1/kv/a?raw&stale")
        assert reply.body == b"%d" % min(number, 9)
        assert reply.headers["X-Consul-Knownleader"] == ("true" if number < 10 else "false")
        assert (int(reply.headers["X-Consul-Lastcontact"]) > 0) is (number >= 10)
        index = int(reply.headers["X-Consul-Index"])
        assert index >= seen
        seen = index


def test_rd_09_a_client_that_has_seen_more_waits(worker: Any) -> None:
    """A client that passes an index from another node gets nothing older than that: it waits until this node has caught up and has news."""
    index = worker.put("a", b"old")
    seen_elsewhere = index + 2
    job = gevent.spawn(worker.call, "GET", f"/v1/kv/a?raw&stale&index={seen_elsewhere}&wait=60s")
    worker.until(lambda: worker.blocking.waiting == 1)
    for value in (b"older", b"the one seen elsewhere"):
        worker.put("a", value)
        gevent.sleep(0.01)
        assert not job.ready()
    worker.put("a", b"newer")
    worker.until(job.ready)
    assert job.value.body == b"newer"
    assert int(job.value.headers["X-Consul-Index"]) > seen_elsewhere
