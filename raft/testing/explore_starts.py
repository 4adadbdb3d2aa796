"""The variants of the exploration, its parts, and the states from which each begins.

Every start is reached from nodes that have never run, by moves of the space itself; what is still under way then is lost, and the bounds count anew
from there.

========== ===============================================================================================
plain      elections and replication under faults
snapshot   one node may compact its log, so that another may need its state
membership one change of the membership, single or joint, with three voters, two and a learner, or two alone
========== ===============================================================================================
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from raft.core.model import Configuration, NodeId
from raft.testing.cluster import configuration
from raft.testing.explore_search import after
from raft.testing.explore_space import NODES, Bounds, Space, State

VOTERS = configuration(NODES)
WITH_LEARNER = configuration(NODES[:2], NODES[2:])
TWO = configuration(NODES[:2])

CONTESTED_TERM = 2

Script = Callable[[Space], State]


class Part(NamedTuple):
    """One exploration: a fresh cluster, what happens to it first, and what may happen then.

    :param genesis: the members of the fresh cluster.
    :param starts: by name.
    """

    variant: str
    bounds: Bounds
    genesis: Configuration
    starts: dict[str, Script]


def never_run(space: Space) -> State:
    """Nothing has happened."""
    return space.initial()


def elected(space: Space) -> State:
    """Node a leads term 1; what it wrote first is applied everywhere."""
    state = space.initial()
    for move in ("b release", "c release", "a timeout", "a heartbeat"):
        state = settle(space, make(space, state, move))
    return state


def written(space: Space) -> State:
    """As above, and one command more, which c has not seen."""
    return settle(space, make(space, elected(space), "a propose"), among="ab")


def behind(space: Space) -> State:
    """As above, and a has compacted its log, so that c needs its state."""
    return make(space, written(space), "a compact")


def contested(space: Space) -> State:
    """Two leaders, each with an entry at index 2 that nobody else holds: a of term 1, b of term 2 by the vote of c (paper, figure 8, a and b)."""
    state = make(space, make(space, make(space, elected(space), "a propose"), "c release"), "b timeout")
    return settle(space, state, among="bc", until=lambda reached: space.site(reached, 1).leads)


ONE_CHANGE = Bounds(changes=1, commands=2)

PARTS: dict[str, Part] = {
    "plain": Part("plain", Bounds(), VOTERS, {"new": never_run, "elected": elected, "written": written, "contested": contested}),
    "snapshot": Part("snapshot", Bounds(compactions=1), VOTERS, {"elected": elected, "written": written, "behind": behind}),
    "membership": Part("membership", ONE_CHANGE, VOTERS, {"elected": elected, "contested": contested}),
    "membership-learner": Part("membership", ONE_CHANGE, WITH_LEARNER, {"elected": elected, "written": written}),
    "membership-two": Part("membership", ONE_CHANGE, TWO, {"elected": elected}),
}
"""By name."""


def enter(name: str, bounds: Mapping[str, int]) -> tuple[Space, dict[str, State]]:
    """The space of a part, and its starts by name, as far as they lie within the bounds.

    :param bounds: what differs from the part's own.
    """
    part = PARTS[name]
    space = Space(part.bounds._replace(**bounds), part.genesis)
    scripts = {start: script for start, script in part.starts.items() if script is not contested or space.bounds.terms >= CONTESTED_TERM}
    starts = {start: space.refreshed(script(space)) for start, script in scripts.items()}
    space.tried.clear()
    return space, starts


def make(space: Space, state: State, text: str) -> State:
    """Make the one move whose text begins so.

    :raises LookupError: when there is none.
    """
    move = next((move for move in space.moves(state) if space.text(move).startswith(text)), None)
    if move is None:
        raise LookupError(f"{text!r} can't happen here; what can: {sorted(space.text(move) for move in space.moves(state))}")
    return after(space, state, move)


def settle(space: Space, state: State, *, among: Iterable[NodeId] = NODES, until: Callable[[State], bool] = lambda _state: False) -> State:
    """Deliver what these nodes send to each other until nothing is under way between them; the rest is lost.

    :param until: stop before that, when this is so.
    """
    chosen = frozenset(among)
    while not until(state):
        moves = [move for move in space.moves(state) if move.name == "deliver" and space.ends(move.input) <= chosen]
        if not moves:
            break
        state = after(space, state, min(moves, key=space.text))
    return state._replace(net=())
