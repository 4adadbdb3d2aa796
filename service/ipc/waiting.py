"""Requests that are parked until the agent answers, for gevent. The parts of :class:`service.ipc.client.AgentClient` that hold no socket."""

from dataclasses import dataclass, field
from typing import Any

import gevent.hub

from service.errors import BackendError, OutcomeUnknown

LATE = "the agent did not answer in time"


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

    1. At most one barrier is under way; ``id`` is 0 exactly when there is none.
    2. A read joins only a barrier that is sent after the read arrived: those that come meanwhile gather for the next.
    """

    def __init__(self) -> None:
        self.id = 0
        self._under_way: list[Question] = []
        self._gathering: list[Question] = []

    def join(self, question: Question) -> None:
        """A read arrived."""
        self._gathering.append(question)

    @property
    def due(self) -> bool:
        """Whether the next barrier is to be sent."""
        return bool(self._gathering) and not self.id

    def begin(self, number: int) -> None:
        """The next barrier leaves under this number."""
        self.id = number
        self._under_way, self._gathering = self._gathering, []

    @property
    def lease(self) -> bool:
        """Whether the lease will do for everybody who waits for the barrier under way."""
        return all(question.lease for question in self._under_way)

    def settle(self, outcome: Any) -> None:
        """The barrier under way was answered, or failed."""
        done, self._under_way, self.id = self._under_way, [], 0
        for question in done:
            wake(question.waiter, outcome)

    def lost(self) -> None:
        """The socket broke: the reads under way wait for the next barrier."""
        self._gathering = self._under_way + self._gathering
        self._under_way, self.id = [], 0

    def expire(self, now: float) -> None:
        """Fail the reads whose time is up. When nobody waits for the barrier under way any more, the next need not wait for it either."""
        for question in self._under_way + self._gathering:
            if question.deadline <= now:
                wake(question.waiter, OutcomeUnknown(LATE))
        self._gathering = [question for question in self._gathering if question.deadline > now]
        self._under_way = [question for question in self._under_way if question.deadline > now]
        if not self._under_way:
            self.id = 0

    def abandon(self, error: BackendError) -> None:
        """Fail all of them."""
        self.lost()
        self.begin(0)
        self.settle(error)
