"""How new an answer is to be: what a request asks for, and what it gets while the leader can't be asked.

============================  ==================================================================================================
``default``                   as new as everything that was acknowledged before the request
``consistent``                the same, and no clock is relied on
``stale``                     what this node has; older than ``?max_stale`` it is not given, the leader is asked then
``available``                 as ``default`` while there is a leader; otherwise what this node has, if it is not older than ``?max_stale``
============================  ==================================================================================================
"""

import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from service.api.errors import Headers
from service.api.params import Params
from service.errors import BackendError, RequestRejected
from service.ipc.client import REQUEST_SECONDS_MAX, AgentClient

AVAILABLE_SECONDS = 1.0
"""How long a read that may be old waits for a leader that is known and does not answer: as long as an election takes to notice."""

NEVER_MILLISECONDS = 9_223_372_036_854
"""What Go's time.Since gives for a time that never was."""

Found = TypeVar("Found")


class Freshness(NamedTuple):
    """What one attempt to read relies on.

    :ivar fresh: a barrier comes first.
    :ivar consistent: that of a quorum, not of a lease.
    :ivar seconds: how long the barrier may take.
    """

    fresh: bool
    consistent: bool = False
    seconds: float = REQUEST_SECONDS_MAX


class Contact(NamedTuple):
    """What the headers say about the leader: whether one is known (``true``, ``false``), and how long ago it was heard of."""

    known: str
    milliseconds: int


ASKED = Contact("true", 0)


def contact(backend: AgentClient) -> Contact:
    """What this node knows of the leader without asking it."""
    state = backend.node_state
    known = "true" if state.leader_known else "false"
    if state.leading:
        return Contact(known, 0)
    if not state.contact:
        return Contact(known, NEVER_MILLISECONDS)
    return Contact(known, max(0, int((time.clock_gettime(time.CLOCK_BOOTTIME) - state.contact) * 1000)))


def evaluate(backend: AgentClient, params: Params, read: Callable[[Freshness], Found]) -> tuple[Found, bool]:
    """Read as a request wants it.

    :returns: what was found, and whether that is what this node has, with nobody asked.
    :raises BackendError: the leader had to be asked, and could not be.
    """
    if params.available:
        return _as_available(backend, params, read)
    local = params.stale and not _is_too_old(backend, params)
    return read(Freshness(not local, params.consistent)), local


def effective(local: bool) -> Headers:
    """Tells which of the two kinds of answer it is, where the request left that open."""
    return [("X-Kvorum-Consistency", "stale" if local else "leader")]


def _as_available(backend: AgentClient, params: Params, read: Callable[[Freshness], Found]) -> tuple[Found, bool]:
    reason: BackendError = RequestRejected("No cluster leader")
    if backend.node_state.leader_known:
        try:
            return read(Freshness(fresh=True, seconds=AVAILABLE_SECONDS)), False
        except BackendError as error:
            reason = error
    if _is_too_old(backend, params):
        raise reason
    return read(Freshness(fresh=False)), True


def _is_too_old(backend: AgentClient, params: Params) -> bool:
    return params.max_stale_ms > 0 and contact(backend).milliseconds > params.max_stale_ms
