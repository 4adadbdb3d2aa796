"""What a node does to its disk, as a list of some 200 operations, and what must be there after each of them.

The operations are those of :mod:`raft.runtime`, with its order of things: an entry is applied when it is durable, the log is cut up to what
a checkpoint has proven, an installation changes the machine first and the log second. :func:`after` is their meaning, in a few lines that know
nothing of files: crash images are held against it.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from raft.core.model import Boundary, Configuration, Entry, EntryKind, HardState, Member
from raft.ports.storage import WriteBatch

CONFIGURATION = Configuration(tuple(Member(name, name, f"{name}:8300") for name in "abc"))
LEADER, FOLLOWER, RECEIVER = "leader", "follower", "receiver"
ROLES = (LEADER, FOLLOWER, RECEIVER)
OPERATIONS = 200

Command = Callable[[int, int], bytes]
"""The data of the entry of an index and a term."""


@dataclass(frozen=True, slots=True)
class Write:
    """A batch becomes durable: entries at the end or in place of others, term and vote."""

    batch: WriteBatch


@dataclass(frozen=True, slots=True)
class Put:
    """A named record is written."""

    name: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Apply:
    """Entries are applied, up to this index."""

    last: int


@dataclass(frozen=True, slots=True)
class Compact:
    """A checkpoint; and the log is cut there when the checkpoint has proven as much."""

    boundary: Boundary


@dataclass(frozen=True, slots=True)
class Hold:
    """A picture of the state is taken and held open."""


@dataclass(frozen=True, slots=True)
class Release:
    """It is written to the snapshots and closed."""


@dataclass(frozen=True, slots=True)
class Arrive:
    """A snapshot arrives. It is installed, or is thrown away half-way, or stays where it arrived."""

    boundary: Boundary
    installed: bool
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Reopen:
    """The node is stopped and started."""


Operation = Write | Put | Apply | Compact | Hold | Release | Arrive | Reopen


class State(NamedTuple):
    """What must be on disk.

    :param applied: the index whose effects the machine shows while the system lives.
    :param durable: the index whose effects it shows at least after a power loss.
    :param snapshot: index and term of the newest stored snapshot.
    :param held: index and term of the picture that is held open.
    """

    boundary: Boundary = Boundary()
    entries: tuple[Entry, ...] = ()
    hard_state: HardState = HardState()
    records: tuple[tuple[str, bytes], ...] = ()
    applied: int = 0
    durable: int = 0
    snapshot: tuple[int, int] = (0, 0)
    held: tuple[int, int] = (0, 0)

    @property
    def last_index(self) -> int:
        """Index of the last entry."""
        return self.boundary.index + len(self.entries)

    def term_at(self, index: int) -> int:
        """Term of an entry that the log holds, or of the boundary."""
        return self.boundary.term if index == self.boundary.index else self.entries[index - self.boundary.index - 1].term


def after(state: State, operation: Operation, proven: int) -> State:  # noqa: PLR0911 - one result an operation
    """The state after an operation.

    :param proven: what the checkpoint of a :class:`Compact` returned.
    """
    match operation:
        case Write(batch):
            entries = state.entries
            if batch.entries:
                entries = entries[: batch.entries[0].index - state.boundary.index - 1] + batch.entries
            return state._replace(entries=entries, hard_state=batch.hard_state or state.hard_state)
        case Put(name, value):
            return state._replace(records=tuple(sorted({**dict(state.records), name: value}.items())))
        case Apply(last):
            return state._replace(applied=last)
        case Compact(boundary):
            state = state._replace(durable=max(state.durable, proven))
            if proven < boundary.index or boundary.index <= state.boundary.index:
                return state
            return state._replace(boundary=boundary, entries=state.entries[boundary.index - state.boundary.index :])
        case Hold():
            return state._replace(held=(state.applied, state.term_at(state.applied)))
        case Release():
            return state._replace(snapshot=max(state.snapshot, state.held), held=(0, 0))
        case Arrive(boundary, installed, whole):
            state = state._replace(snapshot=max(state.snapshot, (boundary.index, boundary.term))) if whole else state
            if installed:
                return state._replace(boundary=boundary, entries=(), applied=boundary.index, durable=boundary.index)
            return state
        case Reopen():
            return state._replace(held=(0, 0))


class Plan(NamedTuple):
    """The operations of a node, and every entry that was ever committed on the way, from index 1 on."""

    operations: tuple[Operation, ...]
    committed: tuple[Entry, ...]


def plan(role: str, seed: int, command: Command, *, operations: int = OPERATIONS) -> Plan:
    """What a node of that role does; the same for the same arguments."""
    return _Planner(role, seed, command).run(operations)


_WEIGHTS: dict[str, dict[str, int]] = {
    LEADER: {"append": 50, "vote": 4, "apply": 25, "compact": 8, "hold": 4, "release": 6, "put": 1, "reopen": 1},
    FOLLOWER: {"append": 35, "conflict": 14, "vote": 14, "apply": 22, "compact": 8, "hold": 1, "release": 2, "put": 2, "reopen": 2},
    RECEIVER: {"append": 30, "conflict": 5, "vote": 6, "apply": 20, "compact": 6, "install": 18, "keep": 4, "abandon": 6, "put": 1, "reopen": 2},
}


class _Planner:
    """Draws one operation after the other that fits the state so far."""

    def __init__(self, role: str, seed: int, command: Command) -> None:
        self._chosen = random.Random(f"{role}/{seed}")  # noqa: S311 - a plan that can be made again
        self._weights = _WEIGHTS[role]
        self._command = command
        self._state = State()
        self._committed: list[Entry] = []
        self._term = 1

    def run(self, count: int) -> Plan:
        operations: list[Operation] = [self._append()]
        self._state = after(self._state, operations[0], 0)
        kinds, weights = list(self._weights), list(self._weights.values())
        while len(operations) < count:
            kind = self._chosen.choices(kinds, weights)[0]
            operation: Operation | None = getattr(self, f"_{kind}")()
            if operation is None:
                continue
            operations.append(operation)
            # Nothing holds a checkpoint up here. Where something does, the node does less than planned, and all that follows still fits.
            self._state = after(self._state, operation, self._state.applied)
        return Plan(tuple(operations), tuple(self._committed))

    def _entries(self, first: int, count: int) -> tuple[Entry, ...]:
        return tuple(Entry(index, self._term, EntryKind.COMMAND, self._command(index, self._term)) for index in range(first, first + count))

    def _write(self, first: int) -> Write:
        entries = self._entries(first, self._chosen.choice((1, 1, 2, 5, 12)))
        return Write(WriteBatch(HardState(self._term, self._chosen.choice((None, "a", "b")), len(self._committed)), entries))

    def _append(self) -> Write:
        written = self._write(self._state.last_index + 1)
        return written if self._chosen.random() < 0.8 else Write(WriteBatch(None, written.batch.entries))

    def _conflict(self) -> Write | None:
        first = max(len(self._committed), self._state.boundary.index) + 1
        if first > self._state.last_index:
            return None
        self._term += 1
        return self._write(self._chosen.randint(first, self._state.last_index))

    def _vote(self) -> Write:
        self._term += 1
        return Write(WriteBatch(HardState(self._term, self._chosen.choice("abc"), len(self._committed))))

    def _put(self) -> Put:
        return Put(self._chosen.choice(("identity", "cluster")), self._chosen.randbytes(self._chosen.choice((8, 300))))

    def _apply(self) -> Apply | None:
        if self._state.applied == self._state.last_index:
            return None
        last = self._chosen.randint(self._state.applied + 1, self._state.last_index)
        known = len(self._committed)
        self._committed += [entry for entry in self._state.entries if known < entry.index <= last]
        return Apply(last)

    def _compact(self) -> Compact | None:
        if self._state.applied <= self._state.boundary.index:
            return None
        index = self._chosen.randint(self._state.boundary.index + 1, self._state.applied)
        return Compact(Boundary(index, self._state.term_at(index), CONFIGURATION))

    def _hold(self) -> Hold | None:
        return Hold() if self._state.applied and not self._state.held[0] else None

    def _release(self) -> Release | None:
        return Release() if self._state.held[0] else None

    def _arrival(self) -> Arrive | None:
        if not self._state.durable or self._state.held[0]:
            return None
        index = max(self._state.last_index, self._state.snapshot[0]) + self._chosen.randint(1, 15)
        return Arrive(Boundary(index, self._term, CONFIGURATION), installed=False)

    def _install(self) -> Arrive | None:
        arrival = self._arrival()
        if arrival is None:
            return None
        known = len(self._committed)
        # What was in the log and not committed gives way to what the snapshot holds.
        self._committed += self._entries(known + 1, arrival.boundary.index - known)
        return replace(arrival, installed=True)

    def _reopen(self) -> Reopen:
        return Reopen()

    def _keep(self) -> Arrive | None:
        return self._arrival()

    def _abandon(self) -> Arrive | None:
        arrival = self._arrival()
        return arrival and replace(arrival, whole=False)
