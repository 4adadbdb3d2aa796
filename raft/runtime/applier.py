"""The thread that owns the state machine: committed entries go in, results come out, in order.

A thread of its own, because one command may take long (a prefix of a million keys) and nobody else should notice.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from threading import Thread

from raft.core.model import Entry, EntryKind
from raft.errors import MachineFailed, RaftError
from raft.ports.machine import StateMachine
from raft.runtime.inbox import Inbox, Task

BATCHES_MAX = 64
"""Committed batches joined into one call: the results of the first should not wait for thousands of others."""


@dataclass(frozen=True, slots=True)
class Applied:
    """A batch that has taken effect. Results are those of the entries, in order; there may be none where nobody waited for any."""

    entries: Sequence[Entry]
    results: Sequence[bytes]


class Applier:
    """Feed it committed entries in order.

    :param on_applied: called on the loop for each batch.
    :param on_failure: called once; nothing more is applied then: an entry is never skipped.
    """

    def __init__(
        self,
        machine: StateMachine,
        loop: asyncio.AbstractEventLoop,
        on_applied: Callable[[Applied], None],
        on_failure: Callable[[RaftError], None],
    ) -> None:
        self._machine = machine
        self._loop = loop
        self._on_applied = on_applied
        self._on_failure = on_failure
        self._inbox: Inbox[tuple[tuple[Entry, ...], bool]] = Inbox()
        self._thread = Thread(target=self._run, name="raft-apply", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def apply(self, entries: tuple[Entry, ...], *, awaited: bool) -> None:
        """Apply entries, after everything submitted before.

        :param awaited: whether anybody waits for their results; where nobody does there may be none.
        """
        self._inbox.put((entries, awaited))

    def call(self, run: Callable[[], object], done: Callable[[object], None]) -> None:
        """Run something on the machine's thread, in order; ``done`` gets its result on the loop, or the exception that it raised."""
        self._inbox.put(Task(run, done))

    def stop(self) -> None:
        """Finish what is queued and end the thread. Blocks."""
        self._inbox.close()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while (work := self._inbox.take(BATCHES_MAX)) is not None:
            if isinstance(work, Task):
                self._perform(work)
            elif not self._apply(list(chain.from_iterable(entries for entries, _ in work)), awaited=any(awaited for _, awaited in work)):
                return

    def _apply(self, entries: list[Entry], *, awaited: bool) -> bool:
        batch = [(entry.index, entry.term, entry.data if entry.kind is EntryKind.COMMAND else None) for entry in entries]
        try:
            results = self._machine.apply(batch, awaited=awaited)
        except Exception as error:  # noqa: BLE001 - whatever it raised, the node stops at this index
            self._report(self._on_failure, error if isinstance(error, RaftError) else MachineFailed(entries[0].index, error))
            return False
        if (awaited or results) and (fault := _fault(entries, results)) is not None:
            self._report(self._on_failure, MachineFailed(entries[0].index, fault))
            return False
        self._report(self._on_applied, Applied(entries, results))
        return True

    def _perform(self, task: Task) -> None:
        try:
            result = task.run()
        except Exception as error:  # noqa: BLE001 - whoever asked decides what it means
            result = error
        self._report(task.done, result)

    def _report(self, callback: Callable[..., None], *arguments: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback, *arguments)


def _fault(entries: Sequence[Entry], results: Sequence[bytes]) -> Exception | None:
    """What is wrong with the results of a machine: a caller would get another's, or none, or one that can't travel."""
    if len(results) != len(entries):
        return ValueError(f"{len(results)} results for {len(entries)} entries")
    for entry, result in zip(entries, results, strict=True):
        if entry.kind is EntryKind.COMMAND and type(result) is not bytes:
            return TypeError(f"the result for index {entry.index} is of type {type(result).__name__}; it must be bytes")
    return None
