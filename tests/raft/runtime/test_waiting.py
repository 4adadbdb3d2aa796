"""The tables of those who wait, and the queue of a worker thread: each by itself, without a clock."""

from collections.abc import Sequence

from raft import DeadlinePassed, Entry, LeadershipLost, NodeStopped, NotLeader, OutcomeUnknown, ProposalTimeout, RaftError, ReadRefused, Rejected
from raft.core.messages import ProposeResponse
from raft.core.model import HardState
from raft.core.ready import Appended, ReadState, Ready
from raft.ports.storage import WriteBatch
from raft.runtime.applier import Applied
from raft.runtime.disk import _merge
from raft.runtime.inbox import Inbox, Task
from raft.runtime.proposals import FORWARDED_MAX, Batch, Proposals
from raft.runtime.reads import Read, Reads
from raft.testing.cluster import entries


class Told:
    """What one who waits was told; telling twice is an error."""

    def __init__(self) -> None:
        self.outcomes: list[object] = []

    def __call__(self, outcome: Sequence[bytes] | int | RaftError) -> None:
        """Take the outcome."""
        self.outcomes.append(outcome)
        assert len(self.outcomes) == 1, self.outcomes

    @property
    def error(self) -> type:
        """The class of the one outcome."""
        return type(self.outcomes[0])


def batch(context: int, told: Told, deadline: float = 10.0, count: int = 1) -> Batch:
    """A batch of so many commands."""
    return Batch(context, [b"x"] * count, told, deadline, 0.0)


def applied(found: tuple[Entry, ...]) -> Applied:
    """Entries that took effect; the result of each is its index."""
    return Applied(found, [b"%d" % item.index for item in found])


def in_log(proposals: Proposals, context: int, first: int, *, told: Told, term: int = 1, count: int = 1) -> None:
    """A batch of this node that has its place in the log."""
    proposals.submitted(batch(context, told, count=count))
    proposals.appended(Appended("a", context, first, count, term))


def test_a_batch_is_settled_when_its_last_entry_is_applied() -> None:
    """Results gather over several applied pieces and are told once, in order."""
    proposals, told = Proposals(1.0), Told()
    in_log(proposals, 1, 2, told=told, count=3)
    proposals.applied(applied(entries(1, 1, first=1)))
    assert told.outcomes == []
    proposals.applied(applied(entries(1, 1, 1, first=3)))
    assert told.outcomes == [(b"2", b"3", b"4")]
    assert proposals.waiting == 0


def test_entries_of_another_term_are_another_leaders() -> None:
    """When an entry of another term is applied at its place, a batch is lost: nobody knows what became of it."""
    proposals, lost, kept = Proposals(1.0), Told(), Told()
    in_log(proposals, 1, 2, told=lost)
    in_log(proposals, 2, 3, told=kept, term=2)
    proposals.applied(applied(entries(2, 2, first=2)))
    assert lost.error is LeadershipLost
    assert kept.outcomes == [(b"3",)]


def test_a_batch_that_a_snapshot_has_passed_is_unknown() -> None:
    """When entries after its place are applied first, its results will never come."""
    proposals, told = Proposals(1.0), Told()
    in_log(proposals, 1, 2, told=told)
    in_log(proposals, 2, 9, told=Told())
    proposals.applied(applied(entries(1, first=9)))
    assert told.error is LeadershipLost


def test_a_new_entry_at_its_place_ends_a_batch() -> None:
    """A later leadership of the same node that appends at an index of an earlier batch has cut that one off."""
    proposals, told, later = Proposals(1.0), Told(), Told()
    in_log(proposals, 1, 5, told=told)
    in_log(proposals, 2, 4, told=later, term=3)
    assert told.error is LeadershipLost
    assert later.outcomes == []


