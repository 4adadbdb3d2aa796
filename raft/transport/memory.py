"""Messages between nodes of one process, for tests and for trying things out.

A :class:`MemoryNetwork` joins :class:`MemoryTransport` objects on one event loop. Its hooks lose and delay messages. Messages are
handed over as they are, not copied: they are immutable.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping

from raft.core.messages import CONTROL, InstallSnapshot, Message
from raft.core.model import NodeId
from raft.errors import RaftError
from raft.ports.storage import SnapshotSource
from raft.ports.transport import TransportHandler

_CONTROL = frozenset(CONTROL)
PIECE_BYTES = 64 * 1024


class _Lane:
    """Messages under way between two nodes, of one kind of traffic, in order."""

    def __init__(self, deliver: Callable[[tuple[Message, ...]], None]) -> None:
        self._deliver = deliver
        self._loop = asyncio.get_running_loop()
        self._queue: deque[tuple[float, Message]] = deque()
        self._last_due = 0.0
        self.held = False

    def put(self, message: Message, delay_seconds: float) -> None:
        """Deliver the message after the delay, and after those before it."""
        self._last_due = max(self._last_due, self._loop.time() + delay_seconds)
        self._queue.append((self._last_due, message))
        if len(self._queue) == 1:
            self._wake()

    def release(self) -> None:
        """Deliver again after the lane was held."""
        self.held = False
        self._wake()

    def _wake(self) -> None:
        if self._queue:
            self._loop.call_at(self._queue[0][0], self._run)

    def _run(self) -> None:
        now = self._loop.time()
        due = []
        while not self.held and self._queue and self._queue[0][0] <= now:
            due.append(self._queue.popleft()[1])
        if due:
            self._deliver(tuple(due))
        if not self.held:
            self._wake()


class MemoryNetwork:
    """The wires between the transports of one process.

    :ivar drop: asked for each message; True loses it.
    :ivar delay_seconds: asked for each message; how long it is under way. Order within a lane is kept all the same.
    """

    def __init__(self) -> None:
        self.drop: Callable[[Message], bool] = lambda _message: False
        self.delay_seconds: Callable[[Message], float] = lambda _message: 0.0
        self._listening: dict[str, MemoryTransport] = {}
        self._lanes: dict[tuple[NodeId, str, bool], _Lane] = {}
        self._cut: set[frozenset[NodeId]] = set()

    def transport(self, node_id: NodeId, address: str) -> "MemoryTransport":
        """A transport for one node, not started yet.

        :param address: any text; peers name it in their address books.
        """
        return MemoryTransport(self, node_id, address)

    def cut(self, one: NodeId, other: NodeId) -> None:
        """Let nothing through between two nodes."""
        self._cut.add(frozenset((one, other)))

    def heal(self) -> None:
        """End all cuts."""
        self._cut.clear()

    def hold_bulk(self, sender: NodeId, address: str) -> None:
        """Let the node at ``address`` read no bulk messages of ``sender``; they wait."""
        self._lane(sender, address, control=False).held = True

    def release_bulk(self, sender: NodeId, address: str) -> None:
        """Let it read them again."""
        self._lane(sender, address, control=False).release()

    def listen(self, address: str, transport: "MemoryTransport") -> None:
        """Deliver to this transport what is sent to the address.

        :raises OSError: when another one listens there.
        """
        if self._listening.setdefault(address, transport) is not transport:
            raise OSError(f"{address} is taken")

    def leave(self, address: str, transport: "MemoryTransport") -> None:
        """Deliver nothing to the address any more."""
        if self._listening.get(address) is transport:
            del self._listening[address]

    def peer(self, sender: NodeId, to: NodeId, address: str) -> "MemoryTransport | None":
        """The transport that messages from ``sender`` to ``to`` reach now, if any."""
        transport = self._listening.get(address)
        reached = transport is not None and transport.node_id == to and frozenset((sender, to)) not in self._cut
        return transport if reached else None

    def carry(self, message: Message, address: str) -> None:
        """Take a message on its way."""
        if not self.drop(message):
            lane = self._lane(message.sender, address, control=type(message) in _CONTROL)
            lane.put(message, self.delay_seconds(message))

    def _lane(self, sender: NodeId, address: str, *, control: bool) -> _Lane:
        key = (sender, address, control)
        if key not in self._lanes:
            self._lanes[key] = _Lane(lambda messages: self._deliver(sender, address, messages))
        return self._lanes[key]

    def _deliver(self, sender: NodeId, address: str, messages: tuple[Message, ...]) -> None:
        transport = self.peer(sender, messages[0].to, address)
        if transport is not None:
            transport.take(tuple(message for message in messages if message.to == transport.node_id))


class MemoryTransport:
    """The :class:`~raft.ports.transport.Transport` of one node of a :class:`MemoryNetwork`."""

    def __init__(self, network: MemoryNetwork, node_id: NodeId, address: str) -> None:
        self._network = network
        self._addresses: dict[NodeId, str] = {}
        self._handler: TransportHandler | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.node_id = node_id
        self.address = address

    async def start(self, handler: TransportHandler) -> None:
        """Begin to listen.

        :raises OSError: when the address is taken.
        """
        self._network.listen(self.address, self)
        self._handler = handler
        self._loop = asyncio.get_running_loop()

    def connect(self, addresses: Mapping[NodeId, str]) -> None:
        """Replace the address book."""
        self._addresses = dict(addresses)

    def send(self, messages: tuple[Message, ...]) -> None:
        """Put messages on their way."""
        if self._loop is None:
            return
        for message in messages:
            address = self._addresses.get(message.to)
            if address is None or message.sender != self.node_id:
                continue
            if self._network.peer(self.node_id, message.to, address) is None:
                self._loop.call_soon(self._tell_unreachable, message.to)
            else:
                self._network.carry(message, address)

    async def send_snapshot(self, message: InstallSnapshot, source: SnapshotSource) -> None:
        """Copy a snapshot to ``message.to``, piece by piece, and deliver the message there.

        :raises OSError: when the peer can't be reached, or goes away in between, or fails to write.
        """
        address = self._addresses.get(message.to, "")
        sink = None
        try:
            sink = self._peer_handler(message, address).begin_snapshot(message)
            while piece := source.read_at(sink.size, PIECE_BYTES):
                await asyncio.to_thread(sink.write, piece)
                self._peer_handler(message, address)
            await asyncio.to_thread(sink.commit, source.checksum)
        except RaftError as error:
            raise ConnectionError(f"the snapshot for {message.to} failed: {error}") from error
        finally:
            if sink is not None:
                sink.abort()
        self._peer_handler(message, address).receive((message,))

    async def stop(self) -> None:
        """Stop listening; what is under way to this node is lost. Idempotent."""
        self._network.leave(self.address, self)
        self._handler = None
        self._loop = None

    def take(self, messages: tuple[Message, ...]) -> None:
        """The network's call: messages have arrived."""
        if self._handler is not None and messages:
            self._handler.receive(messages)

    def _peer_handler(self, message: InstallSnapshot, address: str) -> TransportHandler:
        peer = self._network.peer(self.node_id, message.to, address)
        if peer is None or peer._handler is None:  # noqa: SLF001  # its own class
            raise ConnectionError(f"{message.to} can't be reached")
        return peer._handler  # noqa: SLF001  # its own class

    def _tell_unreachable(self, peer: NodeId) -> None:
        if self._handler is not None:
            self._handler.unreachable(peer)
