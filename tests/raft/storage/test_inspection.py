"""A directory that stands still is read whole: every damage is named, and nothing in it is changed."""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from pysqlite3 import dbapi2

from raft.core.membership import encode_configuration
from raft.core.model import Boundary, Configuration, Entry, EntryKind, HardState, Member
from raft.errors import DirectoryLocked, InvariantViolation, StorageCorrupt, StorageFailed
from raft.ports import WriteBatch
from raft.storage.amendment import amend
from raft.storage.directory import DirectoryLock
from raft.storage.inspection import Damage, hold_for_reading, inspect_log, read_entries
from raft.storage.snapshots import FileSnapshots, inspect_snapshots
from raft.storage.sqlite import SqliteLog
from raft.testing.conformance import CONFIGURATION, entries_of, raised

ALONE = Configuration((Member("a", "one", "one.example:1"),))


def _filled(directory: Path) -> SqliteLog:
    """Entries 11 to 41, the last a configuration of term 3."""
    store = SqliteLog(directory)
    store.write(WriteBatch(HardState(3, "voted-for", 30), entries_of(1, 40, term=2)))
    store.write(WriteBatch(None, (Entry(41, 3, EntryKind.CONFIGURATION, encode_configuration(ALONE)),)))
    store.compact(Boundary(10, 2, CONFIGURATION))
    store.put("identity", b"the identity")
    return store


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A closed log."""
    _filled(tmp_path).close()
    return tmp_path


@pytest.fixture
def crashed(tmp_path: Path) -> Iterator[Path]:
    """A copy of a log in use: all that was written is still in the write-ahead log."""
    (tmp_path / "live").mkdir()
    store = _filled(tmp_path / "live")
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "live", copy)
    yield copy
    store.close()


def _bytes(directory: Path) -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.rglob("*")) if path.is_file()}


def _sql(directory: Path, statement: str) -> None:
    connection = dbapi2.connect(directory / "log.db", isolation_level=None)
    connection.execute(statement)
    connection.close()


def test_whole_log(directory: Path) -> None:
    """A stopped node's log is told as it is, and not one byte of the directory changes."""
    before = _bytes(directory)
    with hold_for_reading(directory):
        report = inspect_log(directory)
    assert report.damages == []
    assert report.hard_state == HardState(3, "voted-for", 30)
    assert report.boundary == Boundary(10, 2, CONFIGURATION)
    assert (report.first_index, report.last_index, report.last_term, report.entry_count, report.dead_rows) == (11, 41, 3, 31, 10)
    assert report.configurations == [(10, CONFIGURATION), (41, ALONE)]
    assert report.configuration == ALONE
    assert report.records == {"identity": b"the identity"}
    assert [report.term_at(index) for index in (9, 10, 40, 41, 42)] == [None, 2, 2, 3, None]
    assert _bytes(directory) == before


def test_log_of_a_killed_node(crashed: Path) -> None:
    """What is still in the write-ahead log is seen as well, and the write-ahead log stays where it is."""
    assert (crashed / "log.db-wal").stat().st_size > 0
    before = _bytes(crashed)
    report = inspect_log(crashed)
    assert (report.damages, report.last_index) == ([], 41)
    assert [entry.index for entry in read_entries(crashed, 39, 99)] == [39, 40, 41]
    assert _bytes(crashed) == before


@pytest.mark.parametrize(
    ("statement", "due"),
    [
        ("UPDATE entries SET data = x'00' WHERE log_index IN (17, 23)", ["entry 17: its checksum is wrong", "entry 23: its checksum is wrong"]),
        ("UPDATE entries SET kind = 9 WHERE log_index = 17", ["entry 17: its checksum is wrong"]),
        ("DELETE FROM entries WHERE log_index = 17", ["entry 17: it is missing; entry 18 comes next"]),
        ("DELETE FROM entries WHERE log_index BETWEEN 17 AND 19", ["entry 17: it and those up to 19 are missing"]),
        ("UPDATE entries SET term = 9 WHERE log_index = 0", ["hard state: its checksum is wrong"]),
        ("DELETE FROM entries WHERE log_index = 0", ["hard state: its row is missing"]),
        ("UPDATE boundary SET term = 1", ["boundary: its checksum is wrong"]),
        ("DELETE FROM boundary", ["boundary: its row is missing"]),
        ("UPDATE records SET value = x'00'", ["record 'identity': its checksum is wrong"]),
    ],
)
def test_every_damage_is_named(directory: Path, statement: str, due: list[str]) -> None:
    """Each damaged or missing row is told by name and index, not only the first, and the rest is read all the same."""
    _sql(directory, statement)
    report = inspect_log(directory)
    assert [str(damage) for damage in report.damages] == due
    assert report.last_index == 41


