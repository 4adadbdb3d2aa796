"""A network that loses, doubles, delays and reorders messages, and that can be cut link by link, one way or both.

One promise it keeps: a :class:`~raft.core.messages.ProposeRequest` is never doubled. The core appends what arrives, and relies on a transport
that sends such a request once or not at all (a request over one TCP connection, never repeated).
"""

from typing import TYPE_CHECKING

from raft.core.messages import InstallSnapshot, Message, ProposeRequest
from raft.testing.machine import State

if TYPE_CHECKING:
    from raft.testing.world import World


class Network:
    """Every link of one cluster."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._plan = world.plan
        self._arrival: dict[tuple[str, str], int] = {}
        self.cut: set[tuple[str, str]] = set()
        """Links (sender, recipient) that carry nothing."""
        self.healthy = False
        """In the liveness phase nothing is lost or late any more, but for the links that are cut."""

    def heal(self, cut: set[tuple[str, str]]) -> None:
        """From now on every link is fast and loses nothing, but for those that stay cut; nothing queues behind what was slow."""
        self.healthy = True
        self.cut = cut
        self._arrival.clear()

    def send(self, message: Message) -> None:
        """Send one message: it arrives never, once or twice, now or much later."""
        world, plan = self._world, self._plan
        link = (message.sender, message.to)
        draw = world.rng.random
        if link in self.cut:
            self._lost(message, "messages cut off")
        elif self.healthy:
            self._deliver(link, message, 1 + int(draw() * 2))
        elif plan.loss and draw() < plan.loss:
            self._lost(message, "messages lost")
        else:
            self._deliver(link, message, self._delay())
            if plan.duplication and draw() < plan.duplication and type(message) is not ProposeRequest:
                world.counts["messages doubled"] += 1
                self._deliver(link, message, self._delay())

    def send_snapshot(self, message: InstallSnapshot, state: State) -> None:
        """Carry a state; the sender learns how it ended."""
        world, plan = self._world, self._plan
        healthy = self.healthy
        duration = 1 + int(world.rng.random() * (20 if healthy else plan.snapshot_ms_max))
        fails = not healthy and world.rng.random() < max(plan.loss, plan.snapshot_failure)
        world.after(duration, self._snapshot_arrives, message, state, fails)

    def _snapshot_arrives(self, message: InstallSnapshot, state: State, fails: bool) -> None:
        recipient, sender = self._world.nodes[message.to], self._world.nodes[message.sender]
        arrived = not fails and (message.sender, message.to) not in self.cut and recipient.reachable
        if arrived:
            recipient.deliver(message, state)
        else:
            self._world.counts["snapshots lost on the way"] += 1
        sender.snapshot_ended(message.to, message.boundary.index if arrived else 0)

    def _lost(self, message: Message, why: str) -> None:
        world = self._world
        world.counts[why] += 1
        if world.rng.random() < self._plan.unreachable_chance:
            world.after(1 + int(world.rng.random() * 50), world.nodes[message.sender].peer_unreachable, message.to)

    def _delay(self) -> int:
        plan, draw = self._plan, self._world.rng.random
        if plan.slow_chance and draw() < plan.slow_chance:
            self._world.counts["messages delayed"] += 1
            return 1 + int(draw() * plan.slow_ms_max)
        return 1 + int(draw() * plan.latency_ms_max)

    def _arrive(self, message: Message, delay: int) -> None:
        """Let it in; but what the faults had delayed or cut off does not disturb those that have been healed."""
        if not self.healthy or (delay <= self._plan.config.heartbeat_ms and (message.sender, message.to) not in self.cut):
            self._world.nodes[message.to].deliver(message, None)

    def _deliver(self, link: tuple[str, str], message: Message, delay: int) -> None:
        world = self._world
        if self._plan.ordered:
            due = max(world.now + delay, self._arrival.get(link, 0))
            self._arrival[link] = due
            delay = due - world.now
        world.after(delay, self._arrive, message, delay)
