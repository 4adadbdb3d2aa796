"""The state machine of the simulation: a digest of everything that was ever applied, in order."""

from typing import NamedTuple
from zlib import crc32

from raft.core.model import Entry, EntryKind


class State(NamedTuple):
    """A whole state: it is a function of the log up to ``applied``, and two different logs have different digests."""

    applied: int
    digest: int

    def after(self, entry: Entry) -> "State":
        """The state once ``entry`` has been applied."""
        return State(entry.index, crc32(entry.data, (self.digest * 31 + entry.term) & 0xFFFFFFFF))


class Machine:
    """A machine that survives a power loss only as far as its last checkpoint; the log brings back the rest.

    :param state: what it found on its disk.
    """

    def __init__(self, state: State) -> None:
        self.state = state
        self.unsynced: list[State] = [state]
        """The states since the last checkpoint, which is the first of them: a crash falls back to any."""

    def apply(self, entry: Entry) -> bytes:
        """Apply one entry. The answer to a command is its index."""
        self.state = self.state.after(entry)
        self.unsynced.append(self.state)
        return b"%d" % entry.index if entry.kind is EntryKind.COMMAND else b""

    def checkpoint(self) -> State:
        """Make the present state survive."""
        self.unsynced = [self.state]
        return self.state

    def restore(self, state: State) -> None:
        """Take over a snapshot; durable already."""
        self.state = state
        self.unsynced = [state]