def test_answers_to_forwarded_batches() -> None:
    """Results, a refusal and an unknown outcome are passed on; a batch that may be tried again comes back; strangers are passed over."""
    proposals = Proposals(1.0)
    told = {context: Told() for context in range(1, 5)}
    for context, one in told.items():
        proposals.forwarded(batch(context, one), "b")
    assert proposals.answered(ProposeResponse("b", "a", 1, 1, (b"r",))) is None
    assert proposals.answered(ProposeResponse("b", "a", 1, 2, (), "no room")) is None
    assert proposals.answered(ProposeResponse("b", "a", 1, 3, (), "gone", unknown=True)) is None
    again = proposals.answered(ProposeResponse("b", "a", 1, 4, (), "not the leader", retry=True))
    assert proposals.answered(ProposeResponse("b", "a", 1, 4, (b"twice",))) is None
    assert again is not None
    assert again.context == 4
    assert told[1].outcomes == [(b"r",)]
    assert (told[2].error, told[3].error) == (Rejected, OutcomeUnknown)
    assert told[4].outcomes == []


def test_deadlines_in_every_place() -> None:
    """Held batches are rejected at their deadlines, all others are unknown; a change of leader leaves one election timeout more."""
    proposals = Proposals(1.0)
    held, sent, handed, logged = Told(), Told(), Told(), Told()
    proposals.hold(batch(1, Told(), deadline=99))
    proposals.hold(batch(2, held))
    proposals.forwarded(batch(3, sent), "b")
    proposals.submitted(batch(4, handed))
    in_log(proposals, 5, 2, told=logged)
    proposals.leadership_moved(5.0)
    proposals.expire(5.9)
    assert proposals.waiting == 5
    proposals.expire(6.0)
    assert (sent.error, handed.error, logged.error) == (ProposalTimeout,) * 3
    assert held.outcomes == []
    proposals.expire(10.0)
    assert held.error is NotLeader
    assert proposals.waiting == 1


def test_a_broken_connection_ends_what_was_sent_over_it() -> None:
    """Only batches forwarded to that peer are unknown."""
    proposals, gone, there = Proposals(1.0), Told(), Told()
    proposals.forwarded(batch(1, gone), "b")
    proposals.forwarded(batch(2, there), "c")
    proposals.unreachable("b")
    assert gone.error is OutcomeUnknown
    assert there.outcomes == []


def test_what_is_forwarded_is_bounded() -> None:
    """A leader gets so many bytes and batches at once and no more, but one batch always; what is answered makes room."""
    proposals = Proposals(1.0)
    assert proposals.may_forward(500, 100)
    proposals.forwarded(Batch(1, (), Told(), 9.0, 0.0, size=60), "b")
    assert (proposals.may_forward(40, 100), proposals.may_forward(41, 100)) == (True, False)
    proposals.hold(Batch(2, (), Told(), 9.0, 0.0, size=7))
    assert proposals.outside_bytes == 67
    proposals.answered(ProposeResponse("b", "a", 1, 1, (b"r",)))
    assert (proposals.outside_bytes, proposals.may_forward(500, 100)) == (7, True)
    for context in range(FORWARDED_MAX):
        proposals.forwarded(batch(context, Told()), "b")
    assert not proposals.may_forward(0, 100)
    proposals.unreachable("b")
    assert proposals.may_forward(0, 100)
    proposals.expire(9.0, "b")
    assert (proposals.outside_bytes, proposals.waiting) == (0, 0)


def test_what_was_held_too_long_says_for_what() -> None:
    """Without a leader the error says so; with one that took nothing it names that one. Both are rejections."""
    for leader, error in ((None, NotLeader), ("b", DeadlinePassed)):
        proposals, told = Proposals(1.0), Told()
        proposals.hold(batch(1, told, deadline=1.0))
        proposals.expire(1.0, leader)
        assert told.error is error


def test_stopping_tells_everybody() -> None:
    """What was held had no effect; of the rest nobody knows."""
    proposals = Proposals(1.0)
    held, sent, handed, logged = Told(), Told(), Told(), Told()
    proposals.hold(batch(1, held))
    proposals.forwarded(batch(2, sent), "b")
    proposals.submitted(batch(3, handed))
    in_log(proposals, 4, 2, told=logged)
    proposals.stop()
    assert [one.error for one in (held, sent, handed, logged)] == [NodeStopped, LeadershipLost, LeadershipLost, LeadershipLost]
    assert proposals.waiting == 0


