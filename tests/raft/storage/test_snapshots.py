"""Snapshots on files: what half-written, damaged and foreign files do. The contract itself is in the suite."""

import os
from pathlib import Path

import pytest

from raft.core.model import Boundary
from raft.errors import StorageFailed, StorageVersion
from raft.storage.snapshots import FileSnapshots
from raft.testing.conformance import CONFIGURATION, raised, store_snapshot


@pytest.fixture
def store(tmp_path: Path) -> FileSnapshots:
    """A store with one snapshot, at index 5."""
    snapshots = FileSnapshots(tmp_path)
    store_snapshot(snapshots, Boundary(5, 2, CONFIGURATION), b"the state" * 1_000)
    return snapshots


def _only(directory: Path, suffix: str) -> Path:
    (path,) = directory.glob("*" + suffix)
    return path


@pytest.mark.parametrize("suffix", [".state", ".json"])
def test_every_damaged_byte_is_noticed(store: FileSnapshots, tmp_path: Path, suffix: str) -> None:
    """A flipped bit in the state or its manifest makes the snapshot be passed over, by name; so does a missing or extra byte."""
    path = _only(tmp_path, suffix)
    pristine = path.read_bytes()
    step = max(1, len(pristine) // 200)
    images = [pristine[:place] + bytes([pristine[place] ^ 0x04]) + pristine[place + 1 :] for place in range(0, len(pristine) - 1, step)]
    for image in (*images, pristine[:-10], pristine + b"0", b""):
        path.write_bytes(image)
        opened = FileSnapshots(tmp_path)
        assert opened.latest() is None
        assert list(opened.damaged) == [path.stem]
    path.write_bytes(pristine)
    source = FileSnapshots(tmp_path).latest()
    assert source is not None
    source.close()
    del store


def test_an_older_whole_one_serves_where_the_newest_is_damaged(tmp_path: Path) -> None:
    """A crash before the older one was removed leaves two; the damaged newest is passed over, kept as evidence, and goes with the next one."""
    other = tmp_path / "other"
    store_snapshot(FileSnapshots(other), Boundary(5, 1), b"older")
    store = FileSnapshots(tmp_path / "store")
    store_snapshot(store, Boundary(9, 1), b"newest")
    _only(store.directory, ".state").write_bytes(b"newesT")
    for path in other.iterdir():
        path.rename(store.directory / path.name)
    store = FileSnapshots(store.directory)
    source = store.latest()
    assert source is not None
    assert source.boundary.index == 5
    source.close()
    assert len(list(store.directory.iterdir())) == 4
    store_snapshot(store, Boundary(12, 1), b"next")
    assert len(list(store.directory.iterdir())) == 2
    assert store.damaged == {}


def test_a_missing_state_is_noticed(store: FileSnapshots, tmp_path: Path) -> None:
    """A manifest alone is no snapshot, and is reported."""
    _only(tmp_path, ".state").unlink()
    assert store.latest() is None
    assert list(store.damaged.values()) == ["the state file is missing"]


def test_half_written_files_are_removed_at_open(store: FileSnapshots, tmp_path: Path) -> None:
    """What a crash left at any step before the manifest's rename vanishes; the committed one stays."""
    sink = store.create(Boundary(8, 2))
    sink.write(b"half")
    (tmp_path / "00000000000000000009-00000000000000000002-0000000003.state").write_bytes(b"renamed, no manifest")
    (tmp_path / "00000000000000000009-00000000000000000002-0000000003.json.partial").write_bytes(b"{")
    opened = FileSnapshots(tmp_path)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".state"]
    source = opened.latest()
    assert source is not None
    assert source.boundary == Boundary(5, 2, CONFIGURATION)
    source.close()
    sink.abort()


def test_older_ones_are_removed(store: FileSnapshots, tmp_path: Path) -> None:
    """One snapshot takes the space of one."""
    for index in (6, 7, 8):
        store_snapshot(store, Boundary(index, 2), b"state")
    assert len(list(tmp_path.iterdir())) == 2


def test_a_state_is_verified_once(store: FileSnapshots, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first use reads the whole file, later ones do not."""
    read: list[int] = []
    pread = os.pread

    def counting(file: int, length: int, offset: int) -> bytes:
        read.append(length)
        return pread(file, length, offset)

    monkeypatch.setattr(os, "pread", counting)
    for expected in (True, False, False):
        source = store.latest()
        assert source is not None
        source.close()
        assert bool(read) == expected
        read.clear()


def test_a_failed_sync_leaves_no_snapshot(store: FileSnapshots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever of the syncs fails, the new snapshot does not exist and the old one does; a later attempt may succeed."""
    fsync = os.fsync
    for failing in (1, 2, 3):
        calls: list[int] = []

        def failing_fsync(file: int, failing: int = failing, calls: list[int] = calls) -> None:
            calls.append(file)
            if len(calls) == failing:
                raise OSError(5, "Input/output error")
            fsync(file)

        sink = store.create(Boundary(8, 2))
        sink.write(b"new")
        monkeypatch.setattr(os, "fsync", failing_fsync)
        error = raised(StorageFailed, sink.commit)
        monkeypatch.setattr(os, "fsync", fsync)
        assert "Input/output error" in str(error)
        assert len(list(tmp_path.iterdir())) == 2
        source = FileSnapshots(tmp_path).latest()
        assert source is not None
        assert source.boundary.index == 5
        source.close()
    store_snapshot(store, Boundary(8, 2), b"new")


def test_a_newer_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot of a newer version is neither used nor passed over: the log behind it is gone."""
    monkeypatch.setattr("raft.storage.snapshots.FORMAT_VERSION", 2)
    store_snapshot(FileSnapshots(tmp_path), Boundary(5, 2), b"state")
    monkeypatch.undo()
    error = raised(StorageVersion, lambda: FileSnapshots(tmp_path).latest())
    assert "format 2" in str(error)


def test_a_directory_that_can_not_be_made(tmp_path: Path) -> None:
    """The error names the path."""
    (tmp_path / "file").touch()
    error = raised(StorageFailed, lambda: FileSnapshots(tmp_path / "file" / "snapshots"))
    assert "file" in error.cause


def test_a_closed_source_says_so(store: FileSnapshots) -> None:
    """Use after close is an error of the library."""
    source = store.latest()
    assert source is not None
    source.close()
    assert "closed" in str(raised(StorageFailed, lambda: source.read_at(0, 1)))
