"""The state machine with ears: what each batch changed is laid aside for the loop, in order."""

from collections import deque
from collections.abc import Callable, Sequence

from raft.ports.machine import Capture, StateMachine
from service.domain.commands import STAMP_BYTES
from service.store.changes import Changes
from service.store.machine import KvMachine


class ObservedMachine(StateMachine):
    """Passes every call on to the machine of the store.

    :ivar changes: filled by the thread that applies and emptied by the loop.
    :ivar listeners: told each batch's changes by the thread that applies, with the stamp of its last command (0 when it has none).
    """

    def __init__(self, machine: KvMachine) -> None:
        self.store = machine
        self.changes: deque[Changes] = deque()
        self.listeners: list[Callable[[Changes, int], None]] = []

    def applied(self) -> tuple[int, int]:
        """See the port."""
        return self.store.applied()

    def apply(self, entries: Sequence[tuple[int, int, bytes | None]]) -> Sequence[bytes]:
        """See the port."""
        results = self.store.apply(entries)
        self._tell(entries)
        return results

    def checkpoint(self) -> int:
        """See the port."""
        return self.store.checkpoint()

    def capture(self) -> Capture:
        """See the port."""
        return self.store.capture()

    def restore(self, index: int, term: int, read: Callable[[int], bytes]) -> None:
        """See the port."""
        self.store.restore(index, term, read)
        self._tell([])

    def _tell(self, entries: Sequence[tuple[int, int, bytes | None]]) -> None:
        changes = self.store.take_changes()
        self.changes.append(changes)
        if self.listeners:
            last = next((data for _, _, data in reversed(entries) if data is not None), b"")
            stamp_ms = int.from_bytes(last[:STAMP_BYTES], "big")
            for listener in self.listeners:
                listener(changes, stamp_ms)
