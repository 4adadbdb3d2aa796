"""The log in memory: its indexes, what is durable, what is removed."""

import pytest

from raft.core.log import RaftLog
from raft.core.model import ENTRY_OVERHEAD_BYTES, Boundary, Entry, EntryKind, weight_of
from raft.core.quorum import INFINITY
from raft.errors import InvariantViolation
from raft.testing.cluster import entries, entry

SIZE = 3 + ENTRY_OVERHEAD_BYTES
"""What one of the entries here counts."""


def make(*terms: int, boundary: Boundary | None = None, commit: int = 0) -> RaftLog:
    """A log of commands with these terms, found on the disk."""
    start = boundary or Boundary()
    return RaftLog(start, entries(*terms, first=start.index + 1), commit, start.index)


def terms_of(log: RaftLog) -> list[int | None]:
    """The terms of what it holds."""
    return [log.term_at(index) for index in range(log.first_index, log.last_index + 1)]


def applied(log: RaftLog, index: int) -> RaftLog:
    """The same log with everything up to ``index`` committed and applied."""
    log.commit_to(index)
    while log.applying < index:
        log.take_committed(INFINITY)
    log.applied_to(index)
    return log


def test_a_loaded_log_is_durable() -> None:
    """What was found on the disk counts as durable, and nothing of it is written again."""
    log = make(1, 1, 2, commit=2)
    assert (log.first_index, log.last_index, log.last_term, log.durable, log.commit, log.applied) == (1, 3, 2, 3, 2, 0)
    assert log.take_unwritten(1) == ()
    assert log.bytes == 3 * SIZE


def test_an_empty_log_ends_at_its_boundary() -> None:
    """Without entries the boundary is the last entry."""
    log = RaftLog(Boundary(7, 3), (), 0, 7)
    assert (log.first_index, log.last_index, log.last_term, log.commit) == (8, 7, 3, 7)
    assert (log.term_at(7), log.term_at(6), log.term_at(8)) == (3, None, None)


def test_a_commit_index_beyond_the_log_is_trimmed() -> None:
    """A persisted hint beyond the end is cut to the end, and never lies below what is applied."""
    assert make(1, 1, commit=9).commit == 2
    assert RaftLog(Boundary(2, 1), entries(1, first=3), 0, 3).commit == 3


@pytest.mark.parametrize(("found", "text"), [(4, "applied index 4, the log ends at 3"), (1, "applied index 1, the log begins after 2")])
def test_a_state_outside_the_log_is_refused(found: int, text: str) -> None:
    """A machine ahead of the log, or behind its beginning, is named with both indexes."""
    with pytest.raises(InvariantViolation, match=text):
        RaftLog(Boundary(2, 1), entries(1, first=3), 3, found)


def test_empty_entries_count_too() -> None:
    """No limit on bytes lets any number of entries without data through."""
    log = RaftLog(Boundary(), (), 0, 0)
    log.append(tuple(Entry(index, 1, EntryKind.COMMAND, b"") for index in range(1, 1_001)))
    assert len(log.entries_from(1, 10 * ENTRY_OVERHEAD_BYTES)) == 10
    assert log.bytes == 1_000 * ENTRY_OVERHEAD_BYTES


def test_a_gap_is_refused() -> None:
    """Entries that do not follow the last one are refused."""
    log = make(1)
    with pytest.raises(InvariantViolation, match="appending index 3 to a log that ends at 1"):
        log.append(entries(1, first=3))
    log.append(())
    assert log.last_index == 1


def test_entries_are_paged_by_bytes() -> None:
    """As many entries as fit are given, at least one, and none beyond the named last one."""
    log = make(1, 1, 1, 1)
    assert [item.index for item in log.entries_from(2, 2 * SIZE)] == [2, 3]
    assert [item.index for item in log.entries_from(2, 1)] == [2]
    assert [item.index for item in log.entries_from(1, 100 * SIZE, last=2)] == [1, 2]
    assert log.entries_from(5, 100) == ()
    assert RaftLog(Boundary(3, 1), entries(1, first=4), 0, 3).entries_from(3, 100) == ()


@pytest.mark.parametrize(
    ("held", "terms", "first", "after", "added"),
    [
        ((1, 1), (1, 1), 1, [1, 1], 0),
        ((1, 1), (1,), 1, [1, 1], 0),
        ((1, 1), (1, 1, 2), 1, [1, 1, 2], 1),
        ((1, 1, 1), (2,), 2, [1, 2], 1),
        ((1, 1, 1), (1, 2, 2), 2, [1, 1, 2, 2], 2),
        ((1,), (2, 3), 2, [1, 2, 3], 2),
    ],
)
def test_lr_03_truncation_starts_at_the_first_conflict(
    held: tuple[int, ...], terms: tuple[int, ...], first: int, after: list[int], added: int
) -> None:
    """An overlapping append removes from the first mismatch on and nothing before it; a repeated or shorter one removes nothing."""
    log = make(*held)
    assert len(log.merge(entries(*terms, first=first))) == added
    assert terms_of(log) == after
    assert log.bytes == weight_of(log.entries_from(1, INFINITY))


def test_lr_03_a_conflict_at_or_below_commit_is_loud() -> None:
    """Entries that would replace a committed one raise, and the log is untouched."""
    log = make(1, 1, 1, commit=2)
    with pytest.raises(InvariantViolation, match="entry 2 of term 2 conflicts with a committed one"):
        log.merge(entries(2, 2, first=2))
    assert terms_of(log) == [1, 1, 1]
    log.merge(entries(2, first=3))
    assert terms_of(log) == [1, 1, 2]


