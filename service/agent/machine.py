"""The state machine with ears: what each batch changed is laid aside for the loop, in order. It also stops for a moment at the entries of a check.

What the store says of its disk becomes an error of the library here, so that a full disk and damage are told apart from everything else that a
machine may raise, which stops the node for good.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from raft.errors import StorageCorrupt, StorageFull
from raft.ports.machine import Capture, StateMachine
from raft.storage.driver_failures import DRIVER_ERRORS, from_driver
from raft.storage.failures import RESTORE_HINT
from service.agent.digests import Digests
from service.domain.commands import STAMP_BYTES, is_check
from service.errors import StateDamaged, StateUnreadable
from service.store.changes import Changes
from service.store.machine import KvMachine

_OF_THE_DISK: tuple[type[Exception], ...] = (StateUnreadable, *DRIVER_ERRORS)


class StateCorrupt(StorageCorrupt):
    """The state file holds other bytes than were written. What the log says about it is not in doubt."""


@contextmanager
def told_apart(operation: str, data_dir: Path, *, opening: bool = False, foreign: bool = False) -> Iterator[None]:
    """Give a full disk and damage of the state their names; whatever else is raised passes through.

    :param opening: whether the state is being opened; see :func:`raft.storage.driver_failures.from_driver`.
    :param foreign: whether it is another file that may be damaged: a picture that was received.
    :raises StorageFull: when there is no room.
    :raises StateCorrupt: when the state is damaged.
    """
    try:
        yield
    except _OF_THE_DISK as error:
        cause = error.__cause__ if isinstance(error, StateUnreadable) else error
        if isinstance(error, StateDamaged) and not foreign:
            raise StateCorrupt(operation, str(error), RESTORE_HINT) from error
        if not isinstance(cause, DRIVER_ERRORS):
            raise
        told = from_driver(operation, cause, data_dir / "state", opening=opening)
        if isinstance(told, StorageFull):
            raise StorageFull(operation, str(error), told.hint) from error
        if isinstance(told, StorageCorrupt) and not foreign:
            raise StateCorrupt(operation, str(error), told.hint) from error
        raise


class _WatchedCapture(Capture):
    """Passes everything on, and tells a full disk and damage apart when the picture is copied."""

    def __init__(self, capture: Capture, data_dir: Path) -> None:
        self._capture = capture
        self._data_dir = data_dir

    @property
    def index(self) -> int:
        """See the port."""
        return self._capture.index

    @property
    def term(self) -> int:
        """See the port."""
        return self._capture.term

    def write(self, sink: Callable[[bytes], object]) -> None:
        """See the port."""
        with told_apart("copy the state", self._data_dir):
            self._capture.write(sink)

    def close(self) -> None:
        """See the port."""
        self._capture.close()


class ObservedMachine(StateMachine):
    """Passes every call on to the machine of the store.

    :ivar store: where the calls go; another one takes its place when the files were opened anew.
    :ivar changes: filled by the thread that applies and emptied by the loop.
    :ivar digests: of the state at each check in the log.
    :ivar listeners: told each batch's changes by the thread that applies, with the stamp of its last command (0 when it has none).
    """

    def __init__(self, machine: KvMachine, data_dir: Path) -> None:
        self.store = machine
        self._data_dir = data_dir
        self.changes: deque[Changes] = deque()
        self.digests = Digests()
        self.listeners: list[Callable[[Changes, int], None]] = []

    def replace(self, machine: KvMachine) -> None:
        """The files were opened anew. Whoever waits for a change looks again: what had been applied last may not have been told to anybody."""
        self.store = machine
        self.changes.append(Changes(machine.applied_index, [], [], everything=True))

    def free_bytes(self) -> int:
        """What the file system of the data directory has left for this user."""
        found = os.statvfs(self._data_dir)
        return found.f_bavail * found.f_frsize

    def applied(self) -> tuple[int, int]:
        """See the port."""
        return self.store.applied()

    def apply(self, entries: Sequence[tuple[int, int, bytes | None]], *, awaited: bool = True) -> Sequence[bytes]:
        """See the port."""
        results: list[bytes] = []
        begin = 0
        for position, (index, _, data) in enumerate(entries):
            if data is not None and is_check(data):
                # Nothing behind a check may be in the state while it is held.
                self.digests.expect(index)
                results += self._apply(entries[begin : position + 1], awaited=awaited)
                self.digests.begin(index, self.store.hold)
                begin = position + 1
        if begin < len(entries):
            results += self._apply(entries[begin:], awaited=awaited)
        return results

    def checkpoint_due(self) -> bool:
        """See the port."""
        return self.store.checkpoint_due()

    def checkpoint(self) -> int:
        """See the port."""
        with told_apart("write the state to disk", self._data_dir):
            return self.store.checkpoint()

    def capture(self) -> Capture:
        """See the port."""
        with told_apart("hold the state for a snapshot", self._data_dir):
            return _WatchedCapture(self.store.capture(), self._data_dir)

    def check_some(self) -> bool:
        """See :meth:`service.store.machine.KvMachine.check_some`.

        :raises StateCorrupt: when a page is not what was written.
        """
        with told_apart("compare the state with its sums", self._data_dir):
            return self.store.check_some()

    def check_all(self) -> None:
        """See :meth:`service.store.machine.KvMachine.check_all`.

        :raises StateCorrupt: as :meth:`check_some`.
        """
        with told_apart("compare the state with its sums", self._data_dir):
            self.store.check_all()

    def restore(self, index: int, term: int, read: Callable[[int], bytes]) -> None:
        """See the port."""
        with told_apart("install a snapshot", self._data_dir, foreign=True):
            self.store.restore(index, term, read)
        self._tell([])

    def _apply(self, entries: Sequence[tuple[int, int, bytes | None]], *, awaited: bool) -> Sequence[bytes]:
        with told_apart(f"apply from index {entries[0][0]}", self._data_dir):
            results = self.store.apply(entries, awaited=awaited)
        self._tell(entries)
        return results

    def _tell(self, entries: Sequence[tuple[int, int, bytes | None]]) -> None:
        changes = self.store.take_changes()
        self.changes.append(changes)
        if self.listeners:
            last = next((data for _, _, data in reversed(entries) if data is not None), b"")
            stamp_ms = int.from_bytes(last[:STAMP_BYTES], "big")
            for listener in self.listeners:
                listener(changes, stamp_ms)
