"""Did every watcher see what it had to, and nothing else? Judged from the log, by a plain model of its own, and by the answers that watchers got."""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from lock_log import Logged

from service.domain.commands import KvDelete, KvDeleteTree, KvPut


class Answer(NamedTuple):
    """What one blocking query was answered.

    :ivar index: X-Consul-Index; ``known`` is the one that the watcher gave, 0 when it gave none.
    :ivar rows: value and ModifyIndex by key; a key that does not exist has none.
    :ivar received: in seconds of the monotonic clock.
    """

    known: int
    index: int
    rows: Mapping[str, tuple[bytes, int]]
    received: float


class Watched(NamedTuple):
    """A watcher: its target, which is a key or, with a slash at its end, a prefix; and all that it was answered."""

    target: str
    answers: list[Answer]


class Write(NamedTuple):
    """What a writer asked.

    :ivar key: or a prefix, of a deletion of all below it.
    :ivar value: no two have the same; empty for a deletion.
    :ivar outcome: ``true``, ``rejected`` or ``unknown``.
    """

    key: str
    value: bytes
    outcome: str
    answered: float


@dataclass
class Verdict:
    """What was found.

    :ivar violations: one line each.
    :ivar counts: how much was looked at.
    :ivar delays: seconds from the acknowledgement of each write to the answer that brought it, or a later one, to each of its watchers.
    """

    violations: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    delays: list[float] = field(default_factory=list)


class History:
    """Every state of every key, by the index since which it held.

    :ivar written: the index of each value.
    """

    def __init__(self, log: Iterable[Logged]) -> None:
        self.written: dict[bytes, int] = {}
        self._indexes: dict[str, list[int]] = defaultdict(list)
        self._values: dict[str, list[bytes | None]] = defaultdict(list)
        for index, _, command in log:
            match command:
                case KvPut(key=key, value=value):
                    self.written[value] = index
                    self._set(key.decode(), index, value)
                case KvDelete(key=key):
                    self._set(key.decode(), index, None)
                case KvDeleteTree(prefix=prefix):
                    for name in [name for name in self._indexes if name.startswith(prefix.decode())]:
                        self._set(name, index, None)
                case _:
                    pass

    def keys(self, target: str) -> list[str]:
        """The keys that a target is about."""
        return [key for key in self._indexes if key.startswith(target)] if target.endswith("/") else [target]

    def at(self, target: str, index: int) -> dict[str, tuple[bytes, int]]:
        """What a target held at an index."""
        held = {}
        for key in self.keys(target):
            place = bisect_right(self._indexes.get(key, []), index) - 1
            value = self._values[key][place] if place >= 0 else None
            if value is not None:
                held[key] = (value, self._indexes[key][place])
        return held

    def last(self, target: str) -> int:
        """The index of the last change of a target; 0 when there was none."""
        return max((self._indexes[key][-1] for key in self.keys(target) if self._indexes.get(key)), default=0)

    def _set(self, key: str, index: int, value: bytes | None) -> None:
        if value is not None or (self._values[key] and self._values[key][-1] is not None):
            self._indexes[key].append(index)
            self._values[key].append(value)


def judge(log: Iterable[Logged], writes: Iterable[Write], watched: Iterable[Watched]) -> Verdict:
    """Hold the answers against the log and against what the writers attempted."""
    history, tried, verdict = History(log), list(writes), Verdict()
    verdict.violations += _wrongly_told(history, tried)
    attempted = {(write.key, write.value) for write in tried}
    for one in watched:
        verdict.counts["watchers"] += 1
        verdict.counts["answers"] += len(one.answers)
        verdict.violations += _answers(one, history, attempted)
        last = history.last(one.target)
        if max((answer.index for answer in one.answers), default=0) < last:
            verdict.violations.append(f"the watcher of {one.target} never saw its last change, at {last}")
        verdict.delays += _delays(one, history, tried)
    return verdict


def _wrongly_told(history: History, writes: list[Write]) -> Iterator[str]:
    for write in writes:
        if write.value and (index := history.written.get(write.value)) is not None and write.outcome == "rejected":
            yield f"the write of {write.value!r} to {write.key} was called rejected and is in the log at {index}"
        elif write.value and write.outcome == "true" and write.value not in history.written:
            yield f"the write of {write.value!r} to {write.key} was acknowledged and is not in the log"


def _answers(one: Watched, history: History, attempted: set[tuple[str, bytes]]) -> Iterator[str]:
    newest = 0
    for answer in one.answers:
        if answer.index < newest:
            yield f"the index of {one.target} went back from {newest} to {answer.index}"
        newest = max(newest, answer.index)
        for key, (value, _) in answer.rows.items():
            if (key, value) not in attempted:
                yield f"{one.target} was answered with {value!r} for {key}, which nobody ever wrote"
        if dict(answer.rows) != (held := history.at(one.target, answer.index)):
            yield f"{one.target} was answered at {answer.index} with {dict(answer.rows)}; the log has {held}"


def _delays(one: Watched, history: History, writes: list[Write]) -> Iterator[float]:
    """How long each acknowledged write took to reach the watcher."""
    for write in writes:
        concerns = write.key.startswith(one.target) if one.target.endswith("/") else write.key == one.target
        if concerns and write.value and write.outcome == "true":
            index = history.written.get(write.value, 0)
            came = min((answer.received for answer in one.answers if answer.index >= index), default=None)
            if came is not None:
                yield came - write.answered
