"""What can be wrong with a disk and what is kept on it: the replacements that the mutants of :mod:`raft.testing.mutants` plant in the simulated one.

The real files have theirs in the tests of crash images; here it is the checkers of the simulation that must notice.
"""

from collections.abc import Callable

from raft.testing.disk import Disk
from raft.testing.machine import State
from raft.testing.node import SimulatedNode
from raft.testing.world import World

_lose, _end, _crash = Disk.crash, Disk._end, SimulatedNode.crash  # noqa: SLF001  # a mutant does what nobody may

FAILS_EVERY = 50
"""One sync in so many fails where a fault of syncs is planted."""


def lie_about_syncs(world: World) -> None:
    """Every disk says that it has synced, and has not."""
    for node in world.nodes.values():
        node.disk.lies = True


def install_in_two(disk: Disk, survive: Callable[[int], int]) -> tuple[int, bool]:
    """The label and the log of a snapshot are one transaction, its state another, which a crash may prevent."""
    boundary, state = disk.boundary, disk.state
    lost = _lose(disk, survive)
    if disk.boundary is not boundary:
        disk.state = state
    return lost


def apply_in_two(node: SimulatedNode) -> None:
    """Effects are one transaction, the applied index another, which a crash may prevent."""
    _crash(node)
    kept = node.disk.state
    later = next((state for state in node.machine.unsynced if state.applied == kept.applied + 1), None)
    if later is not None:
        node.disk.state = State(kept.applied, later.digest)


def forget_failed_syncs(disk: Disk) -> None:
    """A sync fails, is tried again and then said to have worked; what it should have written is gone."""
    syncs = disk.__dict__.get("syncs", 0) + 1
    disk.__dict__["syncs"] = syncs
    disk.lies = syncs % FAILS_EVERY == 0
    _end(disk)
    disk.lies = False
