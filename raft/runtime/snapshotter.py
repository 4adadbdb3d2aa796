"""Keeps the log short and brings followers that are far behind up to date.

A machine that keeps its state on disk itself (``checkpoint`` returns an index) needs no snapshot for compaction: the log is cut up to what a
checkpoint has made durable. For other machines a snapshot is stored first. A snapshot for a peer is taken when it is needed.

A disk without room for a checkpoint or a snapshot is no reason to stop: nobody was promised either. It is said, counted, and tried again later. Only
what can't be written to the log or to the state stops the node.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from raft.core.messages import InstallSnapshot
from raft.core.model import Boundary, NodeId
from raft.core.node import RaftNode
from raft.core.ready import Observation, Ready, SnapshotMoved
from raft.errors import MachineFailed, RaftError, StorageCorrupt, StorageFull
from raft.ports.machine import Capture, StateMachine
from raft.ports.storage import LogStore, SnapshotSink, SnapshotSource, SnapshotStore
from raft.ports.transport import Transport
from raft.runtime.applier import Applier
from raft.runtime.arrivals import Arrivals
from raft.runtime.disk import Disk

Result = TypeVar("Result")

PUT_OFF_SECONDS = 2.0
"""Until what found no room on the disk is tried again."""
RETRY_SECONDS = 0.25
"""How long a peer that has failed to take a snapshot twice in a row gets no other; after each further failure twice as long."""
RETRY_SECONDS_MAX = 8.0
HELD_FACTOR = 4
"""How many times longer than its thresholds a log may become for a peer that is being brought up to date."""

logger = logging.getLogger(__name__)


class Host(Protocol):
    """What the snapshotter needs of the driver."""

    node: RaftNode
    disk: Disk
    applier: Applier

    def schedule(self) -> None:
        """Take a turn soon."""
        ...

    def observe(self, observation: Observation) -> None:
        """Tell whoever watches."""
        ...


class _OvertakenError(Exception):
    """While a picture was taken, a snapshot from a leader has taken its place."""


class Snapshotter:
    """See the module's text. Runs on the loop; what takes long runs in threads.

    :param fail: told why the node can't go on.
    :ivar put_off: checkpoints and snapshots for which there was no room on the disk.
    """

    def __init__(
        self, *, machine: StateMachine, store: SnapshotStore, log_store: LogStore, transport: Transport, fail: Callable[[RaftError], None]
    ) -> None:
        self.machine = machine
        self._store = store
        self._arrivals = Arrivals(store)
        self._log_store = log_store
        self._transport = transport
        self._fail = fail
        self._host: Host | None = None
        self._sending: set[NodeId] = set()
        self._failures: dict[NodeId, int] = {}  # how often in a row a peer did not take its snapshot
        self._sent: dict[NodeId, int] = {}  # index of the snapshot that is for a peer, from its beginning until the peer has it
        self._held_back = False  # the last compaction would have cut more, but for a peer
        self._tasks: set[asyncio.Task[None]] = set()
        self._threads: set[asyncio.Task[Any]] = set()  # work in threads; it can't be broken off
        self._compacting = False
        self._stopped = False
        self._checkpointed = 0
        self.put_off = 0
        self._not_before = 0.0
        self._capture_lock = asyncio.Lock()

    @property
    def host(self) -> Host:
        """The driver, once attached."""
        if self._host is None:
            raise RuntimeError("the snapshotter was not attached to a driver")
        return self._host

    def attach(self, host: Host) -> None:
        """Begin to serve."""
        self._host = host
        self._checkpointed = host.node.state.log.applied

    async def stop(self) -> None:
        """Cancel what is under way, and wait for what the machine and the store have begun: their files may be closed after this."""
        self._stopped = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*self._threads, return_exceptions=True)

    def consider(self) -> None:
        """Entries were applied: checkpoint now and then, and compact when the log is over a threshold."""
        log, config = self.host.node.state.log, self.host.node.state.config
        due = log.applied - self._checkpointed >= max(1, config.snapshot_threshold_entries // 8) or self.machine.checkpoint_due()
        if (due or (self._over_threshold() and not self._held_back)) and not self._compacting and not self._stopped and self._is_time():
            self._compacting = True
            self._checkpointed = log.applied
            self._spawn(self._compact())

    def send(self, message: InstallSnapshot) -> None:
        """The core wants a peer to get a snapshot; one at a time each."""
        if message.to not in self._sending and not self._stopped:
            self._sending.add(message.to)
            self._spawn(self._send(message))

    def receive(self, message: InstallSnapshot) -> SnapshotSink:
        """Where the bytes of an arriving snapshot go."""
        return self._arrivals.begin(message)

    def take(self, message: InstallSnapshot) -> None:
        """A snapshot is there: tell the core. Unless the core wants it installed, the next one may come.

        A message that comes so late that another snapshot has taken the place of its own is dropped; the leader finds out and tries again.
        """
        if not self._arrivals.claim(message.boundary):
            return
        try:
            self.host.node.step(message)
        finally:
            if self.host.node.state.installing != message.boundary:
                self._arrivals.settle()

    def install(self, ready: Ready, done: Callable[[Ready], None]) -> None:
        """Put an arrived snapshot in place: the machine first, the log second. A crash in between is mended at start."""
        boundary, hard_state = ready.snapshot, self.host.node.state.saved
        if boundary is None:
            raise RuntimeError("a Ready without a snapshot can't be installed")

        def restored(outcome: object) -> None:
            if isinstance(outcome, Exception):
                self._fail(outcome if isinstance(outcome, RaftError) else MachineFailed(boundary.index, outcome))
            else:
                self.host.disk.call(lambda: self._log_store.reset(boundary, hard_state), settled)

        def settled() -> None:
            self._arrivals.settle()
            done(ready)
            self.host.observe(SnapshotMoved("installed", boundary.index))

        self.host.applier.call(lambda: restore(self.machine, self._store, boundary), restored)

    async def _compact(self) -> None:
        try:
            durable = await self._in_thread(self.machine.checkpoint)
            if not self._over_threshold():
                return
            if durable == 0:
                source = await self._take_snapshot()
                durable = source.boundary.index
                source.close()
            await self._cut(durable)
        except _OvertakenError:
            return  # an installed snapshot has shortened the log already
        except StorageFull as error:
            self._put_off("the log is not shortened", error)
            self._checkpointed = 0
            self._not_before = asyncio.get_running_loop().time() + PUT_OFF_SECONDS
        except RaftError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 - whatever the machine raised, its state can't be made durable
            self._fail(MachineFailed(self.host.node.state.log.applied, error))
        finally:
            self._compacting = False

    async def _cut(self, durable: int) -> None:
        node = self.host.node
        log, config = node.state.log, node.state.config
        keep_from = log.tail_begin(config.trailing_entries, config.snapshot_threshold_bytes // 2)
        wanted_from = self._wanted_from(keep_from)
        self._held_back = wanted_from < keep_from
        index = min(durable, log.applied, wanted_from - 1)
        if index <= log.boundary.index:
            return
        boundary = node.boundary_at(index)
        finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.host.disk.call(lambda: self._log_store.compact(boundary), lambda: None if finished.done() else finished.set_result(None))
        await finished
        if boundary.index > log.boundary.index:  # not so when a snapshot was installed meanwhile
            node.compact(boundary)
            self.host.observe(SnapshotMoved("compacted", boundary.index))

    def _wanted_from(self, keep_from: int) -> int:
        """The first entry to be kept for a peer that a snapshot is for, until the rest of the log would be kept for it anyway.

        Under a steady load the log would otherwise be cut past a large snapshot before its receiver has installed it, and it would need another, for
        ever. A peer that is silent or takes too long is not waited for: the log may become a few times as long as its thresholds, and no more.

        :param keep_from: the first entry that is kept in any case.
        """
        node = self.host.node
        log, config, wanted = node.state.log, node.state.config, keep_from
        since = node.state.tick_count - config.election_ticks
        for peer, index in tuple(self._sent.items()):
            progress = node.state.progress.get(peer)
            if progress is None or progress.match >= keep_from - 1:
                del self._sent[peer]
            elif progress.contact_tick >= since and max(index, progress.match) >= log.boundary.index:
                wanted = min(wanted, max(index, progress.match) + 1)
        too_many = log.last_index - wanted > HELD_FACTOR * config.snapshot_threshold_entries
        return keep_from if too_many or log.bytes > HELD_FACTOR * config.snapshot_threshold_bytes else wanted

    async def _send(self, message: InstallSnapshot) -> None:
        node, index = self.host.node, 0
        try:
            source = await self._source()
            try:
                boundary = source.boundary
                self._sent[message.to] = boundary.index
                await self._transport.send_snapshot(InstallSnapshot(node.node_id, message.to, message.term, boundary), source)
                index = boundary.index
                self._failures.pop(message.to, None)
            finally:
                source.close()
        except StorageFull as error:
            self._put_off(f"{message.to} gets no snapshot", error)
            await asyncio.sleep(PUT_OFF_SECONDS)
        except StorageCorrupt as error:
            self._fail(error)  # what this node holds: what a peer makes of it arrives as an OSError
        except _OvertakenError:
            pass  # the core tries again
        except (OSError, RaftError):
            await self._pause(message.to)
        except Exception as error:  # noqa: BLE001 - whatever the machine raised, it can't show its state
            self._fail(MachineFailed(node.state.log.applied, error))
        finally:
            self._sending.discard(message.to)
            if not index:
                self._sent.pop(message.to, None)
            node.report_snapshot(message.to, index)
            self.host.observe(SnapshotMoved("sent" if index else "lost", index or message.boundary.index, message.to))
            self.host.schedule()
            self._held_back = False  # nothing may be applied for a long time that would ask again
            self.consider()

    async def _pause(self, peer: NodeId) -> None:
        """Wait before a peer that did not take its snapshot gets another: one whose disk is full, say, would have it made and sent over and over.

        After the first failure nobody waits, for most often the peer was only restarted.
        """
        self._sent.pop(peer, None)
        failures = self._failures[peer] = self._failures.get(peer, 0) + 1
        if failures > 1:
            await asyncio.sleep(pause_seconds(failures))

    async def _source(self) -> SnapshotSource:
        """A stored snapshot that the log continues, or a fresh one."""
        async with self._capture_lock:
            stored = await self._in_thread(self._store.latest)
            if stored is not None and stored.boundary.index >= self.host.node.state.log.boundary.index:
                return stored
            if stored is not None:
                stored.close()
            return await self._take_snapshot()

    async def _take_snapshot(self) -> SnapshotSource:
        captured: asyncio.Future[object] = asyncio.get_running_loop().create_future()

        def deliver(capture: object) -> None:
            if not captured.done():
                captured.set_result(capture)
            elif not isinstance(capture, Exception):
                capture.close()  # type: ignore[attr-defined]  # what capture() returned; nobody waits for it any more

        self.host.applier.call(self.machine.capture, deliver)
        capture = await captured
        if isinstance(capture, Exception):
            raise capture
        boundary = self._label(capture)  # type: ignore[arg-type]  # what capture() returned
        return await self._in_thread(lambda: _write(self._store, boundary, capture))  # type: ignore[arg-type]  # what capture() returned

    def _label(self, capture: Capture) -> Boundary:
        node = self.host.node
        if capture.index < node.state.log.boundary.index:
            capture.close()
            raise _OvertakenError
        return Boundary(capture.index, capture.term, node.state.trail.at(capture.index))

    def _put_off(self, consequence: str, error: StorageFull) -> None:
        """There is no room on the disk for something that can wait."""
        self.put_off += 1
        logger.warning("disk full: %s for now: %s", consequence, error)

    def _is_time(self) -> bool:
        """Whether a compaction that was put off may be tried again. It is when entries are applied, as always."""
        return not self._not_before or asyncio.get_running_loop().time() >= self._not_before

    def _over_threshold(self) -> bool:
        log, config = self.host.node.state.log, self.host.node.state.config
        return log.last_index - log.boundary.index > config.snapshot_threshold_entries or log.bytes > config.snapshot_threshold_bytes

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        """Do in a thread what takes long. When this task is cancelled the work goes on, and :meth:`stop` waits for it."""
        thread = asyncio.create_task(asyncio.to_thread(work))
        self._threads.add(thread)
        thread.add_done_callback(self._thread_ended)
        await asyncio.wait((thread,))  # unlike a shield it says nothing when nobody waits for a failure any more
        return thread.result()

    def _thread_ended(self, thread: asyncio.Task[Any]) -> None:
        self._threads.discard(thread)
        if not thread.cancelled():
            thread.exception()  # whoever waited may have been cancelled in the very turn in which it ended

    def _spawn(self, work: object) -> None:
        task = asyncio.ensure_future(work)  # type: ignore[call-overload]  # always one of our coroutines
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def pause_seconds(failures: int) -> float:
    """How long a peer is let alone that has failed so often in a row.

    :param failures: at least 2.
    """
    return float(min(RETRY_SECONDS * 2 ** min(failures - 2, 16), RETRY_SECONDS_MAX))


def restore(machine: StateMachine, store: SnapshotStore, boundary: Boundary) -> None:
    """Give the machine the stored snapshot that ``boundary`` labels.

    :raises StorageCorrupt: when the newest valid one is another.
    """
    source = store.latest()
    if source is None or (source.boundary.index, source.boundary.term) != (boundary.index, boundary.term):
        raise StorageCorrupt("installing a snapshot", f"the snapshot at index {boundary.index} is not there")
    try:
        offset = 0

        def read(length: int) -> bytes:
            nonlocal offset
            piece = source.read_at(offset, length)
            offset += len(piece)
            return piece

        machine.restore(boundary.index, boundary.term, read)
    finally:
        source.close()


def _write(store: SnapshotStore, boundary: Boundary, capture: Capture) -> SnapshotSource:
    try:
        sink = store.create(boundary)
        try:
            capture.write(sink.write)
            sink.commit()
        except BaseException:
            sink.abort()
            raise
    finally:
        capture.close()
    source = store.latest()
    if source is None:
        raise StorageCorrupt("taking a snapshot", f"the snapshot at index {boundary.index} was not kept")
    return source
