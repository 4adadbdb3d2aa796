"""The contracts of the storage ports as suites of tests: whoever writes an adapter subclasses them and runs pytest.

::

    class TestMyLog(LogStoreContract):
        def make(self) -> MyLog: ...            # a fresh store, empty
        def reopen(self, store) -> MyLog: ...   # close it, and open what it has left on disk

The classes import no test framework; each test calls :meth:`make` for itself. A directory for a store on disk comes best from a fixture
that sets an attribute before each test.
"""

from collections.abc import Callable
from functools import partial
from hashlib import sha256
from typing import Protocol, TypeVar

from raft.core.model import Boundary, Configuration, Entry, EntryKind, HardState, Member
from raft.errors import InvariantViolation, StorageCorrupt, StorageError
from raft.ports.storage import LogStore, SnapshotSource, SnapshotStore, StableStore, WriteBatch

_Error = TypeVar("_Error", bound=Exception)


class DurableLog(LogStore, StableStore, Protocol):
    """A log and the stable records in one, as a node wants them: hard state is written by the one and read by the other."""


CONFIGURATION = Configuration(
    voters=(Member("a", "one", "one.example:8300"), Member("b", "zwei ü", "[::1]:8300")),
    learners=(Member("c", "three", "three.example:8300"),),
    outgoing=(Member("a", "one", "one.example:8300"),),
)
"""A configuration with every kind of member."""


def entries_of(first: int, last: int, term: int = 1) -> tuple[Entry, ...]:
    """Entries ``first`` to ``last`` of one term, with data that tell them apart."""
    return tuple(Entry(index, term, EntryKind.COMMAND, f"{index}/{term}".encode()) for index in range(first, last + 1))


def raised(error: type[_Error], call: Callable[[], object]) -> _Error:
    """The error that the call raises; fails when it raises none."""
    try:
        call()
    except error as found:
        return found
    raise AssertionError(f"{error.__name__} was due and nothing was raised")


