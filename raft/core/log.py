"""The log as the core sees it: everything since the last compaction, in memory.

Layout::

    boundary | … applied … committed … durable … last
             ^ first = boundary.index + 1

Invariants, with the numbers that :mod:`raft.core.invariants` uses:

1. Entries follow the boundary without a gap; terms never decrease.
2. ``boundary.index <= applied <= applying <= min(commit, durable)``; while a snapshot is being installed ``applied`` still lies before the boundary.
3. ``durable <= handed <= last`` and ``commit <= last``.
4. Nothing at or below ``commit`` is ever removed but by compaction, which stays at or below ``applied``.

The log is never read from disk while the node runs; the driver writes to disk what :meth:`RaftLog.take_unwritten` hands out.
"""

from collections import deque

from raft.core.model import ENTRY_OVERHEAD_BYTES, Boundary, Entry, weight_of
from raft.errors import InvariantViolation


class RaftLog:
    """See the module's text.

    :param boundary: where the log begins.
    :param entries: what was found on disk after it; durable by that.
    :param commit: the persisted commit index; trimmed to what is known here.
    :param applied: what the state machine holds.
    """

    def __init__(self, boundary: Boundary, entries: tuple[Entry, ...], commit: int, applied: int) -> None:
        self.boundary = boundary
        self._entries = list(entries)
        self.bytes = weight_of(entries)
        self.durable = self.handed = self.last_index
        if applied > self.last_index:
            raise InvariantViolation(f"the state machine has applied index {applied}, the log ends at {self.last_index}")
        if applied < boundary.index:
            raise InvariantViolation(f"the state machine has applied index {applied}, the log begins after {boundary.index}")
        self.applied = self.applying = applied
        self.commit = max(min(commit, self.last_index), applied)
        self._writes: deque[tuple[int, int]] = deque()  # (number of the Ready, last index it makes durable)

    @property
    def first_index(self) -> int:
        """Index of the first entry held; one past the last when there is none."""
        return self.boundary.index + 1

    @property
    def last_index(self) -> int:
        """Index of the last entry, or of the boundary."""
        return self.boundary.index + len(self._entries)

    @property
    def last_term(self) -> int:
        """Term of the last entry, or of the boundary."""
        return self._entries[-1].term if self._entries else self.boundary.term

    def term_at(self, index: int) -> int | None:
        """The term of an entry; None when it is compacted away or beyond the end. Index 0 has term 0."""
        if index == self.boundary.index:
            return self.boundary.term
        position = index - self.boundary.index - 1
        if 0 <= position < len(self._entries):
            return self._entries[position].term
        return None

    def matches(self, index: int, term: int) -> bool:
        """Whether the entry at ``index`` is the one of ``term``."""
        return self.term_at(index) == term

    def is_up_to_date(self, index: int, term: int) -> bool:
        """Whether a log that ends so is at least as up-to-date as this one (paper, section 5.4.1)."""
        return (term, index) >= (self.last_term, self.last_index)

    def entries_from(self, index: int, bytes_max: int, last: int | None = None) -> tuple[Entry, ...]:
        """Entries from ``index`` on, up to ``last``, as many as fit; the first always fits."""
        begin = index - self.boundary.index - 1
        end = len(self._entries) if last is None else last - self.boundary.index
        if begin < 0 or begin >= end:
            return ()
        total, position = 0, begin
        while position < end:
            total += len(self._entries[position].data) + ENTRY_OVERHEAD_BYTES
            if total > bytes_max and position > begin:
                break
            position += 1
        return tuple(self._entries[begin:position])

    def append(self, entries: tuple[Entry, ...]) -> None:
        """Add entries at the end."""
        if entries and entries[0].index != self.last_index + 1:
            raise InvariantViolation(f"appending index {entries[0].index} to a log that ends at {self.last_index}")
        self._entries.extend(entries)
        self.bytes += weight_of(entries)

    def merge(self, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
        """Take a leader's entries, whose predecessor matches: remove from the first conflict on, add what is missing (paper, figure 2).

        :returns: what was added; it replaced whatever the log held from there on.
        :raises InvariantViolation: when the conflict is at or below the commit index.
        """
        for position, entry in enumerate(entries):
            if entry.index <= self.boundary.index or self.matches(entry.index, entry.term):
                continue
            if entry.index <= self.commit:
                raise InvariantViolation(f"entry {entry.index} of term {entry.term} conflicts with a committed one (commit {self.commit})")
            if entry.index <= self.last_index:
                self._truncate(entry.index)
            self.append(entries[position:])
            return entries[position:]
        return ()

    def tail_begin(self, entries_max: int, bytes_max: int) -> int:
        """The index of the first of the last entries that stay within both limits; one past the last when there are none."""
        total, index = 0, self.last_index
        while index > max(self.boundary.index, self.last_index - entries_max):
            total += len(self._entries[index - self.boundary.index - 1].data) + ENTRY_OVERHEAD_BYTES
            if total > bytes_max:
                break
            index -= 1
        return index + 1

    def conflict_hint(self, index: int, term: int) -> tuple[int, int]:
        """The largest index up to ``index`` whose term is at most ``term``, and its term: where two logs may still agree."""
        index = min(index, self.last_index)
        while index > self.boundary.index:
            found = self._entries[index - self.boundary.index - 1].term
            if found <= term:
                return index, found
            index -= 1
        return self.boundary.index, self.boundary.term

    def commit_to(self, index: int) -> bool:
        """Raise the commit index; never lowers it.

        :returns: whether it moved.
        """
        if index > self.last_index:
            raise InvariantViolation(f"commit {index} beyond the last index {self.last_index}")
        if index <= self.commit:
            return False
        self.commit = index
        return True

    @property
    def has_work(self) -> bool:
        """Whether there is anything to write or to apply."""
        return self.handed != self.last_index or self.applying < min(self.commit, self.durable)

    def take_unwritten(self, number: int) -> tuple[Entry, ...]:
        """Entries that are not yet on their way to the disk, as the work of Ready ``number``."""
        if self.handed == self.last_index:
            return ()
        entries = tuple(self._entries[self.handed - self.boundary.index :])
        self.handed = self.last_index
        self._writes.append((number, self.handed))
        return entries

    def written(self, number: int) -> None:
        """All work handed out up to Ready ``number`` is durable.

        What was replaced meanwhile is not credited: :meth:`_truncate` lowered the claim of the write in question.
        """
        while self._writes and self._writes[0][0] <= number:
            self.durable = max(self.durable, self._writes.popleft()[1])

    def take_committed(self, bytes_max: int) -> tuple[Entry, ...]:
        """Entries to apply next: committed and durable here."""
        last = min(self.commit, self.durable)
        if self.applying >= last:
            return ()
        entries = self.entries_from(self.applying + 1, bytes_max, last)
        self.applying = entries[-1].index
        return entries

    def applied_to(self, index: int) -> None:
        """The state machine holds everything up to ``index``."""
        if not self.applied <= index <= self.applying:
            raise InvariantViolation(f"applied {index} reported; {self.applied} to {self.applying} was under way")
        self.applied = index

    def compact(self, boundary: Boundary) -> None:
        """Forget entries up to ``boundary.index``."""
        if not self.boundary.index <= boundary.index <= self.applied:
            raise InvariantViolation(f"compaction to {boundary.index}; the log begins after {self.boundary.index} and {self.applied} is applied")
        dropped = self._entries[: boundary.index - self.boundary.index]
        del self._entries[: len(dropped)]
        self.bytes -= weight_of(dropped)
        self.boundary = boundary

    def reset(self, boundary: Boundary) -> None:
        """Replace everything by a snapshot. Until the driver has installed it, the core hands out nothing that builds on it."""
        self._entries.clear()
        self._writes.clear()
        self.bytes = 0
        self.boundary = boundary
        self.commit = self.handed = boundary.index
        self.durable = self.applying = boundary.index

    def installed(self) -> None:
        """The state machine has become what the boundary stands for. Until then it may still report what it had been given before."""
        self.applied = self.boundary.index

    def _truncate(self, index: int) -> None:
        """Remove entries from ``index`` on. Writes under way can then make durable only what lies before."""
        position = index - self.boundary.index - 1
        self.bytes -= weight_of(self._entries[position:])
        del self._entries[position:]
        self.handed = min(self.handed, index - 1)
        self.durable = min(self.durable, index - 1)
        self._writes = deque((number, min(last, index - 1)) for number, last in self._writes)
