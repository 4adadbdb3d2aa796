"""The rows of an archive that are laid aside until they take the place of the state: every statement about them.

The keys go from one table into the other inside SQLite: two statements however many there are, and a memory that does not grow with them.
"""

from collections.abc import Sequence
from functools import cache
from sqlite3 import Connection
from typing import NamedTuple

from service.domain.entries import Row
from service.store import restored, session_rows
from service.store.schema import to_signed

ROWS_MAX = 128
_COLUMNS = "key, flags, lock_index, session, create_index, modify_index, value"
_MOVE = (
    f"INSERT INTO kv ({_COLUMNS}) SELECT key, flags, lock_index, session, min(create_index, ?1), min(modify_index, ?1), value"  # noqa: S608  # text of ours
    " FROM restoring_kv ORDER BY key"
)
_RELEASE_LOST = "UPDATE kv SET session = NULL WHERE session IS NOT NULL AND lower(session) NOT IN (SELECT id FROM sessions)"
_NOTE = "INSERT OR REPLACE INTO restoring (id, restore, parts, touched_at_ms, committed) VALUES (1, ?, ?, ?, ?)"


class Position(NamedTuple):
    """How far a restore is.

    :param restore: the one whose parts are laid aside; empty when there are none.
    :param committed: the one that was committed last.
    """

    restore: str = ""
    parts: int = 0
    touched_at_ms: int = 0
    committed: str = ""


def position(connection: Connection) -> Position:
    """How far the restore is that is under way."""
    found = connection.execute("SELECT restore, parts, touched_at_ms, committed FROM restoring").fetchone()
    return Position(*found) if found else Position()


def note(connection: Connection, position: Position) -> None:
    """Keep how far it is."""
    connection.execute(_NOTE, position)


def forget(connection: Connection) -> None:
    """Remove what was laid aside."""
    connection.execute("DELETE FROM restoring_kv")
    connection.execute("DELETE FROM restoring_records")


def lay_aside(connection: Connection, rows: Sequence[Row], records: Sequence[tuple[str, bytes]]) -> None:
    """Keep a part."""
    for start in range(0, len(rows), ROWS_MAX):
        chunk = rows[start : start + ROWS_MAX]
        columns = [
            value
            for row in chunk
            for value in (row.key, to_signed(row.flags), row.lock_index, row.session, row.create_index, row.modify_index, row.value)
        ]
        connection.execute(_insert(len(chunk)), columns)
    for record in records:
        connection.execute("INSERT INTO restoring_records (name, body) VALUES (?, ?)", record)


def take_place(connection: Connection, now: restored.Now, kv_index: int, sessions_index: int) -> None:
    """Replace keys, sessions and the rest by what was laid aside; the ACL only if there is one. A lock whose session is not there is let go."""
    connection.execute("DELETE FROM kv")
    connection.execute("DELETE FROM lock_delays")
    restored.clear(connection, {name for (name,) in connection.execute("SELECT DISTINCT name FROM restoring_records")})
    connection.execute(_MOVE, (now.index,))
    for name, body in connection.execute("SELECT name, body FROM restoring_records ORDER BY position"):
        restored.put(connection, now, name, body)
    connection.execute(_RELEASE_LOST)
    session_rows.set_table_index(connection, min(sessions_index, now.index))
    connection.execute("UPDATE meta SET kv_index = ? WHERE id = 1", (min(kv_index, now.index),))


@cache
def _insert(rows: int) -> str:
    return f"INSERT OR REPLACE INTO restoring_kv ({_COLUMNS}) VALUES " + ", ".join(["(?, ?, ?, ?, ?, ?, ?)"] * rows)  # noqa: S608  # placeholders
