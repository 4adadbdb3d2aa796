"""Ends sessions that nobody renews, and the delays of lost locks: the leader proposes it when their time is up.

Every node counts the time of every session by itself, from the moment at which it applied the last renewal; that is never before the renewal was
committed, so whoever comes to lead ends no session early. Time without a leader does not count, for then nobody can renew, nor does time in which
this process did not run. A change of leader therefore shortens nothing, and lengthens what it falls into by no more than it takes.

The proposal names the renewal after which the time was counted, so one that was overtaken by another renewal, or that a deposed leader still
made, does nothing.
"""

import asyncio
import heapq
import logging
from collections import deque
from collections.abc import Iterable
from itertools import count, islice

from raft.errors import RaftError
from raft.runtime.server import RaftServer
from service.domain.commands import Command, EndLockDelay, SessionExpire, encode
from service.store.changes import Changes, Timer
from service.store.machine import KvMachine

log = logging.getLogger(__name__)

TICK_SECONDS = 0.1
TICK_SECONDS_MAX = 0.5
"""A longer time between two ticks was no time for anybody here."""
TTL_FACTOR = 2
"""A session lives at least its TTL; Consul ends it after twice that, so that a renewal may be late."""
RETRY_SECONDS = 1.0
COMMANDS_A_BATCH = 64
_NANOSECONDS = 10**9


class Deadlines:
    """When each timer is up, on a clock of the caller's. Not for several threads.

    A timer that begins again replaces the one before; its old place in the heap is passed over when it comes up.
    """

    def __init__(self) -> None:
        self._current: dict[str | bytes, int] = {}
        self._heap: list[tuple[float, int, Timer]] = []
        self._numbers = count()

    def note(self, timer: Timer, now: float) -> None:
        """A timer began, began again, or ended; its time counts from ``now``. One that is known already goes on."""
        if timer.duration_ns == 0:
            self._current.pop(timer.name, None)
        elif self._current.get(timer.name) != timer.index:
            self._current[timer.name] = timer.index
            factor = TTL_FACTOR if isinstance(timer.name, str) else 1
            self.put_back(timer, now + factor * timer.duration_ns / _NANOSECONDS)

    def replace(self, timers: Iterable[Timer], now: float) -> None:
        """These are all there are."""
        found = list(timers)
        names = {timer.name for timer in found}
        for name in [name for name in self._current if name not in names]:
            del self._current[name]
        for timer in found:
            self.note(timer, now)

    def put_back(self, timer: Timer, deadline: float) -> None:
        """Let a timer come up at another time."""
        heapq.heappush(self._heap, (deadline, next(self._numbers), timer))

    def due(self, now: float) -> list[Timer]:
        """Take the timers that are up."""
        taken: list[Timer] = []
        while self._heap and self._heap[0][0] <= now:
            timer = heapq.heappop(self._heap)[2]
            if self._current.get(timer.name) == timer.index:
                taken.append(timer)
        return taken


class SessionExpiry:
    """See the module's text. On the loop's thread, but for :meth:`publish`.

    :param machine: opened already; its timers count from now on.
    """

    def __init__(self, machine: KvMachine) -> None:
        self._machine = machine
        self._generation = machine.generation
        self._news: deque[tuple[bool, Iterable[Timer]]] = deque([(True, machine.timers())])
        self._deadlines = Deadlines()
        self._clock = 0.0
        self._ticked: float | None = None

    def publish(self, changes: Changes, _stamp_ms: int) -> None:
        """Entries were applied, or a snapshot was installed. By the thread that did it; it never waits."""
        if self._machine.generation != self._generation:
            self._generation = self._machine.generation
            self._news.append((True, self._machine.timers()))
        elif changes.timers:
            self._news.append((False, changes.timers))

    async def run(self, server: RaftServer) -> None:
        """Propose what is due while this node leads. Runs until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self.tick(loop.time(), has_leader=server.leader is not None)
            if server.leads and (due := self.due()):
                await self._end(server, due)
            await asyncio.sleep(TICK_SECONDS)

    def tick(self, now: float, *, has_leader: bool) -> None:
        """Let the time go on and take note of what was applied.

        :param now: in seconds, of a clock that never goes back.
        """
        if has_leader and self._ticked is not None:
            self._clock += min(now - self._ticked, TICK_SECONDS_MAX)
        self._ticked = now
        while self._news:
            complete, timers = self._news.popleft()
            if complete:
                self._deadlines.replace(timers, self._clock)
            else:
                for timer in timers:
                    self._deadlines.note(timer, self._clock)

    def due(self) -> list[Timer]:
        """Take what is up."""
        return self._deadlines.due(self._clock)

    async def _end(self, server: RaftServer, due: list[Timer]) -> None:
        """Propose the ends. What became of them shows in what is applied; what does not show is proposed again."""
        for timer in due:
            self._deadlines.put_back(timer, self._clock + RETRY_SECONDS)
        remaining = iter(due)
        while batch := list(islice(remaining, COMMANDS_A_BATCH)):
            try:
                await server.propose([encode(_command(timer)) for timer in batch])
            except RaftError as error:
                log.info("%d sessions or lock-delays could not be ended, it is tried again: %s", len(batch), error)
                return
            log.info("the time of %s was up", ", ".join(str(timer.name) for timer in batch))


def _command(timer: Timer) -> Command:
    if isinstance(timer.name, str):
        return SessionExpire(timer.name, timer.index)
    return EndLockDelay(timer.name, timer.index)
