"""The socket between worker and agent, from the worker's side: coalescing, breaking, coming back."""

from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from service.domain.commands import KvPut, encode
from service.domain.results import decode
from service.errors import BackendError, NoLeader, OutcomeUnknown, RequestRejected
from service.ipc import client as module
from service.ipc import protocol
from service.ipc.client import AgentClient
from service.ipc.waiting import UNDER_WAY_MAX


def put(key: str, value: bytes = b"v") -> bytes:
    """The bytes of a command."""
    return encode(KvPut(key.encode(), value))


def outcome(call: Any, *arguments: Any, **options: Any) -> Any:
    """What a call returned, or the error it raised."""
    try:
        return call(*arguments, **options)
    except BackendError as error:
        return error


@pytest.fixture
def apart(worker: Any) -> Iterator[Any]:
    """A worker whose agent does not listen any more."""
    worker.agent.stop()
    worker.until(lambda: not worker.client.connected)
    return worker


def test_handshake(worker: Any) -> None:
    """The first frame says which version and process speaks; the agent's word about the node is kept."""
    hello = worker.agent.frames[0]
    assert isinstance(hello, protocol.Hello)
    assert hello.version == protocol.VERSION
    assert worker.client.node_state == worker.agent.node_state


def test_another_version(worker: Any, caplog: pytest.LogCaptureFixture) -> None:
    """An agent of another version is not spoken to."""
    worker.agent.hello = protocol.Hello(protocol.VERSION + 1, 1)
    other = AgentClient(worker.agent.path)
    other.start()
    worker.until(lambda: "does not speak version" in caplog.text)
    assert not other.connected
    other.close()


def test_proposals_of_one_turn_travel_together(worker: Any) -> None:
    """All proposals of one turn of the loop are one frame, and each gets its own result."""
    jobs = [gevent.spawn(worker.client.propose, put(f"k{number}")) for number in range(50)]
    gevent.joinall(jobs, raise_error=True)
    frames = worker.agent.received(protocol.Propose)
    assert [len(frame.ids) for frame in frames] == [50]
    assert [decode(job.value).index for job in jobs] == list(range(4, 54))


def test_large_proposals_are_spread(worker: Any) -> None:
    """A frame ends after about a megabyte, in order, so that large values do not hold up others for long."""
    jobs = [gevent.spawn(worker.client.propose, put(f"k{number}", b"x" * 300_000)) for number in range(8)]
    gevent.joinall(jobs, raise_error=True)
    frames = worker.agent.received(protocol.Propose)
    assert [len(frame.ids) for frame in frames] == [4, 4]
    assert [decode(job.value).index for job in jobs] == list(range(4, 12))


