"""Members that come and go: changes of the membership at random moments, sensible ones and others.

A schedule with churn has a few servers more than its first configuration; they start empty and wait to be added.
"""

from typing import TYPE_CHECKING

from raft.core.membership import AddLearner, AddVoter, Change, Demote, JointChange, LeaveJoint, Remove, Step
from raft.core.model import Configuration, Member, NodeId
from raft.errors import Rejected

if TYPE_CHECKING:
    from raft.testing.world import World


def member(node: NodeId) -> Member:
    """The simulated server of that id."""
    return Member(node, node, f"{node}:8300")


class Churn:
    """The membership changes of one schedule."""

    def __init__(self, world: "World") -> None:
        self._world = world

    def begin(self) -> None:
        """Start changing, if the plan says so."""
        if self._world.plan.change_every_ms:
            self._world.repeat(self._world.plan.change_every_ms, self._change_somewhere)

    def _change_somewhere(self) -> None:
        world = self._world
        leader = world.any_leader()
        if leader is None or leader.core is None or leader.paused:
            return
        change = self._draw(leader.core.state.configuration)
        world.trace.record(world.now, leader.id, "changes", change)
        try:
            leader.change(change)
        except Rejected as error:
            world.counts[f"changes refused: {type(error).__name__}"] += 1
        else:
            world.counts[f"changes begun: {type(change).__name__}"] += 1

    def _draw(self, configuration: Configuration) -> Change:
        draw = self._world.rng.random
        if configuration.is_joint and draw() < 0.8:
            return LeaveJoint()
        if draw() < 0.4:
            steps = tuple(self._draw_step(configuration) for _ in range(1 + int(draw() * 3)))
            return JointChange(steps, leaves_by_itself=draw() < 0.6)
        return LeaveJoint() if draw() < 0.02 else self._draw_step(configuration)

    def _draw_step(self, configuration: Configuration) -> Step:
        """A step that mostly makes sense: servers come while there are few, and go while there are many."""
        rng = self._world.rng
        outside = [node for node in sorted(self._world.nodes) if node not in configuration]
        voters, learners = configuration.voter_ids, tuple(one.id for one in configuration.learners)
        if learners and rng.random() < 0.5:
            return AddVoter(member(rng.choice(learners)))
        if outside and rng.random() < (0.8 if len(voters) < 4 else 0.4):
            promote = rng.random() < 0.5
            replaces = rng.choice(voters) if promote and rng.random() < 0.5 else None
            return AddLearner(member(rng.choice(outside)), promote=promote, replaces=replaces)
        if rng.random() < 0.3:
            return Demote(rng.choice(voters))
        return Remove(rng.choice(voters + learners))
