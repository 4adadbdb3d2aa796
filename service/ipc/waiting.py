"""Requests that are parked until the agent answers, for gevent. The parts of :class:`service.ipc.client.AgentClient` that hold no socket."""

from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import gevent.hub

from service.errors import BackendError, OutcomeUnknown

LATE = "the agent did not answer in time"
UNDER_WAY_MAX = 2
"""Barriers under way at once: while the cluster confirms one, the next is on its way. Three serve no more reads than two."""


def wake(waiter: Any, value: Any) -> None:
    """Let a parked request go on in the next turn of the loop, with ``value`` or, if that is an error, raising it."""
    loop = gevent.hub.get_hub().loop
    if isinstance(value, BackendError):
        loop.run_callback(waiter.throw, value)
    else:
        loop.run_callback(waiter.switch, value)


@dataclass(slots=True, eq=False)
class Proposal:
    """A command on its way; ``sent`` once a byte of it may have left.

    :ivar deadline: monotonic, in seconds; it begins anew with ``timeout`` when the command is sent.
    """

    command: bytes
    deadline: float
    timeout: float
    waiter: Any = field(default_factory=gevent.hub.Waiter)
    sent: bool = False


@dataclass(slots=True, eq=False)
class Question:
    """A request that may be asked again on another socket: a barrier, a status, a watch.

    :ivar lease: of a barrier: whether the leader's lease will do.
    """

    deadline: float
    waiter: Any = field(default_factory=gevent.hub.Waiter)
    lease: bool = False


class Barriers:
    """Shares barriers among reads.

    Invariants:

    1. At most :data:`UNDER_WAY_MAX` barriers are under way.
    2. A read joins only a barrier that is sent after the read arrived: those that come meanwhile gather for the next.
    """

    def __init__(self) -> None:
        self._under_way: dict[int, list[Question]] = {}
        self._gathering: list[Question] = []

    def join(self, question: Question) -> None:
        """A read arrived."""
        self._gathering.append(question)

    @property
    def due(self) -> bool:
        """Whether the next barrier is to be sent."""
        return bool(self._gathering) and len(self._under_way) < UNDER_WAY_MAX

    def begin(self, number: int) -> bool:
        """The next barrier leaves under this number.

        :returns: whether the lease will do for everybody who waits for it.
        """
        self._under_way[number], self._gathering = self._gathering, []
        return all(question.lease for question in self._under_way[number])

    def settle(self, number: int, outcome: Any) -> bool:
        """A barrier was answered, or failed.

        :returns: whether it was one of these, under way.
        """
        questions = self._under_way.pop(number, None)
        for question in questions or ():
            wake(question.waiter, outcome)
        return questions is not None

    def lost(self) -> None:
        """The socket broke: the reads under way wait for the next barrier."""
        self._gathering = [*chain.from_iterable(self._under_way.values()), *self._gathering]
        self._under_way.clear()

    def expire(self, now: float) -> None:
        """Fail the reads whose time is up. Nobody waits for a barrier any more for whose answer no read does."""
        for question in chain(self._gathering, *self._under_way.values()):
            if question.deadline <= now:
                wake(question.waiter, OutcomeUnknown(LATE))
        self._gathering = [question for question in self._gathering if question.deadline > now]
        kept = {number: [question for question in questions if question.deadline > now] for number, questions in self._under_way.items()}
        self._under_way = {number: questions for number, questions in kept.items() if questions}

    def abandon(self, error: BackendError) -> None:
        """Fail all of them."""
        self.lost()
        for question in self._gathering:
            wake(question.waiter, error)
        self._gathering = []
