"""A cluster in one process, for trying things out and for testing a state machine of one's own: real servers, memory in place of disks and network.

::

    async with LocalCluster(["one", "two", "three"], Counter) as cluster:
        await cluster["one"].propose([b"5"])

A name is the id, the name and the address of its server. Disks outlive their servers; machines do not, unless they keep their state themselves.
"""

import asyncio
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Generic, Self, TypeVar

from raft.config import RaftConfig
from raft.core.model import Boundary, Configuration, HardState, Member, NodeId
from raft.ports.machine import StateMachine
from raft.runtime.server import Ports, RaftServer
from raft.storage.memory import MemoryLog, MemorySnapshots
from raft.transport.memory import MemoryNetwork

Machine = TypeVar("Machine", bound=StateMachine)


class LocalCluster(Generic[Machine]):
    """See the module's text.

    :param names: the voters of the first configuration.
    :param machine: makes a machine; called at each start of a server.
    :ivar network: cuts and heals links, drops and delays messages.
    :ivar machines: those of the servers that run.
    """

    def __init__(self, names: Iterable[str], machine: Callable[[], Machine], *, config: RaftConfig | None = None) -> None:
        self.network = MemoryNetwork()
        self.machines: dict[NodeId, Machine] = {}
        self._names = tuple(names)
        self._new_machine = machine
        self._config = config or RaftConfig()
        self._disks: dict[NodeId, tuple[MemoryLog, MemorySnapshots]] = {}
        self._servers: dict[NodeId, RaftServer] = {}

    def __getitem__(self, name: NodeId) -> RaftServer:
        return self._servers[name]

    async def __aenter__(self) -> Self:
        first = Boundary(configuration=Configuration(voters=tuple(map(self.member, self._names))))
        try:
            await asyncio.gather(*(self.start(name, first) for name in self._names))
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        await asyncio.gather(*(self.stop(name) for name in tuple(self._servers)))

    @staticmethod
    def member(name: str) -> Member:
        """What a configuration says about a server."""
        return Member(name, name, name)

    async def start(self, name: NodeId, first: Boundary | None = None) -> RaftServer:
        """Start a server from its disk. A new one belongs to no configuration: it waits until a leader adds it.

        :param first: what precedes the log of a new one.
        """
        if name not in self._disks:
            log = MemoryLog()
            log.reset(first or Boundary(), HardState())
            self._disks[name] = (log, MemorySnapshots())
        log, snapshots = self._disks[name]
        machine = self._new_machine()
        transport = self.network.transport(name, name)
        ports = Ports(log_store=log, stable_store=log, snapshot_store=snapshots, transport=transport, machine=machine)
        server = RaftServer(node_id=name, config=self._config, ports=ports)
        self.machines[name], self._servers[name] = machine, server
        await server.start()
        server.know({other: other for other in self._servers if other != name})
        return server

    async def stop(self, name: NodeId) -> None:
        """Stop a server; its disk stays."""
        self.machines.pop(name, None)
        await self._servers.pop(name).stop()
