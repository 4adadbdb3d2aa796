"""Whether what clients saw could have come from one copy of the data: linearizability (Herlihy and Wing, 1990) of registers.

::

    history = History()
    writing = history.write("client 1", "colour", b"blue")
    ...                                     # ask the cluster
    writing.succeeded()                     # or failed(): it certainly never happened; or nothing at all: nobody knows
    reading = history.read("client 2", "colour")
    ...
    reading.found(b"blue")                  # a read without an answer says nothing

    for anomaly in anomalies(history.operations()):
        print(anomaly)

A history is linearizable when every operation can be given one moment between its call and its return such that, in the order of those moments, each
read gives what was written last. An operation of unknown outcome has no return: it may have happened at any moment since its call, or never. Each key
is looked at alone: linearizability is local, a history is linearizable when that of every key is.

The search is that of Wing and Gong (1993) with the cache of Lowe (2017): take away the earliest operations in any order that their intervals allow,
go back where a read does not fit, and never try the same set of operations with the same value again. Two shortcuts change no verdict. A read that
fits is taken at once: it changes nothing, so nothing can go wrong by it. And a write of unknown outcome whose value nobody read is left out: had
it happened, it would have been overwritten unseen.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from threading import Lock
from typing import NamedTuple

Value = Hashable
"""What a register holds; None where there is no such key, so that a write of None is a deletion."""


class Kind(StrEnum):
    """What an operation does."""

    READ = "read"
    WRITE = "write"


class Operation(NamedTuple):
    """One call of one client.

    :param value: what was written or read.
    :param called: when the client began, in seconds of one monotonic clock.
    :param returned: when it had its answer; infinite when the outcome is unknown.
    """

    client: str
    key: str
    kind: Kind
    value: Value
    called: float
    returned: float

    def __str__(self) -> str:
        end = "never answered" if self.returned == inf else f"answered at {self.returned:.6f}"
        return f"{self.kind} of {self.value!r} by {self.client}, called at {self.called:.6f}, {end}"


@dataclass(frozen=True, slots=True)
class Anomaly:
    """A key whose history is not linearizable.

    :ivar fitted: how many operations could be put into an order at best.
    :ivar value: what the register held then.
    :ivar stuck: the operations that had to come next, of which none fits; the one that returned first stands first.
    """

    key: str
    fitted: int
    value: Value
    stuck: tuple[Operation, ...]

    def __str__(self) -> str:
        lines = [f"{self.key} is not linearizable: after {self.fitted} operations it holds {self.value!r}, and next can come none of"]
        return "\n  ".join([*lines, *map(str, self.stuck[:20])])


class Running:
    """An operation that has been called. Until it is told how it ended, its outcome is unknown."""

    def __init__(self, history: "History", operation: Operation) -> None:
        self._history = history
        self.operation: Operation | None = operation

    def succeeded(self) -> None:
        """A write was acknowledged."""
        self._end(self._still_running().value)

    def found(self, value: Value) -> None:
        """A read was answered; None: there is no such key."""
        self._end(value)

    def failed(self) -> None:
        """It certainly had no effect and never will: it is as if it had not been called."""
        self._still_running()
        self.operation = None

    def _end(self, value: Value) -> None:
        self.operation = self._still_running()._replace(value=value, returned=self._history.clock())

    def _still_running(self) -> Operation:
        if self.operation is None or self.operation.returned != inf:
            raise RuntimeError("the operation has ended before")
        return self.operation


class History:
    """What clients did and saw. Any thread.

    :param clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._running: list[Running] = []
        self._lock = Lock()

    def write(self, client: str, key: str, value: Value) -> Running:
        """A client is about to write. The more the written values differ, the more a check can notice."""
        return self._begin(Operation(client, key, Kind.WRITE, value, self.clock(), inf))

    def read(self, client: str, key: str) -> Running:
        """A client is about to read."""
        return self._begin(Operation(client, key, Kind.READ, None, self.clock(), inf))

    def operations(self) -> list[Operation]:
        """All of them as they are known by now, in the order of their calls; reads without an answer and failed operations left out."""
        with self._lock:
            known = [running.operation for running in self._running]
        return [one for one in known if one is not None and not (one.kind is Kind.READ and one.returned == inf)]

    def _begin(self, operation: Operation) -> Running:
        running = Running(self, operation)
        with self._lock:
            self._running.append(running)
        return running


