"""What a lease must survive, brought about on purpose: by chance alone these moments are too rare.

Each attack ends with a leader that is cut off and may still believe in its lease, while the others elect another and go on. Clients then ask
the old leader again and again, and a write that it does not know of has been acknowledged elsewhere: the linearizability checker sees it.
"""

from typing import TYPE_CHECKING

from raft.errors import Rejected

if TYPE_CHECKING:
    from raft.testing.node import SimulatedNode
    from raft.testing.world import World

QUESTIONS = 12
"""Reads that the old leader is asked, spread over two election timeouts."""


class LeaseAttack:
    """Attacks on the leases of one schedule. One at a time."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._timeout_ms = world.plan.config.election_timeout_ms
        self._busy_until_ms = 0

    def begin(self) -> None:
        """Attack whenever the plan says so."""
        if self._world.plan.lease_attack_every_ms:
            self._world.repeat(self._world.plan.lease_attack_every_ms, self._attack)

    def _attack(self) -> None:
        world = self._world
        leader = world.any_leader()
        if leader is None or not leader.reachable or world.now < self._busy_until_ms:
            return
        self._busy_until_ms = world.now + 8 * self._timeout_ms
        world.counts["attacks on a lease"] += 1
        world.rng.choice((self._freeze, self._cut_off, self._restart, self._hand_over, self._hand_over_late))(leader)

    def _cut_off(self, leader: "SimulatedNode") -> None:
        """The leader is cut off at once; how long it believes in its lease is a matter of its clock and theirs."""
        self._isolate(leader, 4 * self._timeout_ms)
        self._hurry(self._world.rng.choice([node for node in self._world.nodes.values() if node is not leader]))
        self._question(leader, self._timeout_ms // 2)

    def _freeze(self, leader: "SimulatedNode") -> None:
        """Freeze the leader, perhaps between a round and its answers; it wakes up alone, with what had arrived until then."""
        draw = self._world.rng.random
        soon_ms = int(draw() * self._world.plan.config.heartbeat_ms)
        lasting_ms = int(draw() * self._timeout_ms * (4 if draw() < 0.8 else 100))
        self._later(soon_ms, leader, lambda: leader.pause(lasting_ms))
        self._later(soon_ms + int(draw() * 20), None, lambda: self._isolate(leader, lasting_ms + 3 * self._timeout_ms))
        self._question(leader, soon_ms + lasting_ms)

    def _restart(self, leader: "SimulatedNode") -> None:
        """A follower has not heard the leader for long, but is up to date; the others have, and forget it in a restart."""
        world, timeout_ms = self._world, self._timeout_ms
        names = [name for name in sorted(world.nodes) if name != leader.id]
        left_out = world.rng.choice(names)
        world.clients.quiet_until_ms = world.now + 3 * timeout_ms
        begun_ms = 20 + int(world.rng.random() * timeout_ms)

        def cut_one() -> None:
            world.nemesis.cut({(leader.id, left_out), (left_out, leader.id)}, 3 * timeout_ms)

        def restart_others() -> None:
            for name in names:
                node = world.nodes[name]
                if name != left_out and node.reachable:
                    node.crash()
                    node.start()
            world.clients.quiet_until_ms = world.now
            self._hurry(world.nodes[left_out])
            self._isolate(leader, 3 * timeout_ms)

        self._later(100, leader, cut_one)
        self._later(100 + 2 * timeout_ms + begun_ms, leader, restart_others)
        self._question(leader, 100 + 2 * timeout_ms + begun_ms)

    def _hand_over(self, leader: "SimulatedNode") -> None:
        """The leader hands over and hears of nothing any more."""
        self._transfer(leader)
        self._later(2, leader, lambda: self._isolate(leader, 4 * self._timeout_ms))
        self._question(leader, 0)

    def _hand_over_late(self, leader: "SimulatedNode") -> None:
        """The target of a transfer sleeps until the leader has given up."""
        late_ms = int(1.05 * self._timeout_ms) + self._world.plan.config.tick_ms * 2
        self._world.clients.quiet_until_ms = self._world.now + late_ms + 100
        target = self._transfer(leader)
        if target is not None and target.reachable:
            target.pause(late_ms)
        self._later(late_ms + 10, leader, lambda: self._isolate(leader, 4 * self._timeout_ms))
        self._question(leader, late_ms)

    def _transfer(self, leader: "SimulatedNode") -> "SimulatedNode | None":
        target = self._world.rng.choice([name for name in sorted(self._world.nodes) if name != leader.id])
        try:
            leader.transfer(target)
        except Rejected:
            return None
        return self._world.nodes[target]

    def _isolate(self, node: "SimulatedNode", lasting_ms: int) -> None:
        others = [name for name in self._world.nodes if name != node.id]
        self._world.nemesis.cut({link for other in others for link in ((node.id, other), (other, node.id))}, lasting_ms)

    def _hurry(self, node: "SimulatedNode") -> None:
        """Let the node campaign as soon as it may: as if it had drawn the shortest wait."""
        if node.core is not None:
            node.core.state.election_deadline = self._world.plan.config.election_ticks

    def _question(self, leader: "SimulatedNode", from_ms: int) -> None:
        """Let clients read under the lease, and write and read elsewhere, for two election timeouts."""
        step_ms = 2 * self._timeout_ms // QUESTIONS
        for number in range(QUESTIONS):
            self._later(from_ms + number * step_ms, leader, lambda: self._world.clients.read(leader, lease=True))
            self._later(from_ms + number * step_ms, None, self._use_the_others)

    def _use_the_others(self) -> None:
        node = self._world.any_leader()
        if node is not None and node.reachable:
            self._world.clients.propose(node, 1)

    def _later(self, delay_ms: int, node: "SimulatedNode | None", action: object) -> None:
        """Do it then, unless the faults have ended or the node is down or asleep."""

        def act() -> None:
            if not self._world.network.healthy and (node is None or node.reachable):
                action()  # type: ignore[operator]  # a function without parameters

        self._world.after(delay_ms, act)
