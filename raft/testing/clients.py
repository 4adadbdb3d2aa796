"""What clients do: propose, read and ask for transfers at random nodes, and remember what they were told."""

from typing import TYPE_CHECKING, NamedTuple

from raft.errors import Rejected
from raft.testing.trace import Violation

if TYPE_CHECKING:
    from raft.testing.node import SimulatedNode
    from raft.testing.world import World


class PendingRead(NamedTuple):
    """A read under way: ``floor`` is the highest index that anybody had seen when it began."""

    node: str
    floor: int


class Clients:
    """The workload of one cluster. A batch is identified by its context, and each command is unique, so that none can be taken for another."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._plan = world.plan
        self._contexts = 0
        self._commands = 0
        self.proposals: dict[int, tuple[bytes, ...]] = {}
        """Batches without an answer yet, by context."""
        self.reads: dict[int, PendingRead] = {}
        self.insisting = 0
        """Clients that go on until they have succeeded (liveness phase)."""
        self.acknowledged = 0
        self.served = 0
        self._succeeded: set[int] = set()
        self.quiet_until_ms = 0
        """Nobody proposes of its own accord before."""

    def begin(self) -> None:
        """Let the workload run, until the world says otherwise."""
        self._every(self._plan.propose_every_ms, self.propose_somewhere)
        self._every(self._plan.read_every_ms, self.read_somewhere)
        self._every(self._plan.transfer_every_ms, self.transfer_somewhere)

    def _every(self, mean_ms: int, action: object) -> None:
        if mean_ms:
            self._world.repeat(mean_ms, action)  # type: ignore[arg-type]  # narrowed by the callers above

    def propose_somewhere(self) -> None:
        """Propose a batch at any node that is up."""
        node = self._world.any_reachable()
        if node is not None and self._world.now >= self.quiet_until_ms:
            rng = self._world.rng
            self.propose(node, 1 + int(rng.random() * self._plan.commands_max))

    def propose(self, node: "SimulatedNode", count: int) -> int:
        """Propose ``count`` commands at a node.

        :returns: the batch's context.
        """
        world = self._world
        padding = b"." * int(world.rng.random() * self._plan.command_bytes_max)
        commands = tuple(b"%d%s" % (self._commands + number, padding) for number in range(count))
        self._commands += count
        self._contexts += 1
        context = self._contexts
        self.proposals[context] = commands
        world.trace.record(world.now, node.id, "proposes", context)
        try:
            node.propose(commands, context)
        except Rejected as error:
            world.counts[f"proposals refused: {type(error).__name__}"] += 1
            self.answered(context, (), error=str(error))
        else:
            world.after(self._plan.config.proposal_timeout_ms, self._give_up, context)
        return context

    def answered(self, context: int, results: tuple[bytes, ...], *, error: str = "", unknown: bool = False) -> None:
        """A batch was answered. Late and doubled answers find nobody waiting."""
        commands = self.proposals.pop(context, None)
        if commands is None:
            self._world.counts["answers nobody waited for"] += 1
        elif error:
            self._world.counts["proposals refused"] += 1
            for command in commands if not unknown else ():
                self._world.checkers.rejected(command)
        elif len(results) != len(commands):
            raise Violation("outcome", f"batch {context} has {len(commands)} commands and got {len(results)} results")
        else:
            for command, result in zip(commands, results, strict=True):
                self._world.checkers.acknowledged(command, int(result))
            self.acknowledged += len(commands)
            self._succeeded.add(context)

    def _give_up(self, context: int) -> None:
        if self.proposals.pop(context, None) is not None:
            self._world.counts["proposals without an answer"] += 1

    def read_somewhere(self) -> None:
        """Read at any node that is up; often at one that believes it leads, rightly or not."""
        node = self._world.any_reachable()
        if self._world.rng.random() < 0.4:
            node = next((other for other in self._world.nodes.values() if other.leads and other.reachable), node)
        if node is not None:
            self.read(node, lease=self._world.rng.random() < self._plan.lease_reads)

    def read(self, node: "SimulatedNode", *, lease: bool = False) -> int:
        """Begin a linearizable read at a node.

        :param lease: whether the lease will do, where the node leads and has it.
        :returns: its context.
        """
        world = self._world
        self._contexts += 1
        context = self._contexts
        self.reads[context] = PendingRead(node.id, world.checkers.floor)
        world.trace.record(world.now, node.id, "reads", context)
        try:
            node.read(context, lease=lease)
        except Rejected:
            self.read_refused(context)
        else:
            world.after(self._plan.config.proposal_timeout_ms, self._give_up_read, context)
        return context

    def read_floor(self, context: int) -> int | None:
        """What a read must at least see; None when it was given up."""
        read = self.reads.get(context)
        return None if read is None else read.floor

    def read_refused(self, context: int) -> None:
        """A read could not be confirmed."""
        if self.reads.pop(context, None) is not None:
            self._world.counts["reads refused"] += 1

    def read_served(self, context: int, applied: int) -> None:
        """A read was served from a state at ``applied``."""
        read = self.reads.pop(context, None)
        if read is None:
            return
        checkers = self._world.checkers
        if applied < read.floor:
            raise Violation("linearizability", f"read {context} at {read.node} saw {applied}; {read.floor} had been seen before it began")
        checkers.floor = max(checkers.floor, applied)
        self.served += 1
        self._succeeded.add(context)

    def _give_up_read(self, context: int) -> None:
        if self.reads.pop(context, None) is not None:
            self._world.counts["reads without an answer"] += 1

    def insist(self, node: "SimulatedNode") -> None:
        """Propose and read at a node, again and again until both have succeeded."""
        self.insisting += 1
        self._insist(node, self.propose(node, 1), self.read(node))

    def _insist(self, node: "SimulatedNode", proposal: int, read: int) -> None:
        if proposal in self._succeeded and read in self._succeeded:
            self.insisting -= 1
            return
        if proposal not in self._succeeded and proposal not in self.proposals:
            proposal = self.propose(node, 1)
        if read not in self._succeeded and read not in self.reads:
            read = self.read(node)
        self._world.after(self._plan.config.heartbeat_ms, self._insist, node, proposal, read)

    def transfer_somewhere(self) -> None:
        """Ask whoever leads to hand over to anybody."""
        leader = self._world.any_leader()
        if leader is None or leader.paused:
            return
        target = self._world.rng.choice(sorted(self._world.nodes))
        self._world.trace.record(self._world.now, leader.id, "transfers", target)
        try:
            leader.transfer(target)
        except Rejected:
            self._world.counts["transfers refused"] += 1
        else:
            self._world.counts["transfers begun"] += 1
