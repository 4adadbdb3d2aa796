"""Reading the local state: at once, or after a barrier that makes it as new as anything acknowledged before.

The barrier of a default read is content with the leader's lease where this node leads; that of a ``?consistent`` one always asks a quorum.
For a single key not even the agent is asked while the lease lasts (:mod:`service.ipc.page`): it is read, and counts if the state was new enough.
"""

import sys
import time
from collections.abc import Callable, Sequence
from enum import Enum
from functools import partial
from sqlite3 import Connection
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import gevent
import msgspec
from gevent.threadpool import ThreadPool
from msgspec import structs

from service.api.acl.resolver import DENIED, FORBIDDEN, Resolver
from service.api.consistency import Freshness
from service.api.errors import RequestRefused
from service.api.responses import entries, sessions, texts
from service.domain.acl.authorizer import EVERYTHING, Authorizer
from service.domain.acl.rules import READ
from service.domain.commands import TxnOperation
from service.domain.entries import Row
from service.domain.events import NO_EVENTS_INDEX, index_of, is_for
from service.domain.keys import fold
from service.domain.txn import Outcome
from service.errors import RequestRejected, StateDamaged, StateUnreadable
from service.ipc.client import REQUEST_SECONDS_MAX, AgentClient
from service.store import acl_rows, autopilot_rows, event_rows, server_rows
from service.store.reader import Found, Reader

LISTING_THREADS = 4
CATCH_UP_SECONDS = 2.0
CATCH_UP_PAUSE_SECONDS = 0.002


class Kind(Enum):
    """What a query asks for."""

    KEY = "key"
    TREE = "recurse"
    NAMES = "keys"
    EVENTS = "events"
    NODES = "nodes"
    CHECKS = "checks"
    HEALTH = "health"
    AUTOPILOT = "autopilot"
    SESSION = "session"
    SESSIONS = "sessions"
    NODE_SESSIONS = "sessions of a node"
    ACL = "acl"


TABLES = {
    Kind.EVENTS: event_rows.TABLE,
    Kind.NODES: server_rows.TABLE,
    Kind.CHECKS: server_rows.TABLE,
    Kind.HEALTH: server_rows.TABLE,
    Kind.AUTOPILOT: autopilot_rows.TABLE,
    Kind.ACL: acl_rows.TABLE,
}
"""What queries that are about neither keys nor sessions look at."""


class Query(NamedTuple):
    """What is asked for; equal queries have equal results.

    :ivar key: or the prefix, the name of the events, the session's id, the node's name, the kind of records of the ACL.
    :ivar separator: of ``?keys``.
    :ivar node: of events: who is to see them.
    :ivar token: the secret of whoever asks, for what depends on that; None when nobody is asked. Each evaluation decides anew.
    """

    kind: Kind
    key: bytes = b""
    separator: bytes = b""
    node: str = ""
    token: str | None = None

    def is_news(self, found: int, known: int) -> bool:
        """Whether a client that knows one index waits no longer when another one was found. That of events says which one, not how new."""
        return found != known if self.kind is Kind.EVENTS else found > known


class Result(msgspec.Struct, frozen=True):
    """What a query found.

    :ivar index: of the answer (X-Consul-Index).
    :ivar applied: how far the state was applied that it was read from.
    :ivar as_of: the same of whatever is oldest among what it depends on, permissions included; 0 when it depends on more than the state.
    :ivar row: of a single key; None when it does not exist.
    :ivar body: compact JSON of a listing, or of sessions; None when it found nothing.
    :ivar found: events, servers, the autopilot's configuration or the whole ACL.
    :ivar local: whether nobody was asked, where the request leaves that open; None: it is as the request says.
    """

    index: int
    applied: int
    row: Row | None = None
    body: bytes | None = None
    found: Any = None
    local: bool | None = None
    as_of: int = 0


class Evaluated(NamedTuple):
    """What a transaction found that only reads; ``applied`` as in :class:`Result`."""

    outcome: Outcome
    applied: int


Read = TypeVar("Read")


class Looked(NamedTuple, Generic[Read]):
    """What a function read; ``applied`` as in :class:`Result`."""

    found: Read
    applied: int


class _Applied(Protocol):
    """Anything that tells how far the state was applied that it was read from."""

    @property
    def applied(self) -> int: ...


Answered = TypeVar("Answered", bound=_Applied)


class _Granted(NamedTuple):
    """What somebody may see, and which entry of the log decides that at least; see ``as_of`` of :class:`Result`."""

    may: Authorizer
    as_of: int


