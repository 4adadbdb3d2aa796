"""A running member of a cluster: what an application holds in its hands.

server = RaftServer(node_id=…, config=…, ports=Ports(…))
await server.start()
results = await server.propose([b"command"])
index = await server.barrier()          # local reads are linearizable from here on
await server.stop()
"""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from math import inf
from typing import Any, TypeVar

from raft.config import RaftConfig
from raft.core.membership import Change
from raft.core.model import NodeId
from raft.core.node import RaftNode
from raft.core.ready import Observation
from raft.core.roles import Role
from raft.core.status import PeerStatus, Status
from raft.errors import NodeStopped, OutcomeUnknown, RaftError, Rejected
from raft.ports.machine import StateMachine
from raft.ports.storage import LogStore, SnapshotStore, StableStore
from raft.ports.transport import Transport
from raft.runtime.admission import check_transport
from raft.runtime.disk import DiskStatistics
from raft.runtime.driver import Driver
from raft.runtime.lease import Publish, nobody
from raft.runtime.proposals import Batch
from raft.runtime.reads import Read
from raft.runtime.recovery import recover
from raft.runtime.snapshotter import Snapshotter
from raft.runtime.transfers import Transfer

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The five ports of a node."""

    log_store: LogStore
    stable_store: StableStore
    snapshot_store: SnapshotStore
    transport: Transport
    machine: StateMachine


def _ignore(_index: int) -> None:
    """Nobody wants to know."""


def _as_it_is(command: bytes) -> bytes:
    return command


class RaftServer:
    """See the module's text. All methods on the event loop's thread.

    :param on_applied: called on the loop with each index up to which the machine has got, before anybody who waits is told.
    :param on_lease: called on the loop with the end of the lease (nanoseconds of :func:`raft.runtime.lease.boot_time_ns`; 0: there is none) and
        the commit index, whenever either may have changed while there is a lease, and before anybody can act on it. Who reads both, sees then
        that the end has not come, and then reads a state that has applied that index, has read as linearizably as after :meth:`barrier`.
    :param stamp: what a leader does to each command when it appends it; for times that the machine must not read by itself.
    :param jitter: draws from [0, n); by default from the system's randomness.
    """

    def __init__(
        self,
        *,
        node_id: NodeId,
        config: RaftConfig,
        ports: Ports,
        stamp: Callable[[bytes], bytes] = _as_it_is,
        on_applied: Callable[[int], None] = _ignore,
        on_lease: Publish = nobody,
        jitter: Callable[[int], int] | None = None,
    ) -> None:
        self.node_id = node_id
        self._config = config
        self._ports = ports
        self._stamp = stamp
        self._on_applied = on_applied
        self._on_lease = on_lease
        self._jitter = jitter or random.SystemRandom().randrange
        self._observers: list[Callable[[Observation], None]] = []
        self._driver: Driver | None = None
        self._snapshotter: Snapshotter | None = None
        self._failure: asyncio.Future[RaftError] | None = None
        self._starting: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Recover what the disk holds and take part. From here on the ports are the server's: it closes them when it stops.

        When the start fails, or its caller is cancelled, everything is closed again before this raises. A server is started once; another
        attempt needs new ports and a new server.

        :raises ConfigInvalid: when the transport can't carry what the settings allow.
        :raises StorageError: when the disk holds nothing that can be used; the text says what to do.
        :raises OSError: when the transport can't listen.
        :raises NodeStopped: when the server is stopped meanwhile.
        :raises RuntimeError: when it was started before.
        """
        if self._starting is not None:
            raise RuntimeError(f"the server {self.node_id} was started before; a new start needs new ports and a new server")
        self._failure = asyncio.get_running_loop().create_future()
        self._starting = asyncio.create_task(self._start())
        try:
            await asyncio.shield(self._starting)
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        ports = self._ports
        check_transport(self._config, ports.transport.message_bytes_max)
        recovered = await asyncio.to_thread(
            recover,
            log_store=ports.log_store,
            stable_store=ports.stable_store,
            snapshot_store=ports.snapshot_store,
            machine=ports.machine,
        )
        self._check_not_stopped()
        node = RaftNode(
            node_id=self.node_id,
            config=self._config,
            boundary=recovered.log.boundary,
            entries=recovered.log.entries,
            hard_state=recovered.hard_state,
            applied=recovered.applied,
            jitter=self._jitter,
        )
        self._snapshotter = Snapshotter(
            machine=ports.machine, store=ports.snapshot_store, log_store=ports.log_store, transport=ports.transport, fail=self._fail
        )
        self._driver = Driver(
            node=node,
            transport=ports.transport,
            log_store=ports.log_store,
            snapshotter=self._snapshotter,
            stamp=self._stamp,
            observe=self._observe,
            on_applied=self._tell_applied,
            on_lease=self._on_lease,
            fail=self._fail,
        )
        await ports.transport.start(self._driver)
        self._check_not_stopped()
        self._driver.start()

    def _check_not_stopped(self) -> None:
        if self._ending is not None:
            raise NodeStopped("the node was stopped while it started")

    @property
    def driver(self) -> Driver:
        """The running driver, for callers that prefer callbacks to awaitables.

        :raises NodeStopped: before the start and after the stop.
        """
        if self._driver is None or self._ending is not None:
            raise NodeStopped("the node is not running")
        return self._driver

    @property
    def leads(self) -> bool:
        """Whether this node leads, as far as it knows. One that has stopped leads no more."""
        return self._driver is not None and not self._driver.stopped and self._driver.node.role is Role.LEADER

    @property
    def leader(self) -> NodeId | None:
        """Who leads, as far as this node knows. One that has stopped knows nobody."""
        return None if self._driver is None or self._driver.stopped else self._driver.node.leader

    @property
    def holds_lease(self) -> bool:
        """Whether this node leads and may serve reads at this moment without asking anybody."""
        return self._driver is not None and self._driver.holds_lease

    @property
    def silence_seconds(self) -> float:
        """How long ago the leader was heard of, to the tick; 0 when this node leads. Meaningless while no leader is known."""
        state = self.driver.node.state
        return 0.0 if state.role is Role.LEADER else state.election_elapsed * self._config.tick_ms / 1000

    @property
    def disk_statistics(self) -> DiskStatistics:
        """What the disk has done since the start."""
        return self.driver.disk.statistics

    @property
    def put_off(self) -> int:
        """How many checkpoints and snapshots found no room on the disk since the start; each was or will be tried again."""
        return 0 if self._snapshotter is None else self._snapshotter.put_off

    def observe(self, observer: Callable[[Observation], None]) -> Callable[[], None]:
        """Call ``observer`` for every observation, on the loop's thread, as long as the node runs.

        What an observer raises is told to the loop's exception handler and disturbs nobody else.

        :returns: what ends that; without effect when called again.
        """
        self._observers.append(observer)

        def end() -> None:
            self._observers = [one for one in self._observers if one is not observer]

        return end

    async def failure(self) -> RaftError:
        """Wait until the node can't go on, and learn why.

        :raises NodeStopped: when it is stopped instead, or was never started.
        """
        if self._failure is None:
            raise NodeStopped("the node is not running")
        return await asyncio.shield(self._failure)

    async def propose(self, commands: Sequence[bytes], within: float | None = None) -> tuple[bytes, ...]:
        """Replicate a batch of commands, at any node: all or none, next to each other and in their order.

        :param commands: at least one; an empty byte string is a command like any other.
        :param within: seconds, to the tick; ``inf`` for ever; by default the setting ``proposal_timeout_ms``.
        :returns: the machine's results, one a command.
        :raises NotLeader: at once, naming the leader, when this node does not lead and the setting ``forwarding`` is 0; and when no leader was
            known until the deadline.
        :raises ProposalInvalid: for what is not bytes.
        :raises EmptyProposal: for no command at all.
        :raises ProposalTooLarge: for a command over the setting ``proposal_bytes_max``.
        :raises BatchTooLarge: for a batch over the setting ``uncommitted_bytes_max``, or over what the transport carries.
        :raises UncommittedLimit: when this node holds as much already as it may; a leader that refuses what a follower has passed on says so as
            a :class:`~raft.errors.Rejected` with the same text. It may be tried again a little later.
        :raises RaftError: whose ``outcome`` says whether the batch may have taken effect.

        A batch whose caller is cancelled is not sent any more; when it had been, nobody knows.
        """
        future: asyncio.Future[tuple[bytes, ...]] = asyncio.get_running_loop().create_future()
        return await _answer(future, self.driver.propose(list(commands), _resolver(future), within))

    async def barrier(self, within: float | None = None, *, lease: bool = False) -> int:
        """Wait until reads of the local machine are linearizable: they see everything acknowledged before this call.

        :param within: seconds, to the tick; ``inf`` for ever; by default the setting ``proposal_timeout_ms``.
        :param lease: whether the leader's lease will do, if this node has it: then nobody is asked, and it must be true that no two clocks drift
            apart by more than the setting ``lease_drift_percent``.
        :returns: the applied index.
        :raises NotLeader: at once, naming the leader, when this node does not lead and the setting ``forwarding`` is 0.
        :raises Rejected: when no leader confirmed it in time.
        """
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        return await _answer(future, self.driver.read(_resolver(future), within, lease=lease))

    async def change(self, wanted: Change, within: float | None = None) -> None:
        """Change the membership, at the leader, and wait until the change is committed and applied here.

        :param within: seconds, to the tick; ``inf`` for ever; by default the setting ``proposal_timeout_ms``.
        :raises NotLeader: when this node does not lead.
        :raises ChangeRefused: when the change can't be made now, or makes no sense.
        :raises OutcomeUnknown: when it may have been made, or may still be.
        """
        future: asyncio.Future[tuple[bytes, ...]] = asyncio.get_running_loop().create_future()
        await _answer(future, self.driver.change(wanted, _resolver(future), within))

    def know(self, addresses: Mapping[NodeId, str]) -> None:
        """Take the addresses of servers, ``host:port``: a node that joins answers its leader before it has received any configuration.

        Tell only what is true now. It counts from now on, also for servers that the configuration has elsewhere, until this node holds everything
        that its leader has committed: then its own configuration is the newer one, and is followed wherever a later one moves. For servers
        that the configuration does not name it counts until something else is told. It is forgotten when the node stops.

        :raises ValueError: for an empty id or address; nothing has changed then.
        """
        self.driver.know(addresses)

    async def transfer(self, target: NodeId, within: float | None = None) -> NodeId:
        """Hand leadership over and wait until somebody else leads. Proposals wait for the new leader meanwhile.

        :param within: seconds, to the tick; by default the setting ``proposal_timeout_ms``. The attempt itself ends after an election timeout.
        :returns: who leads now: the target, unless an election came in between.
        :raises NotLeader: when this node does not lead.
        :raises TransferRefused: when the target can't lead.
        :raises OutcomeUnknown: when it did not take over in time, which it still may.
        """
        future: asyncio.Future[NodeId] = asyncio.get_running_loop().create_future()
        return await _answer(future, self.driver.transfer(target, _resolver(future), within))

    def reconfigure(self, config: RaftConfig) -> tuple[str, ...]:
        """Go on with other settings, without a restart; :data:`raft.config.RELOADABLE` lists those that may change.

        :returns: the names of those that have changed.
        :raises ConfigInvalid: naming every setting that needs a restart, or that is too large for the transport; nothing has changed then.
        """
        names = self._config.changed_to(config)
        check_transport(config, self._ports.transport.message_bytes_max)
        self.driver.reconfigure(config)
        self._config = config
        return names

    def status(self) -> Status:
        """The node as it is now."""
        return self.driver.node.status()

    def successors(self) -> tuple[PeerStatus, ...]:
        """The other voters in the order in which they are asked to lead in place of this node; empty when it does not lead.

        Those that keep up come first; among them who has come back last, as far as this node has seen it: in a rolling restart that one was
        restarted already, and need not hand over again. Then who is furthest along. Whoever is silent is among them, at the place that this gives.
        """
        status, contact = self.status(), self.driver.contact

        def rank(peer: PeerStatus) -> tuple[bool, float, int, int]:
            return (not peer.caught_up, -contact.returned_at(peer.peer), -peer.match_index, peer.contact_ticks)

        return tuple(sorted((peer for peer in status.peers if peer.peer in status.configuration.voter_ids), key=rank))

    async def hand_over(self, within: float) -> bool:
        """Give leadership to a voter, if this node leads; to the next of :meth:`successors` when that does not take it.

        :param within: seconds to wait for it.
        :returns: whether this node does not lead any more.
        """
        if not self.leads:
            return True
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within
        for voter in self.successors():
            left = deadline - loop.time()
            if not self.leads or left <= 0:
                break
            with suppress(Rejected, OutcomeUnknown):
                await self.transfer(voter.peer, left)
        return not self.leads

    async def retire(self, within: float) -> bool:
        """Prepare the stop: let nobody new in, hand leadership over, and wait until everybody has their answer.

        The node is not chosen as leader any more. It answers its peers until :meth:`stop`; one that led does so for a heartbeat more, until they
        have heard of the new leader.

        :param within: seconds for all of it.
        :returns: whether this node does not lead and nobody waits any more. Otherwise those who wait are told by :meth:`stop`.
        """
        loop, config, driver = asyncio.get_running_loop(), self._config, self.driver
        deadline = loop.time() + within
        quiet_seconds = config.heartbeat_ms / 1000 if self.leads else 0.0
        driver.retire()
        handed_over = await self.hand_over(within)
        busy_at = loop.time()
        while not driver.stopped:
            now = loop.time()
            busy_at = now if driver.waiting else busy_at
            if now - busy_at >= quiet_seconds and not driver.waiting:
                return handed_over
            if now >= deadline:
                break
            await asyncio.sleep(config.tick_ms / 1000)
        return False

    async def stop(self) -> None:
        """Stop at once: everybody who waits is told, the disk and the machine finish what they have begun, the ports are closed.

        May be called at any time, during the start too, and by many at once: each returns when all is done. A caller that is cancelled does not
        keep it from being done. Without effect on a server that was never started.
        """
        if self._starting is None:
            return
        if self._ending is None:
            self._ending = asyncio.create_task(self._end(self._starting))
            if self._failure is not None and not self._failure.done():
                self._failure.set_exception(NodeStopped("the node was stopped"))
                self._failure.exception()  # that nobody waits for it is no fault
            if self._driver is not None:
                self._driver.stop()
        await asyncio.shield(self._ending)

    async def _end(self, starting: "asyncio.Task[None]") -> None:
        await asyncio.wait((starting,))
        if not starting.cancelled():
            starting.exception()  # told by start(), unless its caller has gone
        ports, driver = self._ports, self._driver
        async with AsyncExitStack() as steps:  # from the last one to the first, each whatever becomes of those before it
            steps.callback(ports.log_store.close)
            if driver is not None:
                steps.push_async_callback(asyncio.to_thread, driver.join)
            steps.push_async_callback(ports.transport.stop)
            if self._snapshotter is not None:
                steps.push_async_callback(self._snapshotter.stop)
            if driver is not None:
                driver.stop()

    def _observe(self, observation: Observation) -> None:
        for observer in self._observers:
            _call(observer, observation)

    def _tell_applied(self, index: int) -> None:
        _call(self._on_applied, index)

    def _fail(self, error: RaftError) -> None:
        if self._failure is not None and not self._failure.done():
            self._failure.set_result(error)
        if self._driver is not None:
            self._driver.stop()


def _call(callback: Callable[[Any], None], told: object) -> None:
    """Call back into the application. What it raises is its own affair, and goes where asyncio puts such things."""
    try:
        callback(told)
    except Exception as error:  # noqa: BLE001 - whatever it raised, the node goes on
        context = {"message": f"{callback!r} raised when it was told {told!r}", "exception": error}
        asyncio.get_running_loop().call_exception_handler(context)


async def _answer(future: "asyncio.Future[Answer]", waiter: Batch | Read | Transfer | None) -> Answer:
    """Wait for the answer; a caller that is cancelled is forgotten."""
    try:
        return await future
    except asyncio.CancelledError:
        if waiter is not None:
            waiter.deadline = -inf
        raise


def _resolver(future: "asyncio.Future[Any]") -> Callable[[Any], None]:
    def resolve(outcome: Any) -> None:
        if future.done():
            return
        if isinstance(outcome, RaftError):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    return resolve