class LogStoreContract:
    """What every LogStore (that is a StableStore too) must do."""

    def make(self) -> DurableLog:
        """A fresh, empty store."""
        raise NotImplementedError

    def reopen(self, store: DurableLog) -> DurableLog:
        """Close the store and open what it has left."""
        raise NotImplementedError

    def test_a_fresh_store_is_empty(self) -> None:
        """Nothing is found where nothing was written, not even after reopening."""
        store = self.make()
        for _ in range(2):
            assert store.load() == (Boundary(), ())
            assert store.hard_state() == HardState()
            store = self.reopen(store)
        store.close()

    def test_what_was_written_is_found(self) -> None:
        """Every field of every kind of entry and of the hard state survives, byte for byte."""
        store = self.make()
        entries = (
            Entry(1, 1, EntryKind.NOOP, b""),
            Entry(2, 1, EntryKind.COMMAND, bytes(range(256))),
            Entry(3, 2**62, EntryKind.CONFIGURATION, b"\x00"),
        )
        state = HardState(2**62, "nöde", 2)
        store.write(WriteBatch(state, entries))
        store = self.reopen(store)
        assert store.load() == (Boundary(), entries)
        assert [type(entry.kind) for entry in store.load().entries] == [EntryKind] * 3
        assert store.hard_state() == state
        store.close()

    def test_hard_state_and_entries_can_be_written_alone(self) -> None:
        """A batch changes what it names and nothing else; an empty one changes nothing."""
        store = self.make()
        store.write(WriteBatch(hard_state=HardState(3, "a", 0)))
        store.write(WriteBatch(entries=entries_of(1, 2, term=3)))
        store.write(WriteBatch())
        store = self.reopen(store)
        assert store.hard_state() == HardState(3, "a", 0)
        assert store.load().entries == entries_of(1, 2, term=3)
        store.write(WriteBatch(hard_state=HardState(4, None, 1)))
        store = self.reopen(store)
        assert store.hard_state() == HardState(4, None, 1)
        assert store.load().entries == entries_of(1, 2, term=3)
        store.close()

    def test_no_vote_is_not_an_empty_vote(self) -> None:
        """None and the empty name are kept apart."""
        store = self.make()
        for vote in ("", None):
            store.write(WriteBatch(hard_state=HardState(1, vote, 0)))
            store = self.reopen(store)
            assert store.hard_state().vote == vote
        store.close()

    def test_entries_replace_everything_from_the_first_on(self) -> None:
        """A shorter conflicting suffix leaves nothing of the longer one behind (paper, section 5.3)."""
        store = self.make()
        store.write(WriteBatch(entries=entries_of(1, 10)))
        store.write(WriteBatch(HardState(2), entries_of(4, 5, term=2)))
        expected = entries_of(1, 3) + entries_of(4, 5, term=2)
        assert store.load().entries == expected
        store = self.reopen(store)
        assert store.load().entries == expected
        store.write(WriteBatch(entries=entries_of(6, 6, term=2)))
        assert store.load().entries == expected + entries_of(6, 6, term=2)
        store.write(WriteBatch(entries=entries_of(1, 1, term=3)))
        store = self.reopen(store)
        assert store.load().entries == entries_of(1, 1, term=3)
        store.close()

    def test_a_large_batch_is_one_batch(self) -> None:
        """There is no limit to the entries of a batch that a caller would have to know."""
        store = self.make()
        entries = entries_of(1, 1_500)
        store.write(WriteBatch(entries=entries))
        store = self.reopen(store)
        assert store.load().entries == entries
        store.close()

    def test_a_gap_is_refused(self) -> None:
        """A batch that would leave a hole, or rewrite what is compacted, raises and changes nothing."""
        store = self.make()
        store.write(WriteBatch(entries=entries_of(1, 5)))
        store.compact(Boundary(2, 1))
        before = store.load()
        for entries in (entries_of(7, 8), entries_of(2, 6), entries_of(6, 6) + entries_of(8, 8), entries_of(6, 6) + entries_of(6, 6)):
            raised(InvariantViolation, partial(store.write, WriteBatch(HardState(9, "x", 9), entries)))
            assert store.load() == before
            assert store.hard_state() == HardState()
        store.write(WriteBatch(entries=entries_of(6, 6)))
        store.close()

    def test_compaction_keeps_what_is_behind_the_boundary(self) -> None:
        """The boundary, configuration included, survives with the entries after it; older calls change nothing."""
        store = self.make()
        store.write(WriteBatch(HardState(1, "a", 50), entries_of(1, 50)))
        boundary = Boundary(30, 1, CONFIGURATION)
        store.compact(boundary)
        store.compact(Boundary(29, 1))
        store.compact(boundary)
        assert store.load() == (boundary, entries_of(31, 50))
        store = self.reopen(store)
        assert store.load() == (boundary, entries_of(31, 50))
        assert store.hard_state() == HardState(1, "a", 50)
        store.write(WriteBatch(entries=entries_of(51, 52)))
        store.write(WriteBatch(entries=entries_of(31, 31, term=2)))
        store = self.reopen(store)
        assert store.load() == (boundary, entries_of(31, 31, term=2))
        store.close()

    def test_the_whole_log_can_be_compacted(self) -> None:
        """A log that ends at its boundary goes on behind it."""
        store = self.make()
        store.write(WriteBatch(entries=entries_of(1, 600)))
        store.compact(Boundary(600, 1))
        store = self.reopen(store)
        assert store.load() == (Boundary(600, 1), ())
        store.write(WriteBatch(entries=entries_of(601, 602)))
        store = self.reopen(store)
        assert store.load() == (Boundary(600, 1), entries_of(601, 602))
        store.close()

    def test_many_compactions_in_turn(self) -> None:
        """Writing, replacing and compacting in turn never leave a gap nor bring anything back."""
        store = self.make()
        last = 0
        for round_number in range(1, 13):
            store.write(WriteBatch(entries=entries_of(last + 1, last + 40, term=round_number)))
            store.write(WriteBatch(entries=entries_of(last + 36, last + 38, term=round_number)))
            last += 38
            store.compact(Boundary(last - 10, round_number))
            if round_number % 4 == 0:
                store = self.reopen(store)
            assert store.load() == (Boundary(last - 10, round_number), entries_of(last - 9, last, term=round_number))
        store.close()

    def test_a_boundary_that_is_not_in_the_log_is_refused(self) -> None:
        """Compaction beyond the end, or at an entry of another term, raises and changes nothing."""
        store = self.make()
        store.write(WriteBatch(entries=entries_of(1, 5)))
        raised(InvariantViolation, lambda: store.compact(Boundary(6, 1)))
        raised(InvariantViolation, lambda: store.compact(Boundary(5, 2)))
        assert store.load() == (Boundary(), entries_of(1, 5))
        store.compact(Boundary(5, 1))
        store.close()

    def test_reset_replaces_the_whole_log(self) -> None:
        """After an installed snapshot nothing of the old log is left, and the new one begins behind the snapshot."""
        store = self.make()
        store.write(WriteBatch(HardState(1, "a", 3), entries_of(1, 20)))
        boundary = Boundary(100, 4, CONFIGURATION)
        store.reset(boundary, HardState(5, "b", 100))
        assert store.load() == (boundary, ())
        store = self.reopen(store)
        assert store.load() == (boundary, ())
        assert store.hard_state() == HardState(5, "b", 100)
        raised(InvariantViolation, lambda: store.write(WriteBatch(entries=entries_of(21, 21))))
        store.write(WriteBatch(entries=entries_of(101, 101, term=5)))
        store = self.reopen(store)
        assert store.load() == (boundary, entries_of(101, 101, term=5))
        store.close()

    def test_named_records(self) -> None:
        """Records are found by name, overwritten by name, and do not disturb the log."""
        store = self.make()
        assert store.get("identity") is None
        store.put("identity", b"\x00one")
        store.put("cluster", b"")
        store.put("identity", b"two")
        store = self.reopen(store)
        assert store.get("identity") == b"two"
        assert store.get("cluster") == b""
        assert store.get("other") is None
        assert store.load() == (Boundary(), ())
        store.close()

    def test_close_may_be_called_twice(self) -> None:
        """Closing is idempotent."""
        store = self.make()
        store.close()
        store.close()


