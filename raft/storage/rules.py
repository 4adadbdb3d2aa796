"""What a caller may ask of a log store: the same rules for every adapter, checked before anything is changed.

A broken one is a bug of the caller, and writing it down would leave a log that can't be read again; hence
:class:`~raft.errors.InvariantViolation`.
"""

from collections.abc import Sequence

from raft.core.model import Boundary, Entry
from raft.errors import InvariantViolation


def check_entries(entries: Sequence[Entry], boundary_index: int, last_index: int) -> None:
    """Whether the entries may be written: contiguous, after the boundary, without a gap behind the last.

    :raises InvariantViolation: naming the index.
    """
    if not entries:
        return
    first = entries[0].index
    if not boundary_index < first <= last_index + 1:
        raise InvariantViolation(f"entries from index {first} can't be written to a log that holds {boundary_index + 1} to {last_index}")
    for expected, entry in enumerate(entries, first):
        if entry.index != expected:
            raise InvariantViolation(f"entry {entry.index} in a batch where {expected} was due")


def check_compaction(boundary: Boundary, last_index: int, term: int) -> None:
    """Whether the log may be cut there.

    :param last_index: index of the last entry.
    :param term: what the log holds as the term of the entry at the boundary; not looked at beyond ``last_index``.
    :raises InvariantViolation: when the log does not hold that entry.
    """
    if boundary.index > last_index:
        raise InvariantViolation(f"a log that ends at {last_index} can't be compacted up to {boundary.index}")
    if boundary.term != term:
        raise InvariantViolation(f"compaction up to {boundary.index} of term {boundary.term}, but that entry is of term {term}")
