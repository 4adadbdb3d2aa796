"""The state machine with ears: what each batch changed is laid aside for the loop, in order. It also stops for a moment at the entries of a check."""

from collections import deque
from collections.abc import Callable, Sequence

from raft.ports.machine import Capture, StateMachine
from service.agent.digests import Digests
from service.domain.commands import STAMP_BYTES, is_check
from service.store.changes import Changes
from service.store.machine import KvMachine


class ObservedMachine(StateMachine):
    """Passes every call on to the machine of the store.

    :ivar changes: filled by the thread that applies and emptied by the loop.
    :ivar digests: of the state at each check in the log.
    :ivar listeners: told each batch's changes by the thread that applies, with the stamp of its last command (0 when it has none).
    """

    def __init__(self, machine: KvMachine) -> None:
        self.store = machine
        self.changes: deque[Changes] = deque()
        self.digests = Digests()
        self.listeners: list[Callable[[Changes, int], None]] = []

    def applied(self) -> tuple[int, int]:
        """See the port."""
        return self.store.applied()

    def apply(self, entries: Sequence[tuple[int, int, bytes | None]]) -> Sequence[bytes]:
        """See the port."""
        results: list[bytes] = []
        begin = 0
        for position, (index, _, data) in enumerate(entries):
            if data is not None and is_check(data):
                # Nothing behind a check may be in the state while it is held.
                self.digests.expect(index)
                results += self._apply(entries[begin : position + 1])
                self.digests.begin(index, self.store.hold)
                begin = position + 1
        if begin < len(entries):
            results += self._apply(entries[begin:])
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

    def _apply(self, entries: Sequence[tuple[int, int, bytes | None]]) -> Sequence[bytes]:
        results = self.store.apply(entries)
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
