"""Keeps the log short and brings followers that are far behind up to date.

A machine that keeps its state on disk itself (``checkpoint`` returns an index) needs no snapshot for compaction: the log is cut up to what a
checkpoint has made durable. For other machines a snapshot is stored first. A snapshot for a peer is taken when it is needed.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from raft.core.messages import InstallSnapshot
from raft.core.model import Boundary, NodeId
from raft.core.node import RaftNode
from raft.core.ready import Observation, Ready, SnapshotMoved
from raft.errors import MachineFailed, RaftError, StorageCorrupt
from raft.ports.machine import Capture, StateMachine
from raft.ports.storage import LogStore, SnapshotSink, SnapshotSource, SnapshotStore
from raft.ports.transport import Transport
from raft.runtime.applier import Applier
from raft.runtime.arrivals import Arrivals
from raft.runtime.disk import Disk

Result = TypeVar("Result")


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
        self._tasks: set[asyncio.Task[None]] = set()
        self._threads: set[asyncio.Task[Any]] = set()  # work in threads; it can't be broken off
        self._compacting = False
        self._stopped = False
        self._checkpointed = 0
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
        due = log.applied - self._checkpointed >= max(1, config.snapshot_threshold_entries // 8)
        if (due or self._over_threshold()) and not self._compacting and not self._stopped:
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
        index = min(durable, log.applied, keep_from - 1)
        if index <= log.boundary.index:
            return
        boundary = node.boundary_at(index)
        finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.host.disk.call(lambda: self._log_store.compact(boundary), lambda: None if finished.done() else finished.set_result(None))
        await finished
        if boundary.index > log.boundary.index:  # not so when a snapshot was installed meanwhile
            node.compact(boundary)
            self.host.observe(SnapshotMoved("compacted", boundary.index))

    async def _send(self, message: InstallSnapshot) -> None:
        node, index = self.host.node, 0
        try:
            source = await self._source()
            try:
                boundary = source.boundary
                await self._transport.send_snapshot(InstallSnapshot(node.node_id, message.to, message.term, boundary), source)
                index = boundary.index
            finally:
                source.close()
        except (OSError, RaftError, _OvertakenError):
            index = 0  # the core tries again
        except Exception as error:  # noqa: BLE001 - whatever the machine raised, it can't show its state
            self._fail(MachineFailed(node.state.log.applied, error))
        finally:
            self._sending.discard(message.to)
            node.report_snapshot(message.to, index)
            self.host.observe(SnapshotMoved("sent" if index else "lost", index or message.boundary.index, message.to))
            self.host.schedule()

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

    def _over_threshold(self) -> bool:
        log, config = self.host.node.state.log, self.host.node.state.config
        return log.last_index - log.boundary.index > config.snapshot_threshold_entries or log.bytes > config.snapshot_threshold_bytes

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        """Do in a thread what takes long. When this task is cancelled the work goes on, and :meth:`stop` waits for it."""
        thread = asyncio.create_task(asyncio.to_thread(work))
        self._threads.add(thread)
        thread.add_done_callback(self._threads.discard)
        await asyncio.wait((thread,))  # unlike a shield it says nothing when nobody waits for a failure any more
        return thread.result()

    def _spawn(self, work: object) -> None:
        task = asyncio.ensure_future(work)  # type: ignore[call-overload]  # always one of our coroutines
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


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
