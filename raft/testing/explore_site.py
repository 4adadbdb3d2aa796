"""One node of the explorer: the real core, its disk, and the driver between them, moved by one input at a time.

**Time.** Ticks are collapsed: the inputs are what ticks lead to. ``timeout`` lets a node tick until it campaigns, ``release`` until a leader it has
heard of may no longer rely on its silence, ``heartbeat`` is a leader's next tick, ``isolate`` the tick at which it gives up for want of a quorum.
Each may happen at any moment, in any order at the nodes. Real clocks allow only some of these runs, so every real run is covered; and no rule that is
checked speaks of time, so a run that no clock allows must not break one either. (Leases do speak of time: they are left to the simulator.) After each
input the counters that only time uses are set back (:meth:`Site.normalise`): all that the core reads of them is whether a limit was reached, and that
has become a choice of the explorer. For the same reason a leader counts every follower as heard of lately and every round of catching up as quick
enough, until ``isolate``. Nobody reads, so the numbers of read rounds decide nothing and are set back too; Ready values are numbered anew
from the oldest one that waits for the disk.

**Disk.** A node is prompt at first: an input, the Ready values that follow from it, their writes and their applying are one step. ``slacken`` takes
that away for good: from then on taking a Ready (``turn``), the end of the oldest write (``persist``) and applying (``apply``) are steps of their own,
so that anything may happen between them, several inputs in one Ready included. ``crash`` loses what was not written and starts again from the disk,
the state machine from its last snapshot. A node that stays down for a while is one that does nothing meanwhile; what it would have missed are
messages that stay under way.
"""

from collections import deque
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from raft.config import RaftConfig
from raft.core.membership import Change
from raft.core.messages import InstallSnapshot, Message
from raft.core.model import Boundary, Entry, HardState, NodeId
from raft.core.node import RaftNode
from raft.core.ready import Ready
from raft.core.roles import Role
from raft.errors import Rejected
from raft.ports.storage import WriteBatch
from raft.storage.memory import MemoryLog
from raft.testing.explore_rules import Facts, check_applied, check_promise

CONFIG = RaftConfig(tick_ms=10, heartbeat_ms=10, election_timeout_ms=30, append_bytes_max=1)
"""A heartbeat every tick, an election timeout of three. An append holds one command: those of two bytes and more travel alone."""


def jitter(below: int) -> int:
    """Wait as long as is allowed, so that a node may vote for others for a while before it campaigns."""
    return below - 1


class SnapshotArrived(NamedTuple):
    """What the transport tells the sender of a snapshot; under way like a message."""

    sender: NodeId
    to: NodeId
    term: int
    index: int  # type: ignore[assignment]  # the field is called so everywhere; tuple.index is of no use here


Packet = Message | SnapshotArrived


class Input(NamedTuple):
    """Something that happens to one node.

    :param kind: a method of :class:`Site`.
    :param detail: its argument, if it takes one.
    """

    kind: str
    node: NodeId
    detail: Packet | Change | NodeId | None = None