def test_entries_before_the_boundary_are_passed_over() -> None:
    """An append that begins before the boundary adds only what lies after it."""
    log = make(2, boundary=Boundary(3, 2))
    assert [item.index for item in log.merge(entries(1, 2, 2, 2, first=2))] == [5]
    assert terms_of(log) == [2, 2]


@pytest.mark.parametrize(("index", "term", "hint"), [(3, 2, (3, 2)), (9, 9, (5, 3)), (5, 1, (2, 1)), (5, 0, (0, 0)), (1, 1, (1, 1))])
def test_the_hint_skips_whole_terms(index: int, term: int, hint: tuple[int, int]) -> None:
    """The hint is the last entry up to the index whose term is not later than the asked one."""
    assert make(1, 1, 2, 2, 3).conflict_hint(index, term) == hint


def test_a_commit_never_moves_back() -> None:
    """Lower and equal indexes change nothing; one beyond the end is a bug."""
    log = make(1, 1, commit=1)
    assert (log.commit_to(1), log.commit_to(0), log.commit_to(2), log.commit) == (False, False, True, 2)
    with pytest.raises(InvariantViolation, match="commit 3 beyond the last index 2"):
        log.commit_to(3)


def test_written_entries_become_durable_in_order() -> None:
    """Each write makes durable what it held; nothing before it is done."""
    log = make()
    log.append(entries(1, 1))
    assert [item.index for item in log.take_unwritten(4)] == [1, 2]
    log.append(entries(1, first=3))
    assert [item.index for item in log.take_unwritten(5)] == [3]
    log.written(3)
    assert log.durable == 0
    log.written(4)
    assert log.durable == 2
    log.written(9)
    assert log.durable == 3


def test_a_write_whose_entries_were_replaced_is_not_credited() -> None:
    """When the tail of a write under way is replaced, its end makes durable only what was kept."""
    log = make()
    log.append(entries(1, 1, 1))
    log.take_unwritten(1)
    log.merge(entries(2, first=2))
    log.written(1)
    assert (log.durable, log.handed) == (1, 1)
    assert [item.term for item in log.take_unwritten(2)] == [2]
    log.written(2)
    assert log.durable == 2


def test_replacing_a_durable_tail_takes_its_durability() -> None:
    """Durable entries that are replaced have to be written anew."""
    log = make(1, 1, 1)
    log.merge(entries(2, 2, first=2))
    assert (log.durable, [item.index for item in log.take_unwritten(1)]) == (1, [2, 3])


def test_only_durable_entries_are_applied() -> None:
    """Committed entries wait for this node's own disk before they are handed to the machine."""
    log = make(1)
    log.append(entries(1, 1, first=2))
    log.commit_to(3)
    assert [item.index for item in log.take_committed(INFINITY)] == [1]
    assert log.take_committed(INFINITY) == ()
    log.take_unwritten(1)
    log.written(1)
    assert [item.index for item in log.take_committed(INFINITY)] == [2, 3]


def test_fc_06_paged_apply() -> None:
    """Committed entries come in pages, each once, in order."""
    log = make(1, 1, 1, 1, 1, commit=5)
    pages = []
    while page := log.take_committed(2 * SIZE + 1):
        pages.append([item.index for item in page])
    assert pages == [[1, 2], [3, 4], [5]]
    log.applied_to(2)
    assert (log.applied, log.applying) == (2, 5)
    for wrong in (1, 6):
        with pytest.raises(InvariantViolation, match=f"applied {wrong} reported; 2 to 5 was under way"):
            log.applied_to(wrong)


def test_compaction_forgets_applied_entries_only() -> None:
    """The log may be cut up to what is applied, and not beyond, nor back."""
    log = applied(make(1, 1, 2, 2), 3)
    log.compact(Boundary(2, 1))
    assert (log.first_index, log.last_index, terms_of(log), log.bytes, log.boundary.term) == (3, 4, [2, 2], 2 * SIZE, 1)
    for index in (1, 4):
        with pytest.raises(InvariantViolation, match=f"compaction to {index}; the log begins after 2 and 3 is applied"):
            log.compact(Boundary(index, 1))


@pytest.mark.parametrize(("count", "room", "begin"), [(2, 9, 4), (9, 9, 3), (0, 9, 6), (9, 2, 4), (9, 0, 6)])
def test_the_tail_that_stays_is_bounded(count: int, room: int, begin: int) -> None:
    """The kept tail stays within its entries and its bytes, and never reaches behind the boundary."""
    assert make(1, 1, 1, boundary=Boundary(2, 1)).tail_begin(count, room * SIZE + 1) == begin


def test_a_snapshot_replaces_everything() -> None:
    """After a reset the log is empty at the boundary, and writes under way make nothing durable any more."""
    log = make(1, 1)
    log.append(entries(1, first=3))
    log.take_unwritten(1)
    log.reset(Boundary(9, 4))
    log.written(1)
    assert (log.first_index, log.last_index, log.last_term, log.commit, log.durable, log.bytes) == (10, 9, 4, 9, 9, 0)
    assert log.applied == 0
    log.installed()
    assert log.applied == 9


@pytest.mark.parametrize(("index", "term", "good"), [(3, 2, True), (4, 2, True), (2, 2, False), (9, 1, False), (1, 3, True), (0, 0, False)])
def test_el_06_up_to_date_comparison(index: int, term: int, good: bool) -> None:
    """The later last term wins even when shorter; in the same term the longer log does; an equal one is good enough."""
    assert make(1, 1, 2).is_up_to_date(index, term) is good


def test_an_entry_is_a_value() -> None:
    """Two entries with the same fields are equal: what log matching promises can be compared."""
    assert entry(3, 2) == Entry(3, 2, entry(3, 2).kind, b"3/2")
