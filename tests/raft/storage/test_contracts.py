"""The contract suites over every adapter: those in memory and the real ones pass the same tests."""

from pathlib import Path

import pytest

from raft.ports import SnapshotStore
from raft.storage.memory import MemoryLog, MemorySnapshots
from raft.storage.snapshots import FileSnapshots
from raft.storage.sqlite import SqliteLog
from raft.testing.conformance import DurableLog, LogStoreContract, SnapshotStoreContract


class TestMemoryLog(LogStoreContract):
    """The log in memory."""

    def make(self) -> DurableLog:
        """A fresh one."""
        return MemoryLog()

    def reopen(self, store: DurableLog) -> DurableLog:
        """The object is the disk: it outlives the node."""
        store.close()
        return store


class TestSqliteLog(LogStoreContract):
    """The log in SQLite."""

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.directory = tmp_path

    def make(self) -> DurableLog:
        """A file of its own a test."""
        return SqliteLog(self.directory)

    def reopen(self, store: DurableLog) -> DurableLog:
        """The same file again."""
        store.close()
        return SqliteLog(self.directory)


class TestMemorySnapshots(SnapshotStoreContract):
    """Snapshots in memory."""

    def make(self) -> SnapshotStore:
        """A fresh store."""
        return MemorySnapshots()

    def reopen(self, store: SnapshotStore) -> SnapshotStore:
        """The object is the disk."""
        return store


class TestFileSnapshots(SnapshotStoreContract):
    """Snapshots on files."""

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.directory = tmp_path / "snapshots"

    def make(self) -> SnapshotStore:
        """A directory of its own a test."""
        return FileSnapshots(self.directory)

    def reopen(self, store: SnapshotStore) -> SnapshotStore:
        """The same directory again, as a node that starts would open it."""
        del store
        return FileSnapshots(self.directory)
