"""Was every lock held by one session at a time, and did no session die early? Judged from the log and from what clients were told.

A plain model of its own says what the log means. Nothing of the
service's own rules is used here but the reading of an entry: a mistake in them shows as a difference.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from raft.core.model import EntryKind
from raft.storage.inspection import read_entries
from service.domain import commands
from service.domain.commands import EndLockDelay, KvLock, SessionCreate, SessionDestroy, SessionExpire, SessionRenew

CLOCK_MS = 5
"""Stamps are cut to milliseconds, and read a moment before they are written down."""
TTL_FACTOR = 2
FAILOVER_MS = 10_000
"""How much longer than twice its TTL a session may stay, and again for each disturbance while it was silent."""
_LAST_INDEX = 1 << 62


class Attempt(NamedTuple):
    """What a client asked, and what it was told.

    :ivar what: ``acquire``, ``release``, ``renew`` or ``destroy``.
    :ivar nonce: the value that came with it: no two attempts have the same.
    :ivar sent: when, in seconds of the wall clock; likewise ``answered``.
    :ivar outcome: ``true``, ``false``, ``gone`` (no such session), ``rejected`` or ``unknown``.
    """

    what: str
    session: str
    key: str
    nonce: bytes
    sent: float
    answered: float
    outcome: str


class Row(NamedTuple):
    """A lock as the model or a reader has it; ``session`` is empty when nobody holds it."""

    session: str
    lock_index: int
    modify_index: int


class Seen(NamedTuple):
    """A lock as a client read it."""

    key: str
    row: Row


class Logged(NamedTuple):
    """An entry of the log: its leader's stamp and what it says."""

    index: int  # type: ignore[assignment]  # the field's word
    stamp_ms: int
    command: Any


@dataclass
class _Life:
    """One session in the model. ``renewals``: the stamps of its creation and its renewals, by their indexes."""

    ttl_ms: float
    delay_ms: float
    behavior: str
    renewals: dict[int, int]
    ended_ms: int | None = None
    by_time: bool = False


@dataclass
class Verdict:
    """What was found.

    :ivar violations: one line each; empty when all is well.
    :ivar counts: what the log did.
    :ivar shortest: of the sessions that ended by time: the least part of its TTL that one lived after its last renewal.
    :ivar longest_ms: likewise the most time that one stayed beyond twice its TTL.
    """

    violations: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    shortest: float = float("inf")
    longest_ms: float = float("-inf")


def read_log(directory: Path) -> Iterator[Logged]:
    """The commands in the log of a node that does not run."""
    for entry in read_entries(directory, 1, _LAST_INDEX):
        if entry.problem:
            raise AssertionError(f"entry {entry.index} of {directory}: {entry.problem}")
        if entry.kind is EntryKind.COMMAND:
            yield Logged(entry.index, *commands.decode(entry.data))


class Model:
    """Sessions and locks, entry by entry.

    :ivar rows: the locks as they are now.
    :ivar history: every state that a lock was in, by (key, ModifyIndex).
    :ivar results: what each attempt must have been told, by its nonce: index and outcome.
    """

    def __init__(self, disturbed_ms: Iterable[float] = ()) -> None:
        self.rows: dict[str, Row] = {}
        self.history: dict[tuple[str, int], Row] = {}
        self.sessions: dict[str, _Life] = {}
        self.results: dict[bytes, tuple[int, str]] = {}
        self.verdict = Verdict()
        self._delays: dict[str, tuple[int, int, float]] = {}
        self._disturbed_ms = sorted(disturbed_ms)

    def alive(self) -> set[str]:
        """The sessions that have not ended."""
        return {name for name, life in self.sessions.items() if life.ended_ms is None}

    def take(self, entry: Logged) -> None:
        """Apply one entry."""
        index, stamp_ms, command = entry
        match command:
            case SessionCreate(session):
                self.sessions[session.id] = _Life(session.ttl_ns / 1e6, session.lock_delay_ns / 1e6, session.behavior, {index: stamp_ms})
                self._count("created")
            case SessionRenew(id=name) if name in self.alive_or_not(name):
                self.sessions[name].renewals[index] = stamp_ms
                self._count("renewals")
            case SessionDestroy(id=name) if name in self.alive_or_not(name):
                self._end(name, index, stamp_ms)
                self._count("destroyed")
            case SessionExpire(id=name, renewed_index=since) if name in self.alive_or_not(name) and since == max(self.sessions[name].renewals):
                self._expire(name, index, stamp_ms)
            case KvLock(operation=operation):
                self._lock(operation, index)
            case EndLockDelay(key=key, since_index=since):
                self._end_delay(key.decode(), since, stamp_ms)
            case _:
                self._count("without effect here")

    def alive_or_not(self, name: str) -> tuple[str, ...]:
        """The name when its session lives, else nothing: for the guards above."""
        return (name,) if name in self.sessions and self.sessions[name].ended_ms is None else ()

    def _count(self, what: str) -> None:
        self.verdict.counts[what] += 1

    def _violation(self, text: str) -> None:
        self.verdict.violations.append(text)

    def _set(self, key: str, row: Row) -> None:
        self.rows[key] = self.history[key, row.modify_index] = row

    def _end(self, name: str, index: int, stamp_ms: int) -> None:
        life = self.sessions[name]
        life.ended_ms = stamp_ms
        for key, row in list(self.rows.items()):
            if row.session != name:
                continue
            if life.behavior == "delete":
                del self.rows[key]
            else:
                self._set(key, row._replace(session="", modify_index=index))
            self._count(f"locks lost, {life.behavior}")
            if life.delay_ms > 0:
                self._delays[key] = (index, stamp_ms, life.delay_ms)

    def _expire(self, name: str, index: int, stamp_ms: int) -> None:
        life = self.sessions[name]
        life.by_time = True
        renewed_ms = max(life.renewals.values())
        lived_ms, verdict = stamp_ms - renewed_ms, self.verdict
        verdict.shortest = min(verdict.shortest, lived_ms / life.ttl_ms)
        over_ms = lived_ms - TTL_FACTOR * life.ttl_ms
        verdict.longest_ms = max(verdict.longest_ms, over_ms)
        if lived_ms + CLOCK_MS < life.ttl_ms:
            self._violation(f"session {name} with a TTL of {life.ttl_ms:g} ms died {lived_ms} ms after a renewal, at index {index}")
        disturbed = sum(renewed_ms - FAILOVER_MS <= at <= stamp_ms for at in self._disturbed_ms)
        if over_ms > FAILOVER_MS * (1 + disturbed):
            self._violation(f"session {name} stayed {over_ms:g} ms beyond twice its TTL, through {disturbed} disturbances")
        self._end(name, index, stamp_ms)
        self._count("expired")

    def _lock(self, operation: Any, index: int) -> None:
        key, name, row = operation.key.decode(), operation.session, self.rows.get(operation.key.decode())
        outcome = "true"
        if operation.verb == "unlock":
            if row is None or row.session != name:
                outcome = "false"
            else:
                self._set(key, Row("", row.lock_index, index))
        elif key in self._delays or (row is not None and row.session not in {"", name}):
            outcome = "false"
        elif not self.alive_or_not(name):
            outcome = "gone"
        else:
            self._set(key, Row(name, (row.lock_index if row else 0) + (row is None or row.session != name), index))
        self._count(f"{operation.verb} {outcome}")
        if operation.value in self.results:
            self._violation(f"{operation.verb} of {key} by {name} is in the log twice, at {self.results[operation.value][0]} and {index}")
        self.results[operation.value] = (index, outcome)

    def _end_delay(self, key: str, since: int, stamp_ms: int) -> None:
        if key in self._delays and self._delays[key][0] == since:
            _, began_ms, delay_ms = self._delays.pop(key)
            self._count("delays over")
            if stamp_ms - began_ms + CLOCK_MS < delay_ms:
                self._violation(f"the delay of {key} ended after {stamp_ms - began_ms} of {delay_ms:g} ms")


