"""Servers over memory, each with its membership, and whoever else answers at an address: what the tests of the membership share."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec
import pytest

from raft.core.model import Boundary, HardState
from raft.storage.memory import MemorySnapshots
from raft.testing.servers import BRISK, ListMachine, Servers, SlowLog
from service.agent import formation, joining, membership, removal
from service.agent.formation import VERSION, Hello
from service.agent.identity import Cluster
from service.agent.membership import Membership
from service.ipc import membership as ask

OURS = "c1"


def be_impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing wait for long."""
    monkeypatch.setattr(membership, "PATIENCE_SECONDS", 1.0)
    monkeypatch.setattr(membership, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(joining, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(removal, "PAUSE_SECONDS", 0.01)


class World:
    """Servers over memory, each with its membership, and whatever else answers at an address."""

    def __init__(self, servers: Servers) -> None:
        self.servers = servers
        self.at: dict[tuple[str, str], Callable[[bytes], Awaitable[tuple[int, bytes]]]] = {}
        self.members = {name: self._serve(name) for name in servers.running}

    def _serve(self, name: str) -> Membership:
        made = Membership(OURS, self.servers[name], self.call, BRISK.election_ticks, BRISK.tick_ms)
        self.at[name, membership.PATH] = made.answer_peer
        self.tell(Hello(VERSION, name, name, [], Cluster(OURS, [])), name)
        return made

    async def call(self, address: str, path: str, body: bytes, _seconds: float) -> tuple[int, bytes]:
        """The ``call`` of everybody."""
        address = address.removesuffix(":8300")
        if (address, path) not in self.at:
            raise ConnectionRefusedError(f"nobody at {address}")
        return await self.at[address, path](body)

    def tell(self, hello: Hello, address: str) -> None:
        """A server at an address tells who it is."""

        async def answer(_: bytes) -> tuple[int, bytes]:
            return 200, msgspec.json.encode(hello)

        self.at[address.removesuffix(":8300"), formation.PATH] = answer

    async def empty(self, name: str, id_: str) -> None:
        """An empty server starts; id and address are one here."""
        servers = self.servers
        servers.names += (id_,)
        servers.logs[id_] = SlowLog()
        servers.logs[id_].reset(Boundary(), HardState())
        servers.snapshots[id_], servers.machines[id_], servers.observations[id_] = MemorySnapshots(), ListMachine(), []
        server = await servers.start(id_)
        server.know({other: other for other in servers.names})
        self.tell(Hello(VERSION, name, id_, [], None), id_)

    async def ask(self, name: str, operation: ask.Operation) -> ask.Reply:
        """Ask the membership of a server."""
        return await self.members[name].answer(ask.encode(operation))


def run(scenario: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    """Run a scenario with three servers, of which one leads."""

    async def whole() -> None:
        async with Servers("abc") as servers:
            await servers.led()
            await scenario(World(servers))

    asyncio.run(asyncio.wait_for(whole(), 60))


def kind(reply: ask.Reply) -> str:
    """The kind of a problem, its outcome and status checked."""
    status, answer = reply
    assert status == answer["status"] != 200
    assert answer["outcome"] == ("unknown" if ask.kind_of(answer) == ask.OUTCOME_UNKNOWN else "rejected")
    return ask.kind_of(answer)


def others(world: World) -> list[str]:
    """Everybody but the leader."""
    [leader] = world.servers.leaders()
    return [name for name in "abc" if name != leader]


def others_than(name: str) -> list[str]:
    """The two other servers."""
    return [other for other in "abc" if other != name]


def wanted(**fields: Any) -> ask.Add:
    """A request to add ``b`` at its address."""
    return ask.Add(**{"name": "b", "address": "b:1", **fields})
