"""A disk that forgets what was not synced.

Writes are transactions in a queue. A sync takes virtual time and makes the transactions durable that had been queued when it began (group
commit). A crash loses the others; of those whose sync was under way a prefix may have reached the disk, although nobody was told.
"""

from collections import deque
from collections.abc import Callable

from raft.core.model import Boundary, Entry, HardState
from raft.core.ready import Ready
from raft.testing.machine import State


class Disk:
    """What one node has on disk, and what it has asked to be written.

    :param boundary: what precedes the log of a fresh node.
    :param sync_ms: draws how long a sync takes, which may hold the installation of a snapshot.
    :param after: schedules a call; it must not come any more once the node has crashed.
    :param persisted: told of each group that became durable, in order.
    """

    def __init__(
        self,
        boundary: Boundary,
        *,
        sync_ms: Callable[[bool], int],
        after: Callable[..., None],
        persisted: Callable[[list[tuple[Ready, State | None]]], None],
    ) -> None:
        self.boundary = boundary
        self.entries: list[Entry] = []
        self.hard_state = HardState()
        self.state = State(boundary.index, 0)
        """The state that survives a power loss; never behind ``boundary``."""
        self.lies = False
        """A disk that says "synced" and is not: for checking the checkers."""
        self._sync_ms = sync_ms
        self._after = after
        self._persisted = persisted
        self._queue: deque[tuple[Ready, State | None]] = deque()
        self._syncing = 0

    @property
    def last_index(self) -> int:
        """Index of the last durable entry."""
        return self.boundary.index + len(self.entries)

    def term_at(self, index: int) -> int | None:
        """Term of a durable entry; None for one that is not here, or is no longer."""
        offset = index - self.boundary.index
        if offset <= 0:
            return self.boundary.term if offset == 0 else None
        return self.entries[offset - 1].term if offset <= len(self.entries) else None

    def holds(self, index: int, term: int) -> bool:
        """Whether the entry, which is known to be committed, is durable here: in the log or in the state."""
        return index < self.boundary.index or self.term_at(index) == term

    @property
    def idle(self) -> bool:
        """Whether everything written is durable."""
        return not self._queue

    def submit(self, ready: Ready, state: State | None) -> None:
        """Queue a transaction. ``state`` belongs to ``ready.snapshot``."""
        self._queue.append((ready, state))
        if not self._syncing:
            self._begin()

    def compact(self, boundary: Boundary) -> None:
        """Forget the entries up to ``boundary.index``; durable at once."""
        del self.entries[: boundary.index - self.boundary.index]
        self.boundary = boundary

    def crash(self, survive: Callable[[int], int]) -> tuple[int, bool]:
        """Lose what is not durable.

        :param survive: draws, from the number of transactions being synced, how many of them reached the disk.
        :returns: how many transactions were lost, and whether the installation of a snapshot was among them.
        """
        kept = survive(self._syncing)
        for _ in range(kept):
            self._write(*self._queue.popleft())
        lost = len(self._queue)
        installing = any(ready.snapshot is not None for ready, _ in self._queue)
        self._queue.clear()
        self._syncing = 0
        return lost, installing

    def _begin(self) -> None:
        self._syncing = len(self._queue)
        if self._syncing:
            writes = any(ready.must_persist for ready, _ in self._queue)
            installs = any(ready.snapshot is not None for ready, _ in self._queue)
            self._after(self._sync_ms(installs) if writes else 0, self._end)

    def _end(self) -> None:
        group = [self._queue.popleft() for _ in range(self._syncing)]
        if not self.lies:
            for ready, state in group:
                self._write(ready, state)
        self._syncing = 0
        self._begin()
        self._persisted(group)

    def _write(self, ready: Ready, state: State | None) -> None:
        if ready.snapshot is not None and state is not None:
            self.boundary, self.entries, self.state = ready.snapshot, [], state
        if ready.hard_state is not None:
            self.hard_state = ready.hard_state
        if ready.entries:
            del self.entries[ready.entries[0].index - self.boundary.index - 1 :]
            self.entries.extend(ready.entries)
