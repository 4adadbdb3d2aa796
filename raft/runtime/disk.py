"""The thread that owns the log store: group commit in one transaction, off the event loop.

What the loop submits while a write is under way gathers and becomes the next write: one sync for all of it. So a slow disk makes batches
larger instead of queues longer, and heartbeats, which live on the loop, never wait for it.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Thread

from raft.core.model import Entry, HardState
from raft.core.ready import Ready
from raft.errors import StorageError, StorageFailed
from raft.ports.storage import LogStore, WriteBatch
from raft.runtime.inbox import Inbox, Task

READIES_MAX = 1_024


@dataclass(slots=True)
class DiskStatistics:
    """What the disk has done since the start. ``seconds`` is the time spent in writes; ``slowest`` the longest single one."""

    writes: int = 0
    entries: int = 0
    seconds: float = 0.0
    slowest: float = 0.0


class Disk:
    """Feed it Readies in order; it calls back on the loop when they are durable.

    :param store: touched by this thread alone, from :meth:`start` to :meth:`stop`.
    :param on_durable: called with the Readies of one transaction, in order.
    :param on_failure: called once; all further work is ignored then, because a failed sync is never tried again.
    :ivar reports: how often it has called back: while it is not idle and this stands still, one piece of work is under way.
    """

    def __init__(
        self,
        store: LogStore,
        loop: asyncio.AbstractEventLoop,
        on_durable: Callable[[list[Ready]], None],
        on_failure: Callable[[StorageError], None],
    ) -> None:
        self.statistics = DiskStatistics()
        self._store = store
        self._loop = loop
        self._on_durable = on_durable
        self._on_failure = on_failure
        self._inbox: Inbox[Ready] = Inbox()
        self._outstanding = 0
        self.reports = 0
        self._thread = Thread(target=self._run, name="raft-disk", daemon=True)

    @property
    def idle(self) -> bool:
        """Whether everything submitted has been reported."""
        return self._outstanding == 0

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def persist(self, ready: Ready) -> None:
        """Make a Ready durable, after everything submitted before it."""
        self._outstanding += 1
        self._inbox.put(ready)

    def call(self, run: Callable[[], object], done: Callable[[], None]) -> None:
        """Run something on the store's thread, in order; ``done`` follows on the loop. A failure of it is one of the disk."""
        self._outstanding += 1
        self._inbox.put(Task(run, lambda _: done()))

    def stop(self) -> None:
        """Finish what is queued and end the thread. Blocks."""
        self._inbox.close()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            while (work := self._inbox.take(READIES_MAX)) is not None:
                if isinstance(work, Task):
                    self._report(self._task_done, work, work.run())
                else:
                    self._write(work)
                    self._report(self._durable, work)
        except StorageError as error:
            self._report(self._on_failure, error)
        except Exception as error:  # noqa: BLE001 - whatever it was, this store can't be trusted any more
            self._report(self._on_failure, StorageFailed("writing the log", repr(error)))

    def _write(self, readies: list[Ready]) -> None:
        batch = _merge(readies)
        if not batch.entries and batch.hard_state is None:
            return
        began = time.perf_counter()
        self._store.write(batch)
        seconds = time.perf_counter() - began
        self.statistics.writes += 1
        self.statistics.entries += len(batch.entries)
        self.statistics.seconds += seconds
        self.statistics.slowest = max(self.statistics.slowest, seconds)

    def _durable(self, readies: list[Ready]) -> None:
        self._outstanding -= len(readies)
        self.reports += 1
        self._on_durable(readies)

    def _task_done(self, task: Task, result: object) -> None:
        self._outstanding -= 1
        self.reports += 1
        task.done(result)

    def _report(self, callback: Callable[..., None], *arguments: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback, *arguments)


def _merge(readies: list[Ready]) -> WriteBatch:
    """One batch that leaves the store as the single ones would: later entries replace earlier ones from their first index on."""
    if len(readies) == 1:
        return WriteBatch(readies[0].hard_state, readies[0].entries)
    hard_state: HardState | None = None
    entries: list[Entry] = []
    for ready in readies:
        hard_state = ready.hard_state or hard_state
        if ready.entries:
            keep = ready.entries[0].index - entries[0].index if entries else 0
            del entries[max(keep, 0) :]
            entries.extend(ready.entries)
    return WriteBatch(hard_state, tuple(entries))
