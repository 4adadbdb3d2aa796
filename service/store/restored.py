"""What an archive holds beside keys, as it is laid aside and as it takes its place.

Each name stands for one table. A table that is not named here is not touched by a restore: events are not part of a snapshot in Consul either, and
the servers are those of this cluster, whichever the archive comes from. The ACL is touched only by an archive that holds one: keys that come from a
cluster without an ACL must not lock everybody out.
"""

from collections.abc import Callable, Collection
from sqlite3 import Connection
from typing import Any, NamedTuple

import msgspec

from service.domain.acl.records import Record
from service.domain.autopilot import Stored
from service.domain.commands import AutopilotConfiguration
from service.domain.entries import Session
from service.store import acl_rows, autopilot_rows, session_rows

SESSION, TOMBSTONES, AUTOPILOT = "session", "tombstones", "autopilot"
ACL, ACL_INDEXES = "acl", "acl-indexes"

Tombstones = list[tuple[bytes, int]]
"""Keys, and the index at which each was deleted."""
Autopilot = tuple[AutopilotConfiguration, int, int]
"""The configuration, its CreateIndex and its ModifyIndex."""
AclIndexes = dict[str, int]
"""Of the last change of each kind of records, and of the bootstrap. There is one of these wherever there are records of the ACL."""


class Now(NamedTuple):
    """When a restore takes place.

    :param index: of its entry. No index of an archive may be above it: the next writes would stay below.
    :param stamp_ms: the leader's clock.
    """

    index: int  # type: ignore[assignment]  # the field's word; tuple.index is of no use here
    stamp_ms: int


class Kind(NamedTuple):
    """What becomes of records of one name.

    :ivar type: of the body.
    :ivar clear: a statement that removes what was there.
    :ivar optional: only when there are such records; otherwise what was there stays.
    """

    type: Any
    clear: str
    put: Callable[[Connection, Now, Any], None]
    optional: bool = False


def encode(body: Any) -> bytes:
    """The body of a record."""
    return msgspec.msgpack.encode(body)


def put(connection: Connection, now: Now, name: str, body: bytes) -> None:
    """Let a record that was laid aside take its place."""
    kind = KINDS[name]
    kind.put(connection, now, msgspec.msgpack.decode(body, type=kind.type))


def clear(connection: Connection, names: Collection[str]) -> None:
    """Remove what is to be replaced.

    :param names: of the records that were laid aside.
    """
    for name, kind in KINDS.items():
        if name in names or not kind.optional:
            connection.execute(kind.clear)


def _put_session(connection: Connection, now: Now, session: Session) -> None:
    """Its time begins anew, as if it had been renewed now."""
    session_rows.insert(connection, min(session.create_index, now.index), session)
    session_rows.renew(connection, now.index, session.id)


def _put_tombstones(connection: Connection, now: Now, tombstones: Tombstones) -> None:
    rows = [(key, min(index, now.index), now.stamp_ms) for key, index in tombstones]
    connection.executemany("INSERT OR REPLACE INTO tombstones VALUES (?, ?, ?)", rows)


def _put_autopilot(connection: Connection, now: Now, found: Autopilot) -> None:
    configuration, created, modified = found
    autopilot_rows.put(connection, Stored(configuration, min(created, now.index), min(modified, now.index)))


def _put_acl(connection: Connection, now: Now, record: Record) -> None:
    created, modified = min(record.create_index, now.index), min(record.modify_index, now.index)
    acl_rows.put(connection, msgspec.structs.replace(record, create_index=created, modify_index=modified))


def _put_acl_indexes(connection: Connection, now: Now, indexes: AclIndexes) -> None:
    """The index of all of it is that of the restore: what anybody knew or judged before is void."""
    for name, index in (indexes | {acl_rows.TABLE: now.index}).items():
        acl_rows.move_indexes(connection, min(index, now.index), {name})


KINDS = {
    SESSION: Kind(Session, "DELETE FROM sessions", _put_session),
    TOMBSTONES: Kind(Tombstones, "DELETE FROM tombstones", _put_tombstones),
    AUTOPILOT: Kind(Autopilot, "DELETE FROM autopilot", _put_autopilot),
    ACL: Kind(Record, "DELETE FROM acl_records", _put_acl, optional=True),
    ACL_INDEXES: Kind(AclIndexes, acl_rows.CLEAR_INDEXES, _put_acl_indexes, optional=True),
}
