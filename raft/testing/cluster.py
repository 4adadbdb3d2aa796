"""A few nodes in one place, moved by hand: no clock, no threads, no chance. For tests that tell a story step by step.

A test says what happens (``tick``, ``propose``, ``cut``, ``hold_disk``, ``crash``) and then calls :meth:`Cluster.settle`, which lets everything that
can happen happen: Readies are taken, disks written, messages delivered in the order in which they were sent. :attr:`Cluster.wire` holds
the messages under way, for tests that drop, double or reorder them. After each step the invariants of every node are checked, and across
nodes: one leader a term, one entry an index.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from raft.config import RaftConfig
from raft.core.membership import AddLearner, AddVoter, Change
from raft.core.messages import InstallSnapshot, Message, ProposeResponse
from raft.core.model import Boundary, Configuration, Entry, EntryKind, HardState, Member, NodeId
from raft.core.node import RaftNode
from raft.core.ready import Appended, Observation, Ready
from raft.core.roles import Role
from raft.errors import InvariantViolation
from raft.ports.storage import WriteBatch
from raft.storage.memory import MemoryLog

STEPS_MAX = 100_000
"""More than this many steps in one :meth:`Cluster.settle` mean that two nodes talk for ever."""

QUICK = RaftConfig(tick_ms=10, heartbeat_ms=20, election_timeout_ms=100)
"""An election timeout of ten ticks, a heartbeat of two."""


def member(node: NodeId) -> Member:
    """A member whose name and address follow from its id."""
    return Member(node, f"name-{node}", f"{node}:1")


def configuration(voters: Iterable[NodeId], learners: Iterable[NodeId] = ()) -> Configuration:
    """A configuration of such members."""
    return Configuration(tuple(map(member, voters)), tuple(map(member, learners)))


def entry(index: int, term: int, data: bytes | None = None) -> Entry:
    """A command; by default its data name it."""
    return Entry(index, term, EntryKind.COMMAND, b"%d/%d" % (index, term) if data is None else data)


def entries(*terms: int, first: int = 1) -> tuple[Entry, ...]:
    """A log of commands, given by the terms of its entries."""
    return tuple(entry(first + offset, term) for offset, term in enumerate(terms))


@dataclass(slots=True)
class Server:
    """One machine of the cluster: a disk that survives, and a node while it runs.

    :ivar node: None while it is down.
    :ivar log: the disk. Entries of a crash's last moments are what was not yet written to it.
    :ivar unwritten: Readies that wait for the disk.
    :ivar applied: what the state machine holds, entry by entry, a snapshot's included.
    :ivar jitter: what the next election timeouts get on top of the base, in ticks.
    """

    id: NodeId
    log: MemoryLog
    node: RaftNode | None = None
    unwritten: deque[Ready] = field(default_factory=deque)
    applied: list[Entry] = field(default_factory=list)
    disk_held: bool = False
    apply_held: bool = False
    unapplied: deque[Entry] = field(default_factory=deque)
    jitter: int = 0
    appended: list[Appended] = field(default_factory=list)
    reads: dict[int, int] = field(default_factory=dict)
    answers: list[ProposeResponse] = field(default_factory=list)
    observations: list[Observation] = field(default_factory=list)

    @property
    def running(self) -> RaftNode:
        """The node.

        :raises RuntimeError: while it is down.
        """
        if self.node is None:
            raise RuntimeError(f"{self.id} is down")
        return self.node

    @property
    def commands(self) -> list[bytes]:
        """The data of the commands that were applied, in order."""
        return [item.data for item in self.applied if item.kind is EntryKind.COMMAND]

    @property
    def terms(self) -> list[int]:
        """The terms of the log in memory, from its first entry on."""
        log = self.running.state.log
        return [log.term_at(index) or 0 for index in range(log.first_index, log.last_index + 1)]


class Cluster:
    """See the module's text.

    :param ids: the servers.
    :param voters: who votes; all by default.
    :param logs: what is on the disks of some, with the hard state; an empty log in term 0 for the others.
    """

    def __init__(
        self,
        ids: Iterable[NodeId],
        *,
        voters: Iterable[NodeId] | None = None,
        learners: Iterable[NodeId] = (),
        config: RaftConfig = QUICK,
        logs: dict[NodeId, tuple[Sequence[Entry], HardState]] | None = None,
    ) -> None:
        ids = tuple(ids)
        self.config = config
        self.wire: deque[Message] = deque()
        self.sent: list[Message] = []
        self.silent_after_start = False
        """Whether nobody votes for an election timeout after a start, as in truth. Most stories begin later."""
        self.drop: Callable[[Message], bool] = lambda _message: False
        self.snapshots: dict[tuple[int, int], list[Entry]] = {}
        self._cut: set[tuple[NodeId, NodeId]] = set()
        self._leaders: dict[int, NodeId] = {}
        self._applied: dict[int, Entry] = {}
        self._context = 0
        self._first = Boundary(configuration=configuration(ids if voters is None else voters, learners))
        self.servers: dict[NodeId, Server] = {}
        for number, node in enumerate(ids):
            self.add_server(node, first=self._first, jitter=number)
            if logs and node in logs:
                found, hard_state = logs[node]
                self.servers[node].log.write(WriteBatch(hard_state, tuple(found)))
                self.restart(node)

    def __getitem__(self, node: NodeId) -> RaftNode:
        return self.servers[node].running

    # What a test does to the cluster

    def add_server(self, node: NodeId, *, first: Boundary | None = None, jitter: int = 0) -> None:
        """Start a server. By default it knows of no configuration, as one that is to be added to the cluster."""
        server = Server(node, MemoryLog(), jitter=min(jitter, self.config.election_ticks - 1))
        server.log.reset(first or Boundary(), HardState())
        self.servers[node] = server
        self.restart(node)

    def tick(self, node: NodeId, count: int = 1) -> None:
        """Let time pass at one node; nothing it wants to say leaves before the next :meth:`settle`."""
        for _ in range(count):
            self[node].tick()
            self.check()

    def run(self, ticks: int, *nodes: NodeId) -> None:
        """Let time pass at the named nodes, or at all, and let everything happen after each tick."""
        for _ in range(ticks):
            for server in self.servers.values():
                if server.node is not None and (not nodes or server.id in nodes):
                    server.node.tick()
            self.settle()

    def elect(self, node: NodeId, *, frozen: Iterable[NodeId] = ()) -> None:
        """Let time pass until ``node`` leads; the others put their campaigns off, the clocks of ``frozen`` do not move.

        :raises RuntimeError: when it does not come to lead.
        """
        stopped = set(frozen)
        for _ in range(6 * self.config.election_ticks):
            for server in self.servers.values():
                if server.node is not None and server.id not in stopped:
                    if server.id != node:
                        server.node.state.election_deadline = max(server.node.state.election_deadline, server.node.state.election_elapsed + 2)
                    server.node.tick()
            self.settle()
            if self[node].role is Role.LEADER:
                return
        raise RuntimeError(f"{node} does not come to lead; it is a {self[node].role} of term {self[node].term}")

    def propose(self, node: NodeId, *commands: bytes) -> int:
        """Propose a batch at a node.

        :returns: its context.
        """
        self._context += 1
        self[node].propose(commands, self._context)
        return self._context

    def write(self, node: NodeId, *commands: bytes) -> None:
        """Propose a batch at a node and let everything happen."""
        self.propose(node, *commands)
        self.settle()

    def read(self, node: NodeId) -> int:
        """Ask for a linearizable read at a node; ``servers[node].reads`` will hold the index under the returned context."""
        self._context += 1
        self[node].read(self._context)
        return self._context

    def change(self, node: NodeId, change: Change) -> None:
        """Change the membership at a node, and let everything happen."""
        self._context += 1
        self[node].change(change, self._context)
        self.settle()

    def add_learner(self, leader: NodeId, node: NodeId) -> None:
        """Add a learner at the leader, and let it catch up when it is reachable."""
        self.change(leader, AddLearner(member(node)))
        self.run(2 * self.config.heartbeat_ticks)

    def add_voter(self, leader: NodeId, node: NodeId) -> None:
        """Add a voter at the leader the way it is done: as a learner first."""
        self.add_learner(leader, node)
        self.change(leader, AddVoter(member(node)))

    def cut(self, one: NodeId, *others: NodeId, one_way: bool = False) -> None:
        """Let nothing through between ``one`` and the others (all by default); one way: nothing from it."""
        for other in others or tuple(self.servers):
            self._cut.add((one, other))
            if not one_way:
                self._cut.add((other, one))

    def heal(self) -> None:
        """End all cuts."""
        self._cut.clear()

    def hold_disk(self, node: NodeId) -> None:
        """Let writes take for ever."""
        self.servers[node].disk_held = True

    def release_disk(self, node: NodeId) -> None:
        """Let writes end again, those under way at once."""
        self.servers[node].disk_held = False
        while self.servers[node].unwritten:
            self.persist(node)

    def crash(self, node: NodeId) -> None:
        """Cut the power: what was not yet written is lost; what was sent is under way."""
        server = self.servers[node]
        server.node = None
        server.unwritten.clear()
        server.unapplied.clear()

    def restart(self, node: NodeId) -> None:
        """Start a server from its disk. The state machine starts from the last snapshot and is fed the log again."""
        server = self.servers[node]
        self.crash(node)
        loaded = server.log.load()
        server.applied = list(self.snapshots.get((loaded.boundary.index, loaded.boundary.term), []))
        server.node = RaftNode(
            node_id=node,
            config=self.config,
            boundary=loaded.boundary,
            entries=loaded.entries,
            hard_state=server.log.hard_state(),
            applied=loaded.boundary.index,
            jitter=lambda below: min(server.jitter, below - 1),
        )
        if not self.silent_after_start:
            server.node.state.silent_until = 0
        self.check()

    def compact(self, node: NodeId, index: int) -> Boundary:
        """Keep a snapshot of the state at ``index`` and forget the log up to there."""
        server = self.servers[node]
        boundary = server.running.boundary_at(index)
        self.snapshots[boundary.index, boundary.term] = [item for item in server.applied if item.index <= index]
        server.log.compact(boundary)
        server.running.compact(boundary)
        self.check()
        return boundary

    # What happens

    def settle(self) -> None:
        """Let everything happen that can, without any time passing."""
        for _ in range(STEPS_MAX):
            worked = [self.pump(node) for node, server in self.servers.items() if server.node is not None]
            if self.wire:
                self.deliver()
            elif not any(worked):
                return
        raise RuntimeError(f"the nodes still talk after {STEPS_MAX} steps; the last message was {self.sent[-1]}")

    def pump(self, node: NodeId) -> bool:
        """Take one Ready and fulfil its duties as far as disk and machine are not held.

        :returns: whether there was anything to do.
        """
        server = self.servers[node]
        ready = server.running.ready()
        if ready is None:
            return self._apply(server)
        self._post(ready.messages)
        server.unapplied.extend(ready.committed)
        server.appended.extend(ready.appended)
        server.reads.update({read.context: read.index for read in ready.reads})
        server.observations.extend(ready.observations)
        server.unwritten.append(ready)
        if not server.disk_held:
            self.persist(node)
        self._apply(server)
        self.check()
        return True

    def persist(self, node: NodeId) -> None:
        """Write the oldest waiting Ready to the disk and send what waited for it."""
        server = self.servers[node]
        ready = server.unwritten.popleft()
        if ready.snapshot is not None:
            server.log.reset(ready.snapshot, ready.hard_state or server.log.hard_state())
            server.applied = list(self.snapshots[ready.snapshot.index, ready.snapshot.term])
            server.unapplied.clear()
        server.log.write(WriteBatch(ready.hard_state, ready.entries))
        server.running.advance(ready.number)
        self._post(ready.messages_after_persist)
        self.check()

    def deliver(self, position: int = 0) -> None:
        """Hand over one of the messages under way."""
        message = self.wire[position]
        del self.wire[position]
        self.hand_over(message)

    def hand_over(self, message: Message) -> None:
        """Hand a message to its recipient, unless it is down or cut off."""
        target = self.servers.get(message.to)
        arrives = target is not None and target.node is not None and (message.sender, message.to) not in self._cut
        if target is not None and target.node is not None and arrives:
            if isinstance(message, ProposeResponse):
                target.answers.append(message)
            else:
                target.node.step(message)
            self.check()
        sender = self.servers.get(message.sender)
        if isinstance(message, InstallSnapshot) and sender is not None and sender.node is not None:
            sender.node.report_snapshot(message.to, message.boundary.index if arrives else 0)

    def check(self) -> None:
        """Check every node by itself, and all of them together.

        :raises InvariantViolation: naming what is broken.
        """
        for server in self.servers.values():
            if server.node is None:
                continue
            server.node.check_invariants()
            if server.node.role is Role.LEADER and self._leaders.setdefault(server.node.term, server.id) != server.id:
                raise InvariantViolation(f"{server.id} and {self._leaders[server.node.term]} both led in term {server.node.term}")

    # What a test looks at

    @property
    def leaders(self) -> list[NodeId]:
        """Everybody who leads now, in whatever term."""
        return [server.id for server in self.servers.values() if server.node is not None and server.node.role is Role.LEADER]

    @property
    def terms(self) -> set[int]:
        """The terms of all running nodes."""
        return {server.node.term for server in self.servers.values() if server.node is not None}

    def commands(self, node: NodeId) -> list[bytes]:
        """The commands that a node has applied."""
        return self.servers[node].commands

    def log_terms(self, node: NodeId) -> list[int]:
        """The terms of a node's log."""
        return self.servers[node].terms

    def sent_since(self, mark: int, *classes: type) -> list[Message]:
        """Messages sent after the first ``mark`` ones, of the named classes or all."""
        return [message for message in self.sent[mark:] if not classes or isinstance(message, classes)]

    def _post(self, messages: tuple[Message, ...]) -> None:
        for message in messages:
            self.sent.append(message)
            if not self.drop(message):
                self.wire.append(message)

    def _apply(self, server: Server) -> bool:
        if server.apply_held or not server.unapplied:
            return False
        while server.unapplied:
            item = server.unapplied.popleft()
            if self._applied.setdefault(item.index, item) != item:
                raise InvariantViolation(f"{server.id} applies {item}, another node applied {self._applied[item.index]}")
            if server.applied and server.applied[-1].index + 1 != item.index:
                raise InvariantViolation(f"{server.id} applies {item.index} after {server.applied[-1].index}")
            server.applied.append(item)
            server.running.applied_to(item.index)
        return True