def test_terms_that_go_back(directory: Path) -> None:
    """Rows whose checksums are right but whose terms can't be are damage too."""
    store = SqliteLog(directory)
    store.write(WriteBatch(None, (Entry(42, 2, EntryKind.COMMAND, b""), Entry(43, 7, EntryKind.COMMAND, b""))))
    store.close()
    assert inspect_log(directory).damages == [
        Damage("entry", 42, "it is of term 2, an earlier one of term 3"),
        Damage("hard state", 0, "it is of term 3, the log ends with term 7"),
    ]


def test_damaged_pages(directory: Path) -> None:
    """A page of rubbish is told as what SQLite finds; nothing is raised."""
    content = bytearray((directory / "log.db").read_bytes())
    content[4096 : 2 * 4096] = bytes(4096)
    (directory / "log.db").write_bytes(content)
    report = inspect_log(directory)
    assert report.damages
    assert all(damage.part in {"log", "hard state", "boundary"} for damage in report.damages)


def test_no_database(tmp_path: Path) -> None:
    """A file that is no database is a damage, a missing one an error that names it."""
    assert "log.db" in str(raised(StorageFailed, lambda: inspect_log(tmp_path)))
    (tmp_path / "log.db").write_bytes(b"x" * 5000)
    assert "is not a SQLite file" in str(inspect_log(tmp_path).damages[0])


def test_running_node_is_left_alone(directory: Path) -> None:
    """A directory in use is refused, naming the process; lookers don't keep each other out, but they keep a node out."""
    with DirectoryLock(directory), pytest.raises(DirectoryLocked, match="in use by process"), hold_for_reading(directory):
        pass
    with hold_for_reading(directory), hold_for_reading(directory):
        raised(DirectoryLocked, lambda: DirectoryLock(directory))


def test_snapshots(tmp_path: Path) -> None:
    """Each snapshot is told with its boundary and whether its bytes are those of its checksum; opening the store would remove leftovers."""
    sink = FileSnapshots(tmp_path).create(Boundary(7, 2, CONFIGURATION))
    sink.write(b"the state")
    sink.commit()
    (tmp_path / "left.state.partial").write_bytes(b"")
    (whole,) = inspect_snapshots(tmp_path)
    assert (whole.boundary, whole.size, whole.problem) == (Boundary(7, 2, CONFIGURATION), 9, "")
    state = next(tmp_path.glob("*.state"))
    state.write_bytes(b"the stats")
    assert "its SHA-256 is" in inspect_snapshots(tmp_path)[0].problem
    state.unlink()
    assert inspect_snapshots(tmp_path)[0].problem == "the state file is missing"
    next(tmp_path.glob("*.json")).write_bytes(b"{}")
    assert "its manifest makes no sense" in inspect_snapshots(tmp_path)[0].problem
    assert (tmp_path / "left.state.partial").exists()
    assert inspect_snapshots(tmp_path / "absent") == []


def test_amend(directory: Path) -> None:
    """Entries, hard state and records change together, and a store reads them back."""
    amend(directory, WriteBatch(HardState(4, None, 30), (Entry(42, 4, EntryKind.NOOP, b""),)), {"identity": b"new", "more": b"more"})
    store = SqliteLog(directory)
    assert store.load().entries[-1] == Entry(42, 4, EntryKind.NOOP, b"")
    assert (store.hard_state(), store.get("identity"), store.get("more")) == (HardState(4, None, 30), b"new", b"more")
    store.close()


def test_amend_refuses(directory: Path, tmp_path: Path) -> None:
    """Entries that would replace others, a damaged log and a directory without one are refused, and nothing changes."""
    before = inspect_log(directory)
    raised(InvariantViolation, lambda: amend(directory, WriteBatch(None, (Entry(41, 4, EntryKind.NOOP, b""),)), {}))
    assert inspect_log(directory) == before
    _sql(directory, "UPDATE boundary SET term = 1")
    raised(StorageCorrupt, lambda: amend(directory, WriteBatch(None, (Entry(42, 4, EntryKind.NOOP, b""),)), {"identity": b"new"}))
    assert inspect_log(directory).records == before.records
    (tmp_path / "empty").mkdir()
    raised(StorageFailed, lambda: amend(tmp_path / "empty", WriteBatch(HardState(1), ()), {}))


def test_lost_end_of_the_log(directory: Path) -> None:
    """A log whose last rows have vanished, or that is older than its witness, is damaged: an acknowledged write is missing."""
    older = (directory / "log.db").read_bytes()
    store = SqliteLog(directory)
    store.write(WriteBatch(None, (Entry(42, 3, EntryKind.COMMAND, b""),)))
    store.close()
    assert inspect_log(directory).damages == []
    _sql(directory, "DELETE FROM entries WHERE log_index = 42")
    assert str(inspect_log(directory).damages[0]) == "tail: the log ends with entry 41 where its last write ended with 42"
    raised(StorageCorrupt, lambda: amend(directory, WriteBatch(None, (Entry(42, 4, EntryKind.NOOP, b""),)), {}))
    (directory / "log.db").write_bytes(older)
    assert "was acknowledged; the log ends with write" in str(inspect_log(directory).damages[0])
