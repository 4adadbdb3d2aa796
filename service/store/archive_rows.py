"""What an archive takes from the state, in pages, at one moment."""

from collections.abc import Iterator
from sqlite3 import Connection
from typing import NamedTuple

from service.domain.entries import Row
from service.store import session_rows, statements
from service.store.schema import to_unsigned

PAGE_ROWS = 512
_KEYS = "SELECT key, value, flags, lock_index, session, create_index, modify_index FROM kv ORDER BY key"
_TOMBSTONES = "SELECT key, modify_index FROM tombstones ORDER BY key"


class Heads(NamedTuple):
    """Where the state stands: the last entry that it holds, and the highest index of its keys, tombstones and sessions; 0 where there is none."""

    index: int  # type: ignore[assignment]  # the field's word; tuple.index is of no use here
    term: int
    kv_index: int
    tombstones_index: int
    sessions_index: int


def heads(connection: Connection) -> Heads:
    """Where the state stands."""
    index, term, kv_index, _ = connection.execute(statements.META).fetchone()
    buried = connection.execute("SELECT coalesce(max(modify_index), 0) FROM tombstones").fetchone()[0]
    return Heads(index, term, kv_index, buried, session_rows.table_index(connection))


def keys(connection: Connection) -> Iterator[list[Row]]:
    """All keys in byte order."""
    cursor = connection.execute(_KEYS)
    while page := cursor.fetchmany(PAGE_ROWS):
        yield [Row(key, value, to_unsigned(flags), *rest) for key, value, flags, *rest in page]


def tombstones(connection: Connection) -> Iterator[list[tuple[bytes, int]]]:
    """Keys that were deleted, and the index at which each was."""
    cursor = connection.execute(_TOMBSTONES)
    while page := cursor.fetchmany(PAGE_ROWS):
        yield page
