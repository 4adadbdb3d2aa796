"""What an archive holds beside keys, as it is laid aside and as it takes its place.

Each name stands for one table. A table that is not named here is not touched by a restore: events are not part of a snapshot in Consul either, and
the servers are those of this cluster, whichever the archive comes from.
"""

from collections.abc import Callable
from sqlite3 import Connection
from typing import Any, NamedTuple

import msgspec

from service.domain.autopilot import Stored
from service.domain.commands import AutopilotConfiguration
from service.domain.entries import Session
from service.store import autopilot_rows, session_rows

SESSION, TOMBSTONES, AUTOPILOT = "session", "tombstones", "autopilot"

Tombstones = list[tuple[bytes, int]]
"""Keys, and the index at which each was deleted."""
Autopilot = tuple[AutopilotConfiguration, int, int]
"""The configuration, its CreateIndex and its ModifyIndex."""


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
    :ivar table: that is emptied first.
    """

    type: Any
    table: str
    put: Callable[[Connection, Now, Any], None]


def encode(body: Any) -> bytes:
    """The body of a record."""
    return msgspec.msgpack.encode(body)


def put(connection: Connection, now: Now, name: str, body: bytes) -> None:
    """Let a record that was laid aside take its place."""
    kind = KINDS[name]
    kind.put(connection, now, msgspec.msgpack.decode(body, type=kind.type))


def clear(connection: Connection) -> None:
    """Empty the tables."""
    for kind in KINDS.values():
        connection.execute(f"DELETE FROM {kind.table}")  # noqa: S608  # a name of ours


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


KINDS = {
    SESSION: Kind(Session, "sessions", _put_session),
    TOMBSTONES: Kind(Tombstones, "tombstones", _put_tombstones),
    AUTOPILOT: Kind(Autopilot, "autopilot", _put_autopilot),
}