def anomalies(operations: Iterable[Operation], initial: Value = None) -> list[Anomaly]:
    """The keys whose history is not linearizable.

    :param initial: what every key held before the first operation.
    """
    by_key: dict[str, list[Operation]] = defaultdict(list)
    for operation in operations:
        by_key[operation.key].append(operation)
    found = (_Search(_relevant(of_key), initial).run(key) for key, of_key in by_key.items())
    return [anomaly for anomaly in found if anomaly is not None]


def _relevant(operations: Sequence[Operation]) -> list[Operation]:
    """Without the operations that can't make a difference; see the module's text."""
    read = {operation.value for operation in operations if operation.kind is Kind.READ}
    return [one for one in operations if one.returned != inf or (one.kind is Kind.WRITE and one.value in read)]


class _Event:
    """A call or a return, in a list from which operations are taken and put back."""

    __slots__ = ("after", "before", "is_call", "number", "other")

    def __init__(self, number: int, *, is_call: bool) -> None:
        self.number = number
        self.is_call = is_call
        self.other: _Event | None = None
        """Of a call: its return, if there was one."""
        self.before: _Event = self
        self.after: _Event | None = None


class _Search:
    """The search over the history of one key. Operations are numbered in the order of their calls."""

    def __init__(self, operations: Sequence[Operation], initial: Value) -> None:
        self._operations = sorted(operations, key=lambda one: one.called)
        self._value = initial
        self._taken = 0  # a set of numbers, as bits
        self._unanswered = sum(operation.returned != inf for operation in operations)
        self._head = _Event(-1, is_call=False)
        self._link()
        self._trail: list[tuple[_Event, Value]] = []
        self._tried: set[tuple[int, Value]] = set()
        self._best: tuple[int, Value, tuple[Operation, ...]] = (-1, initial, ())

    def run(self, key: str) -> Anomaly | None:
        """Look for an order; what is in the way when there is none."""
        event = self._head.after
        while self._unanswered:
            if event is None or not event.is_call:
                self._note()
                event = self._go_back()
                if event is None:
                    fitted, value, stuck = self._best
                    return Anomaly(key, fitted, value, stuck)
                event = event.after
            elif self._take(event):
                event = self._head.after
            else:
                event = event.after
        return None

    def _link(self) -> None:
        """Put calls and returns into the order of time; of two at one moment the call comes first, so that they count as concurrent."""
        events = []
        for number, operation in enumerate(self._operations):
            call = _Event(number, is_call=True)
            events.append((operation.called, 0, number, call))
            if operation.returned != inf:
                call.other = _Event(number, is_call=False)
                events.append((operation.returned, 1, number, call.other))
        last = self._head
        for *_, event in sorted(events, key=lambda one: one[:3]):
            last.after, event.before, last = event, last, event

    def _take(self, call: _Event) -> bool:
        """Let an operation happen now, if it fits and was not tried from here before."""
        operation = self._operations[call.number]
        is_read = operation.kind is Kind.READ
        if is_read and operation.value != self._value:
            return False
        state = (self._taken | 1 << call.number, operation.value)
        if state in self._tried:
            return False
        self._tried.add(state)
        self._trail.append((call, self._value))
        self._taken, self._value = state
        _unlink(call)
        if call.other is not None:
            _unlink(call.other)
            self._unanswered -= 1
        return True

    def _go_back(self) -> _Event | None:
        """Undo the last write that was let happen, and the reads since; the write, or None when there is nothing left to undo."""
        while self._trail:
            call, self._value = self._trail.pop()
            self._taken ^= 1 << call.number
            if call.other is not None:
                _relink(call.other)
                self._unanswered += 1
            _relink(call)
            if self._operations[call.number].kind is Kind.WRITE:
                return call
        return None

    def _note(self) -> None:
        """Remember how far the search came, for whoever must understand a failure."""
        if len(self._trail) <= self._best[0]:
            return
        stuck, event = [], self._head.after
        while event is not None and event.is_call:
            stuck.append(self._operations[event.number])
            event = event.after
        self._best = (len(self._trail), self._value, tuple(sorted(stuck, key=lambda one: one.returned)))


def _unlink(event: _Event) -> None:
    event.before.after = event.after
    if event.after is not None:
        event.after.before = event.before


def _relink(event: _Event) -> None:
    event.before.after = event
    if event.after is not None:
        event.after.before = event
