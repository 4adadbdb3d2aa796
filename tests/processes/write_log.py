"""Was a write carried out that had been called failed, and is every acknowledged one there? Judged from logs, from what was told and what was read.

A plain model of its own says what the log means, as in ``lock_log``. What was read says the same without it: no reader may ever see a value
that only failed writes brought.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from lock_log import Logged

from service.domain.commands import KvConditional, KvDelete, KvDeleteTree, KvPut, Once, Txn

DONE, UNMET, REJECTED, UNKNOWN = "done", "unmet", "rejected", "unknown"
FAILED = (UNMET, REJECTED)
"""Outcomes that say that a write did not happen: its condition did not hold, or it was turned away."""


class Attempt(NamedTuple):
    """What a writer asked, and what it was told.

    :ivar id: its X-Request-Id; no two attempts have the same.
    :ivar write: attempts at the same write share it, with an Idempotency-Key.
    :ivar what: the kind of request.
    :ivar values: what it would bring; no two writes have the same.
    :ivar told: one of the outcomes above.
    :ivar status: of the HTTP answer; 0 without one.
    :ivar index: X-Kvorum-Index; 0 without one.
    """

    id: str
    write: str
    what: str
    values: tuple[bytes, ...]
    told: str
    status: int
    index: int  # type: ignore[assignment]  # the field's word


class Row(NamedTuple):
    """A key as somebody read it, or as the model has it."""

    key: str
    value: bytes
    modify_index: int


class Entry(NamedTuple):
    """An attempt in the log: the index at which its write was carried out or found to be impossible, and which of both."""

    index: int  # type: ignore[assignment]  # as above
    applied: bool


@dataclass
class Verdict:
    """What was found.

    :ivar violations: one line each.
    :ivar counts: attempts by what they were told, of the unknown ones how many happened, and how much was looked at.
    """

    violations: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


class Model:
    """Keys and values, entry by entry.

    :ivar rows: the keys as they are now.
    :ivar history: every value that a key ever had, by (key, ModifyIndex).
    :ivar entries: what became of each attempt, by its id; more than once when it is in the log more than once.
    """

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.history: dict[tuple[str, int], bytes] = {}
        self.entries: dict[str, list[Entry]] = {}
        self._once: dict[str, tuple[bytes, Entry]] = {}

    def take(self, logged: Logged) -> None:
        """Apply one entry."""
        index, command = logged.index, logged.command
        if not isinstance(command, Once):
            self._note(command, Entry(index, self._apply(index, command)))
            return
        if command.key not in self._once:
            self._once[command.key] = command.digest, Entry(index, self._apply(index, command.command))
        digest, first = self._once[command.key]
        self._note(command.command, first if digest == command.digest else Entry(index, applied=False))

    def _note(self, command: Any, entry: Entry) -> None:
        if name := request_id(command):
            self.entries.setdefault(name, []).append(entry)

    def _apply(self, index: int, command: Any) -> bool:
        """Carry a command out.

        :returns: whether its conditions held.
        """
        match command:
            case KvPut(key, value, cas=cas):
                return (cas is None or cas == self._index(key)) and self._set(key, value, index)
            case KvDelete(key, cas=cas):
                return (cas is None or self._index(key) in {0, cas}) and self._delete(key)
            case KvDeleteTree(prefix):
                return all(self._delete(key.encode()) for key in list(self.rows) if key.startswith(prefix.decode()))
            case KvConditional(inner, condition):
                found, one_of = self._index(command.key), condition.one_of
                holds = (one_of is None or found in one_of) and found not in condition.none_of
                return holds and self._apply(index, inner)
            case Txn(operations):
                return self._transaction(index, operations)
            case _:
                return False  # a lock of a session that nobody has; what the cluster proposes for itself

    def _transaction(self, index: int, operations: Sequence[Any]) -> bool:
        """All of it, or nothing. No transaction here touches a key twice, so its conditions can be looked at first."""
        if not all(self._may(one) for one in operations):
            return False
        for one in operations:
            if one.verb in {"set", "cas"}:
                self._set(one.key, one.value, index)
            elif one.verb == "delete":
                self._delete(one.key)
        return True

    def _may(self, one: Any) -> bool:
        if one.verb == "cas":
            return bool(self._index(one.key) == one.index)
        return one.verb in {"set", "delete"} or (one.verb == "check-not-exists" and not self._index(one.key))

    def _index(self, key: bytes) -> int:
        row = self.rows.get(key.decode())
        return row.modify_index if row else 0

    def _set(self, key: bytes, value: bytes, index: int) -> bool:
        name = key.decode()
        self.rows[name] = Row(name, value, index)
        self.history[name, index] = value
        return True

    def _delete(self, key: bytes) -> bool:
        self.rows.pop(key.decode(), None)
        return True


def request_id(command: Any) -> str:
    """The X-Request-Id that a command came with; empty when nobody asked for it."""
    if isinstance(command, Once | KvConditional):
        return request_id(command.command)
    origin = getattr(command, "origin", None)
    return origin.request_id if origin else ""


def judge(
    logs: Mapping[str, Sequence[Logged]], until: int, attempts: Sequence[Attempt], seen: Iterable[Row], states: Mapping[str, Iterable[Row]]
) -> Verdict:
    """Hold what was told and read against the logs.

    :param logs: of every node, whole.
    :param until: an index up to which every node has applied its log.
    :param seen: what readers were answered while it all went on.
    :param states: all keys of each node at the end.
    """
    verdict, model = Verdict(), Model()
    first, *others = ([entry for entry in log if entry.index <= until] for log in logs.values())
    for name, other in zip(list(logs)[1:], others, strict=True):
        if other != first:
            verdict.violations.append(f"the log of {name} is not that of {next(iter(logs))}, though both have applied it up to {until}")
    for entry in first:
        model.take(entry)
    anywhere = {request_id(getattr(entry.command, "command", entry.command)) for log in logs.values() for entry in log if entry.index > until}
    for attempt in attempts:
        verdict.counts[attempt.told] += 1
        verdict.counts[f"{attempt.what} {attempt.told}"] += 1
        verdict.violations += _told_wrongly(model, attempt, verdict.counts, anywhere)
    verdict.counts["entries"] = len(first)
    verdict.violations += _visible(model, attempts, set(seen), verdict.counts)
    for name, rows in states.items():
        verdict.violations += _state(model, name, {row.key: row for row in rows})
    return verdict


def _told_wrongly(model: Model, one: Attempt, counts: Counter[str], anywhere: set[str]) -> Iterator[str]:
    """Where the log contradicts what was told."""
    found = model.entries.get(one.id, [])
    if len(found) > 1:
        yield f"{one.what} {one.id} is in the log {len(found)} times, at {[entry.index for entry in found]}"
    applied = next((entry.index for entry in found if entry.applied), 0)
    if one.told == UNKNOWN:
        counts[f"unknown, {'applied' if applied else 'in the log without effect' if found else 'never in the log'}"] += 1
    elif one.told in FAILED and applied:
        yield f"{one.what} {one.id} was told {one.told} ({one.status}) and was applied at {applied}"
    elif one.told == REJECTED and one.id in anywhere:
        yield f"{one.what} {one.id} was told {one.told} ({one.status}) and may still be applied: a log has it"
    elif one.told == DONE and applied != one.index:
        yield f"{one.what} {one.id} was acknowledged at {one.index}; the log has applied it at {applied}"


def _visible(model: Model, attempts: Sequence[Attempt], seen: set[Row], counts: Counter[str]) -> Iterator[str]:
    """Values that were read and that nobody can have read."""
    hopeful = {attempt.write for attempt in attempts if attempt.told not in FAILED}
    failed = {value: attempt for attempt in attempts if attempt.write not in hopeful for value in attempt.values}
    counts["values of failed writes"], counts["rows read"] = len(failed), len(seen)
    for key, value, index in sorted(seen):
        if value in failed:
            yield f"{key} was read as {value!r}, which {failed[value].what} {failed[value].id} brought, told {failed[value].told}"
        elif model.history.get((key, index)) != value:
            yield f"{key} was read as {value!r} of {index}; the log has {model.history.get((key, index))!r} there"


def _state(model: Model, name: str, rows: Mapping[str, Row]) -> Iterator[str]:
    """Where a node's state at the end is not what the log says."""
    for key in sorted(rows.keys() | model.rows.keys()):
        if rows.get(key) != model.rows.get(key):
            yield f"{name} has {rows.get(key)} at the end; the log has {model.rows.get(key)}"
