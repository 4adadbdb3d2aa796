"""The lease of a leader: how long it may serve reads without asking anybody (dissertation, section 6.4.1).

Who has answered a round of heartbeats heard the leader after the round was sent, and votes for nobody else for an election timeout of its own
ticks. So once a quorum has answered, nobody else can lead before that time has passed since the *sending*: when the answers arrive, or are
looked at, says nothing. The clock goes on while the machine is suspended. That two clocks run alike is assumed only as far as the setting
``lease_drift_percent`` says.

Whoever asks whether the lease is held gets an answer about the moment of asking. A read that arrived before, and looks at the state
after, is linearizable however long it pauses in between.
"""

import time
from collections import deque
from collections.abc import Callable

Clock = Callable[[], int]
Publish = Callable[[int, int], None]

ROUNDS_KEPT = 64
"""Sending times of so many rounds are remembered. Forgetting one can only end a lease too early."""

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # elsewhere than on Linux the monotonic clock includes a suspension


def boot_time_ns() -> int:
    """Nanoseconds of a clock that never goes back and does not stop while the machine sleeps."""
    return time.clock_gettime_ns(_CLOCK)


def nobody(_end_ns: int, _commit: int) -> None:
    """Nobody wants to know when the lease ends."""


class Lease:
    """The lease of one node, whenever it leads.

    :param length_ns: how long a round carries it; 0 for no lease ever.
    :param publish: told its end and the commit index, see :meth:`publish`.
    """

    def __init__(self, length_ns: int, clock: Clock = boot_time_ns, publish: Publish = nobody) -> None:
        self._length_ns = length_ns
        self._clock = clock
        self._publish = publish
        self._published_ns = 0
        self._term = 0
        self._round = 0
        self._sent: deque[tuple[int, int]] = deque(maxlen=ROUNDS_KEPT)
        self._end_ns = 0

    def sending(self, term: int, round_: int) -> None:
        """The messages of every round of ``term`` up to ``round_`` are about to leave, or have left. Call it before the transport gets them."""
        if term != self._term:
            self._term, self._round, self._end_ns = term, 0, 0
            self._sent.clear()
        if round_ > self._round:
            self._round = round_
            self._sent.append((round_, self._clock()))

    def end_ns(self, term: int, round_: int) -> int:
        """Until when nobody else can lead, on the lease's clock; 0 for no lease.

        :param round_: the last round of ``term`` that a quorum has answered; 0 when no lease may rest on any.
        """
        if term != self._term or not round_:
            return 0
        while self._sent and self._sent[0][0] <= round_:
            self._end_ns = self._sent.popleft()[1] + self._length_ns
        return self._end_ns

    def publish(self, term: int, round_: int, commit: int) -> None:
        """Tell others until when they may rely on it, as long as there is one, and that there is none any more.

        Call it before anything is sent. Then whatever was acknowledged to anybody is at or below a commit index that was told before, and a
        lease has ended before a successor can be called.
        """
        end_ns = self.end_ns(term, round_)
        if end_ns or self._published_ns:
            self._published_ns = end_ns
            self._publish(end_ns, commit)

    def is_held(self, term: int, round_: int) -> bool:
        """Whether nobody else can lead now; ``round_`` as in :meth:`end_ns`."""
        return self._clock() < self.end_ns(term, round_)


class Pauses:
    """Notices that time passed without ticks: the process was stopped, or the machine suspended.

    :param limit_ns: more than this from one tick to the next is such a pause.
    """

    def __init__(self, limit_ns: int, clock: Clock = boot_time_ns) -> None:
        self._limit_ns = limit_ns
        self._clock = clock
        self._last_ns = clock()

    def ended(self) -> bool:
        """Call it at every tick: whether a pause lies between the last one and this."""
        before, self._last_ns = self._last_ns, self._clock()
        return self._last_ns - before > self._limit_ns
