"""Several running servers on one event loop, with a network, disks and machines that a test can slow down, break and look into.

::

    async with Servers("abc") as servers:
        leader = await servers.led()
        await servers["b"].propose([b"x"])

Nothing here waits for a time: :func:`until` waits for a condition and gives up loudly after :data:`PATIENCE_SECONDS`.
"""

import asyncio
import threading
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Self

from raft.config import RaftConfig
from raft.core.model import Boundary, Configuration, HardState, Member, NodeId
from raft.core.ready import Observation
from raft.errors import StorageFailed
from raft.ports.storage import WriteBatch
from raft.runtime.server import Ports, RaftServer
from raft.storage.memory import MemoryLog, MemorySnapshots
from raft.transport.memory import MemoryNetwork

PATIENCE_SECONDS = 60.0

BRISK = RaftConfig(tick_ms=5, heartbeat_ms=20, election_timeout_ms=100, proposal_timeout_ms=5_000)
"""Short timeouts. On one loop a stall stops all clocks alike, so it costs nobody the leadership."""


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait until a condition holds.

    :raises TimeoutError: naming what was waited for.
    """
    deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
    while not condition():
        if asyncio.get_running_loop().time() > deadline:
            raise TimeoutError(f"waited {PATIENCE_SECONDS:g} s until {what}")
        await asyncio.sleep(0.002)


class Gate:
    """A place where a thread waits while a test wants it to."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._open.set()
        self.waiting = 0

    def shut(self) -> None:
        """Let whoever comes wait."""
        self._open.clear()

    def open(self) -> None:
        """Let everybody through."""
        self._open.set()

    def pass_through(self) -> None:
        """Go through, when it is open."""
        self.waiting += 1
        try:
            if not self._open.wait(PATIENCE_SECONDS):
                raise TimeoutError("a gate was never opened")
        finally:
            self.waiting -= 1


