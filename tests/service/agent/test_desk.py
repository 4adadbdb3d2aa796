"""What the desk does with what workers ask, with a Raft server and workers that only take note."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from raft.errors import LeadershipLost, NotLeader, ProposalTimeout, ProposalTooLarge, RaftError
from raft.testing.servers import Servers
from service.agent import desk as module
from service.agent.desk import Desk
from service.agent.machine import ObservedMachine
from service.ipc import protocol
from service.ipc.membership import Reply
from service.logs import Listener
from service.reloading import reloadable_values
from service.settings import load
from service.store.changes import Changes


class Worker:
    """Takes note of what it was sent."""

    def __init__(self, *, watching: bool = False) -> None:
        self.watching = watching
        self.sent: list[Any] = []

    def send(self, message: protocol.FromAgent) -> None:
        """See :class:`service.ipc.server.Worker`."""
        self.sent.append(message)

    def last(self) -> Any:
        """What it was sent last."""
        return self.sent[-1]


class Server:
    """A Raft server whose proposals and reads are settled by hand."""

    def __init__(self) -> None:
        self.driver = self
        self.leads = True
        self.leader: str | None = "i1"
        self.silence_seconds = 0.0
        self.refuse: RaftError | None = None
        self.proposed: list[tuple[list[bytes], Callable[[Any], None]]] = []
        self.reads: list[Callable[[Any], None]] = []
        self.leases: list[bool] = []
        self.observers: list[Callable[[Any], None]] = []

    def propose(self, commands: list[bytes], settle: Callable[[Any], None]) -> None:
        """See :class:`raft.runtime.driver.Driver`."""
        if self.refuse is not None:
            raise self.refuse
        self.proposed.append((commands, settle))

    def read(self, settle: Callable[[Any], None], *, lease: bool) -> None:
        """See :class:`raft.runtime.driver.Driver`."""
        if self.refuse is not None:
            raise self.refuse
        self.reads.append(settle)
        self.leases.append(lease)

    def observe(self, observer: Callable[[Any], None]) -> None:
        """See :class:`raft.runtime.server.RaftServer`."""
        self.observers.append(observer)


class Node:
    """A desk with its surroundings."""

    def __init__(self, patience: float = 5.0) -> None:
        self.machine = ObservedMachine(SimpleNamespace(applied_index=9, generation=4), Path())  # type: ignore[arg-type]  # all that is asked of it
        self.reason = "the cluster is not formed yet"
        self.desk = Desk(self.machine, lambda: {"name": "n1"}, lambda: self.reason, patience)
        self.server = Server()
        self.worker = Worker()

    def serve(self) -> None:
        """The cluster is formed."""
        self.reason = ""
        self.desk.serve(self.server)  # type: ignore[arg-type]  # stands in for it

    def ask(self, message: protocol.FromWorker) -> None:
        """The worker asks."""
        self.desk.handle(self.worker, message)  # type: ignore[arg-type]  # stands in for it

    def greet(self, worker: Worker | None = None) -> Worker:
        """A worker connects."""
        self.desk.greet(worker or self.worker)  # type: ignore[arg-type]  # stands in for it
        return worker or self.worker


def run(scenario: Callable[[Node], Coroutine[Any, Any, None]], patience: float = 5.0) -> None:
    """Run a scenario on a loop."""

    async def main() -> None:
        node = Node(patience)
        try:
            await scenario(node)
        finally:
            node.desk.close()

    asyncio.run(asyncio.wait_for(main(), 30))


def test_results_go_to_those_who_asked() -> None:
    """The commands of one frame are proposed together, and their results come back under their ids."""

    async def scenario(node: Node) -> None:
        node.serve()
        node.ask(protocol.Propose([4, 7], [b"a", b"b"]))
        [(commands, settle)] = node.server.proposed
        assert commands == [b"a", b"b"]
        assert node.worker.sent == []
        settle((b"1", b"2"))
        assert node.worker.sent == [protocol.Results([4, 7], [b"1", b"2"])]

    run(scenario)


@pytest.mark.parametrize(
    ("error", "kind"),
    [(NotLeader(), "no-leader"), (ProposalTooLarge(9, 5), "rejected"), (LeadershipLost("lost"), "unknown"), (ProposalTimeout(2.0), "unknown")],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_failures_say_whether_they_had_an_effect(error: RaftError, kind: str, at_once: bool) -> None:
    """Whether refused at once or later: the worker learns the kind of failure, which decides between rejected and unknown, and the reason."""

    async def scenario(node: Node) -> None:
        node.serve()
        node.server.refuse = error if at_once else None
        node.ask(protocol.Propose([1, 2], [b"a", b"b"]))
        for _, settle in node.server.proposed:
            settle(error)
        assert node.worker.sent == [protocol.Failed([1, 2], kind, str(error))]

    run(scenario)


def test_barriers() -> None:
    """A barrier is answered with the index to read at and the generation of the state file, or with the lack of a leader."""

    async def scenario(node: Node) -> None:
        node.serve()
        node.ask(protocol.Barrier(3))
        node.server.reads[0](12)
        assert node.worker.last() == protocol.BarrierPassed(3, 12, 4)
        node.ask(protocol.Barrier(4, lease=True))
        assert node.server.leases == [False, True]
        node.server.reads[1](NotLeader())
        assert node.worker.last() == protocol.Failed([4], "no-leader", str(NotLeader()))
        node.server.refuse = NotLeader()
        node.ask(protocol.Barrier(5))
        assert node.worker.last() == protocol.Failed([5], "no-leader", str(NotLeader()))

    run(scenario)


def test_requests_wait_for_the_cluster() -> None:
    """What is asked before the cluster is formed is carried out as soon as it is."""

    async def scenario(node: Node) -> None:
        node.ask(protocol.Propose([1], [b"a"]))
        node.ask(protocol.Barrier(2))
        await asyncio.sleep(0.01)
        assert node.worker.sent == []
        node.serve()
        while not (node.server.proposed and node.server.reads):  # noqa: ASYNC110 - the desk's own tasks run meanwhile
            await asyncio.sleep(0)
        node.server.reads[0](1)
        assert node.worker.sent == [protocol.BarrierPassed(2, 1, 4)]

    run(scenario)


def test_patience_ends() -> None:
    """When the cluster is not formed in time the request fails without effect, and says what the node waits for."""

    async def scenario(node: Node) -> None:
        node.reason = "waiting for n3 to form the cluster"
        node.ask(protocol.Propose([1, 2], [b"a", b"b"]))
        node.ask(protocol.Barrier(3))
        while len(node.worker.sent) < 2:  # noqa: ASYNC110 - the desk's own tasks run meanwhile
            await asyncio.sleep(0.001)
        assert node.worker.sent == [protocol.Failed([1, 2], "no-leader", node.reason), protocol.Failed([3], "no-leader", node.reason)]
        node.serve()
        await asyncio.sleep(0.01)
        assert node.server.proposed == []

    run(scenario, patience=0.02)


def test_closing_ends_the_waiting() -> None:
    """Nothing is left behind when the desk closes while requests wait."""

    async def scenario(node: Node) -> None:
        before = asyncio.all_tasks()
        node.desk.open()
        node.ask(protocol.Barrier(3))
        await asyncio.sleep(0)
        assert asyncio.all_tasks() > before
        node.desk.close()
        await asyncio.sleep(0.01)
        assert asyncio.all_tasks() == before

    run(scenario)


def test_watching() -> None:
    """Only workers that watch hear of changes; the answer to a watch says up to where the state is already, so nothing falls in between."""

    async def scenario(node: Node) -> None:
        other = node.greet(Worker())
        node.greet()
        node.ask(protocol.Watch(6, on=True))
        assert (node.worker.watching, node.worker.last()) == (True, protocol.BarrierPassed(6, 9, 4))
        node.machine.changes.extend(
            [Changes(10, [b"a"], [], everything=False), Changes(11, [], [], everything=False), Changes(12, [], [b"p/"], False)]
        )
        before = len(other.sent)
        node.desk.publish(12)
        assert node.worker.sent[-2:] == [protocol.Changed(10, [b"a"], []), protocol.Changed(12, [], [b"p/"])]
        assert len(other.sent) == before
        assert not node.machine.changes
        node.ask(protocol.Watch(7, on=False))
        node.machine.changes.append(Changes(13, [b"a"], [], everything=False))
        node.desk.publish(13)
        assert node.worker.last() == protocol.BarrierPassed(7, 9, 4)

    run(scenario)


def test_following_the_log() -> None:
    """A worker that asked hears the lines of the agent; nothing is kept for one that has gone, and nobody listens then."""

    async def scenario(node: Node) -> None:
        log = logging.getLogger("kvorum.desk")
        node.greet()
        node.ask(protocol.Monitor(logging.WARNING))
        log.warning("heard")
        await asyncio.sleep(0)
        line = node.worker.last()
        assert (line.level, line.logger, line.message) == (logging.WARNING, "kvorum.desk", "heard")
        assert any(isinstance(handler, Listener) for handler in logging.getLogger().handlers)
        node.desk.leave(node.worker)  # type: ignore[arg-type]  # stands in for it
        assert not any(isinstance(handler, Listener) for handler in logging.getLogger().handlers)
        log.warning("not heard")
        await asyncio.sleep(0)
        assert node.worker.last() == line

    run(scenario)


def test_a_new_state_is_told_to_all() -> None:
    """When everything may have changed, a snapshot was installed perhaps, workers that don't watch learn the new generation at once, too."""

    async def scenario(node: Node) -> None:
        node.greet()
        node.machine.changes.append(Changes(13, [], [], everything=True))
        before = len(node.worker.sent)
        node.desk.publish(13)
        [state] = node.worker.sent[before:]
        assert (type(state), state.generation) == (protocol.NodeState, 4)

    run(scenario)


