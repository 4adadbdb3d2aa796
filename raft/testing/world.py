"""A cluster in one process on virtual time: one seed decides everything that happens.

A schedule has two phases, after the example of TigerBeetle's VOPR. In the first anything may fail and nothing may be wrong. Then the faults
stop, a majority is healed, and within a bounded time it must have a leader and be of one mind.
"""

import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from raft.core.model import Boundary, Configuration
from raft.testing.checkers import Checkers
from raft.testing.churn import Churn, member
from raft.testing.clients import Clients
from raft.testing.faults import Plan, draw_plan
from raft.testing.lease_attack import LeaseAttack
from raft.testing.nemesis import Nemesis
from raft.testing.network import Network
from raft.testing.node import SimulatedNode
from raft.testing.trace import Trace, Violation

COMMITTED_MIN = 100
"""A schedule that has committed less goes on until it has."""


@dataclass(slots=True)
class Report:
    """What one schedule did."""

    seed: int
    nodes: int
    simulated_ms: int
    steps: int
    committed: int
    acknowledged: int
    reads: int
    digest: str
    counts: Counter[str] = field(repr=False)


class ScheduleFailed(Exception):
    """A schedule that found something; its text says how to see it again.

    :param seed: the schedule.
    :param violation: what was found; anything but a :class:`Violation` is an error that the core raised.
    """

    def __init__(self, seed: int, violation: Exception, tail: str) -> None:
        name = violation.rule if isinstance(violation, Violation) else type(violation).__name__
        super().__init__(f"{tail}\nseed {seed}: {violation}\nreplay: python -m raft.testing.sim --seed {seed}")
        self.seed = seed
        self.rule = name
        self.violation = violation


