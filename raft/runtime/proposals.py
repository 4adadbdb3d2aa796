"""Callers that wait for their proposals: from the moment a batch is handed in until its results, or its error, are known.

A batch is in one of three places:

* *held*: no leader is known, or the leader hands over, or has been sent as much as may be under way. Nothing has left this node, so it may be
  tried until its deadline.
* *forwarded*: it was sent to the leader. It may have left, so it is never sent again; only an explicit refusal brings it back.
* *appended*: it is in this node's log at known indexes. It has taken effect when entries of the same term are applied there.

Whoever waits is told exactly once. When leadership moves, a batch that was under way gets one election timeout more to show what
became of it; then its outcome is called unknown.

What is held or forwarded is bounded by the quota of a leader, and what is forwarded by a window: a queue of the transport that overflows would lose
what it must not.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from raft.core.messages import ProposeResponse
from raft.core.model import NodeId
from raft.core.ready import Appended
from raft.errors import DeadlinePassed, LeadershipLost, NodeStopped, NotLeader, OutcomeUnknown, ProposalTimeout, RaftError, Rejected
from raft.runtime.applier import Applied

Settle = Callable[[tuple[bytes, ...] | RaftError], None]

FORWARDED_MAX = 1_024
"""Batches on their way to the leader, unanswered: a quarter of what the queue of a lane holds."""


@dataclass(slots=True, eq=False)
class Batch:
    """Commands of one caller. ``deadline`` is in the loop's seconds, ``size`` what it counts where bytes are limited."""

    context: int
    commands: Sequence[bytes]
    settle: Settle
    deadline: float
    began: float
    size: int = 0


@dataclass(slots=True)
class _InLog:
    batch: Batch
    first_index: int
    term: int
    count: int
    results: list[bytes] = field(default_factory=list)


