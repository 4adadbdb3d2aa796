"""Bytes that changed on disk are noticed, by name, before they are used."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from pysqlite3 import dbapi2

from raft.core.model import Boundary, HardState
from raft.errors import IdentityMismatch, StorageCorrupt, StorageFailed, StorageVersion
from raft.ports import WriteBatch
from raft.storage.sqlite import SqliteLog
from raft.testing.conformance import CONFIGURATION, entries_of, raised


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A closed log of entries 11 to 40 with a boundary, a hard state and two records."""
    store = SqliteLog(tmp_path)
    store.write(WriteBatch(HardState(3, "voted-for", 30), entries_of(1, 40, term=2)))
    store.compact(Boundary(10, 2, CONFIGURATION))
    store.put("identity", b"the identity")
    store.put("cluster", b"the cluster")
    store.load()
    store.close()
    return tmp_path


def _flip(directory: Path, pattern: bytes, bit: int) -> None:
    path = directory / "log.db"
    content = bytearray(path.read_bytes())
    place = content.rindex(pattern)
    content[place + bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def _sql(directory: Path, statement: str) -> None:
    connection = dbapi2.connect(directory / "log.db", isolation_level=None)
    connection.execute(statement)
    connection.close()


def _open_and_load(directory: Path) -> None:
    store = SqliteLog(directory)
    try:
        store.load()
    finally:
        store.close()


@pytest.mark.parametrize("pattern", [b"25/2", b"voted-for", b"the identity", b"identity", b"one.example"])
def test_every_flipped_bit_is_detected(directory: Path, pattern: bytes) -> None:
    """One flipped bit in the data of any table, at any place, keeps the log from being used."""
    pristine = (directory / "log.db").read_bytes()
    for bit in range(8 * len(pattern)):
        (directory / "log.db").write_bytes(pristine)
        _flip(directory, pattern, bit)
        raised(StorageCorrupt, lambda: _open_and_load(directory))


@pytest.mark.parametrize(
    ("statement", "due"),
    [
        ("UPDATE entries SET term = 1 WHERE log_index = 17", "entry 17"),
        ("UPDATE entries SET kind = 0 WHERE log_index = 17", "entry 17"),
        ("UPDATE entries SET checksum = 0 WHERE log_index = 17", "entry 17"),
        ("UPDATE entries SET data = (SELECT data FROM entries WHERE log_index = 18) WHERE log_index = 17", "entry 17"),
        ("DELETE FROM entries WHERE log_index = 17", "entry 17 is missing; entry 18"),
        ("DELETE FROM entries WHERE log_index = 11", "entry 11 is missing; entry 12"),
        ("UPDATE entries SET term = 2 WHERE log_index = 0", "the hard state"),
        ("DELETE FROM entries WHERE log_index = 0", "the hard state"),
        ("UPDATE boundary SET log_index = 9", "the boundary"),
        ("UPDATE boundary SET term = 1", "the boundary"),
        ("DELETE FROM boundary", "the boundary"),
        ("UPDATE records SET name = 'entity' WHERE name = 'identity'", "'entity'"),
        ("UPDATE records SET value = x'00' WHERE name = 'cluster'", "'cluster'"),
        ("UPDATE records SET checksum = 1 WHERE name = 'cluster'", "'cluster'"),
    ],
)
def test_changed_and_missing_rows_are_named(directory: Path, statement: str, due: str) -> None:
    """Each column counts; the error says what is damaged and what to do, and leaves the file as it is."""
    _sql(directory, statement)
    before = (directory / "log.db").read_bytes()
    error = raised(StorageCorrupt, lambda: _open_and_load(directory))
    assert due in str(error)
    assert "let the node join again" in error.hint
    assert _tables(before) == _tables((directory / "log.db").read_bytes())


def _tables(content: bytes) -> bytes:
    """Everything but the first page, whose change counter moves when a file is opened."""
    return content[4096:8192]


def test_a_store_found_damaged_refuses_to_go_on(directory: Path) -> None:
    """Nothing is written behind a damage."""
    _sql(directory, "DELETE FROM entries WHERE log_index = 17")
    store = SqliteLog(directory)
    raised(StorageCorrupt, store.load)
    error = raised(StorageFailed, lambda: store.write(WriteBatch(entries=entries_of(41, 41, term=3))))
    assert "entry 17" in str(error)
    store.close()


def test_a_damaged_structure_is_detected(directory: Path) -> None:
    """A page that SQLite itself can't follow is reported as damage, never as an empty log."""
    path = directory / "log.db"
    content = bytearray(path.read_bytes())
    for page in range(1, len(content) // 4096):
        image = bytearray(content)
        image[page * 4096 : page * 4096 + 64] = b"\xa5" * 64
        path.write_bytes(image)
        raised(StorageCorrupt, lambda: _open_and_load(directory))


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    """Any other file under the name is refused and left alone."""
    (tmp_path / "log.db").write_bytes(b"not a database" * 100)
    error = raised(StorageCorrupt, lambda: SqliteLog(tmp_path))
    assert "log.db is not a SQLite file" in str(error)
    assert (tmp_path / "log.db").read_bytes() == b"not a database" * 100


@pytest.mark.parametrize(("length", "journal"), [(4097, b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"), (4096, b"another"), (4096, b"")])
def test_a_file_that_is_no_database_beside_a_journal(tmp_path: Path, length: int, journal: bytes) -> None:
    """Only what the first write of a log can have left is taken for that: no more than a page, beside a journal of SQLite's."""
    (tmp_path / "log.db").write_bytes(b"x" * length)
    (tmp_path / "log.db-journal").write_bytes(journal)
    assert "log.db is not a SQLite file" in str(raised(StorageCorrupt, lambda: SqliteLog(tmp_path)))
    assert (tmp_path / "log.db").read_bytes() == b"x" * length


@pytest.mark.parametrize("application_id", [0, 77])
def test_a_database_of_another_program(tmp_path: Path, application_id: int) -> None:
    """Another program's database is refused and left alone, whether it has named itself or not."""
    connection = dbapi2.connect(tmp_path / "log.db")
    connection.executescript(f"PRAGMA application_id = {application_id}; CREATE TABLE a (b); CREATE TABLE c (d); CREATE TABLE e (f)")
    connection.close()
    before = (tmp_path / "log.db").read_bytes()
    error = raised(IdentityMismatch, lambda: SqliteLog(tmp_path))
    assert str(tmp_path / "log.db") in str(error)
    assert (tmp_path / "log.db").read_bytes() == before


def test_a_newer_format_is_refused(directory: Path) -> None:
    """The error names both formats; nothing is changed."""
    _sql(directory, "PRAGMA user_version = 2")
    before = (directory / "log.db").read_bytes()
    error = raised(StorageVersion, lambda: SqliteLog(directory))
    assert "format 2" in str(error)
    assert "up to 1" in str(error)
    assert (directory / "log.db").read_bytes() == before


def test_half_made_files_are_finished(tmp_path: Path) -> None:
    """A crash while the file was being made leaves nothing, an empty file or one empty page: all become a fresh log."""
    (tmp_path / "log.db").touch()
    store = SqliteLog(tmp_path)
    assert store.load() == (Boundary(), ())
    store.close()
    (tmp_path / "log.db").unlink()
    connection = dbapi2.connect(tmp_path / "log.db", isolation_level=None)
    for statement in ("PRAGMA auto_vacuum = INCREMENTAL", "PRAGMA journal_mode = WAL"):
        connection.execute(statement).fetchall()
    connection.close()
    assert (tmp_path / "log.db").stat().st_size > 0
    store = SqliteLog(tmp_path)
    assert store.load() == (Boundary(), ())
    store.close()


@pytest.fixture
def crashed(tmp_path: Path) -> Callable[[], Path]:
    """Makes copies of a log of ten batches as a crash would have left it: everything is still in the write-ahead log."""
    live = tmp_path / "live"
    live.mkdir()
    store = SqliteLog(live)
    for number in range(10):
        store.write(WriteBatch(HardState(1, None, number), entries_of(20 * number + 1, 20 * number + 20)))
    contents = {name: (live / name).read_bytes() for name in ("log.db", "log.db-wal")}
    store.close()
    images = iter(range(1_000))

    def make() -> Path:
        image = tmp_path / f"image-{next(images)}"
        image.mkdir()
        for name, content in contents.items():
            (image / name).write_bytes(content)
        return image

    return make


def test_st_06_damage_before_the_last_transaction_is_detected(crashed: Callable[[], Path]) -> None:
    """SQLite would forget everything behind a bad frame in silence; acknowledged batches behind it prove that it is damage."""
    size = (crashed() / "log.db-wal").stat().st_size
    frames = (size - 32) // 4120
    for frame in range(frames - 3):
        for place in (4, 8, 16, 24, 2_000):
            image = crashed()
            content = bytearray((image / "log.db-wal").read_bytes())
            content[32 + frame * 4120 + place] ^= 0x10
            (image / "log.db-wal").write_bytes(content)
            error = raised(StorageCorrupt, lambda image=image: SqliteLog(image))  # type: ignore[misc]  # the default binds the loop's value
            assert f"frame {frame + 1} " in str(error)
            shutil.rmtree(image)


def test_st_06_torn_last_transaction_is_no_damage(crashed: Callable[[], Path]) -> None:
    """The last transaction may have been under way when the power went: it is dropped, and the log goes on from the one before."""
    image = crashed()
    content = bytearray((image / "log.db-wal").read_bytes())
    content[-2_000] ^= 0x10
    (image / "log.db-wal").write_bytes(content)
    (image / "log.witness").unlink(missing_ok=True)  # nobody has acknowledged it
    store = SqliteLog(image)
    assert store.load().entries == entries_of(1, 180)
    assert store.hard_state() == HardState(1, None, 8)
    store.write(WriteBatch(entries=entries_of(181, 185)))
    store.close()


def test_a_damaged_header_of_the_write_ahead_log_is_detected(crashed: Callable[[], Path]) -> None:
    """SQLite would ignore the whole of it."""
    for place in range(32):
        image = crashed()
        content = bytearray((image / "log.db-wal").read_bytes())
        content[place] ^= 0x01
        (image / "log.db-wal").write_bytes(content)
        error = raised(StorageCorrupt, lambda image=image: SqliteLog(image))  # type: ignore[misc]  # the default binds the loop's value
        assert "log.db-wal" in str(error)
        shutil.rmtree(image)
