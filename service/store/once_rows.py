"""The requests that are remembered by their keys: every statement about them.

Rows are numbered by their entries, and each notes how many bytes had been kept up to and with it, so that either limit cuts off the beginning of the
table. How far it was cut off is kept among the indexes of tables.
"""

from sqlite3 import Connection
from typing import NamedTuple

TABLE = "requests"
ROW_BYTES = 128
"""What a row counts beside its key, result and memo."""

_FIRST_FITTING = "SELECT first_index FROM requests WHERE end_bytes - length(id) - length(result) - length(memo) - ? >= ? ORDER BY first_index LIMIT 1"
_CUT = "INSERT INTO table_indexes VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET modify_index = excluded.modify_index"


class Remembered(NamedTuple):
    """A request that was carried out."""

    first_index: int
    digest: bytes
    result: bytes
    memo: bytes


def find(connection: Connection, key: str) -> Remembered | None:
    """What was carried out under a key."""
    found = connection.execute("SELECT first_index, digest, result, memo FROM requests WHERE id = ?", (key,)).fetchone()
    return Remembered(*found) if found else None


def remember(connection: Connection, key: str, request: Remembered) -> None:
    """Keep a request under a key that has none."""
    found = connection.execute("SELECT end_bytes FROM requests ORDER BY first_index DESC LIMIT 1").fetchone()
    end_bytes = (found[0] if found else 0) + ROW_BYTES + len(key) + len(request.result) + len(request.memo)
    columns = (request.first_index, key, request.digest, request.result, request.memo, end_bytes)
    connection.execute("INSERT INTO requests (first_index, id, digest, result, memo, end_bytes) VALUES (?, ?, ?, ?, ?, ?)", columns)


def forget(connection: Connection, before: int, bytes_max: int) -> None:
    """Forget what lies before an index, and the oldest of more than so many bytes; the newest stays in any case."""
    newest = connection.execute("SELECT end_bytes, first_index FROM requests ORDER BY first_index DESC LIMIT 1").fetchone()
    if newest is None:
        return
    fitting = connection.execute(_FIRST_FITTING, (ROW_BYTES, newest[0] - bytes_max)).fetchone()
    cut = max(before, fitting[0] if fitting else newest[1])
    last = connection.execute("SELECT max(first_index) FROM requests WHERE first_index < ?", (cut,)).fetchone()[0]
    if last is not None:
        connection.execute("DELETE FROM requests WHERE first_index < ?", (cut,))
        connection.execute(_CUT, (TABLE, last))


def forgotten_up_to(connection: Connection) -> int:
    """The entry of the newest request that was forgotten; 0 when none was."""
    found = connection.execute("SELECT modify_index FROM table_indexes WHERE name = ?", (TABLE,)).fetchone()
    return found[0] if found else 0