class World:
    """One schedule.

    :param seed: decides everything.
    :param trace: where the steps go.
    :param prepare: called with the finished world before it starts; mutants of the surroundings (a lying disk) are made there.
    """

    def __init__(self, seed: int, *, trace: Trace | None = None, prepare: Callable[["World"], None] | None = None) -> None:
        self.seed = seed
        self.rng = random.Random(seed)  # noqa: S311  # repeatable on purpose, no secret depends on it
        self.plan: Plan = draw_plan(self.rng)
        self.trace = trace if trace is not None else Trace()
        self.now = 0
        self.counts: Counter[str] = Counter()
        self._queue: list[tuple[int, int, Callable[..., object], tuple[object, ...]]] = []
        self._sequence = 0
        self._faulty = True
        self.network = Network(self)
        self.clients = Clients(self)
        self.nemesis = Nemesis(self)
        self.churn = Churn(self)
        ids = [f"n{number}" for number in range(1, len(self.plan.rates) + 1)]
        genesis = Boundary(configuration=Configuration(voters=tuple(member(node) for node in ids[: self.plan.nodes])))
        self.checkers = Checkers(self, genesis.configuration)
        self.nodes = {
            node: SimulatedNode(self, node, genesis if node in genesis.configuration else Boundary(), self.plan.config.tick_ms / rate)
            for node, rate in zip(ids, self.plan.rates, strict=True)
        }
        if prepare is not None:
            prepare(self)

    def run(self) -> Report:
        """Run both phases.

        :raises ScheduleFailed: when a property does not hold, or the core raises.
        """
        try:
            self._safety_phase()
            self._liveness_phase()
        except Exception as error:
            raise ScheduleFailed(self.seed, error, self.trace.tail()) from error
        return Report(
            seed=self.seed,
            nodes=self.plan.nodes,
            simulated_ms=self.now,
            steps=self.trace.steps,
            committed=len(self.checkers.committed) - 1,
            acknowledged=self.clients.acknowledged,
            reads=self.clients.served,
            digest=self.trace.digest(),
            counts=self.counts,
        )

    # -- virtual time ---------------------------------------------------------------------------------------------------------------------

    def after(self, delay_ms: int, action: Callable[..., object], *arguments: object) -> None:
        """Call ``action`` that much later; what is due together is called in the order of the asking."""
        self._sequence += 1
        heapq.heappush(self._queue, (self.now + delay_ms, self._sequence, action, arguments))

    def repeat(self, mean_ms: int, action: Callable[[], object]) -> None:
        """Call ``action`` again and again while faults last, after times that are ``mean_ms`` on average."""
        self.after(1 + int(self.rng.random() * 2 * mean_ms), self._again, mean_ms, action)

    def _again(self, mean_ms: int, action: Callable[[], object]) -> None:
        if self._faulty:
            action()
            self.repeat(mean_ms, action)

    def tick_ms(self, of_node: float) -> int:
        """How long the next tick of a node takes; in the liveness phase every clock is right."""
        if self.network.healthy:
            return self.plan.config.tick_ms
        return int(of_node + self.rng.random())

    def _run_until(self, end_ms: int, done: Callable[[], bool] | None = None) -> bool:
        queue = self._queue
        while queue and queue[0][0] <= end_ms:
            self.now, _, action, arguments = heapq.heappop(queue)
            action(*arguments)
            if done is not None and done():
                return True
        self.now = end_ms
        return done is None

    # -- choices --------------------------------------------------------------------------------------------------------------------------

    def any_reachable(self) -> SimulatedNode | None:
        """A random node that is up and not frozen."""
        up = [node for node in self.nodes.values() if node.reachable]
        return up[int(self.rng.random() * len(up))] if up else None

    def any_leader(self) -> SimulatedNode | None:
        """The leader of the latest term, if there is one."""
        leaders = [(node.core.term, node) for node in self.nodes.values() if node.core is not None and node.leads]
        return max(leaders, key=lambda leader: leader[0])[1] if leaders else None

    # -- the two phases -------------------------------------------------------------------------------------------------------------------

    def _safety_phase(self) -> None:
        self.trace.record(0, "-", "plan", self.plan)
        for node in self.nodes.values():
            node.start()
        self.nemesis.begin()
        LeaseAttack(self).begin()
        self.clients.begin()
        self.churn.begin()
        self._run_until(self.plan.duration_ms)

    def _liveness_phase(self) -> None:
        timeout_ms = self.plan.config.election_timeout_ms
        self._faulty = False
        healed = self.nemesis.heal()
        start = self.now
        if not self._run_until(start + 10 * timeout_ms, lambda: self._agree_on_leader(healed)):
            raise Violation("liveness", f"10 election timeouts after the faults had stopped {[node.id for node in healed]} have no leader")
        if not self._run_until(start + 20 * timeout_ms, self._changes_are_done):
            raise Violation("liveness", f"20 election timeouts after the faults had stopped a change is not done: {self._describe(healed)}")
        healed, start = self._members_among(healed), self.now
        for node in healed:
            self.clients.insist(node)
        if not self._run_until(start + 20 * timeout_ms, lambda: self._of_one_mind(healed)):
            raise Violation("liveness", f"20 election timeouts after the faults had stopped: {self._describe(healed)}")
        self._fill_up(healed)
        for node in healed:
            self.checkers.finish(node)

    def _fill_up(self, healed: list[SimulatedNode]) -> None:
        """Many faults leave little time for work: go on, in good health, until the schedule has committed enough to mean something."""
        timeout_ms = self.plan.config.election_timeout_ms
        for number in range(COMMITTED_MIN):
            if len(self.checkers.committed) > COMMITTED_MIN:
                return
            self.clients.insist(healed[number % len(healed)])
            if not self._run_until(self.now + 10 * timeout_ms, lambda: self._of_one_mind(healed)):
                raise Violation("liveness", f"a healthy cluster does not resolve a proposal or a read: {self._describe(healed)}")

    def _agree_on_leader(self, healed: list[SimulatedNode]) -> bool:
        leaders = {node.core.leader for node in self._members_among(healed) if node.core is not None}
        return len(leaders) == 1 and leaders <= {node.id for node in healed if node.leads}

    def _changes_are_done(self) -> bool:
        """What goes on by itself has come to its end: joint changes that leave, and learners that promote themselves."""
        leader = self.any_leader()
        if leader is None or leader.core is None:
            return False
        configuration, log = leader.core.state.configuration, leader.core.state.log
        going_on = configuration.leaves_by_itself if configuration.is_joint else bool(configuration.promotions)
        return not going_on and leader.core.state.trail.current_index <= log.commit

    def _members_among(self, nodes: list[SimulatedNode]) -> list[SimulatedNode]:
        """Those that belong to the cluster, as far as its leader knows; who was removed is told nothing any more."""
        leader = self.any_leader()
        return nodes if leader is None or leader.core is None else [node for node in nodes if node.id in leader.core.state.configuration]

    def _of_one_mind(self, healed: list[SimulatedNode]) -> bool:
        if self.clients.proposals or self.clients.reads or self.clients.insisting:
            return False
        last = {(node.machine.state, node.core.state.log.last_index, node.core.state.log.commit) for node in healed if node.core is not None}
        return len(last) == 1 and all(state.applied == index == commit for state, index, commit in last)

    def _describe(self, healed: list[SimulatedNode]) -> str:
        nodes = [
            f"{node.id} {node.core.role} term {node.core.term} last {node.core.state.log.last_index} commit {node.core.state.log.commit} "
            f"applied {node.machine.state.applied}"
            for node in healed
            if node.core is not None
        ]
        return "; ".join([*nodes, f"waiting: proposals {sorted(self.clients.proposals)}, reads {sorted(self.clients.reads)}"])
