"""Callers that wait for a linearizable read: for a confirmed read index first, then for the state machine to reach it.

A read has no effect, so it is tried again, with a fresh round each time, until its deadline. Everything that arrives in one turn of the loop
shares a round.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count

from raft.core.ready import ReadState
from raft.errors import NotLeader, RaftError, ReadRefused

Settle = Callable[[int | RaftError], None]


@dataclass(slots=True)
class Read:
    """One caller. ``deadline`` is in the loop's seconds."""

    settle: Settle
    deadline: float


class Reads:
    """Where reads wait. All on the loop's thread.

    :param retry_after: seconds after which an unanswered round is asked for anew.
    """

    def __init__(self, retry_after: float) -> None:
        self._retry_after = retry_after
        self._new: list[Read] = []
        self._asked: dict[int, tuple[float, list[Read]]] = {}
        self._confirmed: list[tuple[int, int, Read]] = []  # a heap by read index
        self._order = count()
        self._held: deque[Read] = deque()

    @property
    def waiting(self) -> int:
        """Reads that wait, wherever they are."""
        return len(self._new) + len(self._held) + len(self._confirmed) + sum(len(reads) for _, reads in self._asked.values())

    @property
    def waits_for_machine(self) -> bool:
        """Whether a read was confirmed that the state machine has not reached."""
        return bool(self._confirmed)

    @property
    def has_new(self) -> bool:
        """Whether a round should be asked for."""
        return bool(self._new)

    def add(self, read: Read) -> None:
        """A read arrived; it joins the next round."""
        self._new.append(read)

    def ask(self, context: int, now: float) -> None:
        """All new reads wait for the round that ``context`` names."""
        self._asked[context] = (now, self._new)
        self._new = []

    def refuse(self, error: RaftError) -> None:
        """Nobody may be asked: tell all new reads."""
        refused, self._new = self._new, []
        for read in refused:
            read.settle(error)

    def hold(self) -> None:
        """Nobody can be asked now."""
        self._held.extend(self._new)
        self._new = []

    def take_held(self) -> None:
        """Whoever could not be asked before may be now."""
        self._new.extend(self._held)
        self._held.clear()

    def answered(self, state: ReadState, applied: int) -> None:
        """A round was confirmed, or refused."""
        _, reads = self._asked.pop(state.context, (0.0, []))
        if state.index == 0:
            self._held.extend(reads)
            return
        for read in reads:
            self.grant(read, state.index, applied)

    def grant(self, read: Read, index: int, applied: int) -> None:
        """A read may be served as soon as the state machine has reached ``index``; it has ``applied``."""
        if index <= applied:
            read.settle(applied)
        else:
            heappush(self._confirmed, (index, next(self._order), read))

    def applied(self, index: int) -> None:
        """The state machine holds everything up to ``index``."""
        while self._confirmed and self._confirmed[0][0] <= index:
            heappop(self._confirmed)[2].settle(index)

    def expire(self, now: float) -> None:
        """Ask again for what went unanswered; refuse what has waited too long."""
        for context in [context for context, (asked, _) in self._asked.items() if now - asked >= self._retry_after]:
            self._held.extend(self._asked.pop(context)[1])
        for context, (asked, reads) in tuple(self._asked.items()):
            late_here = [read for read in reads if read.deadline <= now]
            if late_here:
                self._asked[context] = asked, [read for read in reads if read.deadline > now]
                for read in late_here:
                    read.settle(ReadRefused("no leader confirmed it in time"))
        for read in [read for read in self._held if read.deadline <= now]:
            read.settle(NotLeader())
        self._held = deque(read for read in self._held if read.deadline > now)
        late = [item for item in self._confirmed if item[2].deadline <= now]
        if late:
            self._confirmed = sorted(item for item in self._confirmed if item[2].deadline > now)
            for _, _, read in late:
                read.settle(ReadRefused("the state machine did not reach the read index in time"))

    def stop(self) -> None:
        """Refuse everything."""
        waiting = [*self._new, *self._held, *(item[2] for item in self._confirmed), *(read for _, reads in self._asked.values() for read in reads)]
        self._new, self._confirmed = [], []
        self._held.clear()
        self._asked.clear()
        for read in waiting:
            read.settle(ReadRefused("the node is stopping"))