class Proposals:
    """The three places, and the moves between them. All on the loop's thread.

    :param patience: seconds that a batch under way has left once leadership has moved: one election timeout.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._held: deque[Batch] = deque()
        self._submitted: dict[int, Batch] = {}  # handed to the core, place in the log not known yet
        self._forwarded: dict[int, tuple[NodeId, Batch]] = {}
        self._forwarded_bytes = 0
        self._held_bytes = 0
        self._in_log: deque[_InLog] = deque()

    @property
    def holds_any(self) -> bool:
        """Whether batches are held."""
        return bool(self._held)

    @property
    def any_in_log(self) -> bool:
        """Whether batches wait for entries of this node's log to take effect; it may have appended them before another led."""
        return bool(self._in_log or self._submitted)

    @property
    def outside_bytes(self) -> int:
        """What the batches count that are held or forwarded. Those in the log the core counts."""
        return self._held_bytes + self._forwarded_bytes

    @property
    def waiting(self) -> int:
        """Batches that wait, wherever they are."""
        return len(self._held) + len(self._submitted) + len(self._forwarded) + len(self._in_log)

    def hold(self, batch: Batch, *, first: bool = False) -> None:
        """Nobody can take it now.

        :param first: whether it had been held before, and is the next to be tried again.
        """
        self._held_bytes += batch.size
        if first:
            self._held.appendleft(batch)
        else:
            self._held.append(batch)

    def next_held(self) -> Batch | None:
        """The one that is held for the longest time, to be tried again."""
        if not self._held:
            return None
        batch = self._held.popleft()
        self._held_bytes -= batch.size
        return batch

    def may_forward(self, size: int, bytes_max: int) -> bool:
        """Whether the leader may be sent a batch of this size more; one always may."""
        return not self._forwarded or (len(self._forwarded) < FORWARDED_MAX and self._forwarded_bytes + size <= bytes_max)

    def submitted(self, batch: Batch) -> None:
        """The core, which leads, has taken it; :meth:`appended` tells where."""
        self._submitted[batch.context] = batch

    def forwarded(self, batch: Batch, leader: NodeId) -> None:
        """The core has passed it on to the leader."""
        self._forwarded[batch.context] = (leader, batch)
        self._forwarded_bytes += batch.size

    def appended(self, appended: Appended, batch: Batch | None = None) -> None:
        """A batch has its place in the log.

        :param batch: who waits for it, when a follower forwarded it; one of our own was :meth:`submitted` before.
        """
        batch = batch or self._submitted.pop(appended.context, None)
        while self._in_log and self._in_log[-1].first_index >= appended.first_index:  # of an earlier leadership, cut off since
            self._in_log.pop().batch.settle(LeadershipLost("another leader's entry has taken its place"))
        if batch is not None:
            self._in_log.append(_InLog(batch, appended.first_index, appended.term, appended.count))

    def answered(self, response: ProposeResponse) -> Batch | None:
        """The leader's answer to a forwarded batch.

        :returns: the batch when it may be tried again.
        """
        batch = self._back(response.context)
        if batch is None:
            return None
        if response.retry:
            return batch
        if response.error:
            batch.settle((OutcomeUnknown if response.unknown else Rejected)(response.error))
        else:
            batch.settle(response.results)
        return None

    def applied(self, applied: Applied) -> None:
        """Entries have taken effect: settle the batches that lie among them."""
        first = applied.entries[0].index
        last = applied.entries[-1].index
        while self._in_log and self._in_log[0].first_index <= last:
            waiting = self._in_log[0]
            begin = waiting.first_index + len(waiting.results) - first
            end = min(waiting.first_index + waiting.count - 1, last) - first + 1
            if begin < 0 or any(entry.term != waiting.term for entry in applied.entries[begin:end]):
                self._in_log.popleft()
                waiting.batch.settle(LeadershipLost("another leader's entry has taken its place"))
                continue
            waiting.results.extend(applied.results[begin:end])
            if len(waiting.results) < waiting.count:
                return
            self._in_log.popleft()
            waiting.batch.settle(tuple(waiting.results))

    def leadership_moved(self, now: float) -> None:
        """What is under way has one election timeout left."""
        for batch in (*self._submitted.values(), *(pair[1] for pair in self._forwarded.values()), *(waiting.batch for waiting in self._in_log)):
            batch.deadline = min(batch.deadline, now + self._patience)

    def unreachable(self, peer: NodeId) -> None:
        """The connection to ``peer`` broke: what was forwarded there may or may not have arrived."""
        for context in [context for context, (leader, _) in self._forwarded.items() if leader == peer]:
            batch = self._back(context)
            if batch is not None:
                batch.settle(OutcomeUnknown(f"the connection to the leader {peer} broke"))

    def expire(self, now: float, leader: NodeId | None = None) -> None:
        """Settle what has waited too long.

        :param leader: who leads, as far as is known.
        """
        late = [batch for batch in self._held if batch.deadline <= now]
        if late:
            self._held = deque(batch for batch in self._held if batch.deadline > now)
            self._held_bytes = sum(batch.size for batch in self._held)
            for batch in late:
                batch.settle(too_late(batch, now, leader))
        for context in [context for context, (_, batch) in self._forwarded.items() if batch.deadline <= now]:
            if (forwarded := self._back(context)) is not None:
                self._give_up(forwarded, now)
        for context in [context for context, batch in self._submitted.items() if batch.deadline <= now]:
            self._give_up(self._submitted.pop(context), now)
        if any(waiting.batch.deadline <= now for waiting in self._in_log):
            expired = [waiting for waiting in self._in_log if waiting.batch.deadline <= now]
            self._in_log = deque(waiting for waiting in self._in_log if waiting.batch.deadline > now)
            for waiting in expired:
                self._give_up(waiting.batch, now)

    def stop(self) -> None:
        """Settle everything: what was held had no effect, of the rest nobody knows."""
        while (batch := self.next_held()) is not None:
            batch.settle(NodeStopped("the node is stopping"))
        under_way = [*self._submitted.values(), *(pair[1] for pair in self._forwarded.values()), *(waiting.batch for waiting in self._in_log)]
        self._submitted.clear()
        self._forwarded.clear()
        self._forwarded_bytes = 0
        self._in_log.clear()
        for batch in under_way:
            batch.settle(LeadershipLost("the node is stopping"))

    def _back(self, context: int) -> Batch | None:
        """A batch is forwarded no more."""
        _, batch = self._forwarded.pop(context, (None, None))
        if batch is not None:
            self._forwarded_bytes -= batch.size
        return batch

    def _give_up(self, batch: Batch, now: float) -> None:
        batch.settle(ProposalTimeout(round(now - batch.began, 1)))


def too_late(batch: Batch, now: float, leader: NodeId | None) -> Rejected:
    """What the caller of a batch is told that was held until its deadline."""
    if leader is None:
        return NotLeader()
    return DeadlinePassed(f"nothing was sent within {round(now - batch.began, 1):g} s: the leader {leader} took no more")
