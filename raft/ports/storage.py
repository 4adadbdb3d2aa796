"""The ports to the disk: log, stable state, snapshots."""

from typing import NamedTuple, Protocol

from raft.core.model import Boundary, Entry, HardState


class WriteBatch(NamedTuple):
    """What one step of the disk makes durable, all or nothing.

    :param hard_state: the new one, or None when unchanged.
    :param entries: contiguous; everything in the log from ``entries[0].index`` on is replaced by them.
    """

    hard_state: HardState | None = None
    entries: tuple[Entry, ...] = ()


class LoadedLog(NamedTuple):
    """The log as found at start: ``entries`` follow ``boundary`` without a gap."""

    boundary: Boundary
    entries: tuple[Entry, ...]


class LogStore(Protocol):
    """The durable log. One thread at a time; when a call returns, its effect survives a power loss.

    Every method raises :class:`raft.errors.StorageFailed` when the disk fails; the store is then unusable: a failed sync is never retried.
    """

    def load(self) -> LoadedLog:
        """Read and verify everything.

        :raises StorageCorrupt: when a checksum fails or an entry is missing.
        """
        ...

    def write(self, batch: WriteBatch) -> None:
        """Make the batch durable in one transaction. Hard state travels with the entries because they must not part (paper, figure 2)."""
        ...

    def compact(self, boundary: Boundary) -> None:
        """Forget the entries up to and including ``boundary.index``; the later ones stay."""
        ...

    def reset(self, boundary: Boundary, hard_state: HardState) -> None:
        """Replace the whole log by ``boundary``: a snapshot that does not match the log was installed. One transaction."""
        ...

    def close(self) -> None:
        """Release the files. Idempotent."""
        ...


class StableStore(Protocol):
    """Small facts about the node itself. Same rules as :class:`LogStore`; one class may be both, so that both share a transaction."""

    def hard_state(self) -> HardState:
        """The last written one, verified; ``HardState()`` for a fresh store."""
        ...

    def get(self, name: str) -> bytes | None:
        """A named record (identity, cluster), verified; None when absent."""
        ...

    def put(self, name: str, value: bytes) -> None:
        """Write a named record durably."""
        ...


class SnapshotSource(Protocol):
    """A stored snapshot, open for reading."""

    @property
    def boundary(self) -> Boundary:
        """Which state it holds."""
        ...

    @property
    def size(self) -> int:
        """Its length in bytes."""
        ...

    @property
    def checksum(self) -> str:
        """SHA-256 of its bytes, in hexadecimal."""
        ...

    def read_at(self, offset: int, length: int) -> bytes:
        """At most ``length`` bytes from ``offset``; empty at the end."""
        ...

    def close(self) -> None:
        """Release the file. Idempotent."""
        ...


class SnapshotSink(Protocol):
    """A snapshot that is being written. Until ``commit`` returns it does not exist."""

    @property
    def size(self) -> int:
        """Bytes written so far."""
        ...

    def write(self, piece: bytes) -> None:
        """Append a piece."""
        ...

    def commit(self, checksum: str | None = None) -> None:
        """Make it durable and visible at once.

        :param checksum: when given, the SHA-256 it must have.
        :raises StorageCorrupt: when it has another; nothing is kept then.
        """
        ...

    def abort(self) -> None:
        """Throw it away. Idempotent; without effect after ``commit``."""
        ...


class SnapshotStore(Protocol):
    """Whole states, each under its boundary. Any thread; a store keeps the newest and removes older ones when a newer is committed."""

    def create(self, boundary: Boundary) -> SnapshotSink:
        """Begin to write one."""
        ...

    def latest(self) -> SnapshotSource | None:
        """Open the newest valid one; damaged ones are passed over. The caller closes it."""
        ...
