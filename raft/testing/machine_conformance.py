"""The contract of the state machine's port as a suite of tests: whoever writes a machine subclasses it and runs pytest.

::

    class TestCounter(StateMachineContract):
        commands = (b"1", b"-20", b"300")
        def make(self) -> Counter: ...          # a fresh machine

The class imports no test framework; each test calls :meth:`StateMachineContract.make` for itself.
"""

from collections.abc import Sequence

from raft.ports.machine import StateMachine

PIECE_BYTES = 7
"""Pictures are read in pieces as small as this: a machine must not count on more."""


def picture(machine: StateMachine) -> bytes:
    """The bytes of a machine's state."""
    capture = machine.capture()
    pieces: list[bytes] = []
    try:
        capture.write(pieces.append)
    finally:
        capture.close()
    return b"".join(map(bytes, pieces))


def restore(machine: StateMachine, index: int, term: int, state: bytes) -> None:
    """Give a machine a state."""
    offset = 0

    def read(length: int) -> bytes:
        nonlocal offset
        piece = state[offset : offset + min(length, PIECE_BYTES)]
        offset += len(piece)
        return piece

    machine.restore(index, term, read)


class StateMachineContract:
    """What every StateMachine must do.

    :cvar commands: examples of every kind, at least two; the more they build on each other, the better.
    """

    commands: Sequence[bytes] = ()

    def make(self) -> StateMachine:
        """A fresh machine."""
        raise NotImplementedError

    def look(self, machine: StateMachine) -> object:
        """What to compare: the bytes of the state, unless equal states may have different ones."""
        return picture(machine)

    def test_a_fresh_machine_has_applied_nothing(self) -> None:
        """Index and term of the last entry are 0 at the beginning."""
        assert tuple(self.make().applied()) == (0, 0)

    def test_two_machines_agree(self) -> None:
        """The same entries give the same results and the same state, in one batch or one by one: nothing depends on chance or on time."""
        entries = self._entries(1)
        one, other = self.make(), self.make()
        together = list(one.apply(entries))
        singly = [result for entry in entries for result in other.apply([entry])]
        assert len(together) == len(entries)
        assert together == singly
        assert self.look(one) == self.look(other)
        assert tuple(one.applied()) == tuple(other.applied()) == (len(entries), 3)

    def test_results_that_nobody_awaits(self) -> None:
        """Whether anybody waits for the results changes nothing of the state; where somebody does, there is one an entry."""
        entries = self._entries(1)
        heard, unheard = self.make(), self.make()
        heard.apply(entries)
        assert len(unheard.apply(entries, awaited=False)) in (0, len(entries))
        assert self.look(unheard) == self.look(heard)
        assert tuple(unheard.applied()) == tuple(heard.applied())
        assert list(unheard.apply(self._entries(len(entries) + 1))) == list(heard.apply(self._entries(len(entries) + 1)))

    def test_entries_of_rafts_own_move_the_index_only(self) -> None:
        """An entry without data is taken note of, and does nothing else."""
        machine = self.make()
        machine.apply(self._entries(1))
        before = self.look(machine)
        last = len(self.commands)
        assert len(machine.apply([(last + 1, 4, None), (last + 2, 4, None)])) == 2
        assert tuple(machine.applied()) == (last + 2, 4)
        assert self.look(machine) == before

    def test_a_picture_makes_the_same_machine(self) -> None:
        """A machine that takes over another's picture holds its index and its state, whatever it held before, and goes on alike."""
        origin, heir = self.make(), self.make()
        origin.apply(self._entries(1))
        heir.apply(self._entries(1)[:1])
        last = len(self.commands)
        restore(heir, last, 3, picture(origin))
        assert tuple(heir.applied()) == (last, 3)
        assert self.look(heir) == self.look(origin)
        assert list(heir.apply(self._entries(last + 1))) == list(origin.apply(self._entries(last + 1)))
        assert self.look(heir) == self.look(origin)

    def test_a_picture_is_of_one_moment(self) -> None:
        """What is applied after the capture does not show in it, although it is written later."""
        machine, heir, still = self.make(), self.make(), self.make()
        first, later = self._entries(1)[:1], self._entries(1)[1:]
        machine.apply(first)
        still.apply(first)
        capture = machine.capture()
        machine.apply(later)
        pieces: list[bytes] = []
        capture.write(pieces.append)
        capture.close()
        assert (capture.index, capture.term) == (1, 3)
        restore(heir, 1, 3, b"".join(map(bytes, pieces)))
        assert self.look(heir) == self.look(still)

    def test_a_checkpoint_does_not_promise_too_much(self) -> None:
        """A checkpoint names no index beyond what is applied."""
        machine = self.make()
        machine.apply(self._entries(1))
        assert 0 <= machine.checkpoint() <= machine.applied()[0]

    def _entries(self, first: int) -> list[tuple[int, int, bytes | None]]:
        if len(self.commands) < 2:
            raise NotImplementedError("the contract needs at least two commands")
        return [(first + offset, 3, command) for offset, command in enumerate(self.commands)]
