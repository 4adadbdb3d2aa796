"""Snapshots as files: a state file each, and beside it a manifest that makes it exist.

A state file is written under a temporary name, synced and renamed; then the same happens with its manifest, a small JSON document with the boundary,
the size and the SHA-256 of the state and a checksum of its own; then the directory is synced. The manifest's rename is the moment
of commit: a state file without a manifest is rubbish, and is removed when the store is opened.
"""

import json
import os
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import NamedTuple
from zlib import crc32

from raft.core.membership import decode_configuration, encode_configuration
from raft.core.model import Boundary
from raft.errors import MalformedMessage, StorageCorrupt, StorageFailed, StorageVersion
from raft.storage.directory import make_directory, sync_directory
from raft.storage.failures import from_os, sync

FORMAT_VERSION = 1

_STATE, _MANIFEST, _PARTIAL = ".state", ".json", ".partial"
_READ_BYTES = 1024 * 1024


class _Manifest(NamedTuple):
    boundary: Boundary
    size: int
    checksum: str


class FileSnapshotSource:
    """A stored snapshot, open for reading. It stays readable when the store removes it meanwhile."""

    def __init__(self, file: int, path: Path, manifest: _Manifest) -> None:
        self._file: int | None = file
        self._path = path
        self._manifest = manifest

    @property
    def boundary(self) -> Boundary:
        """See :class:`raft.ports.SnapshotSource`."""
        return self._manifest.boundary

    @property
    def size(self) -> int:
        """See :class:`raft.ports.SnapshotSource`."""
        return self._manifest.size

    @property
    def checksum(self) -> str:
        """See :class:`raft.ports.SnapshotSource`."""
        return self._manifest.checksum

    def read_at(self, offset: int, length: int) -> bytes:
        """See :class:`raft.ports.SnapshotSource`.

        :raises StorageFailed: when the disk fails or the source is closed.
        """
        if self._file is None:
            raise StorageFailed("read a snapshot", f"{self._path} has been closed")
        try:
            return os.pread(self._file, length, offset)
        except OSError as error:
            raise from_os("read a snapshot", error, self._path) from error

    def close(self) -> None:
        """See :class:`raft.ports.SnapshotSource`."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


class FileSnapshotSink:
    """A snapshot that is being written. A failed write or sync ends it; nothing is kept then, and another one may be begun."""

    def __init__(self, store: "FileSnapshots", name: str, boundary: Boundary) -> None:
        self._store = store
        self._name = name
        self._boundary = boundary
        self._path = store.directory / (name + _STATE + _PARTIAL)
        self._digest = sha256()
        self._size = 0
        try:
            self._file: int | None = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise from_os("begin a snapshot", error, self._path) from error

    @property
    def size(self) -> int:
        """See :class:`raft.ports.SnapshotSink`."""
        return self._size

    def write(self, piece: bytes) -> None:
        """See :class:`raft.ports.SnapshotSink`.

        :raises StorageFailed: when the disk fails or is full; the snapshot is thrown away then.
        """
        file = self._require_open("write a snapshot")
        try:
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(file, rest) :]
        except OSError as error:
            self.abort()
            raise from_os("write a snapshot", error, self._path) from error
        self._digest.update(piece)
        self._size += len(piece)

    def commit(self, checksum: str | None = None) -> None:
        """See :class:`raft.ports.SnapshotSink`.

        :raises StorageFailed: when the disk fails or is full; the snapshot is thrown away then.
        """
        file = self._require_open("commit a snapshot")
        found = self._digest.hexdigest()
        if checksum is not None and checksum != found:
            self.abort()
            raise StorageCorrupt(f"commit the snapshot of index {self._boundary.index}", f"its SHA-256 is {found}, due was {checksum}")
        try:
            sync(file)
            os.close(file)
            self._file = None
            self._store.accept(self._name, self._path, _Manifest(self._boundary, self._size, found))
        except OSError as error:
            self.abort()
            with suppress(OSError):
                self._path.unlink()
            raise from_os("commit a snapshot", error, self._path) from error

    def abort(self) -> None:
        """See :class:`raft.ports.SnapshotSink`."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
            with suppress(OSError):
                self._path.unlink()

    def _require_open(self, operation: str) -> int:
        if self._file is None:
            raise StorageFailed(operation, f"{self._path} has been committed or thrown away")
        return self._file


