"""What tests of transports are made of: messages told apart by a number, a handler and a snapshot's two ends that remember."""

import asyncio
import hashlib
import threading
from collections.abc import Callable

from raft.core.messages import AppendRequest, Heartbeat, InstallSnapshot, Message, ProposeRequest
from raft.core.model import Boundary, Configuration, Entry, EntryKind, Member, NodeId
from raft.errors import StorageCorrupt, StorageFailed
from raft.ports.storage import SnapshotSink

PATIENCE_SECONDS = 15.0
CLUSTER = "the-cluster"


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait until the condition holds.

    :raises AssertionError: naming ``what`` when it does not in time.
    """
    deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
    while not condition():
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"not within {PATIENCE_SECONDS:g} s: {what}")
        await asyncio.sleep(0.005)


def bulk(sender: NodeId, to: NodeId, number: int, size: int = 0) -> ProposeRequest:
    """A bulk message that is told apart by its number."""
    return ProposeRequest(sender, to, 1, number, (bytes(size),))


def append(sender: NodeId, to: NodeId, index: int, size: int = 0) -> AppendRequest:
    """An append of one entry."""
    return AppendRequest(sender, to, 1, index - 1, 1 if index > 1 else 0, (Entry(index, 1, EntryKind.COMMAND, bytes(size)),), 0)


def control(sender: NodeId, to: NodeId, number: int) -> Heartbeat:
    """A control message that is told apart by its number."""
    return Heartbeat(sender, to, 1, 0, number)


def snapshot_message(sender: NodeId, to: NodeId, index: int = 7, term: int = 3) -> InstallSnapshot:
    """A snapshot's message with a configuration of some size."""
    members = (Member(sender, "one", "one.example:8300"), Member(to, "two", "[::1]:8300"))
    return InstallSnapshot(sender, to, term, Boundary(index, 2, Configuration(voters=members)))


class MemorySource:
    """A :class:`~raft.ports.storage.SnapshotSource` of some bytes.

    :ivar on_read: called with the offset before each read, in whatever thread reads.
    """

    def __init__(self, boundary: Boundary, data: bytes) -> None:
        self.boundary = boundary
        self.data = data
        self.checksum = hashlib.sha256(data).hexdigest()
        self.offsets: list[int] = []
        self.on_read: Callable[[int], None] = lambda _offset: None

    @property
    def size(self) -> int:
        """Length in bytes."""
        return len(self.data)

    def read_at(self, offset: int, length: int) -> bytes:
        """A part of the bytes."""
        self.offsets.append(offset)
        self.on_read(offset)
        return self.data[offset : offset + length]

    def close(self) -> None:
        """Nothing to release."""


class RecordingSink:
    """A :class:`~raft.ports.storage.SnapshotSink` that remembers what was done to it, and in which threads."""

    def __init__(self, message: InstallSnapshot) -> None:
        self.message = message
        self.data = bytearray()
        self.committed = False
        self.aborted = False
        self.threads: set[int] = set()
        self.fail_at = -1

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return len(self.data)

    def write(self, piece: bytes) -> None:
        """Append a piece, or fail where the test wants it."""
        self.threads.add(threading.get_ident())
        if 0 <= self.fail_at <= self.size:
            raise StorageFailed("write the snapshot", "no space left on device")
        self.data += piece

    def commit(self, checksum: str | None = None) -> None:
        """Verify and keep."""
        self.threads.add(threading.get_ident())
        found = hashlib.sha256(self.data).hexdigest()
        if checksum is not None and checksum != found:
            raise StorageCorrupt("commit the snapshot", f"checksum {found} where {checksum} was due")
        self.committed = True

    def abort(self) -> None:
        """Throw away, unless committed."""
        self.aborted = not self.committed


class Recorder:
    """A :class:`~raft.ports.transport.TransportHandler` that remembers.

    :ivar messages: all that were received, in order.
    :ivar lost: peers that were reported unreachable, once a report.
    :ivar sinks: of the snapshots that began to arrive.
    :ivar fail_at: given to new sinks.
    """

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.lost: list[NodeId] = []
        self.sinks: list[RecordingSink] = []
        self.fail_at = -1
        self.threads: set[int] = set()

    def receive(self, messages: tuple[Message, ...]) -> None:
        """Remember them."""
        self.threads.add(threading.get_ident())
        self.messages.extend(messages)

    def begin_snapshot(self, message: InstallSnapshot) -> SnapshotSink:
        """Make a sink."""
        sink = RecordingSink(message)
        sink.fail_at = self.fail_at
        self.sinks.append(sink)
        return sink

    def unreachable(self, peer: NodeId) -> None:
        """Remember the peer."""
        self.lost.append(peer)

    def numbers(self, message_class: type[Message]) -> list[int]:
        """The numbers that :func:`bulk`, :func:`append` or :func:`control` gave the received messages of that class, in order."""
        found = []
        for message in self.messages:
            if type(message) is message_class:
                if isinstance(message, ProposeRequest):
                    found.append(message.context)
                elif isinstance(message, AppendRequest):
                    found.append(message.previous_index + 1)
                elif isinstance(message, Heartbeat):
                    found.append(message.round)
        return found
