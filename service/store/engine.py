"""Opening ``state.db``: the one SQLite library we trust, and settings that are set and read back on every connection.

SQLite comes from the ``pysqlite3`` wheel. Before 3.51.3 a checkpoint on one connection while another commits could corrupt the file.
"""

from pathlib import Path
from sqlite3 import Connection
from typing import Any, cast
from urllib.parse import quote

from pysqlite3 import dbapi2
from sqlalchemy import URL, Engine, NullPool, create_engine, event
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.schema import CreateIndex, CreateTable

from service.errors import StateDamaged, StateUnreadable
from service.store.schema import APPLICATION_ID, FORMAT_VERSION, check_version, meta, metadata
from service.store.wal import PAGE_BYTES

dbapi2.register_adapter(bytes, bytes)  # it stays what it is: otherwise the driver looks for a way to adapt each one, and fails, in 0.8 µs

SQLITE_MINIMUM = (3, 51, 3)
DATABASE_ERRORS = cast("tuple[type[Exception], ...]", (dbapi2.Error, SQLAlchemyError, UnicodeDecodeError))
"""What every failure of SQLite is an instance of. Damaged text, also in the message of an error, fails as it is decoded."""

_BUSY_TIMEOUT_MS = 5_000
_STATEMENTS_CACHED = 512
_JOURNAL_BYTES_KEPT = 64 * 1024 * 1024

_COMMON: dict[str, int | str] = {"synchronous": 1, "wal_autocheckpoint": 0, "busy_timeout": _BUSY_TIMEOUT_MS, "temp_store": 2}
_WRITER: dict[str, int | str] = {
    "page_size": PAGE_BYTES,
    "journal_mode": "wal",
    **_COMMON,
    "cache_size": -16_384,
    "journal_size_limit": _JOURNAL_BYTES_KEPT,
}
_READER: dict[str, int | str] = {**_COMMON, "cache_size": -8_192, "query_only": 1}


def open_writer(path: Path) -> Connection:
    """A connection that may write, to an existing file.

    :raises StateUnreadable: when the file is missing, damaged, foreign or newer, or a setting does not hold.
    """
    return _open(path, "rw", _WRITER)


def open_reader(path: Path) -> Connection:
    """A connection that can't write: the file is opened read-only, and queries alone are allowed.

    :raises StateUnreadable: as :func:`open_writer`.
    """
    connection = _open(path, "ro", _READER)
    found = connection.execute("PRAGMA journal_mode").fetchone()[0]
    if found != "wal":
        connection.close()
        raise StateUnreadable(f"{path} is in journal mode {found!r}, not 'wal'")
    return connection


def open_still(path: Path) -> Connection:
    """A connection to a file that nobody writes and that has no write-ahead log: nothing is locked and nothing made beside it.

    :raises StateUnreadable: as :func:`open_writer`.
    """
    return _open(path, "ro", _READER, immutable=True)


def create(path: Path) -> None:
    """Make an empty state file: tables, versions, applied index 0.

    :raises StateUnreadable: when the disk refuses.
    """
    try:
        with _engine(path, "rwc", _WRITER).connect() as connection:
            metadata.create_all(connection)
            connection.execute(meta.insert().values(id=1, applied_index=0, applied_term=0, kv_index=0, superseded_by=0))
            connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.exec_driver_sql(f"PRAGMA user_version = {FORMAT_VERSION}")
            driver_connection = cast("Connection", connection.connection.driver_connection)
            driver_connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    except DATABASE_ERRORS as error:
        raise StateUnreadable(f"{path} can't be made: {error}") from error


def complete(connection: Connection) -> None:
    """Make the tables and indexes that a file of an earlier version lacks; the tables are as empty as they were there."""
    present = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type IN ('table', 'index')")}
    for table in metadata.sorted_tables:
        if table.name not in present:
            connection.execute(str(CreateTable(table).compile(dialect=sqlite.dialect())))
        for index in table.indexes:
            if index.name not in present:
                connection.execute(str(CreateIndex(index).compile(dialect=sqlite.dialect())))


def is_damage(error: Exception) -> bool:
    """Whether a failure of SQLite says that the file is not what was written, rather than that something can't be done now."""
    return isinstance(error, UnicodeDecodeError) or type(error) is dbapi2.DatabaseError  # subclasses stand for other reasons


def failure(text: str, error: Exception) -> StateUnreadable:
    """The error of ours for a failure of SQLite, or for an error of ours: damage stays damage."""
    return (StateDamaged if isinstance(error, StateDamaged) or is_damage(error) else StateUnreadable)(f"{text}: {error}")


def schema_text(connection: Connection) -> list[tuple[str, ...]]:
    """Every object of the file with the text that made it; two files of one format give the same."""
    return connection.execute("SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_schema ORDER BY type, name").fetchall()


def _open(path: Path, mode: str, pragmas: dict[str, int | str], *, immutable: bool = False) -> Connection:
    if not path.exists():
        raise StateDamaged(f"{path} is missing")
    try:
        pooled = _engine(path, mode, pragmas, immutable=immutable).raw_connection()
        connection = cast("Connection", pooled.driver_connection)
        pooled.detach()
        application_id = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
    except DATABASE_ERRORS as error:
        raise failure(f"{path} can't be opened", error) from error
    try:
        check_version(str(path), application_id, version)
    except StateUnreadable:
        connection.close()
        raise
    return connection


def _engine(path: Path, mode: str, pragmas: dict[str, int | str], *, immutable: bool = False) -> Engine:
    if dbapi2.sqlite_version_info < SQLITE_MINIMUM:
        needed = ".".join(map(str, SQLITE_MINIMUM))
        raise StateUnreadable(f"SQLite {dbapi2.sqlite_version} can lose data; {needed} or newer is needed: install the pysqlite3 wheel")
    engine = create_engine(
        URL.create(
            "sqlite+pysqlite",
            database=f"file:{quote(str(path.absolute()))}",
            query={"uri": "true", "mode": mode} | ({"immutable": "1"} if immutable else {}),
        ),
        module=dbapi2,
        poolclass=NullPool,
        connect_args={"isolation_level": None, "check_same_thread": False, "cached_statements": _STATEMENTS_CACHED},
    )

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        for name, wanted in pragmas.items():
            connection.execute(f"PRAGMA {name} = {wanted}").fetchall()
            found = connection.execute(f"PRAGMA {name}").fetchone()[0]
            if found != wanted:
                connection.close()
                raise StateUnreadable(f"{path}: PRAGMA {name} is {found!r} after it was set to {wanted!r}")

    return engine
