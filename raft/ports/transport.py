"""The port to the other nodes."""

from collections.abc import Mapping
from typing import Protocol

from raft.core.messages import InstallSnapshot, Message
from raft.core.model import NodeId
from raft.ports.storage import SnapshotSink, SnapshotSource


class TransportHandler(Protocol):
    """Whoever receives. All calls come on the event loop's thread."""

    def receive(self, messages: tuple[Message, ...]) -> None:
        """Messages that arrived together, in the sender's order. Must not block."""
        ...

    def begin_snapshot(self, message: InstallSnapshot) -> SnapshotSink:
        """A snapshot begins to arrive: where its bytes go. The transport hands ``message`` to :meth:`receive` once the sink is committed."""
        ...

    def unreachable(self, peer: NodeId) -> None:
        """Messages to the peer were lost, as far as the transport can tell."""
        ...


class Transport(Protocol):
    """Carries messages, promises little: they may be lost, delayed, doubled or reordered. Event loop's thread only.

    One promise there is: a ``ProposeRequest`` is never doubled. The core has no memory of forwarded batches and would append it twice.
    """

    @property
    def message_bytes_max(self) -> int:
        """The longest message that it carries, in bytes; what is longer is dropped, so whoever makes one of any length looks here first.

        The largest append must fit: one entry of ``proposal_bytes_max``, or entries of ``append_bytes_max`` in all.
        """
        ...

    async def start(self, handler: TransportHandler) -> None:
        """Begin to listen."""
        ...

    def connect(self, addresses: Mapping[NodeId, str]) -> None:
        """The whole address book, ``host:port``; replaces the former one. Names are resolved anew at each dial."""
        ...

    def send(self, messages: tuple[Message, ...]) -> None:
        """Send, in order for each recipient and kind of traffic; replies may overtake. Never blocks and never raises: what can't be sent is dropped.

        Messages of :data:`raft.core.messages.CONTROL` never wait behind others.
        """
        ...

    async def send_snapshot(self, message: InstallSnapshot, source: SnapshotSource) -> None:
        """Stream a snapshot to ``message.to`` and deliver ``message`` there when it is whole.

        When that fails, what has arrived is kept for a while: the same snapshot, sent again, goes on where it stopped.

        :raises OSError: when that failed; the caller reports it to the core.
        """
        ...

    async def stop(self) -> None:
        """Stop listening and drop what is queued."""
        ...