class FileSnapshots:
    """A SnapshotStore on files. Any thread.

    :param directory: where they lie; made when absent. Nothing else may lie there.
    :raises StorageFailed: when the directory can't be made, read or written.
    :raises StorageVersion: when a newer version wrote one of them.

    :attr:`damaged` names the files that were passed over, with the reason: for logs and health reports.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.damaged: dict[str, str] = {}
        self._verified: set[str] = set()
        self._lock = Lock()
        try:
            make_directory(directory)
            self._remove_unfinished()
            self._remove_older()
        except OSError as error:
            raise from_os("open the snapshots", error, directory) from error
        self._sequence = max((_sequence(name) for name in self._names()), default=0)

    def create(self, boundary: Boundary) -> FileSnapshotSink:
        """See :class:`raft.ports.SnapshotStore`.

        :raises StorageFailed: when the file can't be made.
        """
        with self._lock:
            self._sequence += 1
            name = f"{boundary.index:020d}-{boundary.term:020d}-{self._sequence:010d}"
        return FileSnapshotSink(self, name, boundary)

    def latest(self) -> FileSnapshotSource | None:
        """See :class:`raft.ports.SnapshotStore`. The first call for a file reads the whole of it.

        :raises StorageFailed: when the directory can't be read.
        """
        try:
            for name in reversed(self._names()):
                source = self._open(name)
                if source is not None:
                    return source
        except OSError as error:
            raise from_os("open the latest snapshot", error, self.directory) from error
        return None

    def accept(self, name: str, partial: Path, manifest: _Manifest) -> None:
        """Make a synced state file exist, and remove older ones. For the sink only.

        :raises OSError: when that fails; the snapshot does not exist then.
        """
        with self._lock:
            partial.replace(self.directory / (name + _STATE))
            try:
                self._write_manifest(name, manifest)
                sync_directory(self.directory)
            except OSError:
                for suffix in (_MANIFEST, _MANIFEST + _PARTIAL, _STATE):
                    with suppress(OSError):
                        (self.directory / (name + suffix)).unlink()
                raise
            with suppress(OSError):  # it exists; a leftover is removed with the next one
                self._remove_older(just_written=name)

    def _open(self, name: str) -> FileSnapshotSource | None:
        path = self.directory / (name + _STATE)
        try:
            manifest = _decode(path.with_suffix(_MANIFEST).read_bytes())
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            if path.with_suffix(_MANIFEST).exists():
                self.damaged[name] = "the state file is missing"
            return None
        except _Damaged as error:
            self.damaged[name] = str(error)
            return None
        source = FileSnapshotSource(file, path, manifest)
        try:
            problem = None if name in self._verified else _verify(source)
        except BaseException:
            source.close()
            raise
        if problem is not None:
            source.close()
            self.damaged[name] = problem
            return None
        self._verified.add(name)
        return source

    def _write_manifest(self, name: str, manifest: _Manifest) -> None:
        path = self.directory / (name + _MANIFEST)
        partial = path.with_name(path.name + _PARTIAL)
        with partial.open("wb") as file:
            file.write(_encode(manifest))
            file.flush()
            sync(file.fileno())
        partial.replace(path)

    def _names(self) -> list[str]:
        """Names of all committed ones, the newest last."""
        return sorted(path.name.removesuffix(_MANIFEST) for path in self.directory.glob("*" + _MANIFEST))

    def _remove_unfinished(self) -> None:
        committed = set(self._names())
        for path in self.directory.iterdir():
            if path.name.endswith(_PARTIAL) or (path.suffix == _STATE and path.stem not in committed):
                path.unlink()

    def _remove_older(self, just_written: str | None = None) -> None:
        """Keep the newest whole one. What is newer but damaged stays as evidence until a newer one comes."""
        names = self._names()
        if len(names) < 2:
            return
        newest = next((name for name in reversed(names) if name == just_written or self._is_whole(name)), "")
        for name in names:
            if name < newest:
                # The manifest first: what has none does not exist.
                for suffix in (_MANIFEST, _STATE):
                    (self.directory / (name + suffix)).unlink(missing_ok=True)
                self._verified.discard(name)
                self.damaged.pop(name, None)

    def _is_whole(self, name: str) -> bool:
        source = self._open(name)
        if source is not None:
            source.close()
        return source is not None


class SnapshotReport(NamedTuple):
    """What lies in the directory under one name.

    :param boundary: None when the manifest can't be read; ``size`` and ``checksum`` are then 0 and empty.
    :param problem: what is wrong; empty for a whole one.
    """

    name: str
    boundary: Boundary | None
    size: int
    checksum: str
    problem: str


def inspect_snapshots(directory: Path) -> list[SnapshotReport]:
    """Every committed snapshot, the newest first, read and verified. Changes nothing, unlike opening a :class:`FileSnapshots`.

    :raises StorageFailed: when the directory or a file can't be read.
    """
    try:
        names = sorted((path.name.removesuffix(_MANIFEST) for path in directory.glob("*" + _MANIFEST)), reverse=True)
        return [_inspect(directory / (name + _STATE)) for name in names]
    except OSError as error:
        raise from_os("look at the snapshots", error, directory) from error


def _inspect(path: Path) -> SnapshotReport:
    try:
        manifest = _decode(path.with_suffix(_MANIFEST).read_bytes())
    except (_Damaged, StorageVersion) as error:
        return SnapshotReport(path.stem, None, 0, "", str(error))
    problem: str | None = "the state file is missing"
    if path.exists():
        source = FileSnapshotSource(os.open(path, os.O_RDONLY | os.O_CLOEXEC), path, manifest)
        try:
            problem = _verify(source)
        finally:
            source.close()
    return SnapshotReport(path.stem, manifest.boundary, manifest.size, manifest.checksum, problem or "")


class _Damaged(Exception):
    """A manifest that can't be used; the text says why."""


