"""Committed entries on their way to the state machine: at once where somebody waits for them, a moment later elsewhere.

Whoever proposed waits at the leader, for the leader's machine. At a follower nobody waits but its own readers, and to apply forty entries together
costs little more than to apply four. So there they gather, no longer than somebody notices who looks at a follower's state without asking the leader.
"""

import asyncio
from collections.abc import Callable

from raft.core.model import Entry

DELAY_SECONDS = 0.005
"""How long the first of them waits at most."""
ENTRIES_MAX = 1_024
"""So many don't wait: more would only hold up what comes behind."""


class Backlog:
    """All on the loop's thread.

    :param apply: takes committed entries, in order.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, apply: Callable[[tuple[Entry, ...]], None]) -> None:
        self._loop = loop
        self._apply = apply
        self._entries: list[Entry] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, entries: tuple[Entry, ...], *, at_once: bool) -> None:
        """Take committed entries.

        :param at_once: whether somebody waits for one of them.
        """
        self._entries.extend(entries)
        if at_once or len(self._entries) >= ENTRIES_MAX:
            self.flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(DELAY_SECONDS, self.flush)

    def flush(self) -> None:
        """Let go of all that wait."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._entries:
            entries, self._entries = tuple(self._entries), []
            self._apply(entries)
