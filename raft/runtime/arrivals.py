"""Snapshots that arrive: one is installed at a time.

A store keeps the newest snapshot only. So while one has arrived and is not yet installed (or found to be of no use), no other may become
visible: the installation would find the wrong one. Its sender is refused and tries again.

The node learns of a snapshot just after it became visible. Should it not (the connection broke in between), the snapshot counts as forgotten
after :data:`FORGOTTEN_SECONDS`: else no other could ever come.
"""

import time
from collections.abc import Callable
from threading import Lock

from raft.core.messages import InstallSnapshot
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
        self._arrived: float | None = None
        self._installing = False

    def begin(self, message: InstallSnapshot) -> SnapshotSink:
        """Where the bytes of a snapshot go."""
        return _Sink(self, self._store.create(message.boundary))

    def hold(self) -> None:
        """What has arrived is to be installed, however long that takes."""
        with self._lock:
            self._installing = True

    def settle(self) -> None:
        """What has arrived is installed, or of no use: the next may come."""
        with self._lock:
            self._arrived, self._installing = None, False

    def accept(self, sink: SnapshotSink, checksum: str | None) -> None:
        """Make a snapshot visible.

        :raises StorageFailed: while another one is being installed; nothing is kept then.
        """
        with self._lock:
            fresh = self._arrived is not None and self._clock() - self._arrived < FORGOTTEN_SECONDS
            if self._installing or fresh:
                sink.abort()
                raise StorageFailed("receiving a snapshot", "another one is being installed", "the sender tries again")
            sink.commit(checksum)
            self._arrived = self._clock()


class _Sink(SnapshotSink):
    """Passes everything on, and asks before it commits."""

    def __init__(self, arrivals: Arrivals, sink: SnapshotSink) -> None:
        self._arrivals = arrivals
        self._sink = sink

    @property
    def size(self) -> int:
        """See the port."""
        return self._sink.size

    def write(self, piece: bytes) -> None:
        """See the port."""
        self._sink.write(piece)

    def commit(self, checksum: str | None = None) -> None:
        """See the port."""
        self._arrivals.accept(self._sink, checksum)

    def abort(self) -> None:
        """See the port."""
        self._sink.abort()
