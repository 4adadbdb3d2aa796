"""The way to one peer: two connections of their own, one for control messages and one for everything else.

A lane takes encoded messages, sends those of one turn of the event loop as one request and several requests without waiting for the
answers. An answer frees a place in the window, and may bring messages of the peer. What can't be sent is dropped and reported; Raft sends again what
still matters, and a proposal is never sent twice by anybody.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from http import HTTPStatus

from raft.core.messages import CONTROL, AppendRequest, Message
from raft.core.model import NodeId
from raft.errors import MessageRefused
from raft.transport.codec import BATCH_MESSAGES_MAX, encode_batch
from raft.transport.http_client import ClientConnection, dial, frame_request, request_head
from raft.transport.http_connection import MESSAGES_TYPE, Pending
from raft.transport.http_replies import REPLIES, Replies
from raft.transport.http_server import MESSAGES_PATH
from raft.transport.limits import HttpLimits, LaneLimits
from raft.transport.resolver import Resolver

logger = logging.getLogger(__name__)

_CONTROL = frozenset(CONTROL)


class Route:
    """Where a lane leads: who sends to whom at which address, in which cluster."""

    def __init__(self, cluster: str, sender: NodeId, peer: NodeId, address: str, resolver: Resolver) -> None:
        self._resolver = resolver
        self.cluster = cluster
        self.sender = sender
        self.peer = peer
        self.address = address
        self._head = request_head(address, MESSAGES_PATH, MESSAGES_TYPE)

    def body(self, batch: list[bytes]) -> bytes:
        """These encoded messages as the body of a request or of an answer."""
        return encode_batch(self.cluster, self.sender, self.peer, batch)

    def request(self, batch: list[bytes]) -> bytes:
        """One request that carries these encoded messages."""
        return frame_request(self._head, self.body(batch))

    async def dial(self, connection: ClientConnection, seconds: float) -> None:
        """Connect to the peer.

        :raises OSError: when that failed.
        """
        await dial(self.address, connection, seconds, self._resolver)


class Lane:
    """One connection for one kind of traffic.

    :param kind: for the log.
    :param dropped: called when messages were lost, as far as can be told; never from within :meth:`put`.
    :param received: takes the body of an answer that brings messages; raises :class:`MessageRefused`.
    :param spawn: starts a task; the owner waits for its end when it stops.
    """

    def __init__(
        self,
        kind: str,
        route: Route,
        limits: LaneLimits,
        connect_seconds: float,
        *,
        dropped: Callable[[], None],
        received: Callable[[bytes], None],
        spawn: Callable[..., "asyncio.Task[None]"],
    ) -> None:
        self._kind = kind
        self._route = route
        self._limits = limits
        self._connect_seconds = connect_seconds
        self._dropped = dropped
        self._received = received
        self._spawn = spawn
        self._loop = asyncio.get_running_loop()
        self._queue: deque[tuple[bytes, bool]] = deque()
        self._queue_bytes = 0
        self._connection: ClientConnection | None = None
        self._dial_task: asyncio.Task[None] | None = None
        self._dial_not_before = 0.0
        self._redial_seconds = 0.0
        self._flush_due = False
        self._drop_due = False
        self._trouble = ""
        self._used = self._answered_at = self._loop.time()
        self._closed = False

    # --- the owner's calls

    def put(self, encoded: bytes, is_append: bool) -> None:
        """Queue a message; it leaves at the end of this turn of the loop.

        :param encoded: what :func:`raft.transport.codec.encode_message` made.
        :param is_append: whether it must not share a request with another append.
        """
        if self._closed:
            return
        if not self._make_room(len(encoded)):
            self._report_drop()
            return
        self._queue.append((encoded, is_append))
        self._queue_bytes += len(encoded)
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def silent_seconds(self, now: float) -> float:
        """For how long the peer has owed an answer and given none; 0 when it owes none.

        A slow line with many requests on it is not silent: each answer begins the time anew.
        """
        connection = self._connection
        if connection is None or not connection.unanswered:
            return 0.0
        return now - max(connection.unanswered[0], self._answered_at)

    def sweep(self, now: float, idle_seconds: float) -> bool:
        """Look at the deadlines.

        :returns: whether the connection was given up because the peer does not answer.
        """
        connection = self._connection
        if connection is None:
            return False
        if self.silent_seconds(now) > self._limits.request_seconds:
            self.give_up(f"no answer within {self._limits.request_seconds:g} s")
            return True
        if not connection.unanswered and not self._queue and now - self._used > idle_seconds:
            self._disconnect()
        return False

    def give_up(self, reason: str) -> None:
        """Break the connection and drop what waits."""
        self._disconnect()
        self._fail(reason)

    def close(self) -> None:
        """Break the connection for good; nothing is reported any more."""
        self._closed = True
        self._clear()
        if self._dial_task is not None:
            self._dial_task.cancel()
        self._disconnect()

    # --- sending

    def _make_room(self, size: int) -> bool:
        limits = self._limits
        while self._queue and (len(self._queue) >= limits.queue_messages_max or self._queue_bytes + size > limits.queue_bytes_max):
            if not limits.drop_oldest:
                return False
            oldest, _ = self._queue.popleft()
            self._queue_bytes -= len(oldest)
            self._report_drop()
        return True

    def _flush(self) -> None:
        self._flush_due = False
        if self._closed or not self._queue:
            return
        connection = self._connection
        if connection is None:
            if self._dial_task is None:
                self._dial_task = self._spawn(self._dial())
            return
        while self._queue and len(connection.unanswered) < self._limits.window_requests_max and not connection.paused:
            connection.post(self._route.request(self._next_batch()))
            self._used = self._loop.time()

    def _next_batch(self) -> list[bytes]:
        """Messages for one request: at least one, at most one append, within the limit of bytes."""
        batch: list[bytes] = []
        size = 0
        has_append = False
        while self._queue and len(batch) < BATCH_MESSAGES_MAX:
            encoded, is_append = self._queue[0]
            if batch and (size + len(encoded) > self._limits.batch_bytes_max or (is_append and has_append)):
                break
            self._queue.popleft()
            batch.append(encoded)
            size += len(encoded)
            has_append = has_append or is_append
        self._queue_bytes -= size
        return batch

    # --- the connection

    async def _dial(self) -> None:
        await asyncio.sleep(max(0.0, self._dial_not_before - self._loop.time()))
        connection = ClientConnection(self._answered, lambda error: self._lost(connection, error), self._flush)
        try:
            await self._route.dial(connection, self._connect_seconds)
        except OSError as error:
            limits = self._limits
            self._redial_seconds = min(max(2 * self._redial_seconds, limits.redial_seconds_min), limits.redial_seconds_max)
            self._dial_not_before = self._loop.time() + self._redial_seconds
            self._fail(f"can't connect: {error}")
            return
        finally:
            self._dial_task = None
        self._redial_seconds = 0.0
        self._connection = connection
        self._used = self._loop.time()
        self._flush()

    def _answered(self, status: int, body: bytes) -> None:
        self._answered_at = self._loop.time()
        if status >= HTTPStatus.MULTIPLE_CHOICES:
            self._note_trouble(f"refused with status {status}: {body[:200].decode('utf-8', 'replace')}")
            self._report_drop()
        elif self._trouble:
            logger.info("%s at %s takes %s messages again", self._route.peer, self._route.address, self._kind)
            self._trouble = ""
        if status == HTTPStatus.OK and not self._closed:
            self._take(body)
        if self._queue:
            self._flush()

    def _take(self, body: bytes) -> None:
        try:
            self._received(body)
        except MessageRefused as error:
            self._note_trouble(f"refused what the answer brought: {error}")

    def _lost(self, connection: ClientConnection, error: Exception | None) -> None:
        if connection is not self._connection:
            return
        self._connection = None
        if connection.unanswered or self._queue:
            self._fail(f"connection lost: {error or 'closed by the peer'}")

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
            self._spawn(connection.wait_closed())

    # --- losses

    def _fail(self, trouble: str) -> None:
        self._clear()
        if not self._closed:
            self._note_trouble(trouble)
            self._report_drop()

    def _note_trouble(self, trouble: str) -> None:
        """Log the first failure and each new kind of it, not every one."""
        if trouble != self._trouble:
            level = logging.DEBUG if self._trouble else logging.WARNING
            logger.log(level, "%s messages to %s at %s: %s", self._kind, self._route.peer, self._route.address, trouble)
            self._trouble = trouble

    def _clear(self) -> None:
        self._queue.clear()
        self._queue_bytes = 0

    def _report_drop(self) -> None:
        """Tell the owner, once a turn and not from within its own call."""
        if not self._drop_due:
            self._drop_due = True
            self._loop.call_soon(self._tell_dropped)

    def _tell_dropped(self) -> None:
        self._drop_due = False
        if not self._closed:
            self._dropped()


class Peer:
    """Both lanes to one peer, and the answers that it is owed on its own two.

    :param dropped: as for a lane, with the peer.
    :param received: as for a lane, with the peer.
    """

    def __init__(
        self,
        route: Route,
        limits: HttpLimits,
        *,
        dropped: Callable[[NodeId], None],
        received: Callable[[NodeId, bytes], None],
        spawn: Callable[..., "asyncio.Task[None]"],
    ) -> None:
        self.address = route.address
        self._idle_seconds = limits.client_idle_seconds
        self._silence_seconds = limits.control.request_seconds

        def tell() -> None:
            dropped(route.peer)

        take = partial(received, route.peer)
        self.control = Lane("control", route, limits.control, limits.connect_seconds, dropped=tell, received=take, spawn=spawn)
        self.bulk = Lane("bulk", route, limits.bulk, limits.connect_seconds, dropped=tell, received=take, spawn=spawn)
        self._control_replies = Replies(route.body, limits.control.request_seconds, partial(self.control.put, is_append=False))
        self._bulk_replies = Replies(route.body, limits.bulk.request_seconds, partial(self.bulk.put, is_append=False))

    def put(self, encoded: bytes, message_class: type[Message]) -> None:
        """Send a message: in an answer if it is a reply and one is held back, or on the lane for its kind."""
        lane, replies = (self.control, self._control_replies) if message_class in _CONTROL else (self.bulk, self._bulk_replies)
        if message_class not in REPLIES or not replies.put(encoded):
            lane.put(encoded, message_class is AppendRequest)

    def hold(self, messages: tuple[Message, ...]) -> Pending:
        """The answer to a request of the peer that brought these."""
        return (self._control_replies if type(messages[0]) in _CONTROL else self._bulk_replies).hold(messages)

    def sweep(self, now: float) -> None:
        """Look at the deadlines of both lanes. A peer that is silent on both is gone: bulk does not wait for its own, longer deadline."""
        self._control_replies.sweep(now)
        self._bulk_replies.sweep(now)
        silent = self.control.sweep(now, self._idle_seconds)
        if silent and self.bulk.silent_seconds(now) > self._silence_seconds:
            self.bulk.give_up(f"no answer on either connection within {self._silence_seconds:g} s")
        else:
            self.bulk.sweep(now, self._idle_seconds)

    def close(self) -> None:
        """Break both connections, and hold nothing back."""
        self._control_replies.close()
        self._bulk_replies.close()
        self.control.close()
        self.bulk.close()
