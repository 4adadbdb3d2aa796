"""Transactions: what each verb does, over whatever state it is given.

The operations of one transaction are carried out on a :class:`Workspace`: each sees what those before it did, and nothing leaves it. Whoever
called then knows either every effect, in order, or every failure; so a transaction that fails has changed nothing. The same rules
serve the state machine and a web worker that evaluates reads against its own copy of the state.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from service.domain.commands import TxnOperation
from service.domain.entries import Row
from service.domain.quoting import quote, quote_key

WRITING = frozenset({"set", "cas", "lock", "unlock", "delete", "delete-cas", "delete-tree"})
"""The verbs that need a log entry; every other one, even an unknown one, only reads."""


class Base(Protocol):
    """The state as the transaction finds it."""

    def row(self, key: bytes) -> Row | None:
        """One key. Its value is right if it is one that the transaction writes there first; another one may be given as any other."""
        ...

    def value(self, key: bytes) -> bytes:
        """The value of a key that exists.

        :raises OperationFailed: when it is too much for one answer.
        """
        ...

    def tree(self, prefix: bytes) -> Sequence[Row]:
        """All keys with the prefix, in byte order.

        :raises OperationFailed: when they are too much for one answer.
        """
        ...

    def session_problem(self, session: str) -> str:
        """Why a session can't hold a lock; empty when it can."""
        ...

    def is_delayed(self, key: bytes) -> bool:
        """Whether the key can't be locked yet, because its last holder's session was lost a short while ago."""
        ...


class Put(NamedTuple):
    """Effect: a key was set; its session stays what it is, its LockIndex becomes 0."""

    row: Row


class PutLock(NamedTuple):
    """Effect: a key was locked or unlocked; all of the row counts."""

    row: Row


class Delete(NamedTuple):
    """Effect: a key was deleted."""

    key: bytes


class DeleteTree(NamedTuple):
    """Effect: a prefix was deleted."""

    prefix: bytes


Effect = Put | PutLock | Delete | DeleteTree


class Outcome(NamedTuple):
    """What became of a transaction: failures, or rows and effects."""

    failures: list[tuple[int, str]]
    rows: list[Row]
    effects: list[Effect]


class OperationFailed(Exception):
    """An operation can't be carried out; its text goes to the client."""


class LockRefused(OperationFailed):
    """A lock can't be taken or let go, because of who holds it now."""


def only_reads(operations: Sequence[TxnOperation]) -> bool:
    """Whether a transaction can be answered without a log entry."""
    return not any(operation.verb in WRITING for operation in operations)


def evaluate(base: Base, index: int, operations: Sequence[TxnOperation]) -> Outcome:
    """Work out a transaction.

    :param index: of its log entry; 0 when it only reads.
    :returns: all operations that failed, or what they give back and what they change.
    """
    failures = [(number, text) for number, operation in enumerate(operations) if (text := _objection(base, operation))]
    if failures:
        return Outcome(failures, [], [])
    workspace = Workspace(base, index)
    rows: list[Row] = []
    for number, operation in enumerate(operations):
        try:
            rows += workspace.carry_out(operation)
        except OperationFailed as failure:
            failures.append((number, str(failure)))
    if failures:
        return Outcome(failures, [], [])
    return Outcome([], rows, workspace.effects)


def _objection(base: Base, operation: TxnOperation) -> str:
    """What Consul looks at before the first operation; where it objects, no other failure is named."""
    if not operation.key and operation.verb != "delete-tree":
        return "Must provide key"
    if operation.verb == "lock" and base.is_delayed(operation.key):
        return f"failed to lock key {quote_key(operation.key)} due to lock delay"
    return ""


