"""Blocking queries: a read that waits until its result is newer than an index the client knows.

A query registers first and is evaluated then, so that no change falls between. The agent names what each applied batch changed; a change
marks the queries it touches, each distinct query is evaluated once however many requests wait for it, and those whose index was passed go
on. A query for a key that does not exist wakes only when that very key changes. One that looks at another table wakes whenever that changes.

After a reconnection everything is evaluated anew; a new state file, a restored archive, or a node that stops, answers everyone at once.
"""

import logging
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import gevent
from gevent.event import AsyncResult
from gevent.lock import BoundedSemaphore

from service.api.consistency import Freshness
from service.api.errors import RequestRefused
from service.api.reads import TABLES, Kind, Query, Reads, Result
from service.errors import BackendError, StateUnreadable
from service.ipc.client import AgentClient
from service.ipc.protocol import Changed, NodeState
from service.reloading import Live
from service.store import acl_rows
from service.store.changes import REPLACED
from service.store.reader import Reader

log = logging.getLogger(__name__)

JITTER_FRACTION = 1 / 16
UNWATCH_SECONDS = 10.0
RETRY_AFTER_SECONDS = 1
WOKEN_AT_ONCE = 50
"""Those who wait for the same are woken in groups of so many: a group takes the worker a few milliseconds, and others' requests come in between."""
_LISTINGS = (Kind.TREE, Kind.NAMES)


@dataclass(slots=True, eq=False)
class _Waiter:
    """One request; ``answer`` gets the Result that ends its wait, or None to end it with what there is."""

    index: int
    answer: Any = field(default_factory=AsyncResult)


@dataclass(slots=True, eq=False)
class _Group:
    """All requests that wait for the same query.

    Invariants: a group without waiters is in no table; ``evaluating`` is set exactly while a greenlet evaluates it, and a change that
    comes meanwhile sets ``dirty``, so that the greenlet goes round again.
    """

    query: Query
    waiters: set[_Waiter] = field(default_factory=set)
    latest: Result | None = None
    dirty: bool = False
    forced: bool = False
    evaluating: bool = False


