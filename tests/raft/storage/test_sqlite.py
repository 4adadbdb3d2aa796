"""The connection of the log store: library, pragmas, one statement a batch, failures that are final."""

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
from pysqlite3 import dbapi2
from sqlalchemy import create_engine, event, text

from raft.core.model import Boundary, Entry, EntryKind, HardState
from raft.errors import DirectoryLocked, InvariantViolation, StorageError, StorageFailed, StorageVersion
from raft.ports import WriteBatch
from raft.storage.engine import PRAGMAS, open_engine, require_library
from raft.storage.sqlite import SqliteLog
from raft.testing.conformance import entries_of, raised


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteLog]:
    """A fresh log, closed at the end."""
    log = SqliteLog(tmp_path)
    yield log
    log.close()


def test_st_14_pragmas_hold_on_every_connection(tmp_path: Path) -> None:
    """Each connection that the pool opens has every pragma, also one that replaces another."""
    SqliteLog(tmp_path).close()
    engine = open_engine(tmp_path / "log.db")
    for _ in range(3):
        with engine.connect() as connection:
            for name, _value, expected in PRAGMAS:
                assert connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() == expected
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2, "a commit must be synced"
        engine.dispose()


def test_a_pragma_that_does_not_hold_is_an_error(tmp_path: Path) -> None:
    """A file made without incremental vacuum can't be switched, and that is said, not ignored."""
    connection = dbapi2.connect(tmp_path / "log.db")
    connection.execute("CREATE TABLE a (b)")
    connection.close()
    engine = open_engine(tmp_path / "log.db")
    error = raised(StorageFailed, engine.connect)
    assert "PRAGMA auto_vacuum is 0" in str(error)


def test_st_14_a_second_connection_is_impossible(store: SqliteLog, tmp_path: Path) -> None:
    """The pool has one connection, and SQLite refuses that of anybody else."""
    with pytest.raises(Exception, match="QueuePool limit"):
        store._engine.connect()
    raised(DirectoryLocked, lambda: SqliteLog(tmp_path))
    store.write(WriteBatch(entries=entries_of(1, 1)))


@pytest.mark.parametrize(("found", "accepted"), [((3, 40, 1), False), ((3, 51, 2), False), ((3, 51, 3), True), ((3, 53, 0), True), ((4, 0, 0), True)])
def test_st_14_old_libraries_are_refused(found: tuple[int, int, int], accepted: bool) -> None:
    """The error names the version found and the one needed."""
    if accepted:
        require_library(found)
        return
    error = raised(StorageVersion, lambda: require_library(found))
    assert ".".join(map(str, found)) in str(error)
    assert "3.51.3" in str(error)


