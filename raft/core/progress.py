"""What a leader knows of one follower, and the only place where that knowledge changes its state.

::

    probe      one append at a time, until the point of agreement is found
    replicate  appends are sent ahead of their answers, within a window of messages and bytes
    snapshot   nothing is sent until the snapshot has arrived or failed

Invariants: ``match < next``; ``match`` never decreases; the window never holds more than its two limits allow, save one append
that is larger than the byte limit by itself.
"""

from collections import deque
from enum import StrEnum

from raft.core.model import NodeId


class ProgressState(StrEnum):
    """How a follower is being served."""

    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


class Progress:
    """One follower as its leader sees it.

    :param next_index: where to try first: one past the leader's last index.
    :param tick: the present, so that a fresh leader counts everybody as heard of.
    """

    __slots__ = (
        "_inflight",
        "_round_in_time",
        "_round_since",
        "_round_target",
        "contact_tick",
        "inflight_bytes",
        "match",
        "next",
        "nudge",
        "peer",
        "probe_sent",
        "read_round",
        "state",
    )

    def __init__(self, peer: NodeId, next_index: int, tick: int) -> None:
        self.peer = peer
        self.match = 0
        self.next = next_index
        self.state = ProgressState.PROBE
        self.probe_sent = False
        self.nudge = False
        self.contact_tick = tick
        self.read_round = 0
        self._round_target = next_index - 1
        self._round_since = tick
        self._round_in_time = False
        self._inflight: deque[tuple[int, int]] = deque()  # (last index, bytes) of unanswered appends
        self.inflight_bytes = 0

    @property
    def inflight(self) -> int:
        """Unanswered appends."""
        return len(self._inflight)

    def may_send(self, appends_max: int, bytes_max: int) -> bool:
        """Whether an append with entries may be sent now."""
        if self.state is ProgressState.REPLICATE:
            return len(self._inflight) < appends_max and self.inflight_bytes < bytes_max
        return self.state is ProgressState.PROBE and not self.probe_sent

    def sent(self, last_index: int, size: int) -> None:
        """An append with entries up to ``last_index`` was sent; ``last_index`` is below ``next`` for an empty one."""
        self.nudge = False
        if self.state is ProgressState.PROBE:
            self.probe_sent = True
        elif last_index >= self.next:
            self._inflight.append((last_index, size))
            self.inflight_bytes += size
            self.next = last_index + 1

    def accepted(self, index: int) -> bool:
        """The follower holds everything up to ``index``, durably.

        :returns: whether that is news.
        """
        news = index > self.match
        self.match = max(self.match, index)
        self.next = max(self.next, index + 1)
        while self._inflight and self._inflight[0][0] <= index:
            self.inflight_bytes -= self._inflight.popleft()[1]
        return news

    def refused(self, rejected_index: int, retry_index: int) -> bool:
        """The follower had no matching entry at ``rejected_index``.

        :param retry_index: where the logs may agree.
        :returns: False when the refusal is older than what is known; nothing changes then.
        """
        if self.state is ProgressState.REPLICATE:
            if rejected_index <= self.match:
                return False
            self.become_probe()
            return True
        if self.state is ProgressState.SNAPSHOT or rejected_index != self.next - 1:
            return False
        self.next = max(min(rejected_index, retry_index + 1), self.match + 1)
        self.probe_sent = False
        return True

    def retry(self) -> None:
        """A heartbeat interval has passed: what seems lost may be tried again. With a full window: one empty append, whose refusal shows a gap."""
        self.probe_sent = False
        self.nudge = self.state is ProgressState.REPLICATE

    def time_round(self, last_index: int, tick: int, ticks_max: int) -> None:
        """A tick has passed: when what the log held at the beginning of a round has arrived, begin another (dissertation, section 4.2.1).

        :param ticks_max: how long a round may take.
        """
        if self.match >= self._round_target:
            self._round_in_time = tick - self._round_since <= ticks_max
            self._round_target, self._round_since = last_index, tick

    def has_caught_up(self, tick: int, ticks_max: int) -> bool:
        """Whether the last round was short enough, and the present one is not too long already."""
        return self._round_in_time and tick - self._round_since <= ticks_max

    def become_probe(self) -> None:
        """Search for the point of agreement, from the last known one on."""
        self._enter(ProgressState.PROBE)
        self.next = self.match + 1

    def become_replicate(self) -> None:
        """The logs agree up to ``match``: send ahead."""
        self._enter(ProgressState.REPLICATE)
        self.next = self.match + 1

    def become_snapshot(self) -> None:
        """What the follower needs is compacted away."""
        self._enter(ProgressState.SNAPSHOT)

    def _enter(self, state: ProgressState) -> None:
        self.state = state
        self.probe_sent = False
        self.nudge = False
        self._inflight.clear()
        self.inflight_bytes = 0