class SlowLog(MemoryLog):
    """A log in memory whose writes can be held up, or made to fail.

    :ivar failing: fail the next writes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate()
        self.compact_gate = Gate()
        self.failing = False
        self.closed = 0

    def write(self, batch: WriteBatch) -> None:
        """See the port."""
        self.gate.pass_through()
        if self.failing:
            raise StorageFailed("writing the log", "no space left on device")
        super().write(batch)

    def compact(self, boundary: Boundary) -> None:
        """See the port."""
        self.compact_gate.pass_through()
        super().compact(boundary)

    def close(self) -> None:
        """See the port."""
        self.closed += 1


class ListMachine:
    """Remembers every command in order. The answer to one is ``b"<index>:<command>"``.

    :param keeps: whether it survives its node, as one that keeps its state on a disk; the log is cut after checkpoints then.
    :ivar poison: the command that makes it raise.
    :ivar restored: indexes of the snapshots that it was given.
    :ivar awaited: of each batch, whether somebody waited for its results; where nobody did it gave none.
    :ivar wants_checkpoint: what it says when it is asked whether one is due.
    :ivar checkpoints: how many there were.
    """

    def __init__(self, *, keeps: bool = False) -> None:
        self.keeps = keeps
        self.commands: list[bytes] = []
        self.indexes: list[int] = []
        self.position = (0, 0)
        self.poison: bytes | None = None
        self.restored: list[int] = []
        self.awaited: list[bool] = []
        self.wants_checkpoint = False
        self.checkpoints = 0
        self.failing_checkpoint: Exception | None = None
        self.apply_gate = Gate()
        self.restore_gate = Gate()
        self.checkpoint_gate = Gate()
        self.capture_gate = Gate()
        self.captures_open = 0

    def applied(self) -> tuple[int, int]:
        """See the port."""
        return self.position

    def apply(self, entries: Sequence[tuple[int, int, bytes | None]], *, awaited: bool = True) -> list[bytes]:
        """See the port."""
        self.apply_gate.pass_through()
        results = []
        for index, term, data in entries:
            if data is not None and data == self.poison:
                raise ValueError(f"{data!r} can't be applied")
            if index != self.position[0] + 1:
                raise ValueError(f"index {index} after {self.position[0]}")
            self.position = (index, term)
            if data is not None:
                self.commands.append(data)
                self.indexes.append(index)
            results.append(b"%d:%s" % (index, data or b""))
        self.awaited.append(awaited)
        return results if awaited else []

    def checkpoint_due(self) -> bool:
        """See the port."""
        return self.wants_checkpoint

    def checkpoint(self) -> int:
        """See the port."""
        index = self.position[0]
        self.checkpoints += 1
        self.checkpoint_gate.pass_through()
        if self.failing_checkpoint is not None:
            raise self.failing_checkpoint
        return index if self.keeps else 0

    def capture(self) -> "ListPicture":
        """See the port."""
        self.capture_gate.pass_through()
        self.captures_open += 1
        return ListPicture(self)

    def restore(self, index: int, term: int, read: Callable[[int], bytes]) -> None:
        """See the port."""
        self.restore_gate.pass_through()
        content = b""
        while piece := read(1_000):
            content += piece
        self.commands = content.split(b"\n")[:-1]
        self.position = (index, term)
        self.restored.append(index)


class ListPicture:
    """The commands at one moment, a line each."""

    def __init__(self, machine: ListMachine) -> None:
        (self.index, self.term), self._commands = machine.position, list(machine.commands)
        self._machine = machine

    def write(self, sink: Callable[[bytes], object]) -> None:
        """See the port."""
        for command in self._commands:
            sink(command + b"\n")

    def close(self) -> None:
        """See the port."""
        self._machine.captures_open -= 1


class Servers:
    """See the module's text. The disks outlive the servers: a server that starts again finds what it wrote.

    :param names: the members; names, ids and addresses are the same.
    :param keeps: see :class:`ListMachine`.
    """

    def __init__(self, names: Iterable[NodeId], *, config: RaftConfig = BRISK, keeps: bool = False) -> None:
        self.names = tuple(names)
        self.config = config
        self.keeps = keeps
        self.network = MemoryNetwork()
        self.logs: dict[NodeId, SlowLog] = {}
        self.snapshots: dict[NodeId, MemorySnapshots] = {}
        self.machines: dict[NodeId, ListMachine] = {}
        self.running: dict[NodeId, RaftServer] = {}
        self.observations: dict[NodeId, list[Observation]] = {name: [] for name in self.names}
        members = tuple(Member(name, name, name) for name in self.names)
        for name in self.names:
            self.logs[name] = SlowLog()
            self.logs[name].reset(Boundary(configuration=Configuration(voters=members)), HardState())
            self.snapshots[name] = MemorySnapshots()
            self.machines[name] = ListMachine(keeps=keeps)

    def __getitem__(self, name: NodeId) -> RaftServer:
        return self.running[name]

    async def __aenter__(self) -> Self:
        await asyncio.gather(*(self.start(name) for name in self.names))
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.open_gates()
        await asyncio.gather(*(self.stop(name) for name in tuple(self.running)))

    def open_gates(self) -> None:
        """Let everything through again."""
        for name in self.names:
            machine = self.machines[name]
            for gate in (
                self.logs[name].gate,
                self.logs[name].compact_gate,
                machine.apply_gate,
                machine.restore_gate,
                machine.checkpoint_gate,
                machine.capture_gate,
            ):
                gate.open()

    def ports(self, name: NodeId) -> Ports:
        """What a server is made of."""
        log = self.logs[name]
        transport = self.network.transport(name, name)
        return Ports(log_store=log, stable_store=log, snapshot_store=self.snapshots[name], transport=transport, machine=self.machines[name])

    async def start(self, name: NodeId) -> RaftServer:
        """Start a server from its disk; a machine that keeps nothing begins afresh."""
        if not self.keeps:
            self.machines[name] = ListMachine()
        server = RaftServer(node_id=name, config=self.config, ports=self.ports(name))
        server.observe(self.observations[name].append)
        self.running[name] = server
        await server.start()
        return server

    async def stop(self, name: NodeId) -> None:
        """Stop a server."""
        await self.running.pop(name).stop()

    def leaders(self) -> list[NodeId]:
        """Everybody who leads."""
        return [name for name, server in self.running.items() if server.leads]

    async def led(self, *names: NodeId) -> NodeId:
        """Wait until one of the servers (all by default) leads and all of them know.

        :returns: the leader.
        """
        among = names or tuple(self.running)

        def agreed() -> bool:
            known = {self.running[name].leader for name in among}
            return len(known) == 1 and None not in known and known <= set(among) and self.running[next(iter(known)) or ""].leads

        await until(agreed, f"{', '.join(among)} agree on a leader")
        return self.running[among[0]].leader or ""

    async def applied(self, commands: Sequence[bytes], *names: NodeId) -> None:
        """Wait until the machines of the servers (all running by default) hold exactly these commands."""
        among = names or tuple(self.running)
        await until(
            lambda: all(self.machines[name].commands == list(commands) for name in among), f"{', '.join(among)} hold {len(commands)} commands"
        )

    async def ticks(self, name: NodeId, count: int) -> None:
        """Wait until a server's clock has ticked so often."""
        state = self.running[name].driver.node.state
        end = state.tick_count + count
        await until(lambda: state.tick_count >= end, f"{name} has ticked {count} times")