def test_too_much_under_way(worker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in flight is bounded; what is above is refused at once, and there is room again afterwards."""
    monkeypatch.setattr(module, "IN_FLIGHT_BYTES_MAX", 1000)
    worker.agent.mute = True
    first = gevent.spawn(outcome, worker.client.propose, put("a", b"x" * 900), timeout=0.05)
    gevent.sleep(0)
    with pytest.raises(RequestRejected, match="more than 1000 bytes"):
        worker.client.propose(put("b", b"x" * 900))
    worker.until(first.ready)
    assert isinstance(first.value, OutcomeUnknown)
    worker.agent.mute = False
    assert worker.client.propose(put("c", b"x" * 900))


def test_reads_share_a_barrier(worker: Any) -> None:
    """Reads that wait together need one barrier."""
    jobs = [gevent.spawn(worker.client.barrier) for _ in range(20)]
    gevent.joinall(jobs, raise_error=True)
    assert {job.value for job in jobs} == {(3, 1)}
    assert len(worker.agent.received(protocol.Barrier)) == 1


def test_one_that_is_not_content_with_the_lease_asks_for_all(worker: Any) -> None:
    """A shared barrier may be answered under the lease only when that will do for every read that waits for it."""
    for leases in ([True, True], [True, False], [False]):
        gevent.joinall([gevent.spawn(worker.client.barrier, lease=lease) for lease in leases], raise_error=True)
    assert [barrier.lease for barrier in worker.agent.received(protocol.Barrier)] == [True, False, False]


def test_a_read_joins_only_a_later_barrier(worker: Any) -> None:
    """Reads that come while barriers are under way share the next one, which is sent when one of those was answered, the first or another."""
    agent, early = worker.agent, []
    agent.mute = True
    for count in range(1, UNDER_WAY_MAX + 1):
        early.append(gevent.spawn(worker.client.barrier))
        worker.until(lambda count=count: len(agent.received(protocol.Barrier)) == count)
    late = [gevent.spawn(worker.client.barrier) for _ in range(5)]
    gevent.sleep(0.01)
    assert len(agent.received(protocol.Barrier)) == UNDER_WAY_MAX
    agent.mute = False
    sock = next(iter(agent._sockets))
    answered = agent.received(protocol.Barrier)[-1]
    sock.sendall(protocol.frame(protocol.BarrierPassed(answered.id, 7, 1)))
    worker.until(early[-1].ready)
    gevent.joinall(late, raise_error=True)
    assert early[-1].value == (7, 1)
    assert {job.value for job in late} == {(3, 1)}
    assert len(agent.received(protocol.Barrier)) == UNDER_WAY_MAX + 1
    assert not any(job.ready() for job in early[:-1])
    sock.sendall(protocol.frame(protocol.BarrierPassed(agent.received(protocol.Barrier)[0].id, 8, 1)))
    worker.until(early[0].ready)
    assert early[0].value == (8, 1)


@pytest.mark.parametrize(("kind", "error"), [("no-leader", NoLeader), ("rejected", RequestRejected), ("unknown", OutcomeUnknown)])
def test_failures(worker: Any, kind: str, error: type[BackendError]) -> None:
    """The agent's kinds of failure become errors that know the outcome; the next barrier is not held up by a failed one."""
    worker.agent.failing = kind
    with pytest.raises(error):
        worker.client.propose(put("a"))
    with pytest.raises(error):
        worker.client.barrier()
    worker.agent.failing = ""
    assert worker.client.barrier() == (3, 1)


def test_broken_socket_makes_sent_proposals_unknown(worker: Any) -> None:
    """A proposal that was sent on a socket that breaks is unknown, and never sent again, though it was carried out here."""
    worker.agent.drop_on_propose = True
    with pytest.raises(OutcomeUnknown):
        worker.client.propose(put("a"))
    worker.agent.drop_on_propose = False
    worker.until(lambda: worker.client.connected)
    assert worker.client.propose(put("b"))
    assert [command.ids for command in worker.agent.received(protocol.Propose)] == [[1], [2]]
    assert worker.reader.get(b"a").row.modify_index == 4


def test_unsent_requests_wait_for_the_agent(apart: Any) -> None:
    """What had not been sent, and reads, wait until the agent is back."""
    assert not apart.client.node_state.leader_known
    proposal = gevent.spawn(apart.client.propose, put("a"))
    read = gevent.spawn(apart.client.barrier)
    gevent.sleep(0.05)
    assert not proposal.ready()
    apart.agent.start()
    gevent.joinall([proposal, read], timeout=5, raise_error=True)
    assert decode(proposal.value).ok
    assert read.value[0] >= 3
    assert apart.client.node_state.leader_known


def test_reads_under_way_are_asked_again(worker: Any) -> None:
    """A barrier whose socket broke is asked again on the next one."""
    worker.agent.mute = True
    read = gevent.spawn(worker.client.barrier)
    worker.until(lambda: worker.agent.received(protocol.Barrier))
    worker.agent.mute = False
    worker.agent.drop()
    worker.until(read.ready)
    assert read.value == (3, 1)


def test_time_limits(apart: Any) -> None:
    """What was never sent is rejected when its time is up; a read fails; neither is sent later."""
    proposal = gevent.spawn(outcome, apart.client.propose, put("a"), timeout=0.05)
    read = gevent.spawn(outcome, apart.client.barrier, timeout=0.05)
    apart.until(lambda: proposal.ready() and read.ready())
    assert isinstance(proposal.value, RequestRejected)
    assert isinstance(read.value, OutcomeUnknown)
    apart.agent.start()
    apart.until(lambda: apart.client.connected)
    assert decode(apart.client.propose(put("b"))).index == 4
    assert [frame.ids for frame in apart.agent.received(protocol.Propose)] == [[2]]


def test_time_limits_of_what_was_sent(worker: Any) -> None:
    """A proposal that was sent and not answered is unknown; a late answer disturbs nobody; reads that came later are not held up."""
    worker.agent.mute = True
    proposal = gevent.spawn(outcome, worker.client.propose, put("a"), timeout=0.05)
    early = gevent.spawn(outcome, worker.client.barrier, timeout=0.05)
    worker.until(lambda: worker.agent.received(protocol.Barrier))
    worker.agent.mute = False
    late = gevent.spawn(worker.client.barrier)
    worker.until(lambda: proposal.ready() and early.ready() and late.ready())
    assert isinstance(proposal.value, OutcomeUnknown)
    assert isinstance(early.value, OutcomeUnknown)
    assert late.value == (3, 1)
    sock = next(iter(worker.agent._sockets))
    sock.sendall(protocol.frame(protocol.Results([1, 99], [b"late", b"unknown"])))
    assert worker.client.barrier() == (3, 1)


def test_status(worker: Any) -> None:
    """The agent's report arrives; without an agent there is none, at once."""
    assert worker.client.status()["name"] == "n1"
    worker.agent.stop()
    worker.until(lambda: not worker.client.connected)
    with pytest.raises(NoLeader):
        worker.client.status()


def test_watching_outlives_the_socket(worker: Any) -> None:
    """After a reconnection the client asks for changes again, and says that anything may have changed meanwhile."""
    seen: list[protocol.Changed] = []
    worker.client.on_changed = seen.append
    assert worker.client.watch(on=True) == 3
    worker.client.propose(put("a"))
    worker.until(lambda: len(seen) == 1)
    assert (seen[0].index, seen[0].keys) == (4, [b"a"])
    worker.agent.drop()
    worker.until(lambda: len(seen) == 2)
    assert seen[1].everything
    worker.client.watch(on=False)
    worker.client.propose(put("b"))
    worker.client.barrier()
    assert len(seen) == 2


def test_a_failing_listener_costs_nothing(worker: Any, caplog: pytest.LogCaptureFixture) -> None:
    """An error in a listener is logged, and the connection goes on."""

    def fail(_: Any) -> None:
        raise ZeroDivisionError

    worker.client.on_state = fail
    worker.agent.tell(applied=9)
    worker.until(lambda: "a listener failed" in caplog.text)
    assert worker.client.barrier() == (3, 1)


def test_frames_in_pieces_and_too_long(worker: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Frames may arrive in any pieces; a length beyond the limit ends the connection, and a new one is made."""
    sock = next(iter(worker.agent._sockets))
    data = protocol.frame(protocol.NodeState(True, False, 1.0, 77, 1, False, ""))
    for position in range(len(data)):
        sock.sendall(data[position : position + 1])
        gevent.sleep(0)
    worker.until(lambda: worker.client.node_state.applied == 77)
    sock.sendall(b"\xff\xff\xff\xff")
    worker.until(lambda: "a frame of 4294967295 bytes" in caplog.text)
    worker.until(lambda: worker.client.connected)
    assert worker.client.barrier() == (3, 1)


def test_closing_fails_what_waits(apart: Any) -> None:
    """When the worker ends, nobody waits for ever."""
    proposal = gevent.spawn(outcome, apart.client.propose, put("a"))
    read = gevent.spawn(outcome, apart.client.barrier)
    gevent.sleep(0)
    apart.client.close()
    gevent.joinall([proposal, read], timeout=5)
    assert isinstance(proposal.value, RequestRejected)
    assert isinstance(read.value, OutcomeUnknown)


def test_waiting_for_the_agent_has_a_limit_of_its_own(apart: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an agent nobody waits longer than for a leader; what is sent in time has its whole time from then on."""
    monkeypatch.setattr(module, "UNREACHABLE_SECONDS_MAX", 0.05)
    proposal, read = gevent.spawn(outcome, apart.client.propose, put("a")), gevent.spawn(outcome, apart.client.barrier)
    apart.until(lambda: proposal.ready() and read.ready())
    assert isinstance(proposal.value, RequestRejected)
    assert isinstance(read.value, OutcomeUnknown)
    monkeypatch.setattr(module, "UNREACHABLE_SECONDS_MAX", 5.0)
    proposal = gevent.spawn(outcome, apart.client.propose, put("b"), timeout=60.0)
    gevent.sleep(0)
    apart.agent.mute = True
    apart.agent.start()
    apart.until(lambda: apart.agent.received(protocol.Propose))
    assert apart.client._proposals[2].deadline > module.time.monotonic() + 50
    apart.agent.drop()
    apart.until(proposal.ready)
    assert isinstance(proposal.value, OutcomeUnknown)


def test_a_client_that_was_closed(worker: Any) -> None:
    """Closing answers everybody who waits, by what is known of each; who comes later is refused at once, instead of waiting for ever."""
    worker.agent.mute = True
    sent = gevent.spawn(outcome, worker.client.propose, put("a"))
    read = gevent.spawn(outcome, worker.client.barrier)
    worker.until(lambda: worker.agent.received(protocol.Propose))
    worker.client.close()
    gevent.joinall([sent, read], timeout=5)
    assert isinstance(sent.value, OutcomeUnknown)
    assert isinstance(read.value, BackendError)
    for late in (outcome(worker.client.propose, put("b")), outcome(worker.client.barrier)):
        assert isinstance(late, RequestRejected)
        assert str(late) == "the worker is stopping"
    assert isinstance(outcome(worker.client.status), NoLeader)
