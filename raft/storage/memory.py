"""The storage ports in memory: for the simulator, for tests, and for state that need not survive the process.

A write is one assignment: it has happened or it has not. A simulated power loss is thus the loss of the batches that were not
yet handed to :meth:`MemoryLog.write`; the object itself plays the disk and outlives the node that used it.
"""

from hashlib import sha256
from threading import Lock

from raft.core.model import Boundary, Entry, HardState
from raft.errors import StorageCorrupt, StorageFailed
from raft.ports.storage import LoadedLog, WriteBatch
from raft.storage.rules import check_compaction, check_entries


class MemoryLog:
    """A LogStore and StableStore in memory. Deterministic; entries are shared, never copied.

    :meth:`close` forgets nothing: a node that starts again is given the same object.
    """

    def __init__(self) -> None:
        self._boundary = Boundary()
        self._entries: list[Entry] = []
        self._hard_state = HardState()
        self._records: dict[str, bytes] = {}

    def load(self) -> LoadedLog:
        """See :meth:`raft.ports.LogStore.load`."""
        return LoadedLog(self._boundary, tuple(self._entries))

    def write(self, batch: WriteBatch) -> None:
        """See :meth:`raft.ports.LogStore.write`.

        :raises InvariantViolation: when the entries do not fit the log; nothing is changed then.
        """
        check_entries(batch.entries, self._boundary.index, self._last_index)
        if batch.entries:
            self._entries[batch.entries[0].index - self._boundary.index - 1 :] = batch.entries
        if batch.hard_state is not None:
            self._hard_state = batch.hard_state

    def compact(self, boundary: Boundary) -> None:
        """See :meth:`raft.ports.LogStore.compact`.

        :raises InvariantViolation: when the log does not hold the entry at the boundary.
        """
        count = boundary.index - self._boundary.index
        if count <= 0:
            return
        check_compaction(boundary, self._last_index, self._entries[count - 1].term if count <= len(self._entries) else 0)
        del self._entries[:count]
        self._boundary = boundary

    def reset(self, boundary: Boundary, hard_state: HardState) -> None:
        """See :meth:`raft.ports.LogStore.reset`."""
        self._boundary, self._entries, self._hard_state = boundary, [], hard_state

    def hard_state(self) -> HardState:
        """See :meth:`raft.ports.StableStore.hard_state`."""
        return self._hard_state

    def get(self, name: str) -> bytes | None:
        """See :meth:`raft.ports.StableStore.get`."""
        return self._records.get(name)

    def put(self, name: str, value: bytes) -> None:
        """See :meth:`raft.ports.StableStore.put`."""
        self._records[name] = value

    def close(self) -> None:
        """See :meth:`raft.ports.LogStore.close`."""

    @property
    def _last_index(self) -> int:
        return self._boundary.index + len(self._entries)


class MemorySnapshotSource:
    """A snapshot in memory, open for reading."""

    def __init__(self, boundary: Boundary, content: bytes) -> None:
        self._boundary = boundary
        self._content = content
        self._checksum = sha256(content).hexdigest()

    @property
    def boundary(self) -> Boundary:
        """See :class:`raft.ports.SnapshotSource`."""
        return self._boundary

    @property
    def size(self) -> int:
        """See :class:`raft.ports.SnapshotSource`."""
        return len(self._content)

    @property
    def checksum(self) -> str:
        """See :class:`raft.ports.SnapshotSource`."""
        return self._checksum

    def read_at(self, offset: int, length: int) -> bytes:
        """See :class:`raft.ports.SnapshotSource`."""
        return self._content[offset : offset + length]

    def close(self) -> None:
        """See :class:`raft.ports.SnapshotSource`."""


class MemorySnapshotSink:
    """A snapshot that is being written to memory."""

    def __init__(self, store: "MemorySnapshots", boundary: Boundary) -> None:
        self._store = store
        self._boundary = boundary
        self._pieces: list[bytes] = []
        self._size = 0
        self._open = True

    @property
    def size(self) -> int:
        """See :class:`raft.ports.SnapshotSink`."""
        return self._size

    def write(self, piece: bytes) -> None:
        """See :class:`raft.ports.SnapshotSink`."""
        self._require_open("write a snapshot")
        self._pieces.append(bytes(piece))
        self._size += len(piece)

    def commit(self, checksum: str | None = None) -> None:
        """See :class:`raft.ports.SnapshotSink`."""
        self._require_open("commit a snapshot")
        self._open = False
        source = MemorySnapshotSource(self._boundary, b"".join(self._pieces))
        if checksum is not None and checksum != source.checksum:
            raise StorageCorrupt(f"commit the snapshot of index {self._boundary.index}", f"its SHA-256 is {source.checksum}, due was {checksum}")
        self._store.accept(source)

    def abort(self) -> None:
        """See :class:`raft.ports.SnapshotSink`."""
        self._open = False
        self._pieces.clear()

    def _require_open(self, operation: str) -> None:
        if not self._open:
            raise StorageFailed(operation, "it has been committed or aborted")


class MemorySnapshots:
    """A SnapshotStore in memory."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._newest: MemorySnapshotSource | None = None

    def create(self, boundary: Boundary) -> MemorySnapshotSink:
        """See :class:`raft.ports.SnapshotStore`."""
        return MemorySnapshotSink(self, boundary)

    def latest(self) -> MemorySnapshotSource | None:
        """See :class:`raft.ports.SnapshotStore`."""
        return self._newest

    def accept(self, source: MemorySnapshotSource) -> None:
        """Take a finished snapshot, unless a newer one is here already. For the sink only."""
        with self._lock:
            if self._newest is None or _age(source.boundary) >= _age(self._newest.boundary):
                self._newest = source


def _age(boundary: Boundary) -> tuple[int, int]:
    return boundary.index, boundary.term
