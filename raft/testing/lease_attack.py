"""What a lease must survive, brought about on purpose: by chance alone these moments are too rare.

Each attack ends with a leader that is cut off and may still believe in its lease, while the others elect another and go on. Clients then ask
the old leader again and again, and a write that it does not know of has been acknowledged elsewhere: the linearizability checker sees it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from raft.core.roles import Role
from raft.errors import Rejected

if TYPE_CHECKING:
    from raft.testing.node import SimulatedNode
    from raft.testing.world import World

QUESTIONS = 40
"""Reads that the old leader is asked, spread over two election timeouts."""


class LeaseAttack:
    """Attacks on the leases of one schedule. One at a time."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._timeout_ms = world.plan.config.election_timeout_ms
        self._rates = dict(zip((f"n{number}" for number in range(1, len(world.plan.rates) + 1)), world.plan.rates, strict=True))
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
        slow = [name for name, rate in self._rates.items() if rate == min(self._rates.values())]
        if leader.id not in slow and world.rng.random() < 0.8:
            self._transfer(leader, world.rng.choice(slow))  # a slow clock is what makes a lease long
            return
        self._busy_until_ms = world.now + 8 * self._timeout_ms
        world.counts["attacks on a lease"] += 1
        world.rng.choice(self._ways())(leader)

    def _ways(self) -> tuple[Callable[["SimulatedNode"], None], ...]:
        return (self._freeze, self._cut_off, self._restart, self._hand_over, self._hand_over_late, self._doze)

    def _cut_off(self, leader: "SimulatedNode") -> None:
        """The leader is cut off at once; how long it believes in its lease is a matter of its clock and theirs."""
        self._isolate(leader, 4 * self._timeout_ms)
        self._hurry(self._heir(leader.id), until_ms=2 * self._timeout_ms)
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
        begun_ms = 20 + int(world.rng.random() * timeout_ms)
        world.clients.quiet_until_ms = world.now + 100 + 2 * timeout_ms + begun_ms

        def cut_one() -> None:
            world.nemesis.cut({(leader.id, left_out), (left_out, leader.id)}, 3 * timeout_ms)

        def restart_others() -> None:
            for name in names:
                node = world.nodes[name]
                if name != left_out and node.reachable:
                    node.crash()
                    node.start()
            world.clients.quiet_until_ms = world.now
            self._hurry(world.nodes[left_out], until_ms=timeout_ms)
            self._isolate(leader, 3 * timeout_ms)

        self._later(100, leader, cut_one)
        self._later(100 + 2 * timeout_ms + begun_ms, leader, restart_others)
        self._question(leader, 100 + 2 * timeout_ms + begun_ms)

    def _doze(self, leader: "SimulatedNode") -> None:
        """Followers sleep a little less than an election timeout and hear the leader when they wake; who never heard it asks them for votes then."""
        world, timeout_ms, draw, config = self._world, self._timeout_ms, self._world.rng.random, self._world.plan.config
        if leader.core is None:
            return
        voters = [name for name in sorted(leader.core.state.configuration.voter_ids) if name != leader.id]
        world.rng.shuffle(voters)
        left_out, dozing = voters[: len(voters) // 2], voters[len(voters) // 2 :]
        if not left_out:
            return
        begun_ms = 100 + 2 * timeout_ms + int(draw() * timeout_ms)
        # Slept longer, and the leader would have given up.
        lasting_ms = timeout_ms - config.heartbeat_ms - config.tick_ms - 2 * world.plan.latency_ms_max - int(draw() * timeout_ms / 8)

        world.clients.quiet_until_ms = world.now + begun_ms + lasting_ms

        def cut_some() -> None:
            world.nemesis.cut({link for other in left_out for link in ((leader.id, other), (other, leader.id))}, 4 * timeout_ms)

        def sleep() -> None:
            for name in dozing:
                if world.nodes[name].reachable:
                    world.nodes[name].pause(lasting_ms)

        def wake() -> None:
            world.clients.quiet_until_ms = world.now
            self._hurry(self._heir(leader.id, *dozing), until_ms=timeout_ms)
            self._isolate(leader, 3 * timeout_ms)

        self._later(100, leader, cut_some)
        self._later(begun_ms, leader, sleep)
        self._later(begun_ms + lasting_ms + world.plan.latency_ms_max + 1, leader, wake)
        self._question(leader, begun_ms + lasting_ms)

    def _hand_over(self, leader: "SimulatedNode") -> None:
        """The leader hands over and hears of nothing any more as soon as its successor was called."""
        self._transfer(leader)
        life, end_ms = leader.life, self._world.now + self._timeout_ms

        def wait() -> None:
            if leader.core is None or leader.life != life or self._world.now > end_ms:
                return
            if leader.core.state.successor_called:
                self._later(self._world.plan.turn_ms_max + 1, leader, lambda: self._isolate(leader, 4 * self._timeout_ms))
                self._question(leader, 0)
            else:
                self._later(2, leader, wait)

        wait()

    def _hand_over_late(self, leader: "SimulatedNode") -> None:
        """The target of a transfer sleeps until the leader has given up."""
        late_ms = int(1.05 * self._timeout_ms) + self._world.plan.config.tick_ms * 2
        self._world.clients.quiet_until_ms = self._world.now + late_ms + 100
        target = self._transfer(leader)
        if target is not None and target.reachable:
            target.pause(late_ms)
        self._later(late_ms + 10, leader, lambda: self._isolate(leader, 4 * self._timeout_ms))
        self._question(leader, late_ms)

    def _transfer(self, leader: "SimulatedNode", target: str = "") -> "SimulatedNode | None":
        """Ask for a transfer, to anybody when no target is given. :returns: the target, unless it was refused."""
        target = target or self._world.rng.choice([name for name in sorted(self._world.nodes) if name != leader.id])
        try:
            leader.transfer(target)
        except Rejected:
            return None
        return self._world.nodes[target]

    def _isolate(self, node: "SimulatedNode", lasting_ms: int) -> None:
        others = [name for name in self._world.nodes if name != node.id]
        self._world.nemesis.cut({link for other in others for link in ((node.id, other), (other, node.id))}, lasting_ms)

    def _heir(self, *without: str) -> "SimulatedNode":
        """Who is the likeliest to be elected soon: a fast clock, a log as good as any."""
        others = [node for node in self._world.nodes.values() if node.id not in without]

        def rank(node: "SimulatedNode") -> tuple[float, int, int]:
            log = node.core.state.log if node.core is not None else None
            return (self._rates[node.id], log.last_term, log.last_index) if log is not None else (0.0, 0, 0)

        return max(others, key=rank)

    def _hurry(self, node: "SimulatedNode", until_ms: int) -> None:
        """For so long let the node campaign, and again, as soon as it may: as if it had drawn the shortest waits.

        Who has promised silence waits until that is over: the timer of a core that heard its leader does not run out before.
        """
        for after_ms in range(1, until_ms, max(self._timeout_ms // 20, 1)):
            self._later(after_ms, node, lambda: self._press(node))

    def _press(self, node: "SimulatedNode") -> None:
        if node.core is None or node.core.role not in {Role.FOLLOWER, Role.PRE_CANDIDATE}:
            return
        state = node.core.state
        state.election_deadline = state.config.election_ticks
        if not state.is_silent:
            state.election_elapsed = state.election_deadline

    def _question(self, leader: "SimulatedNode", from_ms: int) -> None:
        """Let clients read under the lease, and write and read elsewhere, for two election timeouts."""
        step_ms = 2 * self._timeout_ms // QUESTIONS
        for number in range(QUESTIONS):
            self._later(from_ms + number * step_ms, leader, lambda: self._world.clients.read(leader, lease=True))
            self._later(from_ms + number * step_ms, None, lambda: self._use_the_others(leader))

    def _use_the_others(self, leader: "SimulatedNode") -> None:
        """Write where the new leader is. What the old one still got through would keep the others, who lack it, from being elected."""
        node = self._world.any_leader()
        if node is not None and node is not leader and node.reachable:
            self._world.clients.propose(node, 1)

    def _later(self, delay_ms: int, node: "SimulatedNode | None", action: object) -> None:
        """Do it then, unless the faults have ended or the node is down or asleep."""

        def act() -> None:
            if not self._world.network.healthy and (node is None or node.reachable):
                action()  # type: ignore[operator]  # a function without parameters

        self._world.after(delay_ms, act)
