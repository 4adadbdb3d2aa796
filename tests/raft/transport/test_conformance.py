"""Both adapters pass the contract of the transport port; HTTP on either event loop."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from raft.core.model import NodeId
from raft.ports.transport import Transport
from raft.testing.transport_conformance import TransportContract, TransportWorld
from raft.testing.transport_doubles import Recorder
from raft.transport.memory import MemoryNetwork, MemoryTransport


class MemoryWorld:
    """Nodes ``a`` and ``b`` on one network in memory."""

    def __init__(self) -> None:
        self.network = MemoryNetwork()
        self.transports: dict[NodeId, MemoryTransport] = {}
        self.recorders: dict[NodeId, Recorder] = {}

    async def open(self) -> None:
        """Start both."""
        for node in ("a", "b"):
            await self.bring_back(node)

    async def close(self) -> None:
        """Stop both."""
        for transport in self.transports.values():
            await transport.stop()

    def transport(self, node: NodeId) -> Transport:
        """A node's transport."""
        return self.transports[node]

    def recorder(self, node: NodeId) -> Recorder:
        """A node's handler."""
        return self.recorders[node]

    async def take_away(self, node: NodeId) -> None:
        """Stop a node."""
        await self.transports[node].stop()

    async def bring_back(self, node: NodeId) -> None:
        """Start a node."""
        transport, recorder = self.network.transport(node, f"{node}:1"), Recorder()
        await transport.start(recorder)
        transport.connect({"a": "a:1", "b": "b:1"})
        self.transports[node], self.recorders[node] = transport, recorder

    async def stall_bulk(self, sender: NodeId, to: NodeId) -> None:
        """Hold the bulk lane."""
        self.network.hold_bulk(sender, f"{to}:1")

    def cut_connections(self, sender: NodeId, to: NodeId) -> None:
        """There are no connections in memory."""


class TestMemoryTransport(TransportContract):
    """The adapter in memory."""

    def make_world(self) -> TransportWorld:
        """Two nodes in memory."""
        return MemoryWorld()


class TestHttpTransport(TransportContract):
    """The HTTP adapter on asyncio's own loop, with its debugging on."""

    @pytest.fixture(autouse=True)
    def _worlds(self, make_http_world: Callable[[], TransportWorld]) -> None:
        self._make = make_http_world

    def make_world(self) -> TransportWorld:
        """Two nodes on loopback."""
        return self._make()


class TestHttpTransportOnUvloop(TestHttpTransport):
    """The HTTP adapter on the loop that the agent uses."""

    def run(self, scenario: Coroutine[Any, Any, None]) -> None:
        """Run on uvloop."""
        with asyncio.Runner(loop_factory=uvloop.new_event_loop, debug=True) as runner:
            runner.run(scenario)
