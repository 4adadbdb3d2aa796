"""Snapshots on their way: pieces, each a request of its own, so that a broken connection costs one piece.

The sender asks first how much is there already (an empty piece), then sends what is missing. The answer to a piece is the offset that the
receiver wants next; status 201 says that the whole is durable and that the message has been handed over. Disk work is done in
a thread of its own on both sides.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus

from raft.core.messages import InstallSnapshot
from raft.core.model import NodeId
from raft.errors import RaftError
from raft.ports.storage import SnapshotSink, SnapshotSource
from raft.ports.transport import TransportHandler
from raft.transport.codec import SnapshotPiece, decode_piece, encode_piece
from raft.transport.http_client import Caller
from raft.transport.http_connection import Answer
from raft.transport.http_server import SNAPSHOT_PATH
from raft.transport.limits import HttpLimits
from raft.transport.resolver import Resolver

logger = logging.getLogger(__name__)

RETRY_SECONDS = 0.1


class SnapshotSender:
    """Sends snapshots of one node; each on a connection of its own."""

    def __init__(self, cluster_id: str, limits: HttpLimits, resolver: Resolver) -> None:
        self._cluster_id = cluster_id
        self._limits = limits
        self._resolver = resolver
        self._tasks: set[asyncio.Task[None]] = set()
        self._executor: ThreadPoolExecutor | None = None
        self._stopped = False

    async def send(self, address: str, message: InstallSnapshot, source: SnapshotSource) -> None:
        """Send one whole snapshot, with new attempts as long as there is progress.

        :raises OSError: when the peer refuses it, or can't be reached several times in a row.
        """
        if self._stopped:
            raise ConnectionAbortedError("the transport has stopped")
        self._executor = self._executor or ThreadPoolExecutor(1, "snapshot-sender")
        task = asyncio.get_running_loop().create_task(self._send(address, message, source))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            await task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                raise
            raise ConnectionAbortedError("the transport has stopped") from None

    async def stop(self) -> None:
        """Break off what is being sent."""
        self._stopped = True
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._executor is not None:
            self._executor.shutdown()

    async def _send(self, address: str, message: InstallSnapshot, source: SnapshotSource) -> None:
        caller = Caller(address, self._limits.connect_seconds, self._resolver)
        try:
            await self._send_with(caller, message, source)
        finally:
            await caller.close()

    async def _send_with(self, caller: Caller, message: InstallSnapshot, source: SnapshotSource) -> None:
        attempts, reached = 0, -1
        while True:
            try:
                offset, done = await self._exchange(caller, message, source, 0, b"")
                while not done:
                    if offset > reached:
                        attempts, reached = 0, offset
                    piece = await self._read(source, offset)
                    offset, done = await self._exchange(caller, message, source, offset, piece)
            except SnapshotRefused:
                raise
            except OSError as error:
                attempts += 1
                if attempts >= self._limits.snapshot_attempts_max:
                    raise
                logger.info("a snapshot for %s broke off at byte %d: %s", message.to, max(reached, 0), error)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    async def _read(self, source: SnapshotSource, offset: int) -> bytes:
        length = min(self._limits.snapshot_chunk_bytes, source.size - offset)
        try:
            piece = await asyncio.get_running_loop().run_in_executor(self._executor, source.read_at, offset, length)
        except RaftError as error:
            raise SnapshotRefused(f"the snapshot can't be read: {error}") from error
        if not piece and source.size:
            raise SnapshotRefused(f"the snapshot ends at byte {offset}; it should have {source.size}")
        return piece

    async def _exchange(self, caller: Caller, message: InstallSnapshot, source: SnapshotSource, offset: int, data: bytes) -> tuple[int, bool]:
        """Send a piece. Gives the offset that the receiver wants next and whether the whole is there."""
        body = encode_piece(self._cluster_id, SnapshotPiece(message, source.size, source.checksum, offset, data))
        status, answer = await caller.call(SNAPSHOT_PATH, body, self._limits.snapshot_request_seconds)
        if status == HTTPStatus.CREATED:
            return source.size, True
        if status != HTTPStatus.OK:
            raise SnapshotRefused(f"{message.to} refused the snapshot with status {status}: {answer[:200].decode('utf-8', 'replace')}")
        if not answer.isdigit() or len(answer) > 19 or int(answer) > source.size:
            raise SnapshotRefused(f"{message.to} asks for the snapshot's bytes from {answer[:200]!r}; it has {source.size}")
        return int(answer), False


class SnapshotRefused(OSError):
    """The peer does not take the snapshot; sending it again would not help."""


class _Incoming:
    """A snapshot of which a part has arrived."""

    def __init__(self, key: tuple[InstallSnapshot, int, str], sink: SnapshotSink, now: float) -> None:
        self.key = key
        self.sink = sink
        self.touched = now


class SnapshotReceiver:
    """Receives snapshots for one node, one at a time: the beginning of another one ends the first, unless that comes from a later term.

    Invariant: one piece is handled at a time, under ``_lock``.
    """

    def __init__(self, handler: TransportHandler, cluster_id: str, node_id: NodeId, limits: HttpLimits) -> None:
        self._handler = handler
        self._cluster_id = cluster_id
        self._node_id = node_id
        self._limits = limits
        self._lock = asyncio.Lock()
        self._executor = ThreadPoolExecutor(1, "snapshot-receiver")
        self._incoming: _Incoming | None = None
        self._last_done: tuple[InstallSnapshot, int, str] | None = None

    async def receive(self, body: bytes) -> Answer:
        """Take a piece.

        :raises MessageRefused: when it makes no sense or is not for this node.
        """
        piece = decode_piece(body, self._cluster_id, self._node_id, self._limits.body_bytes_max)
        async with self._lock:
            try:
                return await self._take(piece)
            except (RaftError, OSError) as error:
                logger.warning("a snapshot from %s failed: %s", piece.message.sender, error)
                await self._abandon()
                return HTTPStatus.INTERNAL_SERVER_ERROR, str(error).encode()

    def sweep(self, now: float) -> None:
        """Throw away a snapshot of which nothing has arrived for long."""
        incoming = self._incoming
        if incoming is not None and not self._lock.locked() and now - incoming.touched > self._limits.snapshot_idle_seconds:
            self._incoming = None
            self._executor.submit(incoming.sink.abort)

    async def stop(self) -> None:
        """Throw away what is half received."""
        async with self._lock:
            await self._abandon()
        self._executor.shutdown()

    async def _take(self, piece: SnapshotPiece) -> Answer:
        key = (piece.message, piece.size, piece.checksum)
        if key == self._last_done:
            # The answer to the last piece was lost; messages may be doubled, so the core can take it again.
            self._handler.receive((piece.message,))
            return HTTPStatus.CREATED, b""
        incoming = self._incoming
        if incoming is not None and incoming.key != key:
            if piece.message.term < incoming.key[0].term:
                return HTTPStatus.CONFLICT, f"a snapshot of term {incoming.key[0].term} is being received".encode()
            await self._abandon()
            incoming = None
        if incoming is None:
            if piece.offset:
                return HTTPStatus.OK, b"0"
            incoming = _Incoming(key, self._handler.begin_snapshot(piece.message), 0.0)
            self._incoming = incoming
        incoming.touched = asyncio.get_running_loop().time()
        if piece.offset != incoming.sink.size or (not piece.data and piece.size):
            return HTTPStatus.OK, str(incoming.sink.size).encode()
        return await self._write(incoming, piece)

    async def _write(self, incoming: _Incoming, piece: SnapshotPiece) -> Answer:
        await self._in_thread(incoming.sink.write, piece.data)
        if not piece.is_last:
            return HTTPStatus.OK, str(piece.offset + len(piece.data)).encode()
        await self._in_thread(incoming.sink.commit, piece.checksum)
        self._incoming = None
        self._last_done = incoming.key
        self._handler.receive((piece.message,))
        return HTTPStatus.CREATED, b""

    async def _abandon(self) -> None:
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            await self._in_thread(incoming.sink.abort)

    async def _in_thread(self, work: Callable[..., None], *arguments: object) -> None:
        """Run a step in the one thread: steps never overlap, even when the task that asked for one is cancelled."""
        await asyncio.get_running_loop().run_in_executor(self._executor, work, *arguments)
