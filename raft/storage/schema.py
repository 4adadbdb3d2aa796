"""The tables of ``log.db`` and the statements of the hot path.

Every row carries a checksum (:mod:`raft.storage.checksums`). Tables are STRICT, so that SQLite itself refuses a value of the wrong type.

Entries begin at index 1; the row of index 0 is the hard state: its term, and vote and commit in ``data``. In one table both are one INSERT, where
two tables would need four statements a batch (BEGIN, UPDATE, INSERT, COMMIT), and at each the calling thread gives the
interpreter lock away: beside a busy loop that doubles the 99th percentile.

The row of index -1 is the tail: the number of the last write in place of a term, and in ``data`` the last index. It goes with every write, and tells
a log whose last rows have vanished (:mod:`raft.storage.witness`). A file without it was written before there was one.

The rows of the hard state and of the boundary are written when the file is made: a missing one is damage, not a fresh node.
"""

from functools import lru_cache

from sqlalchemy import Column, Integer, LargeBinary, MetaData, Table, Text

APPLICATION_ID = 0x52614C67
"""``RaLg``: what ``PRAGMA application_id`` says in a file of ours."""

FORMAT_VERSION = 1
"""``PRAGMA user_version``. A file of a newer format is refused, never guessed at."""

ROWS_A_STATEMENT = 257
"""Rows that one INSERT holds at most: 1,285 variables, far below any build's limit, and few enough texts to keep them all prepared."""

metadata = MetaData()

entries = Table(
    "entries",
    metadata,
    Column("log_index", Integer, primary_key=True),
    Column("term", Integer, nullable=False),
    Column("kind", Integer, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("checksum", Integer, nullable=False),
    sqlite_strict=True,
)

boundary = Table(
    "boundary",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("log_index", Integer, nullable=False),
    Column("term", Integer, nullable=False),
    Column("configuration", LargeBinary, nullable=False),
    Column("checksum", Integer, nullable=False),
    sqlite_strict=True,
)

records = Table(
    "records",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
    Column("checksum", Integer, nullable=False),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

HARD_STATE_ROW = 0
"""Its place in ``entries``."""

HARD_STATE_KIND = 255
"""Its kind: none that an entry can have."""

TAIL_ROW = -1
TAIL_KIND = 254
"""Place and kind of the tail."""

DELETE_FROM = "DELETE FROM entries WHERE log_index >= ?"
DELETE_UP_TO = "DELETE FROM entries WHERE log_index BETWEEN 1 AND ?"
FIRST_AND_LAST = "SELECT (SELECT min(log_index) FROM entries WHERE log_index > 0), (SELECT max(log_index) FROM entries)"


@lru_cache(maxsize=ROWS_A_STATEMENT)
def insert_rows(count: int) -> str:
    """The INSERT of so many rows in one statement; it replaces the hard state when that is among them.

    One statement, not one a row: a thread gives the interpreter lock away at each, and beside a busy loop gets it back 5 ms later.
    """
    rows = ", ".join(("(?, ?, ?, ?, ?)",) * count)
    return f"INSERT OR REPLACE INTO entries (log_index, term, kind, data, checksum) VALUES {rows}"  # noqa: S608 - question marks, nothing of a caller
