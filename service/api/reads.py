"""Reading the local state: at once, or after a barrier that makes it as new as anything acknowledged before.

The barrier of a default read is content with the leader's lease where this node leads; that of a ``?consistent`` one always asks a quorum.
"""

import time
from enum import Enum
from typing import NamedTuple

import gevent
import msgspec
from gevent.threadpool import ThreadPool

from service.api.responses import entries, texts
from service.errors import RequestRejected, StateUnreadable
from service.ipc.client import AgentClient
from service.store.reader import Found, Reader, Row

LISTING_THREADS = 4
CATCH_UP_SECONDS = 2.0
CATCH_UP_PAUSE_SECONDS = 0.002


class Kind(Enum):
    """What a query asks for."""

    KEY = "key"
    TREE = "recurse"
    NAMES = "keys"


class Query(NamedTuple):
    """What is asked for; equal queries have equal results.

    :ivar key: or the prefix.
    :ivar separator: of ``?keys``.
    """

    kind: Kind
    key: bytes
    separator: bytes = b""


class Result(msgspec.Struct, frozen=True):
    """What a query found.

    :ivar index: of the answer (X-Consul-Index).
    :ivar applied: how far the state was applied that it was read from.
    :ivar row: of a single key; None when it does not exist.
    :ivar body: compact JSON of a listing; None when it found nothing.
    """

    index: int
    applied: int
    row: Row | None = None
    body: bytes | None = None


class Reads:
    """Evaluates queries against the local state.

    A single key is read on the hub (microseconds). Listings are read and turned into JSON in a thread, in one transaction, because nothing
    may hold the hub for long.
    """

    def __init__(self, backend: AgentClient, state: Reader) -> None:
        self._backend = backend
        self._state = state
        self._threads = ThreadPool(LISTING_THREADS)

    def read(self, query: Query, *, fresh: bool, consistent: bool = False) -> Result:
        """Evaluate a query.

        :param fresh: see everything that was acknowledged before this call (costs a barrier); otherwise what this node has.
        :param consistent: rely on no clock for that.
        :raises BackendError: the barrier failed, or the state can't be read.
        """
        try:
            if not fresh:
                return self._local(query)
            index, generation = self._backend.barrier(lease=not consistent)
            if generation != self._state.generation():
                self._state.reopen()
            result = self._local(query)
            return result if result.applied >= index else self._catch_up(query, index)
        except (StateUnreadable, TimeoutError) as error:
            raise RequestRejected(str(error)) from error

    def read_one(self, key: bytes) -> Found:
        """One key after a barrier, with the applied index of the state it was read from.

        :raises BackendError: the barrier failed, or the state can't be read.
        """
        result = self.read(Query(Kind.KEY, key), fresh=True)
        return Found(result.row, result.index, result.applied)

    def _catch_up(self, query: Query, index: int) -> Result:
        # The agent answers a barrier after its COMMIT, so this only happens around the change of the state file.
        deadline = time.monotonic() + CATCH_UP_SECONDS
        while time.monotonic() < deadline:
            gevent.sleep(CATCH_UP_PAUSE_SECONDS)
            self._state.reopen()
            result = self._local(query)
            if result.applied >= index:
                return result
        raise RequestRejected(f"the local state did not reach index {index} within {CATCH_UP_SECONDS} s")

    def _local(self, query: Query) -> Result:
        if query.kind is Kind.KEY:
            row, index, applied = self._state.get(query.key)
            return Result(index, applied, row)
        listed: Result = self._threads.apply(self._list, (query,))
        return listed

    def _list(self, query: Query) -> Result:
        if query.kind is Kind.TREE:
            listing = self._state.list(query.key)
            return Result(listing.index, listing.applied, None, entries(listing.rows) if listing.rows else None)
        names = self._state.keys(query.key, query.separator)
        # The root is never "not found".
        return Result(names.index, names.applied, None, texts(names.keys) if names.keys or not query.key else None)