class Workspace:
    """The state with the effects of the operations so far.

    :ivar effects: in order; carrying them out makes the state what it is here.
    """

    def __init__(self, base: Base, index: int) -> None:
        self.effects: list[Effect] = []
        self._base = base
        self._index = index
        self._changed: dict[bytes, Row | None] = {}
        self._deleted_prefixes: tuple[bytes, ...] = ()

    def carry_out(self, operation: TxnOperation) -> list[Row]:
        """Carry out one operation.

        :returns: what it gives back.
        :raises OperationFailed: as Consul says it.
        """
        verb = _VERBS.get(operation.verb)
        if verb is None:
            raise OperationFailed(f"unknown KV verb {quote(operation.verb)}")
        return verb(self, operation)

    def row(self, key: bytes) -> Row | None:
        """One key as it is now."""
        if key in self._changed:
            return self._changed[key]
        return None if key.startswith(self._deleted_prefixes) else self._base.row(key)

    def set(self, operation: TxnOperation) -> list[Row]:
        """Set a key, whatever it was."""
        return self._put(operation, self.row(operation.key))

    def cas(self, operation: TxnOperation) -> list[Row]:
        """Set a key of a known ModifyIndex; 0 stands for one that does not exist."""
        old = self.row(operation.key)
        if (old.modify_index if old else 0) != operation.index:
            raise OperationFailed(f"failed to set key {quote_key(operation.key)}, index is stale")
        return self._put(operation, old)

    def lock(self, operation: TxnOperation) -> list[Row]:
        """Set a key and make a session its holder."""
        old = self.row(operation.key)
        if problem := self._base.session_problem(operation.session) if operation.session else "missing session":
            raise OperationFailed(problem)
        if old is not None and old.session not in {None, operation.session}:
            raise LockRefused(f"failed to lock key {quote_key(operation.key)}, lock is already held")
        lock_index = old.lock_index if old else 0
        if old is None or old.session is None:
            lock_index += 1
        return self._put_lock(operation, old, lock_index, operation.session)

    def unlock(self, operation: TxnOperation) -> list[Row]:
        """Set a key and let its holder go."""
        if not operation.session:
            raise OperationFailed("missing session")
        old = self.row(operation.key)
        if old is None or old.session != operation.session:
            raise LockRefused(f"failed to unlock key {quote_key(operation.key)}, lock isn't held, or is held by another session")
        return self._put_lock(operation, old, old.lock_index, None)

    def get(self, operation: TxnOperation) -> list[Row]:
        """The key with its value."""
        row = self.row(operation.key)
        if row is None:
            raise OperationFailed(f"key {quote_key(operation.key)} doesn't exist")
        return [row if operation.key in self._changed else row._replace(value=self._base.value(operation.key))]

    def get_tree(self, operation: TxnOperation) -> list[Row]:
        """All keys with a prefix, with their values."""
        prefix = operation.key
        found = {row.key: row for row in self._base.tree(prefix) if not row.key.startswith(self._deleted_prefixes)}
        for key, row in self._changed.items():
            if key.startswith(prefix):
                found.pop(key, None)
                if row is not None:
                    found[key] = row
        return sorted(found.values())

    def check_index(self, operation: TxnOperation) -> list[Row]:
        """The key without its value, if it has this ModifyIndex."""
        row = self.row(operation.key)
        if row is None:
            raise OperationFailed(f"failed to check index, key {quote_key(operation.key)} doesn't exist")
        if row.modify_index != operation.index:
            reason = f"current modify index {row.modify_index} != {operation.index}"
            raise OperationFailed(f"failed index check for key {quote_key(operation.key)}, {reason}")
        return [_without_value(row)]

    def check_session(self, operation: TxnOperation) -> list[Row]:
        """The key without its value, if this session holds it."""
        row = self.row(operation.key)
        if row is None:
            raise OperationFailed(f"failed to check session, key {quote_key(operation.key)} doesn't exist")
        if (row.session or "") != operation.session:
            reason = f"current session {quote(row.session or '')} != {quote(operation.session)}"
            raise OperationFailed(f"failed session check for key {quote_key(operation.key)}, {reason}")
        return [_without_value(row)]

    def check_not_exists(self, operation: TxnOperation) -> list[Row]:
        """Nothing, if there is no such key."""
        if self.row(operation.key) is not None:
            raise OperationFailed(f"key {quote_key(operation.key)} exists")
        return []

    def delete(self, operation: TxnOperation) -> list[Row]:
        """Delete a key, if it exists."""
        if self.row(operation.key) is not None:
            self._changed[operation.key] = None
            self.effects.append(Delete(operation.key))
        return []

    def delete_cas(self, operation: TxnOperation) -> list[Row]:
        """Delete a key of a known ModifyIndex; one that does not exist counts as deleted."""
        row = self.row(operation.key)
        if row is not None and row.modify_index != operation.index:
            raise OperationFailed(f"failed to delete key {quote_key(operation.key)}, index is stale")
        return self.delete(operation)

    def delete_tree(self, operation: TxnOperation) -> list[Row]:
        """Delete all keys with a prefix."""
        self._deleted_prefixes += (operation.key,)
        self._changed = {key: row for key, row in self._changed.items() if not key.startswith(operation.key)}
        self.effects.append(DeleteTree(operation.key))
        return []

    def _put(self, operation: TxnOperation, old: Row | None) -> list[Row]:
        new = self._new_row(operation, old, 0, old.session if old else None)
        return self._keep(old, new, Put(new))

    def _put_lock(self, operation: TxnOperation, old: Row | None, lock_index: int, session: str | None) -> list[Row]:
        new = self._new_row(operation, old, lock_index, session)
        return self._keep(old, new, PutLock(new))

    def _new_row(self, operation: TxnOperation, old: Row | None, lock_index: int, session: str | None) -> Row:
        created = old.create_index if old else self._index
        return Row(operation.key, operation.value, operation.flags, lock_index, session, created, self._index)

    def _keep(self, old: Row | None, new: Row, effect: Effect) -> list[Row]:
        """Remember a change. What is the same as before is none, and moves no index."""
        if old is not None and new[:5] == old[:5]:  # all but the indexes; CreateIndex stays anyway
            return [_without_value(old)]
        self._changed[new.key] = new
        self.effects.append(effect)
        return [_without_value(new)]


def _without_value(row: Row) -> Row:
    return Row(row.key, b"", *row[2:])


_VERBS: dict[str, Callable[[Workspace, TxnOperation], list[Row]]] = {
    "set": Workspace.set,
    "cas": Workspace.cas,
    "lock": Workspace.lock,
    "unlock": Workspace.unlock,
    "get": Workspace.get,
    "get-tree": Workspace.get_tree,
    "check-index": Workspace.check_index,
    "check-session": Workspace.check_session,
    "check-not-exists": Workspace.check_not_exists,
    "delete": Workspace.delete,
    "delete-cas": Workspace.delete_cas,
    "delete-tree": Workspace.delete_tree,
}
