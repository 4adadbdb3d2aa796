"""What commands do to tokens, policies and roles. Whoever proposed a change has judged it against the ACL as it still is."""

from collections.abc import Callable
from sqlite3 import Connection
from typing import Protocol

import msgspec

from service.domain.acl.records import Record, Token, complete_times, row_id_of
from service.domain.commands import AclChange, Command, Permitted, ReapTokens
from service.domain.results import AclMoved, AclResult, Result
from service.store import acl_rows
from service.store.apply.tables import Tables


class View(Protocol):
    """What a permission is compared with."""

    def acl_index(self) -> int:
        """The index of the ACL's last change; 0 when there was none."""
        ...


def carry_out(view: View, command: Permitted, apply: Callable[[Command], Result]) -> Result:
    """Carry out a command whose sender was permitted to send it, if by the ACL as it still is.

    :param apply: carries out a command at this entry.
    """
    return apply(command.command) if view.acl_index() == command.seen_index else AclMoved()


def change(view: Tables, index: int, stamp_ms: int, command: AclChange) -> AclResult:
    """Carry out a change, unless there was another one since it was judged."""
    connection = view.open()
    found = acl_rows.indexes(connection)
    if found.get(acl_rows.TABLE, 0) != command.seen_index:
        return AclResult(ok=False, index=index, stamp_ms=stamp_ms)
    moved = {acl_rows.BOOTSTRAP} if command.bootstraps else set()
    moved |= {acl_rows.put(connection, _completed(connection, record, index, stamp_ms)) for record in command.puts}
    moved |= {acl_rows.delete(connection, id_) for id_ in command.deletes}
    _note(view, index, moved - {""})
    return AclResult(ok=True, index=index, stamp_ms=stamp_ms)


def reap(view: Tables, index: int, stamp_ms: int, _command: ReapTokens) -> bool:
    """Forget the tokens whose time is up."""
    connection = view.open()
    _note(view, index, {acl_rows.delete(connection, id_) for id_ in acl_rows.expired(connection, stamp_ms)})
    return True


def _completed(connection: Connection, record: Record, index: int, stamp_ms: int) -> Record:
    """The record with its indexes, and times of the leader where it has none."""
    old = acl_rows.find(connection, row_id_of(record))
    record = msgspec.structs.replace(record, create_index=old.create_index if old else index, modify_index=index)
    return complete_times(record, stamp_ms) if isinstance(record, Token) else record


def _note(view: Tables, index: int, kinds: set[str]) -> None:
    if kinds:
        acl_rows.move_indexes(view.open(), index, {*kinds, acl_rows.TABLE})
        view.changed(acl_rows.TABLE)