_EVERYTHING = _Granted(EVERYTHING, sys.maxsize)


class Reads:
    """Evaluates queries against the local state.

    A single key is read on the hub (microseconds). Listings are read and turned into JSON in a thread, in one transaction, because nothing
    may hold the hub for long.
    """

    def __init__(self, backend: AgentClient, state: Reader, resolver: Resolver | None = None) -> None:
        self._backend = backend
        self._state = state
        self._resolver = resolver
        self._threads = ThreadPool(LISTING_THREADS)

    def read(
        self, query: Query, *, fresh: bool, consistent: bool = False, seconds: float = REQUEST_SECONDS_MAX, required: int | None = None
    ) -> Result:
        """Evaluate a query.

        :param fresh: see everything that was acknowledged before this call (costs a barrier); otherwise what this node has.
        :param consistent: rely on no clock for that.
        :param seconds: how long the barrier may take.
        :param required: what :meth:`require` has told for that already.
        :raises BackendError: the barrier failed, or the state can't be read.
        """
        freshness = Freshness(fresh, consistent, seconds)
        return self._evaluate(partial(self._local, query), freshness, cheap=query.kind is Kind.KEY, required=required)

    def require(self, freshness: Freshness) -> int:
        """Learn which entry of the log a read must have seen.

        :param freshness: that is not to be had from this node alone.
        :raises BackendError: the barrier failed.
        """
        if not freshness.consistent and (required := self._backend.lease_index()) is not None:
            return required
        index, generation = self._backend.barrier(timeout=freshness.seconds, lease=not freshness.consistent)
        try:
            if generation != self._state.generation():
                self._state.reopen()
        except StateUnreadable as error:
            raise self._unreadable(error) from error
        return index

    @property
    def leader_known(self) -> bool:
        """Whether a barrier is likely to pass."""
        return self._backend.node_state.leader_known

    def barrier(self) -> None:
        """See everything that was acknowledged before this call from now on.

        :raises BackendError: it can't be had.
        """
        self._evaluate(lambda: Looked(None, self._state.applied()), Freshness(fresh=True))

    def nodes_of_session(self, id_: str) -> list[str]:
        """The node of a session; none when there is no such session.

        :raises BackendError: the state can't be read.
        """
        try:
            return [session.node for session in self._state.sessions(id_).sessions]
        except (StateUnreadable, TimeoutError) as error:
            raise RequestRejected(str(error)) from error

    def transaction(self, operations: Sequence[TxnOperation], freshness: Freshness) -> Outcome:
        """Evaluate operations that only read, at one moment; see :meth:`read`."""
        return self._evaluate(partial(self._threads.apply, self._transaction, (operations,)), freshness).outcome

    def look(self, read: Callable[[Connection], Read], freshness: Freshness) -> Read:
        """Let a function read the state at one moment, in a thread; see :meth:`read`.

        :param read: is given a connection in a read transaction; it may be called again when the state file is replaced meanwhile.
        """
        looked: Looked[Read] = self._evaluate(partial(self._threads.apply, self._look, (read,)), freshness)
        return looked.found

    def look_as(self, token: str | None, read: Callable[[Authorizer, Connection], Read], freshness: Freshness) -> Read:
        """As :meth:`look`; the function is told what the bearer of a token may see, None for when nobody is asked.

        :raises RequestRefused: there is no such token.
        """

        def local() -> Looked[Read]:
            looked: Looked[Read] = self._threads.apply(self._look, (partial(read, self._granted(token).may),))
            return looked

        return self._evaluate(local, freshness).found

    def _granted(self, token: str | None) -> _Granted:
        if token is None or self._resolver is None:
            return _EVERYTHING
        may = self._resolver.resolve(token)
        return _Granted(may, self._resolver.as_of)

    def _look(self, read: Callable[[Connection], Read]) -> Looked[Read]:
        return Looked(*self._state.tables(read))

    def _evaluate(self, local: Callable[[], Answered], freshness: Freshness, *, cheap: bool = False, required: int | None = None) -> Answered:
        try:
            if not freshness.fresh:
                if not self._backend.met:
                    raise RequestRejected("the agent of this node has not opened the state yet")
                return local()
            under_lease = self._backend.lease_index() if cheap and not freshness.consistent and required is None else required
            if under_lease is not None:
                result = local()
                if result.applied >= under_lease:  # else it is being applied at this moment, or the file has a successor
                    return result
            index, generation = self._backend.barrier(timeout=freshness.seconds, lease=not freshness.consistent)
            if generation != self._state.generation():
                self._state.reopen()
            result = local()
            return result if result.applied >= index else self._catch_up(local, index)
        except (StateUnreadable, TimeoutError) as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> RequestRejected:
        if isinstance(error, StateDamaged):
            self._backend.suspect()
        return RequestRejected(str(error))

    def read_one(self, key: bytes) -> Found:
        """One key after a barrier, with the applied index of the state it was read from.

        :raises BackendError: the barrier failed, or the state can't be read.
        """
        result = self.read(Query(Kind.KEY, key), fresh=True)
        return Found(result.row, result.index, result.applied)

    def _catch_up(self, local: Callable[[], Answered], index: int) -> Answered:
        # The agent answers a barrier after its COMMIT, so this only happens around the change of the state file.
        deadline = time.monotonic() + CATCH_UP_SECONDS
        while time.monotonic() < deadline:
            gevent.sleep(CATCH_UP_PAUSE_SECONDS)
            self._state.reopen()
            result = local()
            if result.applied >= index:
                return result
        raise RequestRejected(f"the local state did not reach index {index} within {CATCH_UP_SECONDS} s")

    def _local(self, query: Query) -> Result:
        may, as_of = self._granted(query.token)
        if query.kind is Kind.KEY:
            if may is not EVERYTHING and not may.may(READ, "key", query.key):
                raise RequestRefused(FORBIDDEN, DENIED)
            row, index, applied = self._state.get(query.key)
            return Result(index, applied, row, as_of=min(as_of, applied))
        if query.kind is Kind.SESSION:
            return self._sessions(query, may)
        listed: Result = self._threads.apply(self._list, (query, may))
        return structs.replace(listed, as_of=min(as_of, listed.applied))

    def _transaction(self, operations: Sequence[TxnOperation]) -> Evaluated:
        return Evaluated(*self._state.transaction(operations))

    def _list(self, query: Query, may: Authorizer) -> Result:
        if query.kind in TABLES:
            return self._read_table(query, may)
        if query.kind is Kind.TREE:
            listing, may_see = self._state.list(query.key), may.keys(query.key)
            rows = listing.rows if may_see is None else [row for row in listing.rows if may_see(row.key)]
            return Result(listing.index, listing.applied, None, entries(rows) if rows else None)
        if query.kind is not Kind.NAMES:
            return self._sessions(query, may)
        may_see = may.keys(query.key)
        # What can't be seen must not show as a folder either.
        names = self._state.keys(query.key, query.separator if may_see is None else b"")
        seen = names.keys if may_see is None else _folded(names.keys, may_see, query)
        # The root is never "not found".
        return Result(names.index, names.applied, None, texts(seen) if seen or not query.key else None)

    def _read_table(self, query: Query, may: Authorizer) -> Result:
        match query.kind:
            case Kind.EVENTS:
                events, applied = self._state.tables(event_rows.every)
                shown = [event for event in events if (not query.key or event.name == query.key) and is_for(event, query.node)]
                shown = [event for event in shown if may.may(READ, "event", event.name)]
                return Result(index_of(shown[-1].id) if shown else NO_EVENTS_INDEX, applied, found=shown)
            case Kind.AUTOPILOT:
                stored, applied = self._state.tables(autopilot_rows.find)
                return Result(stored.modify_index if stored else 1, applied, found=stored)
            case Kind.ACL:
                everything, applied = self._state.tables(acl_rows.everything)
                return Result(everything.indexes.get(query.key.decode(), 1), applied, found=everything)
            case _:
                (servers, nodes, checks), applied = self._state.tables(server_rows.every)
                index = {Kind.NODES: nodes, Kind.CHECKS: checks}.get(query.kind, max(nodes, checks))
                return Result(index, applied, found=servers)

    def _sessions(self, query: Query, may: Authorizer) -> Result:
        name = query.key.decode("utf-8", "surrogateescape")
        id_ = name if query.kind is Kind.SESSION else None
        found = self._state.sessions(id_, name if query.kind is Kind.NODE_SESSIONS else None)
        seen = [session for session in found.sessions if may.may(READ, "session", session.node)]
        return Result(found.index, found.applied, None, sessions(seen))


def _folded(names: Sequence[bytes], may_see: Callable[[bytes], bool], query: Query) -> list[bytes]:
    """The names that may be seen, cut after the separator, neighbours that are alike once."""
    return list(dict.fromkeys(fold(name, query.key, query.separator) for name in names if may_see(name)))
