"""Messages that travel in the answers to a peer's requests, instead of requests of their own.

An append is accepted a sync later, a heartbeat is answered within a turn. Where the answer to the request that brought it is held back for so long,
the reply rides on it: one exchange where there were two. Whatever finds no answer held back goes over the node's own connection to the peer, and
an answer on which nothing rides in time is given without: nothing depends on it, neither order nor delivery.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from math import inf

from raft.core.messages import (
    AppendAccepted,
    AppendRejected,
    AppendRequest,
    Heartbeat,
    HeartbeatResponse,
    Message,
    PreVoteRequest,
    PreVoteResponse,
    ProposeRequest,
    ProposeResponse,
    ReadIndexRequest,
    ReadIndexResponse,
    VoteRequest,
    VoteResponse,
)
from raft.transport.codec import BATCH_MESSAGES_MAX
from raft.transport.http_connection import NO_CONTENT, Pending

QUESTIONS = frozenset((PreVoteRequest, VoteRequest, AppendRequest, Heartbeat, ReadIndexRequest, ProposeRequest))
"""Messages that somebody replies to."""
REPLIES = frozenset((PreVoteResponse, VoteResponse, AppendAccepted, AppendRejected, HeartbeatResponse, ReadIndexResponse, ProposeResponse))
"""Messages that say nothing new of a log, so that it does no harm when one overtakes another."""

HELD_MAX = 8
"""Answers held back for one peer on one lane: fewer than a lane's window, so that the peer never waits to send because of it."""
PATIENCE_PART = 4
"""An answer is held back for this part of the time after which the peer takes silence for an end."""
BYTES_MAX = 256 * 1024
"""Messages in one answer, encoded: less than what a caller reads of one."""


class Replies:
    """What rides on the answers to one peer, on one of its lanes.

    :param body: makes a body from encoded messages.
    :param request_seconds: how long the peer waits for an answer.
    :param otherwise: sends an encoded message that lost its answer.
    """

    def __init__(self, body: Callable[[list[bytes]], bytes], request_seconds: float, otherwise: Callable[[bytes], None]) -> None:
        self._body = body
        self._otherwise = otherwise
        self._held_seconds = request_seconds / PATIENCE_PART
        self._loop = asyncio.get_running_loop()
        self._held: deque[tuple[float, Pending]] = deque()
        self._queue: list[bytes] = []
        self._queue_bytes = 0

    def hold(self, messages: tuple[Message, ...]) -> Pending:
        """The answer to a request that brought these: held back if somebody will reply to one of them."""
        pending = Pending()
        if not any(type(message) in QUESTIONS for message in messages):
            pending.settle(*NO_CONTENT)
            return pending
        if len(self._held) >= HELD_MAX:
            self._held.popleft()[1].settle(*NO_CONTENT)
        self._held.append((self._loop.time(), pending))
        return pending

    def put(self, encoded: bytes) -> bool:
        """Let a message ride; it leaves at the end of this turn of the loop.

        :returns: False when no answer is held back that could take it.
        """
        self._forget_given()
        if not self._held or self._queue_bytes + len(encoded) > BYTES_MAX or len(self._queue) >= BATCH_MESSAGES_MAX:
            return False
        if not self._queue:
            self._loop.call_soon(self._flush)
        self._queue.append(encoded)
        self._queue_bytes += len(encoded)
        return True

    def sweep(self, now: float) -> None:
        """Give the answers that have been held back for long."""
        while self._held and now - self._held[0][0] > self._held_seconds:
            self._held.popleft()[1].settle(*NO_CONTENT)

    def close(self) -> None:
        """Give all of them."""
        self.sweep(inf)

    def _flush(self) -> None:
        """Give as many answers as there are messages: each message is probably what one of them was held back for.

        All answers may have been given since the messages were put here: others asked, the connection ended.
        """
        batch, self._queue, self._queue_bytes = self._queue, [], 0
        self._forget_given()
        if not self._held:
            for encoded in batch:
                self._otherwise(encoded)
            return
        first, *others = [self._held.popleft()[1] for _ in range(min(len(batch), len(self._held)))]
        for pending in others:  # they wait behind the first on its connection, and leave with it
            pending.settle(*NO_CONTENT)
        first.settle(HTTPStatus.OK, self._body(batch))

    def _forget_given(self) -> None:
        """Leave out the oldest answers where their connection has not waited."""
        while self._held and not self._held[0][1].is_open:
            self._held.popleft()
