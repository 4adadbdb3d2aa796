"""Messages between nodes of one process, for tests and for trying things out.

A :class:`MemoryNetwork` joins :class:`MemoryTransport` objects on one event loop. Its hooks lose and delay messages. Messages are
handed over as they are, not copied: they are immutable.
"""

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from raft.core.messages import CONTROL, InstallSnapshot, Message
from raft.core.model import NodeId
from raft.errors import RaftError
from raft.ports.storage import SnapshotSink, SnapshotSource
from raft.ports.transport import TransportHandler

_CONTROL = frozenset(CONTROL)
PIECE_BYTES = 64 * 1024

_Key = tuple[InstallSnapshot, int, str]
"""What makes two snapshots on their way the same: message, size and checksum."""


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
        self._executor: ThreadPoolExecutor | None = None
        self._incoming: tuple[_Key, SnapshotSink] | None = None
        self.node_id = node_id
        self.address = address
        self.message_bytes_max = sys.maxsize  # nothing is encoded here

    async def start(self, handler: TransportHandler) -> None:
        """Begin to listen.

        :raises OSError: when the address is taken.
        """
        self._network.listen(self.address, self)
        self._handler = handler
        self._loop = asyncio.get_running_loop()
        self._executor = ThreadPoolExecutor(1, "snapshot-receiver")

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
        """Copy a snapshot to ``message.to``, piece by piece, and deliver the message there. What has arrived when that fails is kept.

        :raises OSError: when the peer can't be reached, or goes away in between, or fails to write.
        """
        receiver = self._peer(message)
        sink = receiver.begin((message, source.size, source.checksum))
        try:
            while piece := source.read_at(sink.size, PIECE_BYTES):
                await receiver.step(sink, sink.write, piece)
                self._peer(message)
            await receiver.step(sink, sink.commit, source.checksum)
        except RaftError as error:
            raise ConnectionError(f"the snapshot for {message.to} failed: {error}") from error
        self._peer(message).arrived(message)

    def begin(self, key: _Key) -> SnapshotSink:
        """A peer's call: where a snapshot for this node goes, on with what has arrived of it already. What has arrived of another is thrown away."""
        if self._handler is None:
            raise ConnectionError(f"{self.node_id} can't be reached")
        if self._incoming is None or self._incoming[0] != key:
            self._abandon()
            self._incoming = (key, self._handler.begin_snapshot(key[0]))
        return self._incoming[1]

    async def step(self, sink: SnapshotSink, work: Callable[..., None], *arguments: object) -> None:
        """A peer's call: do something with a sink in the one thread; steps never overlap. A sink that fails is thrown away."""
        if self._executor is None or self._incoming is None or self._incoming[1] is not sink:
            raise ConnectionError(f"the snapshot for {self.node_id} has been thrown away")
        executor = self._executor
        try:
            await asyncio.wrap_future(executor.submit(work, *arguments))
        except BaseException as error:
            ended = executor.submit(sink.abort)  # behind the step, which goes on when its caller is cancelled
            if self._incoming is not None and self._incoming[1] is sink:
                self._incoming = None
            if isinstance(error, Exception):
                await asyncio.wrap_future(ended)
            raise

    def arrived(self, message: InstallSnapshot) -> None:
        """A peer's call: a snapshot for this node is whole."""
        self._incoming = None
        self.take((message,))

    async def stop(self) -> None:
        """Stop listening; what is under way to this node is lost. Idempotent."""
        self._network.leave(self.address, self)
        self._abandon()
        if self._executor is not None:
            self._executor.shutdown(wait=False)
        self._handler, self._loop, self._executor = None, None, None

    def take(self, messages: tuple[Message, ...]) -> None:
        """The network's call: messages have arrived."""
        if self._handler is not None and messages:
            self._handler.receive(messages)

    def _peer(self, message: InstallSnapshot) -> "MemoryTransport":
        peer = self._network.peer(self.node_id, message.to, self._addresses.get(message.to, ""))
        if peer is None:
            raise ConnectionError(f"{message.to} can't be reached")
        return peer

    def _abandon(self) -> None:
        incoming, self._incoming = self._incoming, None
        if incoming is not None and self._executor is not None:
            self._executor.submit(incoming[1].abort)

    def _tell_unreachable(self, peer: NodeId) -> None:
        if self._handler is not None:
            self._handler.unreachable(peer)