@dataclass(slots=True)
class Site:
    """See the module's text.

    :ivar unwritten: Ready values that wait for the disk; what was done with them already has been removed.
    :ivar unapplied: entries handed out for the state machine.
    :ivar outgoing: what leaves in this step.
    """

    node: RaftNode
    log: MemoryLog
    slow: bool = False
    unwritten: deque[Ready] = field(default_factory=deque)
    unapplied: deque[Entry] = field(default_factory=deque)
    outgoing: list[Packet] = field(default_factory=list)

    def take(self, what: Input) -> list[Packet]:
        """Let something happen.

        :returns: what leaves the node.
        :raises Violation: when the node breaks a rule.
        :raises InvariantViolation: when the core or the log notices that itself.
        """
        method = getattr(self, what.kind)
        if what.detail is None:
            method()
        else:
            method(what.detail)
        while not self.slow and (self.turn() or self.persist() or self.apply()):
            pass
        self.node.check_invariants()
        self.normalise()
        sent, self.outgoing = self.outgoing, []
        return sent

    # -- time -----------------------------------------------------------------------------------------------------------------------------

    def timeout(self) -> None:
        """Tick until the node campaigns, or would if it were a voter."""
        state = self.node.state
        self.node.tick()
        while state.election_elapsed and state.role is not Role.LEADER:
            self.node.tick()

    def release(self) -> None:
        """Tick until the node may vote for somebody else than the leader it has heard of."""
        while self.node.state.is_silent:
            self.node.tick()

    def heartbeat(self) -> None:
        """Tick, as a leader: heartbeats, and another try of what seems lost."""
        self.node.tick()

    def isolate(self) -> None:
        """Tick, as a leader that has not heard of anybody for an election timeout."""
        state = self.node.state
        for progress in state.progress.values():
            progress.contact_tick = state.tick_count - state.config.election_ticks
        self.node.tick()

    # -- the network ----------------------------------------------------------------------------------------------------------------------

    def deliver(self, packet: Packet) -> None:
        """A message arrives. The content of a snapshot comes with it, and the transport reports that."""
        if isinstance(packet, SnapshotArrived):
            self.node.report_snapshot(packet.sender, packet.index)
            return
        self.node.step(packet)
        if isinstance(packet, InstallSnapshot):
            self.outgoing.append(SnapshotArrived(packet.to, packet.sender, packet.term, packet.boundary.index))

    def lose(self, packet: Packet) -> None:
        """The transport reports that something this node sent was lost."""
        if isinstance(packet, InstallSnapshot):
            self.node.report_snapshot(packet.to, 0)
        else:
            self.node.report_unreachable(packet.to)

    # -- clients and operators ------------------------------------------------------------------------------------------------------------

    def propose(self) -> None:
        """Propose a command that nobody else has proposed: its place in the log names it."""
        state = self.node.state
        self.node.propose((b"%d.%d" % (state.term, state.log.last_index + 1),), 1)

    def change(self, change: Change) -> None:
        """Ask for a change of the membership; it may be refused."""
        try:
            self.node.change(change, 1)
        except Rejected:
            return

    def compact(self) -> None:
        """Keep the state as a snapshot and forget the log up to there."""
        boundary = self.node.boundary_at(self.node.state.log.applied)
        self.log.compact(boundary)
        self.node.compact(boundary)

    # -- disk and state machine -----------------------------------------------------------------------------------------------------------

    def slacken(self) -> None:
        """Become slow."""
        self.slow = True

    def turn(self) -> bool:
        """Take a Ready: its messages leave, its write begins. :returns: whether there was anything to do."""
        ready = self.node.ready()
        if ready is None:
            return False
        self._send(ready.messages)
        self.unapplied.extend(ready.committed)
        if self.unwritten or ready.must_persist or not self.slow:
            self.unwritten.append(replace(ready, messages=(), committed=(), appended=(), reads=(), observations=()))
        else:
            self._send(ready.messages_after_persist)
            self.node.advance(ready.number)
        return True

    def persist(self) -> bool:
        """End the oldest write; what waited for it leaves. :returns: whether there was one."""
        if not self.unwritten:
            return False
        ready = self.unwritten.popleft()
        if ready.snapshot is not None:
            self.log.reset(ready.snapshot, ready.hard_state or self.log.hard_state())
            self.unapplied.clear()
        self.log.write(WriteBatch(ready.hard_state, ready.entries))
        self._send(ready.messages_after_persist)
        self.node.advance(ready.number)
        return True

    def apply(self) -> bool:
        """Apply what was handed out. :returns: whether there was anything."""
        if not self.unapplied:
            return False
        while self.unapplied:
            entry = self.unapplied.popleft()
            check_applied(facts(self), entry)
            self.node.applied_to(entry.index)
        return True

    def crash(self) -> None:
        """Lose what is not durable and start again."""
        again = start(self.node.node_id, self.log)
        self.node = again.node
        self.unwritten.clear()
        self.unapplied.clear()

    # -- helpers --------------------------------------------------------------------------------------------------------------------------

    def _send(self, messages: tuple[Message, ...]) -> None:
        for message in messages:
            check_promise(facts(self), message)
        self.outgoing.extend(messages)

    def normalise(self) -> None:
        """Set back what only time uses, and what nobody looks at; see the module's text."""
        state = self.node.state
        state.silent_until = state.config.election_ticks if state.tick_count < state.silent_until else 0
        state.tick_count = state.election_elapsed = state.heartbeat_elapsed = state.transfer_elapsed = 0
        state.reads.round = state.reads.confirmed = 0
        for progress in state.progress.values():
            progress.contact_tick = progress.read_round = 0
            progress._round_since = 0  # noqa: SLF001  # a clock of the core's own, which no method sets back
        state.outbox.observations.clear()
        state.outbox.appended.clear()
        self._count_anew()

    def _count_anew(self) -> None:
        """Number the Ready values anew: the oldest that waits is 1, and 0 stands for all that are done."""
        state, log = self.node.state, self.node.state.log
        numbers = {ready.number: position for position, ready in enumerate(self.unwritten, 1)}
        self.node._number = len(numbers)  # noqa: SLF001  # nobody but the driver is meant to know it
        log._writes = deque((numbers.get(number, 0), last) for number, last in log._writes)  # noqa: SLF001  # as above
        if state.own_vote_number is not None:
            state.own_vote_number = numbers.get(state.own_vote_number, 0)
        state.installing_number = numbers.get(state.installing_number, 0)
        self.unwritten = deque(replace(ready, number=numbers[ready.number]) for ready in self.unwritten)


def start(node_id: NodeId, log: MemoryLog) -> Site:
    """A node that starts from its disk."""
    loaded = log.load()
    node = RaftNode(
        node_id=node_id,
        config=CONFIG,
        boundary=loaded.boundary,
        entries=loaded.entries,
        hard_state=log.hard_state(),
        applied=loaded.boundary.index,
        jitter=jitter,
    )
    return Site(node, log)


def fresh(node_id: NodeId, boundary: Boundary) -> Site:
    """A node that has never run."""
    log = MemoryLog()
    log.reset(boundary, HardState())
    return start(node_id, log)


def facts(site: Site) -> Facts:
    """What the rules look at."""
    state, disk = site.node.state, site.log.load()
    return Facts(
        node=site.node.node_id,
        term=state.term,
        vote=state.vote,
        leads=state.role is Role.LEADER,
        boundary=state.log.boundary,
        entries=tuple(state.log._entries),  # noqa: SLF001  # all of them at once, at the least cost
        commit=state.log.commit,
        applied=state.log.applied,
        installing=state.installing is not None,
        configuration=state.configuration,
        matches=tuple((peer, progress.match) for peer, progress in sorted(state.progress.items())),
        disk_boundary=disk.boundary,
        disk_entries=disk.entries,
        hard_state=site.log.hard_state(),
    )