class SnapshotStoreContract:
    """What every SnapshotStore must do."""

    def make(self) -> SnapshotStore:
        """A fresh, empty store."""
        raise NotImplementedError

    def reopen(self, store: SnapshotStore) -> SnapshotStore:
        """Open what the store has left."""
        raise NotImplementedError

    def test_a_fresh_store_has_none(self) -> None:
        """There is no latest snapshot where none was committed."""
        assert self.make().latest() is None

    def test_a_committed_snapshot_is_found(self) -> None:
        """Content, size, checksum and boundary, configuration included, survive."""
        store = self.make()
        boundary = Boundary(7, 2, CONFIGURATION)
        store_snapshot(store, boundary, b"first ", b"", b"second")
        for opened in (store, self.reopen(store)):
            source = _latest(opened)
            assert (source.boundary, source.size) == (boundary, 12)
            assert source.checksum == sha256(b"first second").hexdigest()
            assert source.read_at(0, 5) == b"first"
            assert source.read_at(6, 100) == b"second"
            assert source.read_at(12, 10) == b""
            source.close()
            source.close()

    def test_an_empty_snapshot_is_a_snapshot(self) -> None:
        """A state may have no bytes at all."""
        store = self.make()
        store_snapshot(store, Boundary(1, 1))
        source = _latest(self.reopen(store))
        assert (source.size, source.read_at(0, 1)) == (0, b"")
        source.close()

    def test_an_unfinished_snapshot_does_not_exist(self) -> None:
        """Until commit, and after abort, the store answers as before."""
        store = self.make()
        store_snapshot(store, Boundary(1, 1), b"old")
        sink = store.create(Boundary(2, 1))
        sink.write(b"new")
        assert sink.size == 3
        assert _index_of_latest(store) == 1
        sink.abort()
        sink.abort()
        raised(StorageError, sink.commit)
        raised(StorageError, lambda: sink.write(b"more"))
        assert _index_of_latest(self.reopen(store)) == 1

    def test_abort_after_commit_has_no_effect(self) -> None:
        """What exists stays; so a caller may always abort at the end."""
        store = self.make()
        sink = store.create(Boundary(1, 1))
        sink.commit()
        sink.abort()
        assert _index_of_latest(store) == 1

    def test_a_wrong_checksum_is_refused(self) -> None:
        """Bytes that were damaged on their way never become a snapshot; the right checksum is accepted."""
        store = self.make()
        sink = store.create(Boundary(1, 1))
        sink.write(b"damaged")
        raised(StorageCorrupt, lambda: sink.commit(sha256(b"sent").hexdigest()))
        assert store.latest() is None
        sink = store.create(Boundary(1, 1))
        sink.write(b"sent")
        sink.commit(sha256(b"sent").hexdigest())
        assert _index_of_latest(store) == 1

    def test_the_newest_is_kept(self) -> None:
        """A newer one replaces an older one, whatever the order in which they are committed; of two equal ones the later counts."""
        store = self.make()
        for index, term, expected in ((5, 1, 5), (3, 1, 5), (9, 2, 9), (9, 2, 9), (8, 1, 9)):
            store_snapshot(store, Boundary(index, term), f"{index}/{term}".encode())
            assert _index_of_latest(store) == expected
        assert _index_of_latest(self.reopen(store)) == 9

    def test_an_open_source_outlives_its_replacement(self) -> None:
        """A reader goes on reading the snapshot that it opened while a newer one takes its place."""
        store = self.make()
        store_snapshot(store, Boundary(1, 1), b"old state")
        source = _latest(store)
        store_snapshot(store, Boundary(2, 1), b"new state")
        assert source.boundary.index == 1
        assert source.read_at(0, 100) == b"old state"
        source.close()

    def test_two_may_be_written_at_once(self) -> None:
        """A snapshot of the node's own and one that is being received do not disturb each other, not even at one boundary."""
        store = self.make()
        one, two = store.create(Boundary(4, 1)), store.create(Boundary(4, 1))
        one.write(b"one")
        two.write(b"two")
        one.commit()
        two.commit()
        source = _latest(self.reopen(store))
        assert source.read_at(0, 3) == b"two"
        source.close()


def store_snapshot(store: SnapshotStore, boundary: Boundary, *pieces: bytes) -> None:
    """Write and commit a snapshot."""
    sink = store.create(boundary)
    for piece in pieces:
        sink.write(piece)
    sink.commit()


def _latest(store: SnapshotStore) -> SnapshotSource:
    source = store.latest()
    assert source is not None
    return source


def _index_of_latest(store: SnapshotStore) -> int:
    source = _latest(store)
    source.close()
    return source.boundary.index