def test_the_state_of_the_node() -> None:
    """A worker learns the node's state when it connects, at every observation, every tenth of a second, and when the node is about to stop."""

    async def scenario(node: Node) -> None:
        node.greet()
        assert node.worker.last() == protocol.NodeState(False, False, 0.0, 9, 4, False, "the cluster is not formed yet")
        node.serve()
        node.server.observers[0]("anything")
        state = node.worker.last()
        assert (state.leader_known, state.leading, state.reason) == (True, True, "")
        assert abs(state.contact - time.clock_gettime(time.CLOCK_BOOTTIME)) < 5
        node.server.leads, node.server.leader = False, None
        node.desk.tell_state()
        assert (node.worker.last().leader_known, node.worker.last().contact) == (False, state.contact)
        node.desk.quit()
        assert node.worker.last().quitting
        gone = len(node.worker.sent)
        node.desk.leave(node.worker)  # type: ignore[arg-type]  # stands in for it
        node.desk.tell_state()
        assert len(node.worker.sent) == gone

    run(scenario)


def test_the_state_is_told_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once open, the desk tells the state by itself, so that a worker notices an agent that hangs."""
    monkeypatch.setattr(module, "STATE_SECONDS", 0.001)

    async def scenario(node: Node) -> None:
        node.greet()
        node.desk.open()
        while len(node.worker.sent) < 5:  # noqa: ASYNC110 - the loop's timers run meanwhile
            await asyncio.sleep(0.001)

    run(scenario)


def test_the_state_is_told_while_the_node_stops() -> None:
    """Between the stop of the node and that of the desk, workers are told that no leader is known; nothing fails."""

    async def scenario() -> None:
        async with Servers("a") as servers:
            await servers.led()
            node = Node()
            node.desk.serve(servers["a"])
            node.greet()
            assert node.worker.last().leader_known
            await servers.stop("a")
            node.desk.tell_state()
            assert (node.worker.last().leader_known, node.worker.last().leading) == (False, False)

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_the_membership() -> None:
    """What is asked about the membership is carried out while the node takes part; before and after, it is refused with the reason."""

    async def answer(operation: bytes) -> Reply:
        return 200, {"asked": operation.decode()}

    async def answered(node: Node) -> tuple[int, dict[str, Any]]:
        before = len(node.worker.sent)
        node.ask(protocol.AskMembers(5, b"x"))
        while not any(isinstance(sent, protocol.Members) for sent in node.worker.sent[before:]):  # noqa: ASYNC110 - the desk's task runs meanwhile
            await asyncio.sleep(0)
        told = next(sent for sent in node.worker.sent[before:] if isinstance(sent, protocol.Members))
        assert told.id == 5
        return told.status, msgspec.json.decode(told.body)

    async def scenario(node: Node) -> None:
        status, refused = await answered(node)
        assert (status, refused["detail"], refused["outcome"]) == (503, "the cluster is not formed yet", "rejected")
        node.reason = ""
        node.desk.serve(node.server, answer)  # type: ignore[arg-type]  # stands in for it
        assert await answered(node) == (200, {"asked": "x"})
        node.desk.retire()
        node.reason = "this node was removed"
        status, refused = await answered(node)
        assert (status, refused["detail"]) == (503, "this node was removed")
        node.greet()
        assert (node.worker.last().leader_known, node.worker.last().reason) == (False, "this node was removed")

    run(scenario)


def test_settings_are_told_first_of_all_and_at_every_change() -> None:
    """A worker learns what is in force before anything else, whenever it comes; those that are there, at each change."""
    first = load({"KVORUM_NAME": "n1"})
    second = load({"KVORUM_NAME": "n1", "KVORUM_LOG_LEVEL": "debug"})

    async def scenario(node: Node) -> None:
        node.desk.configure(first)
        node.greet()
        told, lease, state = node.worker.sent
        assert (told, type(state)) == (protocol.Configured(reloadable_values(first)), protocol.NodeState)
        assert lease == protocol.Lease(str(node.desk.lease.path))
        node.desk.configure(second)
        assert node.worker.last() == protocol.Configured(reloadable_values(second))
        assert node.worker.last().values["log_level"] == "debug"
        assert node.greet(Worker()).sent[0] == node.worker.last()

    run(scenario)


def test_a_request_waits_as_long_as_the_settings_say() -> None:
    """The patience of who waits for a cluster is that of the settings in force."""

    async def scenario(node: Node) -> None:
        node.desk.configure(load({"KVORUM_NAME": "n1", "KVORUM_TIME_SCALE": "0.1", "KVORUM_RAFT_PROPOSAL_TIMEOUT_MS": "100"}))
        node.ask(protocol.Barrier(3))
        while not node.worker.sent:  # noqa: ASYNC110 - the desk's task runs meanwhile
            await asyncio.sleep(0.001)
        assert node.worker.last() == protocol.Failed([3], "no-leader", node.reason)

    run(scenario, patience=3_600.0)


@pytest.mark.parametrize("problems", [(), ("workers: no", "log_level: no")])
def test_a_reload_is_answered_after_it_was_told(problems: tuple[str, ...]) -> None:
    """The answer to a reload follows the settings on the same socket; nobody else hears of the answer."""
    settings = load({"KVORUM_NAME": "n1"})

    async def scenario(node: Node) -> None:
        async def reload() -> tuple[str, ...]:
            await asyncio.sleep(0)
            if not problems:
                node.desk.configure(settings)
            return problems

        node.desk.reload = reload
        node.greet()
        other = node.greet(Worker())
        node.ask(protocol.AskReload(6))
        while not isinstance(node.worker.last(), protocol.Reloaded):  # noqa: ASYNC110 - the desk's task runs meanwhile
            await asyncio.sleep(0)
        assert node.worker.last() == protocol.Reloaded(6, list(problems))
        configured = [message for message in node.worker.sent if isinstance(message, protocol.Configured)]
        assert len(configured) == (0 if problems else 1)
        assert not any(isinstance(message, protocol.Reloaded) for message in other.sent)

    run(scenario)


def test_status_and_frames_without_meaning() -> None:
    """A question for the status is answered with the report, before the cluster is formed, too; a second hello is passed over."""

    async def scenario(node: Node) -> None:
        node.ask(protocol.AskStatus(8))
        node.ask(protocol.Hello(protocol.VERSION, 1))
        assert node.worker.sent == [protocol.Status(8, {"name": "n1"})]

    run(scenario)


def test_the_machine_passes_on_what_changed(tmp_path: Path) -> None:
    """Every batch's changes are laid aside for the loop, and told to listeners with the stamp of its last command; Raft's own entries have none."""
    from service.domain.commands import KvPut, encode, stamp  # noqa: PLC0415 - the real machine is used here only
    from service.store.machine import KvMachine  # noqa: PLC0415 - the real machine is used here only

    machine = ObservedMachine(KvMachine(tmp_path), tmp_path)
    heard: list[tuple[Changes, int]] = []
    machine.listeners.append(lambda changes, stamp_ms: heard.append((changes, stamp_ms)))
    machine.apply([(1, 1, None)])
    machine.apply([(2, 1, stamp(encode(KvPut(b"a", b"")), 500)), (3, 1, stamp(encode(KvPut(b"b", b"")), 600)), (4, 1, None)])
    assert heard == [(Changes(1, [], [], everything=False), 0), (Changes(4, [b"a", b"b"], [], everything=False), 600)]
    assert list(machine.changes) == [changes for changes, _ in heard]
    machine.store.close()
