"""Committed entries on their way to the state machine: at once where somebody waits for them, a moment later elsewhere.

Whoever proposed waits at the leader, for the leader's machine. At a follower nobody waits but its own readers, and to apply forty entries together
costs little more than to apply four. So there they gather while others were applied a moment ago; those that come after a pause are not held up.
"""

import asyncio
from typing import Protocol

from raft.core.model import Entry

DELAY_SECONDS = 0.02
"""How long after one batch the next one goes, at the earliest."""
ENTRIES_MAX = 1_024
"""So many don't wait: more would only hold up what comes behind."""


class Apply(Protocol):
    """Takes committed entries, in order; see :meth:`raft.runtime.applier.Applier.apply`."""

    def __call__(self, entries: tuple[Entry, ...], /, *, awaited: bool) -> None:
        """Do it."""
        ...


class Backlog:
    """All on the loop's thread.

    :param apply: takes the entries when they have waited long enough.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, apply: Apply) -> None:
        self._loop = loop
        self._apply = apply
        self._entries: list[Entry] = []
        self._awaited = False
        self._left = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, entries: tuple[Entry, ...], *, awaited: bool) -> None:
        """Take committed entries.

        :param awaited: whether somebody waits for one of them: then they go at once.
        """
        self._entries.extend(entries)
        self._awaited |= awaited
        if awaited or len(self._entries) >= ENTRIES_MAX:
            self.flush()
        elif self._timer is None:
            self._timer = self._loop.call_at(max(self._loop.time(), self._left + DELAY_SECONDS), self.flush)

    def flush(self) -> None:
        """Let go of all that wait."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._entries:
            self._left = self._loop.time()
            entries, self._entries = tuple(self._entries), []
            awaited, self._awaited = self._awaited, False
            self._apply(entries, awaited=awaited)
