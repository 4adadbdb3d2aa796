"""Fulfils the duties that :mod:`raft.core.ready` lists: the core on one side, disk, machine and transport on the other.

Whatever happens (a message, a proposal, a tick, a finished write) is told to the core at once; then one *turn* is scheduled for the end of
this round of the event loop. The turn takes a single Ready. So everything that arrived together becomes one append, one sync and one
message a follower, without a timer.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from raft.config import RaftConfig
from raft.core.membership import Change
from raft.core.messages import AppendRequest, InstallSnapshot, Message, ProposeRequest, ProposeResponse, TimeoutNow
from raft.core.model import NodeId
from raft.core.node import RaftNode
from raft.core.ready import ConfigurationChanged, LeaderChanged, Observation, Ready
from raft.core.roles import Role
from raft.errors import DeadlinePassed, MessageRefused, NodeStopped, NotLeader, RaftError, Rejected, TransferInProgress
from raft.ports.storage import LogStore, SnapshotSink
from raft.ports.transport import Transport
from raft.runtime.admission import check_batch, check_change, check_deadline, check_quota, stamped
from raft.runtime.applier import Applied, Applier
from raft.runtime.backlog import Backlog
from raft.runtime.disk import Disk
from raft.runtime.forwarded import Forwarded
from raft.runtime.lease import Lease, Pauses, Publish
from raft.runtime.proposals import Batch, Proposals, Settle, too_late
from raft.runtime.reach import Contact, Links
from raft.runtime.reads import Read, Reads
from raft.runtime.snapshotter import Snapshotter
from raft.runtime.stall import Stall
from raft.runtime.transfers import Settle as SettleTransfer
from raft.runtime.transfers import Transfer, Transfers

Stamp = Callable[[bytes], bytes]


class Driver:
    """One running node. All methods on the loop's thread; what is called back must not raise.

    :param stamp: applied by the leader to each command when it is appended (a time, say).
    :param observe: told every observation.
    :param on_applied: told each index up to which the machine has got, a snapshot's among them.
    :param on_lease: as in :class:`raft.runtime.server.RaftServer`.
    :param fail: told once why the node can't go on.
    """

    def __init__(
        self,
        *,
        node: RaftNode,
        transport: Transport,
        log_store: LogStore,
        snapshotter: Snapshotter,
        stamp: Stamp,
        observe: Callable[[Observation], None],
        on_applied: Callable[[int], None],
        on_lease: Publish,
        fail: Callable[[RaftError], None],
    ) -> None:
        self.node = node
        self.loop = asyncio.get_running_loop()
        config = node.state.config
        self.proposals = Proposals(config.election_timeout_ms / 1000)
        self.reads = Reads(config.election_timeout_ms / 1000)
        self.transfers = Transfers()
        self._lease = Lease(config.lease_ns, publish=on_lease)
        self._pauses = Pauses(config.election_timeout_ms * 1_000_000)
        self.lease_reads = 0
        self.disk = Disk(log_store, self.loop, self._durable, fail)
        self.applier = Applier(snapshotter.machine, self.loop, self._applied, fail)
        self._backlog = Backlog(self.loop, self.applier.apply)
        self._transport = transport
        self._snapshotter = snapshotter
        self._stamp = stamp
        self._forwarded = Forwarded(node, transport)
        self._observe = observe
        self._on_applied = on_applied
        self._fail = fail
        self._tick_seconds = config.tick_ms / 1000
        self._timeout = config.proposal_timeout_ms / 1000
        self._context = int(self.loop.time() * 1e6)  # contexts of an earlier run are not used again
        self._turn_scheduled = False
        self.contact = Contact()
        self._links = Links(node, transport)
        self._held_back: deque[Ready] | None = None  # while a snapshot is being installed: what must be persisted after it
        self._tick_handle: asyncio.TimerHandle | None = None
        self._next_tick = 0.0
        self._stall = Stall(self.disk)
        self._retiring = False
        self._stopped = False

    def start(self) -> None:
        """Start the threads and the clock."""
        self.disk.start()
        self.applier.start()
        self._snapshotter.attach(self)
        self._links.configured()
        self._next_tick = self.loop.time() + self._tick_seconds
        self._tick_handle = self.loop.call_at(self._next_tick, self._tick)
        self.schedule()

    def stop(self) -> None:
        """Stop the clock and settle everybody who waits. The threads are stopped by :meth:`join`."""
        self._stopped = True
        self._backlog.flush()
        self._lease.publish(self.node.term, 0, self.node.state.log.commit)
        if self._tick_handle is not None:
            self._tick_handle.cancel()
        self.proposals.stop()
        self.reads.stop()
        self.transfers.stop()

    def reconfigure(self, config: RaftConfig) -> None:
        """Go on with other settings: one frozen object takes the place of another between two turns, so nobody sees half of it."""
        self.node.state.config = config
        self._timeout = config.proposal_timeout_ms / 1000
        self.schedule()

    def retire(self) -> None:
        """Let nobody new in, and do not stand for leader any more. What is under way goes on."""
        self._retiring = True

    def join(self) -> None:
        """Finish what is on its way to the disk and to the machine. Blocks."""
        self.disk.stop()
        self.applier.stop()

    @property
    def stopped(self) -> bool:
        """Whether the node takes part no more: it was stopped, or has failed."""
        return self._stopped

    @property
    def waiting(self) -> int:
        """Callers that wait for anything, here or at a node that forwarded what they want."""
        return self.proposals.waiting + self.reads.waiting + self.transfers.waiting

    # What callers ask. Each gets ``settle`` called once. The returned waiter's deadline may be moved into the past: then the caller is
    # forgotten at the next tick, and what has not left this node by then never will.

    def propose(self, commands: Sequence[bytes], settle: Settle, timeout: float | None = None) -> Batch | None:
        """Propose a batch; ``settle`` gets the results, or a :class:`RaftError`."""
        if self._turned_away(settle):
            return None
        try:
            size = check_batch(self.node.state, commands, self._transport.message_bytes_max)
            batch = Batch(0, commands, settle, self._deadline(timeout), self.loop.time(), size)
            check_quota(self.node.state, self.proposals.outside_bytes, size)
        except RaftError as error:
            self._refused(error, settle)
            return None
        if self.proposals.holds_any:
            self.proposals.hold(batch)  # behind them
            self._submit_held()
        elif not self._submit(batch):
            self.proposals.hold(batch)
        return batch

    def change(self, wanted: Change, settle: Settle, timeout: float | None = None) -> Batch | None:
        """Change the membership, at the leader; ``settle`` gets an empty result once that is committed and applied, or a :class:`RaftError`."""
        if self._turned_away(settle):
            return None
        try:
            check_change(wanted)
            deadline = self._deadline(timeout)
            self._context += 1
            self.node.change(wanted, self._context)
        except RaftError as error:
            self._refused(error, settle)
            return None
        batch = Batch(self._context, (), settle, deadline, self.loop.time())
        self.proposals.submitted(batch)
        self.schedule()
        return batch

    def transfer(self, target: NodeId, settle: SettleTransfer, timeout: float | None = None) -> Transfer | None:
        """Hand leadership over; ``settle`` gets whoever leads then, or a :class:`RaftError`."""
        if self._stopped:
            settle(NodeStopped("the node has stopped"))
            return None
        try:
            deadline = self._deadline(timeout)
            self.node.transfer(target)
        except RaftError as error:
            self._refused(error, settle)
            return None
        transfer = Transfer(target, settle, deadline)
        self.transfers.add(transfer)
        self.schedule()
        return transfer

    def know(self, addresses: Mapping[NodeId, str]) -> None:
        """Take the addresses of servers; :mod:`raft.runtime.reach` says which of several counts."""
        self._links.know(addresses)

    def read(self, settle: Callable[[int | RaftError], None], timeout: float | None = None, *, lease: bool = False) -> Read | None:
        """Ask for a linearizable read; ``settle`` gets the applied index once local reads are as new as that, or an error.

        :param lease: whether the lease will do, while this node holds it. Then nobody is asked, and ``settle`` may be called before this returns.
        """
        if self._turned_away(settle):
            return None
        try:
            read = Read(settle, self._deadline(timeout))
        except DeadlinePassed as error:
            self._refused(error, settle)
            return None
        if lease and self.holds_lease:  # first the lease, then the commit index: it is at least what it was at the moment of the check
            self.lease_reads += 1
            log = self.node.state.log
            self.reads.grant(read, log.commit, log.applied)
        else:
            self.reads.add(read)
            self.schedule()
        return read

    @property
    def holds_lease(self) -> bool:
        """Whether this node leads and nobody else can at this moment."""
        return not self._stopped and self._lease.is_held(self.node.term, self.node.round_for_lease)

    def schedule(self) -> None:
        """Something has happened: take a turn at the end of this round of the loop."""
        if not self._turn_scheduled and not self._stopped:
            self._turn_scheduled = True
            self.loop.call_soon(self._turn)

    def observe(self, observation: Observation) -> None:
        """Something happened outside the core."""
        if not self._stopped:
            self._observe(observation)

    def receive(self, messages: tuple[Message, ...]) -> None:
        """Messages arrived."""
        if self._stopped:
            return
        if messages:
            self.contact.hear(messages[0].sender, self.loop.time())
        for message in messages:
            try:
                self._take(message)
            except MessageRefused:
                continue  # a stray; the state is what it was
            except RaftError as error:
                self._fail(error)
                return
        self.schedule()

    def begin_snapshot(self, message: InstallSnapshot) -> SnapshotSink:
        """A snapshot begins to arrive."""
        return self._snapshotter.receive(message)

    def unreachable(self, peer: NodeId) -> None:
        """Messages to a peer were lost. Until it is heard of again, nothing is forwarded to it: that would only make more outcomes unknown."""
        self.contact.lose(peer)
        self.node.report_unreachable(peer)
        self.proposals.unreachable(peer)
        self.schedule()

    def _take(self, message: Message) -> None:
        if isinstance(message, ProposeResponse):
            batch = self.proposals.answered(message)
            if batch is not None:
                self.proposals.hold(batch)
            elif self.proposals.holds_any:
                self._submit_held()
        elif isinstance(message, ProposeRequest) and self.node.role is Role.LEADER:
            self._forwarded.take(message, None if self._retiring else self._stamp)
        elif isinstance(message, InstallSnapshot):
            self._snapshotter.take(message)
        elif isinstance(message, TimeoutNow) and self._retiring:
            return  # the leader finds another
        else:
            self.node.step(message)
            if isinstance(message, AppendRequest):
                self._links.appended(message)

    def _turned_away(self, settle: Callable[[RaftError], None]) -> bool:
        """Whether nobody new is let in any more; whoever came is told then."""
        if self._stopped or self._retiring:
            settle(NodeStopped("the node has stopped" if self._stopped else "the node is stopping"))
            return True
        return False

    def _refused(self, error: RaftError, settle: Callable[[RaftError], None]) -> None:
        """Tell a caller that what it wants is not taken: because of what it is, or because of a bug."""
        settle(error)
        if not isinstance(error, Rejected):
            self._fail(error)

    def _deadline(self, timeout: float | None) -> float:
        return self.loop.time() + (self._timeout if timeout is None else check_deadline(timeout))

    def _submit_held(self) -> None:
        """Try again whoever still waits, in their order, until somebody can't be taken: then nobody behind can."""
        now = self.loop.time()
        while (batch := self.proposals.next_held()) is not None:
            if batch.deadline <= now:
                batch.settle(too_late(batch, now, self.node.leader))
            elif not self._submit(batch):
                self.proposals.hold(batch, first=True)
                return

    def _submit(self, batch: Batch) -> bool:
        """Hand a batch to the core.

        :returns: False when nobody can take it now, whatever it holds.
        """
        self._context += 1
        batch.context = self._context
        config, leads = self.node.state.config, self.node.role is Role.LEADER
        if not leads and not config.forwarding:
            batch.settle(NotLeader(self.node.leader))
            return True
        if self.contact.is_lost(self.node.leader) or (not leads and not self.proposals.may_forward(batch.size, config.inflight_bytes_max)):
            return False
        try:
            self.node.propose(stamped(batch.commands, self._stamp) if leads else batch.commands, batch.context)
        except (NotLeader, TransferInProgress):
            return False
        except RaftError as error:
            self._refused(error, batch.settle)
            return True
        if leads:
            self.proposals.submitted(batch)
        elif self.node.leader is not None:
            self.proposals.forwarded(batch, self.node.leader)
        self.schedule()
        return True

    def _tick(self) -> None:
        """One tick of the clock. Late ones are dropped, not caught up in a burst: a pause must not look like many timeouts."""
        now = self.loop.time()
        self._next_tick = max(self._next_tick + self._tick_seconds, now)
        self._tick_handle = self.loop.call_at(self._next_tick, self._tick)
        try:
            if self._pauses.ended():
                self.node.lose_time()
            if not self._would_stand:
                self.node.tick()
            self._watch_disk()
        except RaftError as error:
            self._fail(error)
            return
        self.proposals.expire(now, self.node.leader)
        self.reads.expire(now)
        self.transfers.expire(now, self._has_given_up)
        if self.node.leader is not None:
            self._go_on()
        self.schedule()

    def _watch_disk(self) -> None:
        """A leader whose disk hangs gives way, though its heart still beats: it commits by others' disks only, and accepts what it can't keep."""
        self._stall.tick()
        state = self.node.state
        if self._stall.lasts(state.config) and len(state.configuration.voter_ids) > 1:
            self.node.step_down(f"the disk has not answered for {state.config.disk_stall_ms} ms (disk_stall_ms)")

    @property
    def _would_stand(self) -> bool:
        """Whether one more tick makes this node a candidate although it is about to stop, or can't keep its vote.

        A candidate whose disk hangs would never be elected; but its later term, which nobody else has seen, would unseat the leader.
        """
        state = self.node.state
        is_due = state.role is not Role.LEADER and state.election_elapsed + 1 >= state.election_deadline
        return is_due and (self._retiring or self._stall.lasts(state.config))

    def _has_given_up(self, target: NodeId) -> bool:
        """Whether this node still leads, and hands over to ``target`` no more."""
        return self.node.role is Role.LEADER and self.node.state.transfer_target != target

    def _turn(self) -> None:
        self._turn_scheduled = False
        if self._stopped:
            return
        try:
            self._ask_for_reads()
            ready = self.node.ready()
        except RaftError as error:
            self._fail(error)
            return
        self._lease.publish(self.node.term, self.node.round_for_lease, self.node.state.log.commit)
        if ready is None:
            return
        self._lease.sending(self.node.term, self.node.round_begun)
        self._send(ready.messages)
        self._persist(ready)
        if ready.committed:
            leads = self.node.role is Role.LEADER
            self._backlog.add(ready.committed, awaited=leads or bool(ready.appended) or self.proposals.any_in_log)
            self.schedule()  # there may be another page
        for appended in ready.appended:
            ours = appended.origin == self.node.node_id
            self.proposals.appended(appended, None if ours else self._forwarded.answering(appended.origin, appended.context, self._timeout))
        for state in ready.reads:
            self.reads.answered(state, self.node.state.log.applied)
        if self.reads.waits_for_machine:
            self._backlog.flush()
        for observation in ready.observations:
            self._on_observation(observation)

    def _ask_for_reads(self) -> None:
        if not self.reads.has_new:
            return
        if self.node.role is not Role.LEADER and not self.node.state.config.forwarding:
            self.reads.refuse(NotLeader(self.node.leader))
            return
        self._context += 1
        try:
            self.node.read(self._context)
        except NotLeader:
            self.reads.hold()
        else:
            self.reads.ask(self._context, self.loop.time())

    def _send(self, messages: tuple[Message, ...]) -> None:
        plain = messages
        if any(isinstance(message, InstallSnapshot) for message in messages):
            plain = tuple(message for message in messages if not isinstance(message, InstallSnapshot))
            for message in messages:
                if isinstance(message, InstallSnapshot):
                    self._snapshotter.send(message)
        if plain:
            self._transport.send(plain)

    def _persist(self, ready: Ready) -> None:
        if not ready.must_persist and not ready.messages_after_persist:
            return
        if self._held_back is not None:
            self._held_back.append(ready)
        elif ready.snapshot is not None:
            self._held_back = deque()
            self._backlog.flush()  # the machine takes the snapshot behind what came before it
            self._snapshotter.install(ready, self._installed)
        elif not ready.must_persist and self.disk.idle:
            self._send(ready.messages_after_persist)
        else:
            self.disk.persist(ready)

    def _installed(self, ready: Ready) -> None:
        """A snapshot is in place, machine and log: go on with what came after it."""
        waiting, self._held_back = self._held_back or deque(), None
        if ready.snapshot is not None:
            self._on_applied(ready.snapshot.index)
            self.reads.applied(ready.snapshot.index)
        self._durable([ready])
        for later in waiting:
            self._persist(later)

    def _durable(self, readies: list[Ready]) -> None:
        try:
            self.node.advance(readies[-1].number)
        except RaftError as error:
            self._fail(error)
            return
        for ready in readies:
            self._send(ready.messages_after_persist)
        self.schedule()

    def _applied(self, applied: Applied) -> None:
        index = applied.entries[-1].index
        if index > self.node.state.log.applied:  # not so when a snapshot has overtaken it
            try:
                self.node.applied_to(index)
            except RaftError as error:
                self._fail(error)
                return
        self._on_applied(index)
        self.proposals.applied(applied)
        self.reads.applied(index)
        self._snapshotter.consider()

    def _on_observation(self, observation: Observation) -> None:
        if isinstance(observation, LeaderChanged):
            self.proposals.leadership_moved(self.loop.time())
            if observation.leader is not None:
                if observation.leader != self.node.node_id:
                    self.transfers.succeeded(observation.leader)
                else:
                    self._links.elected()
                self._go_on()
                self.schedule()
        elif isinstance(observation, ConfigurationChanged):
            self._links.configured()
        self._observe(observation)

    def _go_on(self) -> None:
        """A leader is known: try again whoever still waits."""
        self.reads.take_held()
        self._submit_held()
