"""Messages between nodes over HTTP/1.1.

Each peer is reached on two connections (:mod:`raft.transport.http_lane`), so that a heartbeat never waits behind an append or a
snapshot. Requests carry batches of messages. An answer says that they have arrived; it may be held back for a moment, and then brings what the
peer replies (:mod:`raft.transport.http_replies`).
"""

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from http import HTTPStatus
from typing import Any

from raft.core.messages import InstallSnapshot, Message
from raft.core.model import NodeId
from raft.errors import MalformedMessage, MessageRefused, UnsupportedVersion, WrongCluster, WrongRecipient
from raft.ports.storage import SnapshotSource
from raft.ports.transport import TransportHandler
from raft.transport.codec import decode, encode_message
from raft.transport.http_connection import NO_CONTENT, Answer, Pending
from raft.transport.http_lane import Peer, Route
from raft.transport.http_server import MESSAGES_PATH, SNAPSHOT_PATH, HttpServer, not_attached
from raft.transport.http_snapshot import SnapshotReceiver, SnapshotSender
from raft.transport.resolver import Resolver

logger = logging.getLogger(__name__)

_ENVELOPE_BYTES = 1_024  # what version, cluster, ids and lengths add to a message

REFUSALS: dict[type[MessageRefused], HTTPStatus] = {
    MalformedMessage: HTTPStatus.BAD_REQUEST,
    UnsupportedVersion: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    WrongCluster: HTTPStatus.FORBIDDEN,
    WrongRecipient: HTTPStatus.MISDIRECTED_REQUEST,
}
"""What a sender is told when its messages are refused; the body gives the reason."""


def refusal(error: MessageRefused) -> Answer:
    """The answer to a message that was refused."""
    return REFUSALS[type(error)], str(error).encode()


class HttpTransport:
    """The :class:`~raft.ports.transport.Transport` of one node.

    :param server: listens for this node; it may listen already, before the transport exists.
    :param node_id: this node.
    :param cluster_id: its cluster; messages of another are refused.

    The limits are the server's.
    """

    def __init__(self, server: HttpServer, node_id: NodeId, cluster_id: str) -> None:
        self._server = server
        self._limits = server.limits
        self._node_id = node_id
        self._cluster_id = cluster_id
        self._handler: TransportHandler | None = None
        self._receiver: SnapshotReceiver | None = None
        self._resolver = Resolver()
        self._sender = SnapshotSender(cluster_id, self._limits, self._resolver)
        self._peers: dict[NodeId, Peer] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.TimerHandle | None = None

    @property
    def address(self) -> str:
        """Where this node listens, ``host:port``."""
        return self._server.address

    @property
    def message_bytes_max(self) -> int:
        """The longest message that it carries, encoded: what the body limit leaves."""
        return self._limits.body_bytes_max - _ENVELOPE_BYTES

    async def start(self, handler: TransportHandler) -> None:
        """Take messages from now on; listen, if the server does not yet.

        :raises OSError: when the address can't be bound.
        """
        await self._server.start()
        self._handler = handler
        self._receiver = SnapshotReceiver(handler, self._cluster_id, self._node_id, self._limits)
        self._server.add_sync_route(MESSAGES_PATH, self._receive)
        self._server.add_route(SNAPSHOT_PATH, self._receive_piece)
        loop = asyncio.get_running_loop()
        self._sweeper = loop.call_later(self._limits.sweep_seconds, self._sweep, loop)

    def connect(self, addresses: Mapping[NodeId, str]) -> None:
        """Replace the address book; connections to peers that left it or moved are closed. Needs a started transport."""
        for peer_id, peer in tuple(self._peers.items()):
            if addresses.get(peer_id) != peer.address:
                del self._peers[peer_id]
                peer.close()
        for peer_id, address in addresses.items():
            if peer_id not in self._peers and peer_id != self._node_id:
                route = Route(self._cluster_id, self._node_id, peer_id, address, self._resolver)
                self._peers[peer_id] = Peer(route, self._limits, dropped=self._unreachable, received=self._receive_answer, spawn=self._spawn)

    def send(self, messages: tuple[Message, ...]) -> None:
        """Queue messages for their recipients; they leave at the end of this turn of the loop."""
        for message in messages:
            peer = self._peers.get(message.to)
            if peer is None or message.sender != self._node_id:
                logger.debug("dropped a %s from %s to %s: no address", type(message).__name__, message.sender, message.to)
                continue
            encoded = encode_message(message)
            if len(encoded) > self.message_bytes_max:
                logger.error(
                    "dropped a %s of %d bytes to %s: over the limit of %d (body_bytes_max)",
                    type(message).__name__,
                    len(encoded),
                    message.to,
                    self._limits.body_bytes_max,
                )
                continue
            peer.put(encoded, type(message))

    async def send_snapshot(self, message: InstallSnapshot, source: SnapshotSource) -> None:
        """Stream a snapshot to ``message.to``; it goes on where an earlier attempt for the same message broke off.

        :raises OSError: when that failed.
        """
        peer = self._peers.get(message.to)
        if peer is None:
            raise ConnectionError(f"no address is known for {message.to}")
        await self._sender.send(peer.address, message, source)

    async def stop(self) -> None:
        """Stop listening, break all connections, end all tasks. Idempotent."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for peer in self._peers.values():
            peer.close()
        self._peers.clear()
        await self._sender.stop()
        await self._resolver.stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.stop()
        self._server.add_sync_route(MESSAGES_PATH, not_attached)
        self._server.add_sync_route(SNAPSHOT_PATH, not_attached)
        if self._receiver is not None:
            await self._receiver.stop()
        self._handler = None

    def _receive(self, body: bytes, takes_messages: bool) -> Answer | Pending:
        handler = self._handler
        if handler is None:
            return not_attached(body)
        try:
            messages = self._decode(body)
        except MessageRefused as error:
            return refusal(error)
        peer = self._peers.get(messages[0].sender) if takes_messages else None
        answer = NO_CONTENT if peer is None else peer.hold(messages)
        handler.receive(messages)
        return answer

    def _receive_answer(self, peer: NodeId, body: bytes) -> None:
        messages = self._decode(body)
        if messages[0].sender != peer:
            raise MalformedMessage(f"messages of {messages[0].sender!r} in an answer of {peer!r}")
        if self._handler is not None:
            self._handler.receive(messages)

    def _decode(self, body: bytes) -> tuple[Message, ...]:
        return decode(body, self._cluster_id, self._node_id, self._limits.body_bytes_max)

    async def _receive_piece(self, body: bytes) -> Answer:
        if self._receiver is None:
            return not_attached(body)
        try:
            return await self._receiver.receive(body)
        except MessageRefused as error:
            return refusal(error)

    def _unreachable(self, peer: NodeId) -> None:
        if self._handler is not None:
            self._handler.unreachable(peer)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for peer in self._peers.values():
            peer.sweep(now)
        if self._receiver is not None:
            self._receiver.sweep(now)
        self._sweeper = loop.call_later(self._limits.sweep_seconds, self._sweep, loop)
