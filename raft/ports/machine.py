"""The state machine's port. It imports nothing of the core: a machine knows indexes and bytes."""

from collections.abc import Callable, Sequence
from typing import Protocol


class Capture(Protocol):
    """A consistent picture of the state at one index, taken quickly and written slowly.

    ``write`` may run in another thread while entries are applied; ``close`` is always called, at the end, once.
    """

    @property
    def index(self) -> int:
        """The index of the last entry whose effects the picture holds."""
        ...

    @property
    def term(self) -> int:
        """The term of that entry."""
        ...

    def write(self, sink: Callable[[bytes], object]) -> None:
        """Hand the whole picture to ``sink``, piece by piece, in order."""
        ...

    def close(self) -> None:
        """Release what the picture holds."""
        ...


class StateMachine(Protocol):
    """What the replicated log drives.

    Calls never overlap, with two exceptions that may run beside ``apply``, in another thread: ``checkpoint``, and ``Capture.write`` of an
    earlier capture. They come from one thread at a time, though not always from the same one. ``apply`` must be deterministic: the
    result and the new state depend on the old state, the indexes and the bytes alone (no clock, no randomness, no environment).
    """

    def applied(self) -> tuple[int, int]:
        """Index and term of the last entry whose effects the machine holds; (0, 0) for a fresh one. Asked once, at start."""
        ...

    def apply(self, entries: Sequence[tuple[int, int, bytes | None]], *, awaited: bool = True) -> Sequence[bytes]:
        """Apply committed entries in order.

        :param entries: (index, term, data); ``data`` is None for entries that are Raft's own (no-op, configuration): the machine takes note of
            the index and does nothing else. Indexes are contiguous with each other and with what was applied before.
        :param awaited: whether anybody waits for the results. If not, as at most followers, an empty sequence will do.
        :returns: one result an entry (anything for Raft's own).

        Effects and applied index move together: after a crash the machine holds both or neither. They need not be durable when
        the call returns; see :meth:`checkpoint`. An exception stops the node: an entry is never skipped.
        """
        ...

    def checkpoint_due(self) -> bool:
        """Whether :meth:`checkpoint` should come soon, however few entries there were. Asked on the loop, after each batch that was applied."""
        ...

    def checkpoint(self) -> int:
        """Make applied effects durable without the help of the log.

        :returns: the index up to which effects now survive a power loss, read *before* the work began. 0 when the machine keeps nothing
            of its own; the library then keeps snapshots for it.
        """
        ...

    def capture(self) -> Capture:
        """A consistent picture of the present state; cheap."""
        ...

    def restore(self, index: int, term: int, read: Callable[[int], bytes]) -> None:
        """Replace the whole state, atomically, by a picture that some node's :class:`Capture` wrote.

        :param index: index of the last entry that the picture holds.
        :param term: its term.
        :param read: gives at most that many of the next bytes; empty at the end.

        A crash leaves the old state or the new one. When the call returns the new one is durable.
        """
        ...
