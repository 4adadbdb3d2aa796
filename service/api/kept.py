"""Whole answers of one worker, ready to be sent, which stand as long as nobody needs to see anything newer.

An answer that depends on nothing but the state, up to a certain entry of the log, is the right one for every later request that is the same, byte for
byte, and needs to see no further entry: that is what the lease, or a barrier, tells before an answer is taken from here. So nothing has to be thrown
away when something is written; what is outdated is replaced when it is asked for again.
"""

from collections.abc import Mapping
from typing import NamedTuple

from service.api.consistency import Freshness
from service.worker.response import Complete

BYTES_MAX = 16 * 1024 * 1024
"""Of all answers together."""
ANSWER_BYTES_MAX = 1024 * 1024
CLIENTS_MAX = 64
"""Of so many kinds of clients it is known that they send the same header lines again."""


class Standing:
    """What an answer will stand for, and how long; filled in by whoever makes it.

    :param head: of the request.
    :param connection: the number of the one to the agent when the request came.
    :param required: the index that the state must have reached to answer, where that is known already.
    :ivar as_of: the index of the newest entry that the answer may rely on; 0 when it does not depend on the state alone.
    :ivar freshness: what another request must do to learn which index it requires.
    """

    __slots__ = ("as_of", "connection", "freshness", "head", "required")

    def __init__(self, head: bytes, connection: int, required: int | None = None) -> None:
        self.head = head
        self.connection = connection
        self.required = required
        self.as_of = 0
        self.freshness = Freshness(fresh=True)


class Kept(NamedTuple):
    """One answer, and how long it stands.

    :ivar variables: the headers of the request. The web server gives the same object for the same lines.
    """

    answer: Complete
    status: int
    variables: Mapping[str, str]
    as_of: int
    freshness: Freshness


class KeptAnswers:
    """Belongs to one thread, the worker's hub.

    Everything is forgotten with the connection to the agent: the next agent may have set aside the state that the answers come from, because it is
    damaged.
    """

    def __init__(self) -> None:
        self._connection = 0
        self._by_head: dict[bytes, Kept] = {}
        self._clients: dict[int, Mapping[str, str]] = {}
        self._bytes = 0

    def find(self, head: bytes, connection: int) -> Kept | None:
        """What was answered to the same request before.

        :param head: all of it: request line and header lines.
        :param connection: the number of the one to the agent.
        """
        if connection != self._connection:
            self._by_head.clear()
            self._bytes = 0
            self._connection = connection
        return self._by_head.get(head)

    def keep(self, head: bytes, kept: Kept, connection: int) -> None:
        """Keep an answer, if it is not too long, and its client did not put something new into its header lines: it would do so again.

        :param connection: as it was when the request came; an answer from before the present one is not kept.
        """
        if connection != self._connection:
            return
        if self._clients.get(id(kept.variables)) is not kept.variables:
            if len(self._clients) >= CLIENTS_MAX:
                self._clients.clear()
            self._clients[id(kept.variables)] = kept.variables
            return
        size = kept.answer.bytes_kept + len(head)
        if size > ANSWER_BYTES_MAX:
            return
        before = self._by_head.get(head)
        self._bytes += size - (before.answer.bytes_kept + len(head) if before is not None else 0)
        if self._bytes > BYTES_MAX:
            self._by_head.clear()
            self._bytes = size
        self._by_head[head] = kept
