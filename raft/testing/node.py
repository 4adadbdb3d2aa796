"""One simulated node: the core, a disk that forgets, a state machine that lags, and the driver between them.

The driver does what :mod:`raft.core.ready` asks of whoever drives the core, in that order, on virtual time.
"""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from raft.core.membership import Change
from raft.core.messages import InstallSnapshot, Message, ProposeResponse
from raft.core.model import Boundary, Entry
from raft.core.node import RaftNode
from raft.core.ready import Appended, ReadState, Ready, RoleChanged
from raft.core.roles import Role
from raft.runtime.lease import Lease, Pauses
from raft.testing import markers
from raft.testing.disk import Disk
from raft.testing.machine import Machine, State

if TYPE_CHECKING:
    from raft.testing.world import World


NOBODY = 0
"""The context of what nobody waits for."""


MS = 1_000_000
"""A millisecond in nanoseconds."""


class Batch(NamedTuple):
    """Proposals that became entries here and wait to be applied."""

    appended: Appended
    results: list[bytes]


class SimulatedNode:
    """See the module's text.

    :param node_id: its identity, which is its name too.
    :param genesis: what precedes the log of a fresh cluster.
    :param tick_ms: how long a tick takes on this node's clock.
    """

    def __init__(self, world: "World", node_id: str, genesis: Boundary, tick_ms: float) -> None:
        self.id = node_id
        self._world = world
        self._plan = world.plan
        self._tick_ms = tick_ms
        self.disk = Disk(genesis, sync_ms=self._sync_ms, after=self._after, persisted=self._persisted)
        self.machine = Machine(self.disk.state)
        self.core: RaftNode | None = None
        self.life = 0
        """Grows with each crash; what an earlier life had scheduled is void."""
        self.paused = False
        self._reset()

    def _reset(self) -> None:
        self._deferred: list[tuple[Callable[..., None], tuple[object, ...]]] = []
        self._inbox: dict[Boundary, State] = {}
        self._to_apply: deque[Entry] = deque()
        self._batches: dict[int, Batch] = {}
        self._reads: list[ReadState] = []
        self._applying = self._turning = self._compacting = False
        self._stored: tuple[Boundary, State] | None = None
        self._lease = Lease(self._plan.config.lease_ns, self._clock_ns)
        self._pauses = Pauses(self._plan.config.election_timeout_ms * MS, self._clock_ns)

    # -- life and death -------------------------------------------------------------------------------------------------------------------

    @property
    def reachable(self) -> bool:
        """Whether the node is up and not frozen."""
        return self.core is not None and not self.paused

    @property
    def leads(self) -> bool:
        """Whether the node believes that it leads."""
        return self.core is not None and self.core.role is Role.LEADER

    def start(self) -> None:
        """Start from what the disk holds."""
        disk = self.disk
        self._reset()
        self.machine = Machine(disk.state)
        self.core = RaftNode(
            node_id=self.id,
            config=self._plan.config,
            boundary=disk.boundary,
            entries=tuple(disk.entries),
            hard_state=disk.hard_state,
            applied=disk.state.applied,
            jitter=self._jitter,
        )
        self._world.trace.record(self._world.now, self.id, "starts", disk.hard_state)
        self._world.checkers.started(self)
        self._after(int(self._world.rng.random() * self._tick_ms), self._tick)
        self._step_done()

    def crash(self) -> None:
        """Lose everything that is not durable."""
        world, disk = self._world, self.disk
        if self.core is not None:
            markers.crashed(world.counts, self.core.state, disk.hard_state)
        lost, installing = disk.crash(lambda syncing: int(world.rng.random() * (syncing + 1)))
        if disk.state.applied < self.machine.state.applied:
            # An installed snapshot may be ahead of the machine; otherwise the machine falls back to any state since its last checkpoint.
            states = [state for state in self.machine.unsynced if state.applied <= disk.last_index]
            disk.state = states[int(world.rng.random() * len(states))]
        world.counts["crashes"] += 1
        world.counts["crashes that lost writes"] += bool(lost)
        world.counts["crashes in the middle of an install"] += installing
        world.trace.record(world.now, self.id, "crashes", lost)
        self.core = None
        self.paused = False
        self.life += 1

    def pause(self, duration_ms: int) -> None:
        """Freeze the process; the disk and the network go on without it."""
        self.paused = True
        self._world.counts["pauses"] += 1
        self._world.trace.record(self._world.now, self.id, "freezes", duration_ms)
        self._world.after(duration_ms, self._resume, self.life)

    def _resume(self, life: int) -> None:
        if life != self.life or not self.paused:
            return
        self.resume()

    def resume(self) -> None:
        """Go on; everything that came meanwhile is handled at once."""
        self.paused = False
        self._world.trace.record(self._world.now, self.id, "goes on", len(self._deferred))
        deferred, self._deferred = self._deferred, []
        for action, arguments in deferred:
            action(*arguments)

    # -- input ----------------------------------------------------------------------------------------------------------------------------

    def deliver(self, message: Message, state: State | None) -> None:
        """A message arrives; ``state`` travels beside an InstallSnapshot."""
        if self.core is None:
            return
        if self.paused:
            self._deferred.append((self.deliver, (message, state)))
            return
        self._world.trace.record(self._world.now, self.id, "receives", message)
        if type(message) is ProposeResponse:
            self._world.clients.answered(message.context, message.results, error=message.error, unknown=message.unknown)
            return
        if type(message) is InstallSnapshot and state is not None:
            self._inbox[message.boundary] = state
        markers.ARRIVING[type(message)](self._world.counts, self.core.state, message)
        self.core.step(message)
        self._step_done()

    def propose(self, commands: tuple[bytes, ...], context: int) -> None:
        """A client proposes here. :raises Rejected: as the core does."""
        if self.core is not None:
            self.core.propose(commands, context)
            self._step_done()

    def read(self, context: int, *, lease: bool = False) -> None:
        """A client reads here, and the lease may do. :raises Rejected: as the core does."""
        core = self.core
        if core is None:
            return
        if lease and self._lease.is_held(core.term, core.round_for_lease):
            self._world.counts["reads under the lease"] += 1
            self._confirmed(ReadState(context, core.state.log.commit))
            self._serve_reads()
        else:
            self._world.counts["reads after the lease had run out"] += lease and core.round_for_lease > 0
            core.read(context)
            self._step_done()

    def transfer(self, target: str) -> None:
        """Ask for a transfer of leadership. :raises Rejected: as the core does."""
        if self.core is not None:
            self.core.transfer(target)
            self._step_done()

    def change(self, change: Change) -> None:
        """Change the membership; nobody waits for an answer. :raises Rejected: as the core does."""
        if self.core is not None:
            self.core.change(change, NOBODY)
            self._step_done()

    def peer_unreachable(self, peer: str) -> None:
        """The transport noticed a loss."""
        if self.core is not None and not self.paused:
            self.core.report_unreachable(peer)
            self._step_done()

    def snapshot_ended(self, peer: str, index: int) -> None:
        """The transport has carried a snapshot of ``index``, or given up (0)."""
        if self.core is not None and self.paused:
            self._deferred.append((self.snapshot_ended, (peer, index)))
        elif self.core is not None:
            self.core.report_snapshot(peer, index)
            self._step_done()

    def _tick(self) -> None:
        if self.core is not None:
            self._world.trace.record(self._world.now, self.id, "tick")
            if self._pauses.ended():
                self._world.counts["time lost noticed"] += 1
                self.core.lose_time()
            self.core.tick()
            self._world.checkers.ticked(self)
            self._after(self._world.tick_ms(self._tick_ms), self._tick)
            self._step_done()

    # -- output ---------------------------------------------------------------------------------------------------------------------------

    def _step_done(self) -> None:
        self._world.checkers.stepped(self)
        if not self._plan.turn_ms_max or self._world.network.healthy:
            self._turn()
        elif not self._turning:
            self._turning = True
            self._after(int(self._world.rng.random() * self._plan.turn_ms_max), self._turn)

    def _turn(self) -> None:
        self._turning = False
        while self.core is not None:
            ready = self.core.ready()
            if ready is None:
                return
            self._take(ready)
            if not ready.committed:  # otherwise there may be another page
                return

    def _take(self, ready: Ready) -> None:
        world = self._world
        world.trace.record(world.now, self.id, "ready", ready)
        world.checkers.taken(self, ready)
        self._send_at_once(ready)
        if self.disk.idle and not ready.must_persist:
            self._durable(ready)
        else:
            if ready.snapshot is not None:
                world.nemesis.installing(self)
            self.disk.submit(ready, None if ready.snapshot is None else self._inbox.pop(ready.snapshot))
        for appended in ready.appended:
            if appended.context == NOBODY:
                continue
            self._batches[appended.first_index + appended.count - 1] = Batch(appended, [])
        if ready.committed:
            self._to_apply.extend(ready.committed)
            self._schedule_apply()
        for read in ready.reads:
            if read.index == 0:
                world.clients.read_refused(read.context)
            else:
                self._confirmed(read)
        if ready.reads:
            self._serve_reads()
        for observation in ready.observations:
            self._note(observation)

    def _send_at_once(self, ready: Ready) -> None:
        if self.core is not None:
            self._lease.sending(self.core.term, self.core.round_begun)
        for message in ready.messages:
            self._send(message)

    def _send(self, message: Message) -> None:
        self._world.checkers.sent(self, message)
        if type(message) is not InstallSnapshot:
            self._world.network.send(message)
            return
        boundary, state = self._snapshot()
        self._world.counts["snapshots sent"] += 1
        self._world.network.send_snapshot(InstallSnapshot(message.sender, message.to, message.term, boundary), state)

    def _snapshot(self) -> tuple[Boundary, State]:
        """What a peer that lags is sent: the copy made at the last compaction, or one made now."""
        if self._stored is not None and self._plan.stored_snapshots:
            return self._stored
        return self._boundary_at(self.machine.state.applied), self.machine.state

    def _boundary_at(self, index: int) -> Boundary:
        if self.core is None:
            raise LookupError(f"{self.id} is down")
        return self.core.boundary_at(index)

    def _persisted(self, group: list[tuple[Ready, State | None]]) -> None:
        core = self.core
        if core is None:
            return
        self._world.trace.record(self._world.now, self.id, "persisted", [ready.number for ready, _ in group])
        for ready, state in group:
            if state is not None:
                self._install(state)
            self._durable(ready, advance=False)
        core.advance(group[-1][0].number)
        self._step_done()

    def _durable(self, ready: Ready, *, advance: bool = True) -> None:
        for message in ready.messages_after_persist:
            self._send(message)
        if advance and self.core is not None:
            self.core.advance(ready.number)

    def _install(self, state: State) -> None:
        self._world.counts["snapshots installed"] += 1
        self.machine.restore(state)
        self._stored = None
        self._to_apply.clear()
        self._world.checkers.restored(self)
        self._serve_reads()

    # -- applying -------------------------------------------------------------------------------------------------------------------------

    def _schedule_apply(self) -> None:
        if not self._applying:
            self._applying = True
            lag = 0 if self._world.network.healthy else self._plan.apply_ms_max
            self._after(int(self._world.rng.random() * lag), self._apply)

    def _apply(self) -> None:
        self._applying = False
        core = self.core
        if core is None or not self._to_apply:
            return
        for _ in range(1 + int(self._world.rng.random() * len(self._to_apply))):
            entry = self._to_apply.popleft()
            self._world.checkers.applying(self, entry)
            result = self.machine.apply(entry)
            self._world.checkers.applied(self)
            self._answer(entry, result)
        core.applied_to(self.machine.state.applied)
        self._serve_reads()
        if self._to_apply:
            self._schedule_apply()
        self._maybe_compact()
        self._step_done()

    def _answer(self, entry: Entry, result: bytes) -> None:
        """Collect the results of batches; a batch is answered with its last entry. One whose entries were replaced stays without an answer."""
        batch = self._batches.get(entry.index)
        if batch is None:
            return
        del self._batches[entry.index]
        appended = batch.appended
        if entry.term != appended.term:
            self._world.counts["proposals replaced by another leader's"] += 1
            return
        results = (*(b"%d" % index for index in range(appended.first_index, entry.index)), result)
        if appended.origin == self.id:
            self._world.clients.answered(appended.context, results)
        elif self.core is not None:
            self._world.counts["forwarded proposals applied"] += 1
            self._send(ProposeResponse(self.id, appended.origin, self.core.term, appended.context, results))

    def _confirmed(self, read: ReadState) -> None:
        self._world.checkers.read_confirmed(self, read.context, read.index)
        self._reads.append(read)

    def _serve_reads(self) -> None:
        applied = self.machine.state.applied
        waiting = [read for read in self._reads if read.index > applied]
        if len(waiting) < len(self._reads):
            for read in self._reads:
                if read.index <= applied:
                    self._world.clients.read_served(read.context, applied)
            self._reads = waiting

    def _maybe_compact(self) -> None:
        config = self._plan.config
        if not self._compacting and self.machine.state.applied - self.disk.boundary.index > config.snapshot_threshold_entries:
            self._compacting = True
            self._after(int(self._world.rng.random() * self._plan.snapshot_ms_max), self._compact)

    def _compact(self) -> None:
        """Checkpoint first, then cut the log (no further than to where the checkpoint reaches), then tell the core."""
        self._compacting = False
        core, disk = self.core, self.disk
        index = self.machine.state.applied - self._plan.config.trailing_entries
        if core is None or index <= core.state.log.boundary.index or not disk.idle:  # a snapshot may have overtaken it
            return
        disk.state = self.machine.checkpoint()
        self._stored = (self._boundary_at(disk.state.applied), disk.state)
        boundary = self._boundary_at(index)
        disk.compact(boundary)
        core.compact(boundary)
        self._world.counts["compactions"] += 1
        self._world.checkers.compacted(self, boundary)
        self._step_done()

    # -- helpers --------------------------------------------------------------------------------------------------------------------------

    def _clock_ns(self) -> int:
        """What the lease is counted on: it goes on while the process is frozen, as fast as the node's ticks do otherwise."""
        return int(self._world.now * MS * self._plan.config.tick_ms / self._tick_ms)

    def _after(self, delay_ms: int, action: Callable[..., None], *arguments: object) -> None:
        """Schedule something that this life of the process does."""
        self._world.after(delay_ms, self._wake, self.life, action, arguments)

    def _wake(self, life: int, action: Callable[..., None], arguments: tuple[object, ...]) -> None:
        if life != self.life:
            return
        if self.paused:
            self._deferred.append((action, arguments))
        else:
            action(*arguments)

    def _sync_ms(self, installs: bool) -> int:
        plan, draw = self._plan, self._world.rng.random
        if self._world.network.healthy:
            return 1
        if installs:
            return int(draw() * plan.install_ms_max)
        if plan.slow_sync_chance and draw() < plan.slow_sync_chance:
            self._world.counts["slow syncs"] += 1
            return int(draw() * plan.slow_sync_ms_max)
        return int(draw() * (plan.sync_ms_max + 1))

    def _jitter(self, below: int) -> int:
        return int(self._world.rng.random() * below)

    def _note(self, observation: object) -> None:
        """Count the rare branches that a schedule reached."""
        if self.core is not None:
            markers.noted(self._world.counts, self.core.state, observation)
        if type(observation) is RoleChanged and observation.role is Role.LEADER:
            self._world.nemesis.elected(self)