def test_reads_wait_for_confirmation_and_for_the_machine() -> None:
    """A confirmed read is served at once when its index is applied, else as soon as it is."""
    reads, now, later = Reads(1.0), Told(), Told()
    reads.add(Read(now, 10.0))
    reads.ask(1, 0.0)
    reads.add(Read(later, 10.0))
    reads.ask(2, 0.0)
    assert reads.waiting == 2
    reads.answered(ReadState(1, 5), applied=5)
    reads.answered(ReadState(2, 7), applied=5)
    assert (now.outcomes, later.outcomes) == ([5], [])
    reads.applied(6)
    reads.applied(8)
    assert later.outcomes == [8]
    assert reads.waiting == 0


def test_reads_are_asked_again_until_their_deadline() -> None:
    """A refused or unanswered round is begun anew; at its deadline a read is refused."""
    reads, told = Reads(1.0), Told()
    reads.add(Read(told, 10.0))
    reads.ask(1, 0.0)
    reads.answered(ReadState(1, 0), applied=5)
    reads.take_held()
    assert reads.has_new
    reads.ask(2, 2.0)
    reads.expire(2.5)
    assert not reads.has_new
    reads.expire(3.0)
    reads.take_held()
    assert reads.has_new
    reads.hold()
    reads.expire(10.0)
    assert told.error is NotLeader
    reads.answered(ReadState(2, 9), applied=9)  # late: nobody waits


def test_a_read_ends_at_its_own_deadline() -> None:
    """A read whose round is not answered is refused when its time is up, not when the round is asked for anew; those beside it wait on."""
    reads, early, late = Reads(10.0), Told(), Told()
    reads.add(Read(early, 2.0))
    reads.add(Read(late, 50.0))
    reads.ask(1, 0.0)
    reads.expire(2.0)
    assert early.error is ReadRefused
    assert (late.outcomes, reads.waiting) == ([], 1)
    reads.answered(ReadState(1, 5), applied=5)
    assert late.outcomes == [5]


def test_a_read_whose_index_is_never_reached_is_refused() -> None:
    """When the machine does not get there in time the read is refused, the others keep waiting."""
    reads, early, late = Reads(1.0), Told(), Told()
    for context, (told, deadline) in enumerate(((early, 5.0), (late, 50.0))):
        reads.add(Read(told, deadline))
        reads.ask(context, 0.0)
        reads.answered(ReadState(context, 9), applied=0)
    reads.expire(5.0)
    assert early.error is ReadRefused
    reads.stop()
    assert late.error is ReadRefused


def test_work_is_joined_up_to_the_next_task() -> None:
    """All work before a task is one batch, the task comes alone, the end comes last; no batch is over the limit."""
    inbox: Inbox[int] = Inbox()
    task = Task(lambda: None, lambda _result: None)
    for item in (1, 2, 3, 4):
        inbox.put(item)
    inbox.put(task)
    inbox.put(5)
    inbox.close()
    assert [inbox.take(3) for _ in range(5)] == [[1, 2, 3], [4], task, [5], None]


def test_joined_writes_leave_what_the_single_ones_would() -> None:
    """Later entries replace earlier ones from their first index on; the last hard state counts."""
    first, second = HardState(1), HardState(2, "b")
    readies = [
        Ready(1, hard_state=first, entries=entries(1, 1, 1, first=4)),
        Ready(2, entries=entries(2, 2, first=5)),
        Ready(3, hard_state=second),
        Ready(4, entries=entries(2, first=7)),
    ]
    assert _merge(readies) == WriteBatch(second, (*entries(1, first=4), *entries(2, 2, 2, first=5)))
    assert _merge(readies[:1]) == WriteBatch(first, entries(1, 1, 1, first=4))
    assert _merge([Ready(1, entries=entries(1, first=9)), Ready(2, entries=entries(2, 2, first=8))]).entries == entries(2, 2, first=8)
