"""What a transaction does: worked out by :mod:`service.domain.txn` first, written then."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from service.domain.commands import Txn, TxnOperation
from service.domain.entries import Row, Session
from service.domain.results import TxnResult
from service.domain.sessions import SessionIdRefused, canonical_id, unknown
from service.domain.txn import Delete, DeleteTree, OperationFailed, Put, PutLock, evaluate
from service.store.apply import kv

ANSWER_BYTES_MAX = 16 * 1024 * 1024
"""Keys and values that one transaction may give back. It travels between the nodes in one piece; a transaction that only reads is not bound by it."""

_TOO_LONG = f"the results are longer than {ANSWER_BYTES_MAX} bytes, which is all that a transaction may give back unless it only reads"
_STORING = frozenset({"set", "cas", "lock", "unlock"})
_TREES = frozenset({"get-tree", "delete-tree"})


class View(kv.View, Protocol):
    """The state as the entry at hand finds it, with the effects of those before it."""

    def rows(self, wanted: Mapping[bytes, bytes | None]) -> dict[bytes, Row]:
        """Those of some keys that exist, by as few statements as possible.

        :param wanted: each key with the value that it may be compared with. One that has another value is given with any other.
        """
        ...

    def value(self, key: bytes) -> bytes:
        """The value of a key that exists."""
        ...

    def tree(self, prefix: bytes, bytes_max: int) -> list[Row] | None:
        """All keys with the prefix, in byte order; None when keys and values are longer than allowed."""
        ...

    def session(self, id_: str) -> Session | None:
        """One session."""
        ...

    def is_delayed(self, key: bytes) -> bool:
        """Whether a key can't be locked yet."""
        ...

    def put_lock(self, index: int, row: Row) -> None:
        """Set every column of a key at ``index``."""
        ...

    def set_all(self, index: int, operations: Sequence[TxnOperation]) -> list[Row]:
        """Set keys that differ from each other at ``index``; see :meth:`service.store.apply.kv.View.put`.

        :returns: each of them as it is then, without its value; nothing where nobody waits for it.
        """
        ...


class Found:
    """The state that some operations need; fulfils :class:`service.domain.txn.Base`."""

    def __init__(self, view: View, operations: Sequence[TxnOperation]) -> None:
        self._view = view
        self._rows = view.rows(_wanted(operations))
        self._bytes_left = ANSWER_BYTES_MAX

    def row(self, key: bytes) -> Row | None:
        """See :class:`service.domain.txn.Base`."""
        return self._rows.get(key)

    def value(self, key: bytes) -> bytes:
        """See :class:`service.domain.txn.Base`."""
        value = self._view.value(key)
        self._count(len(key) + len(value))
        return value

    def tree(self, prefix: bytes) -> list[Row]:
        """See :class:`service.domain.txn.Base`."""
        rows = self._view.tree(prefix, self._bytes_left)
        if rows is None:
            raise OperationFailed(_TOO_LONG)
        self._count(sum(len(row.key) + len(row.value) for row in rows))
        return rows

    def session_problem(self, session: str) -> str:
        """See :class:`service.domain.txn.Base`."""
        try:
            found = self._view.session(canonical_id(session))
        except SessionIdRefused as refused:
            return str(refused)
        return unknown(session) if found is None else ""

    def is_delayed(self, key: bytes) -> bool:
        """See :class:`service.domain.txn.Base`."""
        return self._view.is_delayed(key)

    def _count(self, size: int) -> None:
        self._bytes_left -= size
        if self._bytes_left < 0:
            raise OperationFailed(_TOO_LONG)


def carry_out(view: View, index: int, stamp_ms: int, command: Txn) -> TxnResult:
    """Carry out all operations at one index, or none."""
    if _only_sets(command.operations):
        return TxnResult(index, [], view.set_all(index, command.operations))
    outcome = evaluate(Found(view, command.operations), index, command.operations)
    for effect in outcome.effects:
        match effect:
            case Put(row):
                view.put(index, row.key, row.value, row.flags)
            case PutLock(row):
                view.put_lock(index, row)
            case Delete(key):
                view.delete(index, stamp_ms, key)
            case DeleteTree(prefix):
                view.delete_prefix(index, stamp_ms, prefix)
    return TxnResult(index, outcome.failures, outcome.rows)


def _only_sets(operations: Sequence[TxnOperation]) -> bool:
    """Whether a transaction only loads keys, as most long ones do. Nothing of it can fail, and nothing depends on what is there."""
    keys = {operation.key for operation in operations if operation.verb == "set" and operation.key}
    return len(keys) == len(operations)


def _wanted(operations: Sequence[TxnOperation]) -> dict[bytes, bytes | None]:
    """The keys that operations name, each with the first value that may be written to it."""
    wanted: dict[bytes, bytes | None] = {}
    for operation in operations:
        if operation.verb in _STORING:
            if wanted.get(operation.key) is None:
                wanted[operation.key] = operation.value
        elif operation.verb not in _TREES:
            wanted.setdefault(operation.key)
    return wanted
