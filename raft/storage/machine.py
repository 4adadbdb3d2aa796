"""A state machine in memory: what is left to write is what a command does, and how the state becomes bytes."""

from collections.abc import Callable, Sequence

PIECE_BYTES = 64 * 1024


class MemoryMachine:
    """A :class:`~raft.ports.machine.StateMachine` for a state that fits into memory. Subclasses write :meth:`execute`, :meth:`dump` and :meth:`load`.

    Nothing of it survives the process: the library keeps snapshots of it, and feeds it the log again at the next start.
    """

    def __init__(self) -> None:
        self._position = (0, 0)

    def execute(self, command: bytes) -> bytes:
        """Carry out one command.

        :returns: the answer for whoever proposed it.

        The answer and the new state follow from the old state and the command alone: no clock, no randomness. An exception stops the node at this
        entry, and every other node too: what a caller did wrong belongs into the answer.
        """
        raise NotImplementedError

    def dump(self) -> bytes:
        """The whole state. Called between commands; it should be quick."""
        raise NotImplementedError

    def load(self, state: bytes) -> None:
        """Become what :meth:`dump` gave, here or at another node."""
        raise NotImplementedError

    def applied(self) -> tuple[int, int]:
        """See the port."""
        return self._position

    def apply(self, entries: Sequence[tuple[int, int, bytes | None]], *, awaited: bool = True) -> list[bytes]:  # noqa: ARG002  # results cost nothing
        """See the port."""
        results = []
        for index, term, command in entries:
            results.append(b"" if command is None else self.execute(command))
            self._position = (index, term)
        return results

    def checkpoint_due(self) -> bool:
        """See the port. Nothing is kept here."""
        return False

    def checkpoint(self) -> int:
        """See the port. Nothing is kept here."""
        return 0

    def capture(self) -> "MemoryCapture":
        """See the port."""
        return MemoryCapture(*self._position, self.dump())

    def restore(self, index: int, term: int, read: Callable[[int], bytes]) -> None:
        """See the port."""
        pieces = []
        while piece := read(PIECE_BYTES):
            pieces.append(piece)
        self.load(b"".join(pieces))
        self._position = (index, term)


class MemoryCapture:
    """The bytes of a state at one index."""

    def __init__(self, index: int, term: int, state: bytes) -> None:
        self.index = index
        self.term = term
        self._state = state

    def write(self, sink: Callable[[bytes], object]) -> None:
        """See the port."""
        for begin in range(0, len(self._state), PIECE_BYTES):
            sink(self._state[begin : begin + PIECE_BYTES])

    def close(self) -> None:
        """See the port."""
