"""The one connection to ``log.db``: which SQLite library, which pragmas, and the proof that they hold.

What the choices are for:

* ``locking_mode=EXCLUSIVE``: there is exactly one connection, and SQLite enforces it, without a shared-memory file.
* ``journal_mode=WAL`` with ``synchronous=FULL``: a commit is one sequential write and one sync, and it is durable when it returns.
* ``auto_vacuum=INCREMENTAL``: pages freed by compaction can be given back in small steps. It must be set before the first page is written.
* ``wal_autocheckpoint=0``: SQLite's own checkpoints pass over a failed sync in silence, and the next one tries again. The store
  checkpoints by itself and hears of it (:data:`raft.storage.sqlite.CHECKPOINT_PAGES`).
* ``journal_size_limit``: one huge batch does not leave a huge file behind.
* ``cell_size_check`` and ``trusted_schema``: damage is noticed early, and a file's schema runs no code.

The driver's own handling of transactions is switched off (it would begin them late and commit behind our back): the code says
BEGIN IMMEDIATE and COMMIT itself, or relies on a single statement's being a transaction.
"""

from pathlib import Path
from typing import Any

from pysqlite3 import dbapi2
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.pool import QueuePool

from raft.errors import StorageFailed, StorageVersion
from raft.storage.schema import ROWS_A_STATEMENT

dbapi2.register_adapter(bytes, bytes)  # it stays what it is: otherwise the driver looks for a way to adapt each one, and fails, in 0.8 µs

LIBRARY_VERSION_MIN = (3, 51, 3)
"""The first SQLite without the WAL-reset bug, in which a checkpoint beside a commit can corrupt the file."""

MIB = 1024 * 1024

PRAGMAS: tuple[tuple[str, str, str | int], ...] = (
    ("locking_mode", "EXCLUSIVE", "exclusive"),
    ("auto_vacuum", "INCREMENTAL", 2),
    ("journal_mode", "WAL", "wal"),
    ("synchronous", "FULL", 2),
    ("wal_autocheckpoint", "0", 0),
    ("journal_size_limit", str(16 * MIB), 16 * MIB),
    ("cell_size_check", "ON", 1),
    ("trusted_schema", "OFF", 0),
)
"""Name, value to set, value that must then be read back; in this order."""


def require_library(found: tuple[int, int, int]) -> None:
    """Refuse a SQLite library with the WAL-reset bug.

    :raises StorageVersion: naming the version found and the one needed.
    """
    if found < LIBRARY_VERSION_MIN:
        raise StorageVersion(
            "open the log",
            f"the SQLite library is {_dotted(found)}; at least {_dotted(LIBRARY_VERSION_MIN)} is needed",
            "install the pysqlite3 wheel, which brings its own library",
        )


def open_engine(path: Path) -> Engine:
    """An engine that opens at most one connection to the file, and sets and reads back every pragma on each it opens.

    :raises StorageVersion: when the SQLite library can't be used. Other errors come with the first connection.
    """
    require_library(dbapi2.sqlite_version_info)
    engine = create_engine(
        f"sqlite+pysqlite:///{path}",
        module=dbapi2,
        isolation_level="AUTOCOMMIT",
        poolclass=QueuePool,
        pool_size=1,
        max_overflow=0,
        pool_timeout=0,
        pool_reset_on_return=None,
        connect_args={"check_same_thread": False, "timeout": 0, "cached_statements": ROWS_A_STATEMENT + 32},
    )
    event.listen(engine, "connect", _set_pragmas)
    return engine


def _set_pragmas(connection: Any, _record: object) -> None:
    try:
        for name, value, expected in PRAGMAS:
            connection.execute(f"PRAGMA {name} = {value}").fetchall()
            _require_pragma(name, expected, connection.execute(f"PRAGMA {name}").fetchone())
    except BaseException:
        connection.close()
        raise


def _require_pragma(name: str, expected: str | int, found: tuple[str | int] | None) -> None:
    if found is None or found[0] != expected:
        shown = "nothing" if found is None else repr(found[0])
        raise StorageFailed("open the log", f"PRAGMA {name} is {shown} where {expected!r} was set", "the file or its file system can't do that")


def _dotted(version: tuple[int, int, int]) -> str:
    return ".".join(map(str, version))
