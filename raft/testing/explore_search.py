"""How the explorer searches a space: broadly, every state at one distance before the next, or along chance runs that go deep.

Both try every move of every state they look at. A breadth-first search keeps, besides eight bytes for each state it has seen, the way there, so a
violation comes with one of the shortest runs that lead to it. A walk takes any of the next states, one that nobody has seen if there is one, until it
has gone far enough, and begins anew; it reaches what no breadth can.
"""

import time
from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from raft.testing.explore_space import Broken, Move, Space, State
from raft.testing.trace import Violation

WALK_STEPS = 120
"""A walk begins anew after so many steps."""

ARRIVALS = 0.7
"""So often a walk takes only what arrives into account: where most messages are lost to crashes and timeouts, little ever comes about."""

WALKS_IN_VAIN_MAX = 100
"""So many walks after another that find nothing new are taken for the end."""

DEADLINE_EVERY = 256
"""The clock is looked at once in so many states."""


class Fingerprints:
    """A set of fingerprints in one flat table with open addressing: 8 bytes a slot, at least a third of them free."""

    def __init__(self, values: Iterable[int] = ()) -> None:
        self._resize(1 << 12)
        for value in values:
            self.add(value)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        return (value for value in self._slots if value)

    def add(self, value: int) -> bool:
        """Add one; 0 counts as 1. :returns: whether it is new."""
        value = value or 1
        slots, mask = self._slots, self._mask
        at = value & mask
        while found := slots[at]:
            if found == value:
                return False
            at = (at + 1) & mask
        slots[at] = value
        self._count += 1
        if 3 * self._count > 2 * len(slots):
            old = self._slots
            self._resize(2 * len(old))
            for kept in old:
                if kept:
                    self.add(kept)
        return True

    def _resize(self, size: int) -> None:
        self._slots = array("Q", bytes(8 * size))
        self._mask = size - 1
        self._count = 0


class Found(NamedTuple):
    """A violation and the way there.

    :param rule: the name of the rule.
    :param detail: who broke it, and how.
    :param start: the name of the start.
    :param moves: from there, as :meth:`Space.text` words them; the last one breaks the rule.
    """

    rule: str
    detail: str
    start: str
    moves: tuple[str, ...] = ()


@dataclass(slots=True)
class Outcome:
    """What a search did.

    :param depth: breadth-first: every state at most so many moves from a start was looked at; a walk: the longest way.
    :param exhausted: whether there is nothing more to look at within the bounds.
    """

    states: int = 0
    depth: int = 0
    exhausted: bool = False
    found: Found | None = None
    seen: Fingerprints = field(default_factory=Fingerprints)


def breadth_first(space: Space, starts: Mapping[str, State], *, states: int, deadline_s: float = float("inf")) -> Outcome:
    """Look at everything near the starts.

    :param states: stop when so many are known.
    :param deadline_s: stop then, by ``time.monotonic``.
    """
    outcome, ways = Outcome(), _Ways(list(starts))
    queue: deque[bytes] = deque()
    for state in starts.values():
        if outcome.seen.add(space.fingerprint(state)):
            queue.append(_pack(state))
    level = len(queue)
    for number in range(1 << 62):
        if not queue or len(outcome.seen) >= states or (number % DEADLINE_EVERY == 0 and time.monotonic() > deadline_s):
            break
        if not level:
            level, outcome.depth = len(queue), outcome.depth + 1
        level -= 1
        state = _unpack(queue.popleft())
        print_ = space.fingerprint(state)
        for code, move in enumerate(space.moves(state)):
            try:
                reached = space.follow(state, print_, move, outcome.seen.add)
            except Broken as broken:
                outcome.found = ways.found(space, starts, broken.violation, (number, code))
                break
            if reached is not None:
                queue.append(_pack(reached[1]))
                ways.add(number, code)
        outcome.states += 1
        if outcome.found:
            break
    outcome.exhausted = not queue and outcome.found is None
    return outcome


