"""Snapshots that arrive: one is installed at a time.

A store keeps the newest snapshot only. So while one has arrived and is not yet installed (or found to be of no use), no other may become
visible: the installation would find the wrong one. Its sender is refused and tries again.

The node learns of a snapshot just after it became visible, and claims it. Should it not (the connection broke in between), the snapshot counts
as forgotten after :data:`FORGOTTEN_SECONDS`: else no other could ever come. A node that learns of one later still may claim it only while it
is the newest: what is claimed stays until it is settled.
"""

import time
from collections.abc import Callable
from threading import Lock

from raft.core.messages import InstallSnapshot
from raft.core.model import Boundary
from raft.errors import StorageFailed
from raft.ports.storage import SnapshotSink, SnapshotStore

FORGOTTEN_SECONDS = 1.0


class Arrivals:
    """Gives out sinks for arriving snapshots. ``commit`` of a sink may be called in any thread.

    :param clock: monotonic seconds.
    """

    def __init__(self, store: SnapshotStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._lock = Lock()
        self._arrived: Boundary | None = None
        self._arrived_at = 0.0
        self._newest = _newest(store)
        self._busy = False  # claimed, or just becoming visible

    def begin(self, message: InstallSnapshot) -> SnapshotSink:
        """Where the bytes of a snapshot go."""
        return _Sink(self, self._store.create(message.boundary), message.boundary)

    def claim(self, boundary: Boundary) -> bool:
        """The node has learned of a snapshot. What it has claimed stays the newest until :meth:`settle`, however long that takes.

        :returns: False when another has taken its place, or it was settled before: it can't be installed any more.
        """
        with self._lock:
            if self._arrived != boundary:
                return False
            self._busy = True
            return True

    def settle(self) -> None:
        """What was claimed is installed, or of no use: the next may come."""
        with self._lock:
            self._arrived, self._busy = None, False

    def accept(self, sink: SnapshotSink, boundary: Boundary, checksum: str | None) -> None:
        """Make a snapshot visible.

        :raises StorageFailed: while another one is being installed, or when a newer one is here; nothing is kept then.
        """
        with self._lock:
            fresh = self._arrived is not None and self._clock() - self._arrived_at < FORGOTTEN_SECONDS
            if self._busy or fresh or boundary.index < self._newest:
                sink.abort()
                cause = "another one is being installed" if self._busy or fresh else f"one at index {self._newest} is here already"
                raise StorageFailed("receiving a snapshot", cause, "the sender tries again")
            self._arrived, self._busy = None, True
        try:
            sink.commit(checksum)  # not under the lock: the loop must not wait for this sync
        except BaseException:
            self.settle()
            raise
        with self._lock:
            self._arrived, self._arrived_at, self._newest, self._busy = boundary, self._clock(), boundary.index, False


def _newest(store: SnapshotStore) -> int:
    """The index of what an earlier process was sent, installed or not: an older one would not be kept."""
    source = store.latest()
    if source is None:
        return 0
    source.close()
    return source.boundary.index


class _Sink(SnapshotSink):
    """Passes everything on, and asks before it commits."""

    def __init__(self, arrivals: Arrivals, sink: SnapshotSink, boundary: Boundary) -> None:
        self._arrivals = arrivals
        self._sink = sink
        self._boundary = boundary

    @property
    def size(self) -> int:
        """See the port."""
        return self._sink.size

    def write(self, piece: bytes) -> None:
        """See the port."""
        self._sink.write(piece)

    def commit(self, checksum: str | None = None) -> None:
        """See the port."""
        self._arrivals.accept(self._sink, self._boundary, checksum)

    def abort(self) -> None:
        """See the port."""
        self._sink.abort()