class Blocking:
    """The blocking queries of one worker.

    :param live: ``blocking_queries_max`` is how many may wait; more are refused with 429.
    """

    def __init__(self, backend: AgentClient, state: Reader, reads: Reads, live: Live) -> None:
        self._backend = backend
        self._state = state
        self._reads = reads
        self._live = live
        self._waiting = 0
        self._groups: dict[Query, _Group] = {}
        self._prefixes: dict[bytes, set[_Group]] = {}
        self._prefix_lengths: dict[int, int] = {}
        self._waiters: dict[Any, _Waiter] = {}
        self._watching = False
        self._watch_lock = BoundedSemaphore()
        self._generation = 0
        self._quitting = False
        backend.on_changed = self.changed
        backend.on_state = self.state_changed

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return self._waiting

    def wait(self, query: Query, index: int, wait_seconds: float, freshness: Freshness) -> Result:
        """Evaluate a query, and again at each change, until its index is above ``index`` or the time is up.

        :param freshness: of the first evaluation.
        :returns: the newest result, whether or not it changed.
        :raises RequestRefused: too many queries wait already.
        """
        if self._quitting:
            return self._reads.read(query, **freshness._asdict())
        if self._waiting >= (capacity := self._live.now.blocking_queries_max):
            text = f"Too many blocking queries: {capacity} wait already."
            raise RequestRefused(429, text, (("Retry-After", str(RETRY_AFTER_SECONDS)),))
        waiter = _Waiter(index)
        greenlet = gevent.getcurrent()
        self._waiters[greenlet] = waiter
        group = self._register(query, waiter)
        try:
            self._watch()
            first = self._reads.read(query, **freshness._asdict())
            if query.is_news(first.index, index):
                return first
            waiter.answer.wait(wait_seconds * (1 + random.random() * JITTER_FRACTION))  # noqa: S311 - spreads load, guards nothing
            if waiter.answer.ready():
                changed: Result | None = waiter.answer.get()
                return changed or group.latest or first
            if query.kind in {Kind.KEY, Kind.SESSION}:
                return self._reads.read(query, fresh=False)
            # A listing is dear, and every change to this one would have renewed it.
            return group.latest or first
        finally:
            del self._waiters[greenlet]
            self._unregister(group, waiter)

    def gone(self, greenlet: Any) -> None:
        """Nobody is there any more to take the answer of the request that a greenlet carries out: it waits no longer. Never waits.

        A client that has only said that it sends nothing more gets what there is.
        """
        if waiter := self._waiters.get(greenlet):
            waiter.answer.set(None)

    def release(self) -> None:
        """Answer everyone with what there is, and let nobody wait from now on: the worker stops."""
        self._quitting = True
        self._mark(self._groups.values(), forced=True)

    # -- what the agent tells --

    def changed(self, message: Changed) -> None:
        """Mark the queries that a batch may have changed. Never waits."""
        if message.everything:
            self._mark(self._groups.values(), forced=REPLACED in message.tables)
            return
        for key in message.keys:
            self._mark(self._touched(key))
        for prefix in message.prefixes:
            self._mark(group for group in self._groups.values() if _overlaps(group.query, prefix))
        for table in message.tables:
            self._mark(group for group in self._groups.values() if TABLES.get(group.query.kind) == table)
            if table == acl_rows.TABLE:  # who has lost a permission waits no longer
                self._mark(group for group in self._groups.values() if group.query.token is not None)
        if message.sessions:
            names = {id_.encode() for id_ in message.sessions}
            self._mark(group for group in self._groups.values() if _is_about(group.query, names))

    def state_changed(self, state: NodeState) -> None:
        """Notice a new state file and the end of the node. Never waits."""
        if state.generation != self._generation:
            first, self._generation = self._generation == 0, state.generation
            try:
                self._state.reopen()
            except StateUnreadable as error:
                # Whoever reads next tries again, and hears of it.
                log.warning("state file %d can't be opened: %s", state.generation, error)
            if not first:
                self._mark(self._groups.values(), forced=True)
        if state.quitting and not self._quitting:
            self.release()

    def _touched(self, key: bytes) -> Iterator[_Group]:
        if single := self._groups.get(Query(Kind.KEY, key)):
            yield single
        for length in self._prefix_lengths:
            if length <= len(key):
                yield from self._prefixes.get(key[:length], ())

    def _mark(self, groups: Iterable[_Group], *, forced: bool = False) -> None:
        for group in list(groups):
            group.dirty = True
            group.forced = group.forced or forced
            if not group.evaluating:
                group.evaluating = True
                gevent.spawn(self._evaluate, group)

    def _evaluate(self, group: _Group) -> None:
        try:
            while group.dirty and group.waiters:
                forced, group.dirty, group.forced = group.forced, False, False
                result = group.latest = self._reads.read(group.query, fresh=False)
                self._answer(group, result, forced=forced)
        except RequestRefused as refused:
            for waiter in group.waiters:
                waiter.answer.set_exception(refused)
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must hear of it
            log.warning("a blocking query for %r could not be evaluated: %s", group.query.key, error)
            for waiter in group.waiters:
                waiter.answer.set_exception(error)
        finally:
            group.evaluating = False

    def _answer(self, group: _Group, result: Result, *, forced: bool) -> None:
        """Wake those for whom a result is news, some at a time: what else the worker has to do comes in between."""
        waiting = [waiter for waiter in group.waiters if forced or group.query.is_news(result.index, waiter.index)]
        for start in range(0, len(waiting), WOKEN_AT_ONCE):
            if start:
                gevent.sleep(0)
            for waiter in waiting[start : start + WOKEN_AT_ONCE]:
                waiter.answer.set(result)

    # -- the tables --

    def _register(self, query: Query, waiter: _Waiter) -> _Group:
        group = self._groups.get(query)
        if group is None:
            group = self._groups[query] = _Group(query)
            if query.kind in _LISTINGS:
                self._prefixes.setdefault(query.key, set()).add(group)
                self._prefix_lengths[len(query.key)] = self._prefix_lengths.get(len(query.key), 0) + 1
        group.waiters.add(waiter)
        self._waiting += 1
        return group

    def _unregister(self, group: _Group, waiter: _Waiter) -> None:
        group.waiters.discard(waiter)
        self._waiting -= 1
        if not group.waiters:
            self._forget(group)
        if not self._waiting and self._watching:
            gevent.spawn_later(UNWATCH_SECONDS, self._unwatch)

    def _forget(self, group: _Group) -> None:
        query = group.query
        del self._groups[query]
        if query.kind not in _LISTINGS:
            return
        self._prefixes[query.key].discard(group)
        if not self._prefixes[query.key]:
            del self._prefixes[query.key]
        self._prefix_lengths[len(query.key)] -= 1
        if not self._prefix_lengths[len(query.key)]:
            del self._prefix_lengths[len(query.key)]

    def _watch(self) -> None:
        with self._watch_lock:
            if self._watching:
                return
            try:
                self._backend.watch(on=True)
            except BackendError:
                if self._backend.connected:
                    raise
                # The client asks again when the agent is back, and everyone is evaluated then.
            self._watching = True

    def _unwatch(self) -> None:
        with self._watch_lock:
            if self._waiting or not self._watching:
                return
            self._watching = False
            try:
                self._backend.watch(on=False)
            except BackendError as error:
                log.debug("the agent goes on announcing changes: %s", error)


def _overlaps(query: Query, deleted: bytes) -> bool:
    """Whether deleting all keys under a prefix may change the result of a query."""
    if query.kind not in _LISTINGS:
        return query.kind is Kind.KEY and query.key.startswith(deleted)
    return query.key.startswith(deleted) or deleted.startswith(query.key)


def _is_about(query: Query, sessions: set[bytes]) -> bool:
    """Whether creating or destroying sessions may change the result of a query."""
    return query.key in sessions if query.kind is Kind.SESSION else query.kind in {Kind.SESSIONS, Kind.NODE_SESSIONS}