class _Ways:
    """How each state of a breadth-first search was reached: from which one, by its how-manieth move. States are numbered as they were found."""

    def __init__(self, starts: list[str]) -> None:
        self._starts = starts
        self._parents = array("I", bytes(4 * len(starts)))
        self._codes = array("H", bytes(2 * len(starts)))

    def add(self, parent: int, code: int) -> None:
        """The next state was found."""
        self._parents.append(parent)
        self._codes.append(code)

    def found(self, space: Space, starts: Mapping[str, State], violation: Violation, last: tuple[int, int]) -> Found:
        """The way to a violation. :param last: from which state, by which of its moves."""
        number, code = last
        codes = [code]
        while number >= len(self._starts):
            codes.append(self._codes[number])
            number = self._parents[number]
        name = self._starts[number]
        state, texts = starts[name], list[str]()
        for each in reversed(codes):
            move = list(space.moves(state))[each]
            texts.append(space.text(move))
            if len(texts) < len(codes):
                state = after(space, state, move)
        return Found(violation.rule, violation.detail, name, tuple(texts))


def walk(space: Space, starts: Mapping[str, State], *, seed: int, states: int, deadline_s: float = float("inf")) -> Outcome:
    """Look at everything beside chance runs; parameters as above.

    :param seed: of the choices; with the bounds and the starts it determines the search.
    """
    outcome, rng, names = Outcome(), Random(seed), list(starts)  # noqa: S311  # a search, not a secret
    in_vain = 0
    while len(outcome.seen) < states and in_vain < WALKS_IN_VAIN_MAX and time.monotonic() < deadline_s and outcome.found is None:
        known = len(outcome.seen)
        name = names[rng.randrange(len(names))]
        _walk_once(space, starts[name], name, rng=rng, states=states, outcome=outcome)
        in_vain = 0 if len(outcome.seen) > known else in_vain + 1
    return outcome


def _walk_once(space: Space, state: State, name: str, *, rng: Random, states: int, outcome: Outcome) -> None:
    start, way = state, list[Move]()
    print_ = space.fingerprint(state)
    outcome.seen.add(print_)
    while len(way) < WALK_STEPS and len(outcome.seen) < states and (moves := list(space.moves(state))):
        reached = []
        try:
            for move in moves:
                if (next_ := space.follow(state, print_, move, outcome.seen.add)) is not None:
                    reached.append((move, *next_))  # noqa: PERF401  # a comprehension would lose what was reached before a rule was broken
        except Broken as broken:
            found = Found(broken.violation.rule, broken.violation.detail, name, tuple(map(space.text, (*way, broken.move))))
            outcome.found = shortened(space, start, found)
            return
        outcome.states += 1
        if not reached:
            move = moves[rng.randrange(len(moves))]
            reached.append((move, *_certain(space, state, print_, move)))
        arrivals = [item for item in reached if item[0].name == "deliver"]
        chosen = arrivals if arrivals and rng.random() < ARRIVALS else reached
        move, print_, state = chosen[rng.randrange(len(chosen))]
        way.append(move)
        outcome.depth = max(outcome.depth, len(way))


def shortened(space: Space, start: State, found: Found) -> Found:
    """Leave out of a way whatever the violation does not need, one move after the other, until nothing can be left out."""
    position = 0
    while position < len(found.moves):
        again = attempt(space, start, (*found.moves[:position], *found.moves[position + 1 :]))
        if again is not None and again.rule == found.rule:
            found = again._replace(start=found.start)
            position = 0
        else:
            position += 1
    return found


def attempt(space: Space, start: State, texts: Iterable[str]) -> Found | None:
    """Make moves by their texts; what can't happen is passed over. :returns: the violation and the moves up to it, if there is one."""
    state, made = start, list[str]()
    for text in texts:
        move = next((move for move in space.moves(state) if space.text(move) == text), None)
        if move is None:
            continue
        made.append(text)
        try:
            state = after(space, state, move)
        except Broken as broken:
            return Found(broken.violation.rule, broken.violation.detail, "", tuple(made))
    return None


def after(space: Space, state: State, move: Move) -> State:
    """The state after a move.

    :raises Broken: when the move breaks a rule.
    """
    return _certain(space, state, 0, move)[1]


def _certain(space: Space, state: State, print_: int, move: Move) -> tuple[int, State]:
    reached = space.follow(state, print_, move, lambda _print: True)
    assert reached is not None
    return reached


def _pack(state: State) -> bytes:
    return array("I", (state.left, state.history, *state.sites, *state.net)).tobytes()


def _unpack(packed: bytes) -> State:
    left, history, first, second, third, *net = array("I", packed)
    return State(left, history, (first, second, third), tuple(net))
