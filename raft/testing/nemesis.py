"""Whoever breaks things: crashes, frozen processes and cut links, as the plan allows, and the healing in the end."""

from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raft.testing.node import SimulatedNode
    from raft.testing.world import World

Link = tuple[str, str]


class Nemesis:
    """The faults of one schedule."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._plan = world.plan
        self._partition = 0

    def begin(self) -> None:
        """Start breaking things."""
        plan, world = self._plan, self._world
        if plan.partition_every_ms:
            world.repeat(plan.partition_every_ms, self._cut)
        if plan.crash_every_ms:
            world.repeat(plan.crash_every_ms, self._crash)
        if plan.pause_every_ms:
            world.repeat(plan.pause_every_ms, self._pause)

    def heal(self) -> list["SimulatedNode"]:
        """Stop all faults; the survivors are up, awake and connected, the others cut off or down.

        :returns: the survivors.
        """
        world, rng = self._world, self._world.rng
        world.trace.record(world.now, "-", "heals")
        names = sorted(world.nodes)
        rng.shuffle(names)
        healed, others = names[: self._plan.survivors], names[self._plan.survivors :]
        world.network.heal({(one, two) for other in others for name in names for one, two in ((name, other), (other, name))})
        self._partition += 1
        for name in sorted(healed):
            node = world.nodes[name]
            if node.core is None:
                node.start()
            elif node.paused:
                node.resume()
        for name in others:
            if rng.random() < 0.5 and world.nodes[name].core is not None:
                world.nodes[name].crash()
        return [world.nodes[name] for name in sorted(healed)]

    def _victim(self) -> "SimulatedNode | None":
        """A node that is up; every other time the leader, because most happens there."""
        leader = self._world.any_leader()
        if leader is not None and leader.reachable and self._world.rng.random() < 0.5:
            return leader
        return self._world.any_reachable()

    def _crash(self) -> None:
        world = self._world
        node = self._victim()
        if node is None:
            return
        victims = list(world.nodes.values()) if world.rng.random() < 0.05 else [node]
        for victim in victims:
            if victim.core is not None:
                victim.crash()
                world.after(1 + int(world.rng.random() * self._plan.crash_ms_max), self._restart, victim, victim.life)

    def elected(self, node: "SimulatedNode") -> None:
        """A node has become leader. What it had begun is half done when it crashes now (the situation of the paper's figure 8)."""
        world, plan, draw = self._world, self._plan, self._world.rng.random
        if world.network.healthy or draw() >= plan.break_new_leader:
            return
        soon = 1 + int(draw() * (5 if draw() < 0.5 else 2 * plan.config.heartbeat_ms))
        if draw() < 0.4:
            world.counts["crashes of new leaders"] += 1
            world.after(soon, self._crash_now, node, node.life)
        else:
            world.counts["new leaders cut off"] += 1
            lasting_ms = 1 + int(draw() * 4 * plan.config.election_timeout_ms)
            world.after(0 if draw() < 0.5 else soon, self._cut_off, node, lasting_ms)

    def _cut_off(self, node: "SimulatedNode", lasting_ms: int) -> None:
        """Nobody hears the node for a while, and perhaps it hears nobody; what it appends stays with it."""
        world = self._world
        if world.network.healthy:
            return
        links = {(node.id, other) for other in world.nodes if other != node.id}
        self.cut(links if world.rng.random() < 0.5 else _both_ways(links), lasting_ms)

    def cut(self, links: set[Link], lasting_ms: int) -> None:
        """Cut these links, and no others, for so long."""
        world = self._world
        world.network.cut = links
        world.trace.record(world.now, "-", "cuts", sorted(links))
        self._partition += 1
        world.after(lasting_ms, self._mend, self._partition)

    def installing(self, node: "SimulatedNode") -> None:
        """A node is putting a snapshot in place: some crash in the middle of it."""
        world, plan = self._world, self._plan
        if plan.crash_every_ms and not world.network.healthy and world.rng.random() < 0.3:
            world.after(int(world.rng.random() * plan.install_ms_max), self._crash_now, node, node.life)

    def _crash_now(self, node: "SimulatedNode", life: int) -> None:
        if node.core is not None and node.life == life and not self._world.network.healthy:
            node.crash()
            self._world.after(1 + int(self._world.rng.random() * self._plan.crash_ms_max), self._restart, node, node.life)

    def _restart(self, node: "SimulatedNode", life: int) -> None:
        if node.core is None and node.life == life and not self._world.network.healthy:
            node.start()

    def _pause(self) -> None:
        """Freeze a process. A leader that was cut off as well wakes up believing that it leads: its clock has not moved."""
        node, draw = self._victim(), self._world.rng.random
        if node is not None:
            duration_ms = 1 + int(draw() * self._plan.pause_ms_max)
            if node.leads and draw() < 0.5:
                self._cut_off(node, duration_ms + self._plan.config.election_timeout_ms)
            node.pause(duration_ms)

    def _cut(self) -> None:
        """Cut links in one of six ways, for a while; a new cut replaces the last."""
        world, rng = self._world, self._world.rng
        ways = {"halves": _halves, "one way": _one_way, "isolated": _isolated, "ring": _ring, "one link": _one_link, "random": _random}
        kind = rng.choice(("halves", *ways))
        names = sorted(world.nodes)
        rng.shuffle(names)
        leader = world.any_leader()
        if leader is not None and rng.random() < 0.5:  # most happens where the leader is
            names.remove(leader.id)
            names.insert(0, leader.id)
        world.network.cut = ways[kind](names, rng)
        world.counts[f"partition: {kind}"] += 1
        world.trace.record(world.now, "-", "cuts", sorted(world.network.cut))
        self._partition += 1
        world.after(1 + int(rng.random() * self._plan.partition_ms_max), self._mend, self._partition)

    def _mend(self, partition: int) -> None:
        if partition == self._partition:
            self._world.network.cut = set()
            self._world.trace.record(self._world.now, "-", "mends")


def _both_ways(links: set[Link]) -> set[Link]:
    return links | {(two, one) for one, two in links}


def _halves(names: list[str], rng: Random) -> set[Link]:
    return _both_ways(_one_way(names, rng))


def _one_way(names: list[str], rng: Random) -> set[Link]:
    """The first group is not heard by the second, or not the second by the first."""
    count = rng.randint(1, len(names) - 1)
    links = {(one, two) for one in names[:count] for two in names[count:]}
    return links if rng.random() < 0.5 else {(two, one) for one, two in links}


def _isolated(names: list[str], rng: Random) -> set[Link]:  # noqa: ARG001  # one signature for all ways
    return _both_ways({(names[0], other) for other in names[1:]})


def _ring(names: list[str], rng: Random) -> set[Link]:  # noqa: ARG001  # one signature for all ways
    """Each node hears its two neighbours only."""
    count = len(names)
    return {(names[one], names[two]) for one in range(count) for two in range(count) if (one - two) % count not in {0, 1, count - 1}}


def _one_link(names: list[str], rng: Random) -> set[Link]:
    link = (names[0], names[1])
    return {link if rng.random() < 0.5 else (names[1], names[0])}


def _random(names: list[str], rng: Random) -> set[Link]:
    return {(one, two) for one in names for two in names if one != two and rng.random() < 0.4}