def _sequence(name: str) -> int:
    digits = name.rpartition("-")[2]
    return int(digits) if digits.isdecimal() else 0


def _verify(source: FileSnapshotSource) -> str | None:
    """What is wrong with the state, or None."""
    digest, offset = sha256(), 0
    while piece := source.read_at(offset, _READ_BYTES):
        digest.update(piece)
        offset += len(piece)
    if offset != source.size:
        return f"it has {offset} bytes instead of {source.size}"
    if digest.hexdigest() != source.checksum:
        return f"its SHA-256 is {digest.hexdigest()} instead of {source.checksum}"
    return None


def _encode(manifest: _Manifest) -> bytes:
    fields = {
        "format": FORMAT_VERSION,
        "index": manifest.boundary.index,
        "term": manifest.boundary.term,
        "configuration": encode_configuration(manifest.boundary.configuration).decode(),
        "size": manifest.size,
        "sha256": manifest.checksum,
    }
    return json.dumps({**fields, "checksum": _checksum(fields)}, indent=1).encode() + b"\n"


def _decode(content: bytes) -> _Manifest:
    try:
        fields = json.loads(content)
        checksum = fields.pop("checksum")
        if checksum != _checksum(fields):
            raise _Damaged("the checksum of its manifest is wrong")
        if fields["format"] > FORMAT_VERSION:
            raise StorageVersion(
                "read a snapshot", f"it is of format {fields['format']}; this version reads {FORMAT_VERSION}", "start a newer version"
            )
        boundary = Boundary(fields["index"], fields["term"], decode_configuration(fields["configuration"].encode()))
        return _Manifest(boundary, fields["size"], fields["sha256"])
    except (ValueError, KeyError, TypeError, AttributeError, MalformedMessage) as error:
        raise _Damaged(f"its manifest makes no sense: {error!r}") from error


def _checksum(fields: dict[str, object]) -> int:
    return crc32(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode())
