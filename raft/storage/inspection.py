"""Looking at a data directory that no node uses, without changing a byte of it: a stopped node's, or a copy.

A node refuses damage at the first sight of it. Here everything is read and every damage is named, so that somebody can decide what to do.
What is found is only told; nothing is repaired.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from struct import error as StructError  # noqa: N812 - the module names its exception in lower case
from typing import Any, NamedTuple
from urllib.parse import quote

from pysqlite3 import dbapi2

from raft.core.membership import decode_configuration
from raft.core.model import Boundary, Configuration, EntryKind, HardState
from raft.errors import DirectoryLocked, RaftError, StorageError
from raft.storage import schema
from raft.storage.checksums import boundary_checksum, record_checksum, row_checksum
from raft.storage.directory import FILE_NAME as LOCK_NAME
from raft.storage.driver_failures import from_driver
from raft.storage.failures import from_os
from raft.storage.format import check_file
from raft.storage.rows import decode_hard_state, decode_tail
from raft.storage.sqlite import FILE_NAME
from raft.storage.wal import check_wal
from raft.storage.witness import read_number

_KINDS = {int(kind): kind for kind in EntryKind}
_FINDINGS_MAX = 100
_ROWS = "SELECT log_index, term, kind, data, checksum FROM entries WHERE log_index BETWEEN ? AND ? ORDER BY log_index"
_LAST_INDEX = (1 << 63) - 1


class Damage(NamedTuple):
    """Something on disk that is not what was written.

    :param part: what is damaged: ``entry``, ``hard state``, ``boundary``, ``record``, ``log``, ``snapshot``, …
    :param index: of the log, where there is one; else 0.
    :param problem: what is wrong with it.
    """

    part: str
    index: int  # type: ignore[assignment]  # the field's word; tuple.index is of no use here
    problem: str

    def __str__(self) -> str:
        return f"{self.part} {self.index}: {self.problem}" if self.index else f"{self.part}: {self.problem}"


class StoredEntry(NamedTuple):
    """A row of the log as it lies on disk.

    :param kind: None when the number is none that an entry can have.
    :param problem: what is wrong with it; empty when nothing is.
    """

    index: int  # type: ignore[assignment]  # see Damage
    term: int
    kind: EntryKind | None
    data: bytes
    problem: str


@dataclass(slots=True)
class LogReport:
    """All that ``log.db`` says. What could not be read is None or empty, and then there is a damage that says why.

    :ivar first_index: index of the first entry after the boundary, 0 when there is none; likewise ``last_index`` and ``last_term``, which
        are the boundary's then.
    :ivar entry_count: entries after the boundary; ``entry_bytes`` is the sum of their data.
    :ivar dead_rows: entries up to the boundary that a compaction has left to be removed.
    :ivar configurations: each with the index since which it is in force, the boundary's first.
    :ivar terms: (first index, term) wherever the term changes, the boundary first.
    """

    format_version: int = 0
    hard_state: HardState | None = None
    boundary: Boundary | None = None
    records: dict[str, bytes] = field(default_factory=dict)
    first_index: int = 0
    last_index: int = 0
    last_term: int = 0
    entry_count: int = 0
    entry_bytes: int = 0
    dead_rows: int = 0
    configurations: list[tuple[int, Configuration]] = field(default_factory=list)
    terms: list[tuple[int, int]] = field(default_factory=list)
    damages: list[Damage] = field(default_factory=list)

    @property
    def configuration(self) -> Configuration:
        """The one in force: the last in the log, committed or not."""
        return self.configurations[-1][1] if self.configurations else Configuration()

    def term_at(self, index: int) -> int | None:
        """The term of the entry at an index; None before the boundary and behind the end."""
        if index > self.last_index:
            return None
        return next((term for since, term in reversed(self.terms) if since <= index), None)


@contextmanager
def hold_for_reading(directory: Path) -> Iterator[None]:
    """Keep every node out of a directory while it is looked at; several lookers may share it. Writes nothing.

    :raises DirectoryLocked: naming the process that runs on it.
    :raises StorageFailed: when the directory can't be read.
    """
    path = directory / LOCK_NAME
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield  # a copy without the lock: nobody runs on it
        return
    except OSError as error:
        raise from_os("look at the data directory", error, path) from error
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(file, 256, 0).decode(errors="replace").strip() or "a process that has just started"
        os.close(file)
        cause = f"{directory} is in use by {holder}"
        raise DirectoryLocked("look at the data directory", cause, "stop it first, or ask the running node: kvorum status") from error
    try:
        yield
    finally:
        os.close(file)


@contextmanager
def still(path: Path) -> Iterator[Path]:
    """A SQLite file that holds everything in itself, for :func:`open_still`.

    A file without a write-ahead log is that already. Otherwise both are copied aside and put together there: SQLite would do
    it in place, and so change what is to be looked at.

    :raises OSError: when it can't be read or copied.
    """
    log = path.with_name(path.name + "-wal")
    if not log.exists() or log.stat().st_size == 0:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="kvorum-inspect-") as aside:
        copy = Path(aside) / path.name
        shutil.copyfile(path, copy)
        shutil.copyfile(log, copy.with_name(log.name))
        connection = dbapi2.connect(str(copy), isolation_level=None)
        try:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            connection.close()
        yield copy


def open_still(path: Path) -> Any:
    """A driver connection to a file that :func:`still` gave: no lock is taken and nothing is written, not even beside it."""
    connection = dbapi2.connect(f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1", uri=True, isolation_level=None)
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    return connection


def inspect_log(directory: Path) -> LogReport:
    """Read and verify the whole of ``log.db``. The caller holds the directory (:func:`hold_for_reading`).

    :raises StorageFailed: when the file is missing or the disk can't be read.
    """
    path, report = directory / FILE_NAME, LogReport()
    try:
        path.stat()
        for check, file in ((check_file, path), (check_wal, path.with_name(path.name + "-wal"))):
            try:
                check(file)
            except StorageError as error:
                report.damages.append(Damage("log", 0, error.cause))
        with still(path) as file:
            connection = open_still(file)
            try:
                _inspect(connection, report)
                _check_tail(connection, directory, report)
            finally:
                connection.close()
    except OSError as error:
        raise from_os("look at the log", error, path) from error
    except dbapi2.Error as error:
        report.damages.append(Damage("log", 0, f"SQLite can't read it: {error}"))
    return report


def read_entries(directory: Path, first: int, last: int) -> Iterator[StoredEntry]:
    """The rows of a range of indexes, both ends included, damaged ones too; those that are missing are left out.

    :raises StorageFailed: when the disk can't be read.
    """
    path = directory / FILE_NAME
    try:
        with still(path) as file:
            connection = open_still(file)
            try:
                yield from map(_stored, connection.execute(_ROWS, (max(first, 1), min(last, _LAST_INDEX))))
            finally:
                connection.close()
    except OSError as error:
        raise from_os("look at the log", error, path) from error
    except dbapi2.Error as error:
        raise from_driver("look at the log", error, path, opening=True) from error


def _inspect(connection: Any, report: LogReport) -> None:
    report.format_version = connection.execute("PRAGMA user_version").fetchone()[0]
    findings = [row[0] for row in connection.execute(f"PRAGMA quick_check({_FINDINGS_MAX})")]
    report.damages += [Damage("log", 0, f"SQLite finds: {finding}") for finding in findings if finding != "ok"]
    _read_hard_state(connection, report)
    _read_boundary(connection, report)
    _read_records(connection, report)
    _read_log(map(_stored, connection.execute(_ROWS, (1, _LAST_INDEX))), report)


def _read_hard_state(connection: Any, report: LogReport) -> None:
    row = connection.execute("SELECT term, kind, data, checksum FROM entries WHERE log_index = ?", (schema.HARD_STATE_ROW,)).fetchone()
    with _noted(report, "hard state"):
        if row is None:
            raise ValueError("its row is missing")
        term, kind, data, checksum = row
        if row_checksum(schema.HARD_STATE_ROW, term, kind, data) != checksum:
            raise ValueError("its checksum is wrong")
        report.hard_state = decode_hard_state(term, data)


def _read_boundary(connection: Any, report: LogReport) -> None:
    row = connection.execute("SELECT log_index, term, configuration, checksum FROM boundary WHERE id = 1").fetchone()
    with _noted(report, "boundary"):
        if row is None:
            raise ValueError("its row is missing")
        index, term, configuration, checksum = row
        if boundary_checksum(index, term, configuration) != checksum:
            raise ValueError("its checksum is wrong")
        report.boundary = Boundary(index, term, decode_configuration(configuration))
        report.configurations.append((index, report.boundary.configuration))
        report.terms.append((index, term))
        report.last_index, report.last_term = index, term


def _read_records(connection: Any, report: LogReport) -> None:
    for name, value, checksum in connection.execute("SELECT name, value, checksum FROM records ORDER BY name"):
        with _noted(report, f"record {name!r}"):
            if record_checksum(name, value) != checksum:
                raise ValueError("its checksum is wrong")
            report.records[name] = value


def _read_log(rows: Iterable[StoredEntry], report: LogReport) -> None:
    boundary = report.boundary.index if report.boundary is not None else None
    for row in rows:
        if boundary is not None and row.index <= boundary:
            report.dead_rows += 1
            continue
        due = report.last_index + 1 if report.entry_count or boundary is not None else row.index
        if row.index != due:
            missing = f"it is missing; entry {row.index} comes next" if row.index == due + 1 else f"it and those up to {row.index - 1} are missing"
            report.damages.append(Damage("entry", due, missing))
        _note_entry(row, report)
    ends = report.last_term
    if report.hard_state is not None and ends > report.hard_state.term:
        problem = f"it is of term {report.hard_state.term}, the log ends with term {ends}"
        report.damages.append(Damage("hard state", 0, problem))


def _check_tail(connection: Any, directory: Path, report: LogReport) -> None:
    """Whether the log ends where its last write, and the witness of that, say."""
    row = connection.execute("SELECT term, kind, data, checksum FROM entries WHERE log_index = ?", (schema.TAIL_ROW,)).fetchone()
    acknowledged = read_number(directory)
    with _noted(report, "tail"):
        if row is None:
            number, due = 0, report.last_index
        elif row_checksum(schema.TAIL_ROW, row[0], row[1], row[2]) != row[3]:
            raise ValueError("its checksum is wrong")
        else:
            number, due = decode_tail(row[0], row[2])
        if due != report.last_index:
            raise ValueError(f"the log ends with entry {report.last_index} where its last write ended with {due}")
        if number < acknowledged:
            raise ValueError(f"write {acknowledged} was acknowledged; the log ends with write {number}: it is damaged, or an older copy")


def _note_entry(row: StoredEntry, report: LogReport) -> None:
    report.entry_count += 1
    report.entry_bytes += len(row.data)
    report.first_index = report.first_index or row.index
    report.last_index = row.index
    if row.problem:
        report.damages.append(Damage("entry", row.index, row.problem))
        return
    if row.term < report.last_term:
        report.damages.append(Damage("entry", row.index, f"it is of term {row.term}, an earlier one of term {report.last_term}"))
    elif row.term > report.last_term or not report.terms:
        report.terms.append((row.index, row.term))
    report.last_term = max(report.last_term, row.term)
    if row.kind is EntryKind.CONFIGURATION:
        with _noted(report, "entry", row.index):
            report.configurations.append((row.index, decode_configuration(row.data)))


def _stored(row: tuple[Any, ...]) -> StoredEntry:
    index, term, kind, data, checksum = row
    problem = ""
    if not isinstance(term, int) or not isinstance(kind, int) or not isinstance(data, bytes):
        return StoredEntry(index, 0, None, b"", "its values are of the wrong types")
    if row_checksum(index, term, kind & 0xFF, data) != checksum:
        problem = "its checksum is wrong"
    elif kind not in _KINDS:
        problem = f"its kind {kind} is none that an entry can have"
    return StoredEntry(index, term, _KINDS.get(kind), data, problem)


@contextmanager
def _noted(report: LogReport, part: str, index: int = 0) -> Iterator[None]:
    """Whatever makes no sense is a damage, and the reading goes on."""
    try:
        yield
    except (ValueError, TypeError, KeyError, StructError, RaftError) as error:
        report.damages.append(Damage(part, index, str(error)))