def judge(log: Iterable[Logged], attempts: Iterable[Attempt], seen: Iterable[Seen] = (), disturbed: Iterable[float] = ()) -> Model:
    """Hold what clients were told against the log.

    :param disturbed: when a leader was killed or paused, in seconds of the wall clock.
    :returns: the model at the log's end, with its verdict.
    """
    model = Model(at * 1000 for at in disturbed)
    for entry in log:
        model.take(entry)
    tried = list(attempts)
    model.verdict.violations += [*_told_wrongly(model, tried), *_out_of_order(model, tried), *_renewals(model, tried)]
    for key, row in seen:
        if model.history.get((key, row.modify_index)) != row:
            model.verdict.violations.append(f"{key} was read as {row}, and the log has {model.history.get((key, row.modify_index))} there")
    return model


def _told_wrongly(model: Model, attempts: list[Attempt]) -> Iterator[str]:
    """Answers that differ from the log; and writes that were called rejected and are in it."""
    for one in attempts:
        if one.what not in {"acquire", "release"} or one.outcome == "unknown":
            continue
        index, outcome = model.results.get(one.nonce, (0, "rejected"))
        if outcome != one.outcome:
            yield f"{one.what} of {one.key} by {one.session} was told {one.outcome}; by the log it is {outcome}, at {index}"


def _out_of_order(model: Model, attempts: list[Attempt]) -> Iterator[str]:
    """What was answered before another was sent must stand before it in the log."""
    logged = [(one, model.results[one.nonce][0]) for one in attempts if one.nonce in model.results]
    events = [(one.sent, 1, one, index) for one, index in logged]
    events += [(one.answered, 0, one, index) for one, index in logged if one.outcome in {"true", "false"}]
    floor = 0
    for _, sent, one, index in sorted(events, key=lambda event: (event[0], event[1])):
        if not sent:
            floor = max(floor, index)
        elif index < floor:
            yield f"{one.what} of {one.key} by {one.session} at {index} was sent after {floor} had been answered"


def _renewals(model: Model, attempts: list[Attempt]) -> Iterator[str]:
    """Every acknowledged renewal is in the log, and keeps its session for a TTL; who was told that a session is gone had lost it."""
    for one in attempts:
        life = model.sessions.get(one.session)
        if one.what != "renew" or one.outcome not in {"true", "gone"}:
            continue
        if life is None:
            yield f"session {one.session} was renewed, and the log has never heard of it"
        elif one.outcome == "gone":
            if life.ended_ms is None or life.ended_ms > one.answered * 1000 + CLOCK_MS:
                yield f"session {one.session} was told to be gone while it lived"
        elif not any(one.sent * 1000 - CLOCK_MS <= at <= one.answered * 1000 + CLOCK_MS for at in life.renewals.values()):
            yield f"session {one.session}: the renewal acknowledged at {one.answered:.3f} is not in the log"
        elif life.by_time and life.ended_ms is not None and life.ended_ms + CLOCK_MS < one.sent * 1000 + life.ttl_ms:
            yield f"session {one.session} died {life.ended_ms - one.sent * 1000:.0f} ms after a renewal that was acknowledged"