def test_the_library_is_asked_at_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log is not even created with a library that may corrupt it."""
    monkeypatch.setattr(dbapi2, "sqlite_version_info", (3, 40, 1))
    raised(StorageVersion, lambda: SqliteLog(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_batch_is_one_statement(store: SqliteLog) -> None:
    """Entries and hard state go in one INSERT: one transaction, one sync, one hand-over of the interpreter lock."""
    statements = []
    event.listen(store._engine, "before_cursor_execute", lambda _c, _u, statement, *_: statements.append(statement))
    for first, count in ((1, 1), (2, 16), (18, 64), (82, 255)):
        store.write(WriteBatch(HardState(1, "a", first), entries_of(first, first + count - 1)))
    assert [statement.split()[0] for statement in statements] == ["INSERT"] * 4
    statements.clear()
    store.write(WriteBatch(None, entries_of(330, 340, term=2)))
    assert [statement.split()[0] for statement in statements] == ["BEGIN", "DELETE", "INSERT", "COMMIT"]
    statements.clear()
    store.write(WriteBatch())
    assert not statements


def test_the_driver_begins_no_transaction_of_its_own(store: SqliteLog) -> None:
    """After every kind of call nothing is left open that a crash would undo."""
    driver = store._connection.connection.driver_connection
    assert driver is not None
    calls = (
        lambda: store.write(WriteBatch(HardState(1), entries_of(1, 10))),
        lambda: store.write(WriteBatch(HardState(2), entries_of(8, 600, term=2))),
        lambda: store.put("name", b"value"),
        lambda: store.compact(Boundary(5, 1)),
        store.load,
        lambda: store.reset(Boundary(9, 9), HardState(9)),
    )
    for call in calls:
        call()
        assert not driver.in_transaction


def test_numbers_beyond_63_bits_are_refused(store: SqliteLog) -> None:
    """The error names the value; nothing is changed."""
    huge = 2**63
    for batch in (
        WriteBatch(entries=(Entry(1, huge, EntryKind.NOOP, b""),)),
        WriteBatch(hard_state=HardState(huge)),
        WriteBatch(HardState(1, None, huge)),
    ):
        error = raised(InvariantViolation, lambda batch=batch: store.write(batch))  # type: ignore[misc]  # the default binds the loop's value
        assert str(huge) in str(error)
    assert store.load() == (Boundary(), ())
    assert store.hard_state() == HardState()


def test_a_failed_write_is_final(store: SqliteLog, tmp_path: Path) -> None:
    """After an error of the disk nothing works any more, not even what would not need the disk; the file opens again as it was."""
    store.write(WriteBatch(HardState(1), entries_of(1, 3)))
    store._execute("PRAGMA max_page_count = 1")
    big = tuple(entry._replace(data=bytes(50_000)) for entry in entries_of(4, 9))
    error = raised(StorageFailed, lambda: store.write(WriteBatch(HardState(2), big)))
    assert "SQLITE_FULL" in str(error)
    assert "free space" in error.hint
    store._execute("PRAGMA max_page_count = 1000000")
    calls = (
        lambda: store.write(WriteBatch(entries=entries_of(4, 4))),
        lambda: store.put("a", b"b"),
        lambda: store.compact(Boundary(1, 1)),
        lambda: store.reset(Boundary(9, 1), HardState()),
        lambda: store.get("a"),
        store.hard_state,
        store.load,
    )
    for call in calls:
        assert "can't be used any more" in str(raised(StorageFailed, call))
    store.close()
    opened = SqliteLog(tmp_path)
    assert opened.load().entries == entries_of(1, 3)
    assert opened.hard_state() == HardState(1)
    opened.close()


def test_a_failed_transaction_is_final(store: SqliteLog, tmp_path: Path) -> None:
    """An error in the middle of a transaction leaves the former state on disk and closes the store."""
    store.write(WriteBatch(HardState(1), entries_of(1, 9)))

    def fail(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement == "COMMIT":
            raise OSError(errno.EIO, "Input/output error")

    event.listen(store._engine, "before_cursor_execute", fail)
    error = raised(StorageFailed, lambda: store.write(WriteBatch(HardState(2), entries_of(5, 6, term=2))))
    assert "Input/output error" in str(error)
    raised(StorageFailed, store.load)
    store.close()
    opened = SqliteLog(tmp_path)
    assert opened.load().entries == entries_of(1, 9)
    assert opened.hard_state() == HardState(1)
    opened.close()


def test_a_closed_store_says_so(store: SqliteLog) -> None:
    """Use after close is an error of the library, not of the driver."""
    store.close()
    assert "closed" in str(raised(StorageFailed, store.load))


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    """The error names the file and hints at the directory."""
    error = raised(StorageFailed, lambda: SqliteLog(tmp_path / "absent"))
    assert str(tmp_path / "absent") in error.cause
    assert "exists" in error.hint


def test_no_error_of_the_driver_escapes(tmp_path: Path) -> None:
    """A directory in the file's place is a storage error like any other."""
    (tmp_path / "log.db").mkdir()
    raised(StorageError, lambda: SqliteLog(tmp_path))


def test_other_programs_can_read_a_closed_log(tmp_path: Path) -> None:
    """A stopped node's log is an ordinary SQLite file: tables, and a name of its own in the header."""
    store = SqliteLog(tmp_path)
    store.write(WriteBatch(entries=entries_of(1, 3)))
    store.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.db", "log.witness"]
    engine = create_engine(f"sqlite+pysqlite:///{tmp_path / 'log.db'}", module=dbapi2)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM entries WHERE log_index > 0")).scalar_one() == 3
        assert connection.execute(text("PRAGMA application_id")).scalar_one().to_bytes(4, "big") == b"RaLg"
    engine.dispose()
