"""The durable log and the stable records in one SQLite file, ``log.db``.

Every batch is one transaction and so one sync. The common batch, entries at the end of the log with or without hard state, is a single INSERT
statement, which is a transaction by itself: the calling thread gives the interpreter lock away once. Anything else says BEGIN IMMEDIATE and COMMIT.

Compaction moves the boundary record first, in one small transaction; that is the whole of it as far as anybody can see. The rows behind
the boundary are then dead, and go with some of the following writes, a few hundred at a time, inside a transaction that is synced anyway: deleting
ten thousand at once would hold up a write for 30 ms. A crash in between leaves dead rows before the boundary, which load()
skips and removes, and never a gap behind it.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import insert, update
from sqlalchemy.dialects.sqlite import insert as upsert

from raft.core.model import Boundary, HardState
from raft.errors import StorageError, StorageFailed
from raft.ports.storage import LoadedLog, WriteBatch
from raft.storage import reading, schema
from raft.storage.checksums import record_checksum
from raft.storage.directory import sync_directory
from raft.storage.driver_failures import DRIVER_ERRORS, from_driver
from raft.storage.engine import open_engine
from raft.storage.format import check_file, is_fresh
from raft.storage.rows import VALUES_A_ROW, batch_values, boundary_values, hard_state_values, tail_values
from raft.storage.rules import check_compaction, check_entries
from raft.storage.wal import check_wal
from raft.storage.witness import Witness

FILE_NAME = "log.db"

DEAD_ROWS_A_STEP = 256
"""Dead rows removed at once, at least: some 0.4 ms for small ones."""

DEAD_ROWS_A_WRITE = 16
"""What a write adds to the dead rows owed, besides two for each new entry: so they vanish faster than entries arrive."""

CHECKPOINT_PAGES = 1_000
"""Pages in the write-ahead log (4 MiB) that are moved into the file together. Measured, that takes 1.5 ms once in several hundred writes, which
the 99th percentile does not see. Rarer checkpoints are longer (16,000 pages: 50 ms), and a log file that keeps growing makes every sync slower."""

_BYTES_A_PAGE = 3_500
_PAGES_A_TRANSACTION = 3
"""What a transaction writes besides its entries: the pages of the hard state, of the boundary, of the tree."""

_VALUES_A_STATEMENT = VALUES_A_ROW * schema.ROWS_A_STATEMENT

FREE_PAGES_KEPT = 8_192
"""Free pages (32 MiB) that the file keeps for the entries to come; giving them back only to take them again would be work for nothing."""

FREE_PAGES_A_STEP = 256
"""Free pages given back at once: about a millisecond."""


class SqliteLog:
    """LogStore and StableStore in one file. One thread at a time.

    :param directory: where ``log.db`` lies or will lie. The caller owns the directory (:class:`raft.storage.directory.DirectoryLock`).
    :raises StorageFailed: when the disk fails, is full or can't be written to.
    :raises StorageCorrupt: when the file, its write-ahead log, the boundary, the hard state or a named record is damaged.
    :raises StorageVersion: when a newer version wrote the file, or the SQLite library is too old.
    :raises IdentityMismatch: when the file belongs to another program.
    :raises DirectoryLocked: when another process has the file open.

    Once a call has failed every later one fails too: after a failed sync nobody knows what the disk holds.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE_NAME
        self._failure: str | None = None
        self._opening = True
        self._boundary = Boundary()
        self._hard_state = HardState()
        self._records: dict[str, bytes] = {}
        self._last_index = 0
        self._first_row = 1
        self._dead_rows_owed = 0
        self._pages_written = 0
        self._number = 0
        self._witness: Witness | None = None
        self._engine = open_engine(self._path)
        try:
            with self._guarded("open the log"):
                self._open()
        except BaseException:
            self.close()
            raise
        self._opening = False

    def load(self) -> LoadedLog:
        """See :meth:`raft.ports.LogStore.load`. Finishes a compaction that a crash had cut short."""
        self._opening = True
        with self._guarded("load the log"):
            reading.check_structure(self._connection)
            entries = reading.read_entries(self._connection, self._boundary)
            while self._has_dead_rows:
                self._remove_dead_rows(DEAD_ROWS_A_STEP)
            while self._give_back_pages():
                pass
        self._opening = False
        return LoadedLog(self._boundary, entries)

    def write(self, batch: WriteBatch) -> None:
        """See :meth:`raft.ports.LogStore.write`.

        :raises InvariantViolation: when the entries do not fit the log or a number does not fit into 63 bits; nothing is changed then.
        """
        entries, state = batch.entries, batch.hard_state
        check_entries(entries, self._boundary.index, self._last_index)
        values = batch_values(state, entries)
        if not values:
            return
        last_index = entries[-1].index if entries else self._last_index
        values += tail_values(self._number + 1, last_index)
        with self._guarded("write the log"):
            due = self._dead_rows_due(len(entries))
            replaces = bool(entries) and entries[0].index <= self._last_index
            if not due and not replaces and len(values) <= _VALUES_A_STATEMENT:
                self._insert(values)
            else:
                self._write_transaction(values, entries[0].index if replaces else None, due)
            self._checkpoint_when_due(sum(len(entry.data) for entry in entries))
            self._acknowledge()
        self._last_index = last_index
        if state is not None:
            self._hard_state = state

    def compact(self, boundary: Boundary) -> None:
        """See :meth:`raft.ports.LogStore.compact`.

        :raises InvariantViolation: when the log does not hold the entry at the boundary.
        """
        if boundary.index <= self._boundary.index:
            return
        with self._guarded("compact the log"):
            term = self._execute("SELECT term FROM entries WHERE log_index = ?", (boundary.index,)).scalar()
        check_compaction(boundary, self._last_index, term or 0)
        with self._guarded("compact the log"):
            self._connection.execute(update(schema.boundary).values(boundary_values(boundary)))
            self._give_back_pages()
            self._checkpoint_when_due()
        self._boundary = boundary

    def reset(self, boundary: Boundary, hard_state: HardState) -> None:
        """See :meth:`raft.ports.LogStore.reset`."""
        values = boundary_values(boundary)
        rows = hard_state_values(hard_state) + tail_values(self._number + 1, boundary.index)
        with self._guarded("reset the log"):
            with self._transaction():
                self._execute("DELETE FROM entries")
                self._connection.execute(update(schema.boundary).values(values))
                self._execute(schema.insert_rows(2), rows)
            self._give_back_pages()
            self._checkpoint_when_due()
            self._acknowledge()
        self._boundary, self._hard_state = boundary, hard_state
        self._last_index = boundary.index
        self._first_row = boundary.index + 1

    def hard_state(self) -> HardState:
        """See :meth:`raft.ports.StableStore.hard_state`. Verified when the file was opened."""
        with self._guarded("read the hard state"):
            return self._hard_state

    def get(self, name: str) -> bytes | None:
        """See :meth:`raft.ports.StableStore.get`. Verified when the file was opened."""
        with self._guarded("read a record"):
            return self._records.get(name)

    def put(self, name: str, value: bytes) -> None:
        """See :meth:`raft.ports.StableStore.put`."""
        values = {"value": value, "checksum": record_checksum(name, value)}
        with self._guarded(f"write the record {name!r}"):
            statement = upsert(schema.records).values(name=name, **values)
            with self._transaction():
                self._connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=values))
                self._execute(schema.insert_rows(1), tail_values(self._number + 1, self._last_index))
            self._checkpoint_when_due(len(value))
            self._acknowledge()
        self._records[name] = value

    def close(self) -> None:
        """See :meth:`raft.ports.LogStore.close`. Every later call fails."""
        self._failure = self._failure or "it has been closed"
        with suppress(*DRIVER_ERRORS):
            if hasattr(self, "_connection"):
                self._connection.close()
        with suppress(*DRIVER_ERRORS):
            self._engine.dispose()
        if self._witness is not None:
            self._witness.close()
            self._witness = None

    def _open(self) -> None:
        check_file(self._path)
        log = self._path.with_name(self._path.name + "-wal")
        check_wal(log)
        if self._path.exists() and not log.exists():
            # Its name has to outlive a power loss, and SQLite does not say so when the directory can't be synced.
            log.touch(mode=0o600)
            sync_directory(self._path.parent)
        self._connection = self._engine.connect()
        if is_fresh(self._connection, self._path):
            self._create()
        else:
            # The first write shows at start, not at the first vote, that the disk takes writes.
            self._execute("UPDATE boundary SET checksum = checksum")
        self._boundary = reading.read_boundary(self._connection)
        self._hard_state = reading.read_hard_state(self._connection)
        self._records = reading.read_records(self._connection)
        first, last = self._execute(schema.FIRST_AND_LAST).one()
        self._last_index = max(last or 0, self._boundary.index)
        self._first_row = self._boundary.index + 1 if first is None else min(first, self._boundary.index + 1)
        self._witness = Witness(self._path.parent)
        self._number = reading.read_tail(self._connection, self._witness.number, self._last_index)

    def _create(self) -> None:
        with self._transaction():
            schema.metadata.create_all(self._connection, checkfirst=False)
            self._connection.execute(insert(schema.boundary).values(id=1, **boundary_values(Boundary())))
            self._execute(schema.insert_rows(2), hard_state_values(HardState()) + tail_values(0, 0))
            self._execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
            self._execute(f"PRAGMA user_version = {schema.FORMAT_VERSION}")
        # Into the file itself, so that its header tells whose it is without the write-ahead log.
        self._execute("PRAGMA wal_checkpoint(TRUNCATE)").all()
        sync_directory(self._path.parent)

    def _write_transaction(self, values: list[Any], replace_from: int | None, dead_rows: int) -> None:
        with self._transaction():
            if replace_from is not None:
                self._execute(schema.DELETE_FROM, (replace_from,))
            self._remove_dead_rows(dead_rows)
            self._insert(values)

    def _insert(self, values: list[Any]) -> None:
        for start in range(0, len(values), _VALUES_A_STATEMENT):
            part = tuple(values[start : start + _VALUES_A_STATEMENT])
            self._execute(schema.insert_rows(len(part) // VALUES_A_ROW), part)

    def _dead_rows_due(self, entries: int) -> int:
        """How many dead rows are to go with a write of so many entries: 0 for most writes, then a step's worth at once."""
        if not self._has_dead_rows:
            return 0
        self._dead_rows_owed += DEAD_ROWS_A_WRITE + 2 * entries
        if self._dead_rows_owed < DEAD_ROWS_A_STEP:
            return 0
        due, self._dead_rows_owed = self._dead_rows_owed, 0
        return due

    def _remove_dead_rows(self, count: int) -> None:
        if count and self._has_dead_rows:
            first_row = min(self._first_row + count, self._boundary.index + 1)
            self._execute(schema.DELETE_UP_TO, (first_row - 1,))
            self._first_row = first_row

    @property
    def _has_dead_rows(self) -> bool:
        return self._first_row <= self._boundary.index

    def _give_back_pages(self) -> bool:
        """Shorten the file by one small step; whether there was anything to give back."""
        surplus = self._execute("PRAGMA freelist_count").scalar_one() - FREE_PAGES_KEPT
        if surplus > 0:
            # Through the driver's own cursor: each page is a row, though one without columns, and those SQLAlchemy does not fetch.
            driver: Any = self._connection.connection.driver_connection
            driver.execute(f"PRAGMA incremental_vacuum({min(surplus, FREE_PAGES_A_STEP)})").fetchall()
        return bool(surplus > 0)

    def _acknowledge(self) -> None:
        """The write under way is durable: from here on a log without it is a damaged one."""
        self._number += 1
        if self._witness is not None:
            self._witness.acknowledge(self._number)

    def _checkpoint_when_due(self, data_bytes: int = 0) -> None:
        """Move the write-ahead log into the file once in a while. A sync that fails here is as final as any other.

        :param data_bytes: roughly what has just been written, so that nobody need be asked how long the log is.
        """
        self._pages_written += _PAGES_A_TRANSACTION + data_bytes // _BYTES_A_PAGE
        if self._pages_written >= CHECKPOINT_PAGES:
            self._execute("PRAGMA wal_checkpoint(PASSIVE)").all()
            self._pages_written = 0

    def _execute(self, text: str, parameters: tuple[Any, ...] = ()) -> Any:
        return self._connection.exec_driver_sql(text, parameters)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """No rollback: whoever fails inside closes the store for good, and the open transaction goes with the connection."""
        self._execute("BEGIN IMMEDIATE")
        yield
        self._execute("COMMIT")

    @contextmanager
    def _guarded(self, operation: str) -> Iterator[None]:
        if self._failure is not None:
            raise StorageFailed(operation, f"{self._path} can't be used any more: {self._failure}", "restart the node")
        try:
            yield
        except DRIVER_ERRORS as error:
            failure = from_driver(operation, error, self._path, opening=self._opening)
            self._failure = str(failure)
            raise failure from error
        except StorageError as error:
            self._failure = str(error)
            raise
        except BaseException as error:
            self._failure = f"{operation}: {error!r}"
            raise
