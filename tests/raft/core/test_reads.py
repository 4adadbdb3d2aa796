"""The leader's queue of reads: rounds, sharing, and what a round may confirm."""

from raft.core.reads import PendingRead, ReadQueue


def test_a_round_confirms_only_reads_that_had_arrived() -> None:
    """A read that comes after a round began waits for the next one."""
    queue = ReadQueue()
    first, second = PendingRead("a", 1), PendingRead("a", 2)
    queue.add(first)
    assert queue.wants_round
    assert queue.begin_round(7, take_reads=True) == 1
    queue.add(second)
    assert not queue.wants_round
    assert [(item.index, item.reads) for item in queue.confirm(1)] == [(7, (first,))]
    assert queue.wants_round
    assert queue.begin_round(8, take_reads=True) == 2
    assert [(item.index, item.reads) for item in queue.confirm(2)] == [(8, (second,))]


def test_reads_that_arrive_together_share_a_round() -> None:
    """A thousand reads cost one round."""
    queue = ReadQueue()
    for context in range(1_000):
        queue.add(PendingRead("b", context))
    queue.begin_round(3, take_reads=True)
    (only,) = queue.confirm(1)
    assert len(only.reads) == 1_000
    assert queue.confirm(1) == []


def test_a_later_round_confirms_the_earlier_ones() -> None:
    """A regular heartbeat after a lost round confirms the reads of the lost one."""
    queue = ReadQueue()
    queue.add(PendingRead("a", 1))
    queue.begin_round(3, take_reads=True)
    queue.begin_round(4, take_reads=True)
    assert queue.confirm(0) == []
    assert [item.index for item in queue.confirm(2)] == [3]


def test_reads_wait_while_the_commit_index_may_be_old() -> None:
    """A round before the first commit of the term takes no reads along."""
    queue = ReadQueue()
    queue.add(PendingRead("a", 1))
    queue.begin_round(0, take_reads=False)
    assert queue.confirm(1) == []
    assert queue.wants_round


def test_draining_gives_every_read_back_once() -> None:
    """Waiting reads and those under way come back, and the queue is empty after it."""
    queue = ReadQueue()
    under_way, waiting = PendingRead("a", 1), PendingRead("b", 2)
    queue.add(under_way)
    queue.begin_round(3, take_reads=True)
    queue.add(waiting)
    assert queue.drain() == [under_way, waiting]
    assert queue.drain() == []
    assert not queue.wants_round
