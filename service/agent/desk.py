"""What workers ask of the agent, carried out: proposals and barriers go to Raft, changes and the node's state go to the workers."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from raft.errors import NotLeader, Outcome, RaftError
from raft.runtime.server import RaftServer
from service.agent.machine import ObservedMachine
from service.agent.monitors import Monitors
from service.ipc import membership, protocol
from service.ipc.page import LeasePage
from service.ipc.server import Worker
from service.reloading import reloadable_values
from service.settings import Settings

STATE_SECONDS = 0.1
NO_LEADER = "no-leader"
NOT_HERE = 503
AskMembers = Callable[[bytes], Awaitable[membership.Reply]]
Reload = Callable[[], Awaitable[tuple[str, ...]]]


async def _not_formed(_operation: bytes) -> membership.Reply:
    """The answer of a node that does not take part."""
    return membership.problem(membership.NO_LEADER, "this node does not take part in a cluster")


class Desk:
    """See the module's text. All on the loop's thread.

    :param describe: the fields of :class:`service.ipc.report.NodeReport`.
    :param reason: why the node is not ready; empty when it is.
    :param patience: seconds that a request waits for a cluster that is not formed yet.
    :ivar suspect: told when a worker could not read the state.
    :ivar check: asks every member for the digest of its state at an index; see :class:`service.agent.checks.Checks`.
    :ivar lease: shows workers until when they need not ask.
    :ivar reload: reads the settings again; see :class:`service.agent.reloading.Reloading`.
    """

    def __init__(self, machine: ObservedMachine, describe: Callable[[], dict[str, Any]], reason: Callable[[], str], patience: float) -> None:
        self._machine = machine
        self._describe = describe
        self._reason = reason
        self._patience = patience
        self._workers: set[Worker] = set()
        self._server: RaftServer | None = None
        self._ask_members: AskMembers = _not_formed
        self.check: Callable[[int], Awaitable[dict[str, Any]]] = _no_check
        self.suspect: Callable[[], None] = lambda: None
        self.reload: Reload = _no_reload
        self._configured: protocol.Configured | None = None
        self._started = asyncio.Event()
        self._waiting: set[asyncio.Task[None]] = set()
        self._quitting = False
        self._contact = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._monitors = Monitors()
        self.lease = LeasePage()

    def configure(self, settings: Settings) -> None:
        """Other settings are in force: use them, and tell every worker, also those that come later."""
        self._patience = settings.raft_proposal_timeout_ms / 1000
        self._configured = protocol.Configured(reloadable_values(settings))
        for worker in self._workers:
            worker.send(self._configured)

    def open(self) -> None:
        """Begin to tell workers how the node is."""
        self._timer = asyncio.get_running_loop().call_later(STATE_SECONDS, self.open)
        self.tell_state()

    def serve(self, server: RaftServer, ask_members: AskMembers = _not_formed) -> None:
        """The node takes part in a cluster: carry out what is asked.

        :param ask_members: carries out what is asked about the membership.
        """
        self._server = server
        self._ask_members = ask_members
        self._started.set()
        server.observe(lambda _: self.tell_state())

    def retire(self) -> None:
        """The node takes part no more, but goes on: what is asked waits for a cluster again."""
        self._server = None
        self._ask_members = _not_formed
        self._started.clear()
        self.tell_state()

    def quit(self) -> None:
        """Announce that the node is stopping: workers answer those who wait."""
        self._quitting = True
        self.tell_state()

    def close(self) -> None:
        """Stop telling."""
        self._monitors.close()
        self.lease.close()
        if self._timer is not None:
            self._timer.cancel()
        for task in self._waiting:
            task.cancel()

    def greet(self, worker: Worker) -> None:
        """See :class:`service.ipc.server.Desk`."""
        self._workers.add(worker)
        if self._configured is not None:
            worker.send(self._configured)
        worker.send(protocol.Lease(str(self.lease.path)))
        worker.send(self._state())

    def leave(self, worker: Worker) -> None:
        """See :class:`service.ipc.server.Desk`."""
        self._workers.discard(worker)
        self._monitors.want(worker, 0)

    def handle(self, worker: Worker, message: protocol.FromWorker) -> None:
        """See :class:`service.ipc.server.Desk`."""
        match message:
            case protocol.Propose() | protocol.Barrier() if self._server is None:
                self._wait_for_cluster(worker, message)
            case protocol.Propose(ids, commands):
                self._propose(worker, ids, commands)
            case protocol.Barrier(id_, lease):
                self._barrier(worker, id_, lease=lease)
            case protocol.AskStatus(id_):
                worker.send(protocol.Status(id_, self._describe()))
            case protocol.AskMembers(id_, operation):
                self._keep(self._answer_members(worker, id_, operation))
            case protocol.AskCheck(id_, index):
                self._check(worker, id_, index)
            case protocol.Monitor(level):
                self._monitors.want(worker, level)
            case protocol.Suspect():
                self.suspect()
            case protocol.AskReload(id_):
                self._keep(self._reload(worker, id_))
            case protocol.Watch(id_, on):
                worker.watching = on
                worker.send(protocol.BarrierPassed(id_, self._machine.store.applied_index, self._machine.store.generation))
            case _:
                pass

    def publish(self, _index: int) -> None:
        """Entries were applied and can be read: say what they changed."""
        changes = self._machine.changes
        while changes:
            changed = changes.popleft()
            if changed.nothing:
                continue
            for worker in self._workers:
                if worker.watching:
                    worker.send(protocol.Changed(*changed[:6]))
            if changed.everything:
                self.tell_state()

    def tell_state(self) -> None:
        """Tell every worker how the node is."""
        state = self._state()
        for worker in self._workers:
            worker.send(state)

    def _propose(self, worker: Worker, ids: list[int], commands: list[bytes]) -> None:
        def settle(outcome: Sequence[bytes] | RaftError) -> None:
            if isinstance(outcome, RaftError):
                worker.send(protocol.Failed(ids, _kind(outcome), str(outcome)))
            else:
                worker.send(protocol.Results(ids, list(outcome)))

        try:
            self._running.driver.propose(commands, settle)
        except RaftError as error:
            settle(error)

    def _barrier(self, worker: Worker, id_: int, *, lease: bool) -> None:
        def settle(outcome: int | RaftError) -> None:
            if isinstance(outcome, RaftError):
                worker.send(protocol.Failed([id_], NO_LEADER, str(outcome)))
            else:
                worker.send(protocol.BarrierPassed(id_, outcome, self._machine.store.generation))

        try:
            self._running.driver.read(settle, lease=lease)
        except RaftError as error:
            settle(error)

    def _check(self, worker: Worker, id_: int, index: int) -> None:
        async def ask() -> None:
            try:
                worker.send(protocol.Status(id_, await self.check(index)))
            except RaftError as error:
                worker.send(protocol.Failed([id_], _kind(error), str(error)))

        self._keep(ask())

    def _wait_for_cluster(self, worker: Worker, message: protocol.Propose | protocol.Barrier) -> None:
        async def wait() -> None:
            try:
                await asyncio.wait_for(self._started.wait(), self._patience)
            except TimeoutError:
                ids = message.ids if isinstance(message, protocol.Propose) else [message.id]
                worker.send(protocol.Failed(ids, NO_LEADER, self._reason()))
            else:
                self.handle(worker, message)

        self._keep(wait())

    async def _answer_members(self, worker: Worker, id_: int, operation: bytes) -> None:
        status, answer = await self._ask_members(operation)
        if status == NOT_HERE:
            answer = answer | {"detail": self._reason() or answer["detail"]}
        worker.send(protocol.Members(id_, status, membership.encode(answer)))

    async def _reload(self, worker: Worker, id_: int) -> None:
        worker.send(protocol.Reloaded(id_, list(await self.reload())))

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    @property
    def _running(self) -> RaftServer:
        if self._server is None:
            raise NotLeader
        return self._server

    def _state(self) -> protocol.NodeState:
        leading = self._server is not None and self._server.leads
        known = self._server is not None and self._server.leader is not None
        if known and self._server is not None:
            self._contact = time.clock_gettime(time.CLOCK_BOOTTIME) - self._server.silence_seconds
        store = self._machine.store
        return protocol.NodeState(known, leading, self._contact, store.applied_index, store.generation, self._quitting, self._reason())


async def _no_check(_index: int) -> dict[str, Any]:
    """The answer of a node that does not take part."""
    raise NotLeader


async def _no_reload() -> tuple[str, ...]:
    """The answer of a node whose settings nobody keeps."""
    return ("this node can't read its settings again",)


def _kind(error: RaftError) -> str:
    if isinstance(error, NotLeader):
        return NO_LEADER
    return "unknown" if error.outcome is Outcome.UNKNOWN else "rejected"
