"""Arriving snapshots: one is installed at a time."""

import pytest

from raft.core.messages import InstallSnapshot
from raft.core.model import Boundary
from raft.errors import StorageCorrupt, StorageFailed
from raft.runtime.arrivals import FORGOTTEN_SECONDS, Arrivals
from raft.storage.memory import MemorySnapshots


def arriving(index: int) -> InstallSnapshot:
    """A snapshot at an index."""
    return InstallSnapshot("n1", "n2", 1, Boundary(index, 1))


def newest(store: MemorySnapshots) -> int:
    """The index of the newest snapshot; 0 for none."""
    source = store.latest()
    if source is None:
        return 0
    source.close()
    return source.boundary.index


def test_sn_03_a_second_snapshot_waits_for_the_first() -> None:
    """While one that has arrived is not installed yet, another is refused and the first stays the newest."""
    store = MemorySnapshots()
    arrivals = Arrivals(store)
    first, second = arrivals.begin(arriving(10)), arrivals.begin(arriving(20))
    first.write(b"first")
    second.write(b"second")
    first.commit()
    with pytest.raises(StorageFailed, match="another one is being installed"):
        second.commit()
    assert newest(store) == 10


def test_the_next_may_come_once_the_first_is_settled() -> None:
    """An installed snapshot, or one of no use, makes room."""
    store = MemorySnapshots()
    arrivals = Arrivals(store)
    arrivals.begin(arriving(10)).commit()
    arrivals.settle()
    arrivals.begin(arriving(20)).commit()
    assert newest(store) == 20


def test_an_aborted_one_blocks_nobody() -> None:
    """A snapshot that never became whole leaves the way free."""
    store = MemorySnapshots()
    arrivals = Arrivals(store)
    arrivals.begin(arriving(10)).abort()
    arrivals.begin(arriving(20)).commit()
    assert newest(store) == 20


def test_one_that_the_node_never_heard_of_is_forgotten() -> None:
    """When nobody tells the node of a snapshot the next may come after a while; never while one is being installed."""
    store, now = MemorySnapshots(), [100.0]
    arrivals = Arrivals(store, clock=lambda: now[0])
    arrivals.begin(arriving(10)).commit()
    now[0] += FORGOTTEN_SECONDS
    arrivals.begin(arriving(20)).commit()
    assert newest(store) == 20
    assert arrivals.claim(Boundary(20, 1))
    now[0] += 100 * FORGOTTEN_SECONDS
    with pytest.raises(StorageFailed, match="another one is being installed"):
        arrivals.begin(arriving(30)).commit()


def test_what_was_replaced_can_not_be_claimed() -> None:
    """A snapshot that was forgotten and replaced, one that is settled and one that never came are not to be installed; the newest is."""
    store, now = MemorySnapshots(), [100.0]
    arrivals = Arrivals(store, clock=lambda: now[0])
    arrivals.begin(arriving(10)).commit()
    now[0] += FORGOTTEN_SECONDS
    arrivals.begin(arriving(20)).commit()
    assert not arrivals.claim(Boundary(10, 1))
    assert not arrivals.claim(Boundary(30, 1))
    assert arrivals.claim(Boundary(20, 1))
    arrivals.settle()
    assert not arrivals.claim(Boundary(20, 1))


def test_an_older_one_does_not_hide_behind_a_newer_one() -> None:
    """The store keeps the newest: one that is older than what had arrived before is refused, for it could never be found again."""
    store, now = MemorySnapshots(), [100.0]
    arrivals = Arrivals(store, clock=lambda: now[0])
    arrivals.begin(arriving(20)).commit()
    now[0] += FORGOTTEN_SECONDS
    with pytest.raises(StorageFailed, match="one at index 20 is here already"):
        arrivals.begin(arriving(10)).commit()
    assert not arrivals.claim(Boundary(10, 1))


def test_a_commit_that_fails_makes_room() -> None:
    """A snapshot that breaks on its last step blocks nobody."""
    store = MemorySnapshots()
    arrivals = Arrivals(store)
    with pytest.raises(StorageCorrupt):
        arrivals.begin(arriving(10)).commit("another checksum")
    assert not arrivals.claim(Boundary(10, 1))
    arrivals.begin(arriving(20)).commit()
    assert newest(store) == 20


def test_an_older_one_than_an_earlier_process_was_sent_is_refused() -> None:
    """A snapshot that arrived before a restart is still the newest: an older one would not be kept, and its installation would find the wrong one."""
    store = MemorySnapshots()
    Arrivals(store).begin(arriving(20)).commit()
    arrivals = Arrivals(store)
    with pytest.raises(StorageFailed, match="one at index 20 is here already"):
        arrivals.begin(arriving(10)).commit()
    arrivals.begin(arriving(20)).commit()
    assert arrivals.claim(Boundary(20, 1))
