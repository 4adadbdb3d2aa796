"""A disk that is full, for real: a small file system in memory."""

import ctypes
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from raft.core.model import Boundary, Entry, EntryKind, HardState
from raft.errors import StorageFailed, StorageFull
from raft.ports import WriteBatch
from raft.storage.directory import DirectoryLock
from raft.storage.snapshots import FileSnapshots
from raft.storage.sqlite import SqliteLog
from raft.testing.conformance import entries_of, raised, store_snapshot

SIZE = 1024 * 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A mounted file system of one MiB; needs the right to mount."""
    libc = ctypes.CDLL(None, use_errno=True)
    place = tmp_path / "disk"
    place.mkdir()
    if libc.mount(b"tmpfs", str(place).encode(), b"tmpfs", 0, f"size={SIZE}".encode()) != 0:
        pytest.skip(f"can't mount a small file system: {os.strerror(ctypes.get_errno())}")
    yield place
    libc.umount2(str(place).encode(), 2)


def fill(place: Path) -> Path:
    """Take every free byte."""
    path = place / "filler"
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return path


def test_a_full_disk_at_the_first_start(small_disk: Path) -> None:
    """A log that can't be made fails with a hint, and can be made once there is space."""
    filler = fill(small_disk)
    error = raised(StorageFull, lambda: SqliteLog(small_disk))
    assert "free space" in error.hint
    assert str(small_disk) in error.hint
    filler.unlink()
    store = SqliteLog(small_disk)
    assert store.load() == (Boundary(), ())
    store.close()


def test_a_full_disk_at_a_later_start(small_disk: Path) -> None:
    """The disk is asked for a write at start, not at the first vote; nothing is lost by the refusal."""
    store = SqliteLog(small_disk)
    store.write(WriteBatch(HardState(4, "a", 2), entries_of(1, 20, term=4)))
    store.close()
    filler = fill(small_disk)
    error = raised(StorageFull, lambda: SqliteLog(small_disk))
    assert "free space" in error.hint
    filler.unlink()
    store = SqliteLog(small_disk)
    assert store.load().entries == entries_of(1, 20, term=4)
    assert store.hard_state() == HardState(4, "a", 2)
    store.close()


def test_a_disk_that_fills_up_while_writing(small_disk: Path) -> None:
    """The write that does not fit fails for good; what was acknowledged before is found after a restart."""
    store = SqliteLog(small_disk)
    acknowledged = 0

    def write_until_full() -> None:
        nonlocal acknowledged
        for first in range(1, SIZE, 8):
            batch = tuple(entry._replace(data=bytes(3_000)) for entry in entries_of(first, first + 7))
            store.write(WriteBatch(HardState(1, None, acknowledged), batch))
            acknowledged = first + 7

    error = raised(StorageFull, write_until_full)
    assert "free space" in error.hint
    raised(StorageFailed, lambda: store.write(WriteBatch(hard_state=HardState(2))))
    store.close()
    assert acknowledged > 0
    elsewhere = small_disk.parent / "elsewhere"
    shutil.copytree(small_disk, elsewhere)
    opened = SqliteLog(elsewhere)
    assert [entry.index for entry in opened.load().entries] == list(range(1, acknowledged + 1))
    assert opened.hard_state() == HardState(1, None, acknowledged - 8)
    opened.close()


def test_a_log_goes_on_once_there_is_room(small_disk: Path) -> None:
    """Opened anew in the same process, the log holds what was acknowledged and takes the write that had not fitted."""
    filler = fill(small_disk)
    filler.write_bytes(bytes(filler.stat().st_size - 256 * 1024))
    store = SqliteLog(small_disk)
    acknowledged: list[Entry] = []

    def write_until_full() -> None:
        for index in range(1, 1_000):
            entry = Entry(index, 1, EntryKind.COMMAND, bytes(3_000))
            store.write(WriteBatch(HardState(1), (entry,)))
            acknowledged.append(entry)

    raised(StorageFull, write_until_full)
    store.close()
    filler.unlink()
    store = SqliteLog(small_disk)
    held = store.load().entries
    assert held[: len(acknowledged)] == tuple(acknowledged)
    store.write(WriteBatch(HardState(2), (Entry(len(held) + 1, 2, EntryKind.COMMAND, b"fits"),)))
    store.close()
    store = SqliteLog(small_disk)
    assert store.load().entries[-1].data == b"fits"
    store.close()


@pytest.mark.parametrize("step", ["directory", "snapshot"])
def test_a_sync_without_space_is_final(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """A sync that fails for want of space is a failed sync: nobody may take it for a full disk and go on once there is room."""
    store = FileSnapshots(tmp_path / "snapshots")
    sink = store.create(Boundary(1, 1))
    sink.write(b"state")

    def refuse(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)
    error = raised(StorageFailed, sink.commit if step == "snapshot" else lambda: DirectoryLock(tmp_path / "new"))
    assert not isinstance(error, StorageFull)
    assert "the sync failed" in str(error)


def test_a_lock_on_a_full_disk(small_disk: Path) -> None:
    """The very first file of a node says it too."""
    fill(small_disk)
    error = raised(StorageFull, lambda: DirectoryLock(small_disk))
    assert "free space" in error.hint


def test_a_snapshot_that_does_not_fit(small_disk: Path) -> None:
    """It leaves nothing behind; the one before stays, and a smaller one can be written at once."""
    store = FileSnapshots(small_disk / "snapshots")
    store_snapshot(store, Boundary(1, 1), b"old")
    sink = store.create(Boundary(2, 1))
    error = raised(StorageFull, lambda: sink.write(bytes(SIZE + 1)))
    assert "free space" in error.hint
    assert len(list((small_disk / "snapshots").iterdir())) == 2
    source = store.latest()
    assert source is not None
    assert source.boundary.index == 1
    source.close()
    store_snapshot(store, Boundary(3, 1), b"new")
