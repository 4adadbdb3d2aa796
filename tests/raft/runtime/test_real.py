"""Three servers in one process over the real adapters: SQLite files, snapshot files, HTTP on loopback."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raft import Boundary, Configuration, HardState, Member, Ports, RaftServer, RoleChanged
from raft.storage.snapshots import FileSnapshots
from raft.storage.sqlite import SqliteLog
from raft.testing.servers import BRISK, ListMachine, until
from raft.transport.http import HttpTransport
from raft.transport.http_server import HttpServer

Run = Callable[[Coroutine[Any, Any, None]], None]
NAMES = ("a", "b", "c")
CONFIG = replace(BRISK, snapshot_threshold_entries=20, trailing_entries=5, snapshot_chunk_bytes=1024)


class RealServers:
    """Servers whose disks are files and whose network is HTTP."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.addresses: dict[str, str] = {}
        self.machines = {name: ListMachine(keeps=True) for name in NAMES}
        self.running: dict[str, RaftServer] = {}
        self._listeners: dict[str, HttpServer] = {}
        self.roles: list[RoleChanged] = []

    async def open(self) -> None:
        """Take three ports, found the cluster on three disks, and start."""
        for name in NAMES:
            listener = HttpServer("127.0.0.1:0")
            await listener.start()
            self._listeners[name] = listener
            self.addresses[name] = listener.address
        members = tuple(Member(name, name, self.addresses[name]) for name in NAMES)
        for name in NAMES:
            (self.directory / name).mkdir()
            log = SqliteLog(self.directory / name)
            log.reset(Boundary(configuration=Configuration(voters=members)), HardState())
            log.close()
        await asyncio.gather(*(self.start(name) for name in NAMES))

    async def start(self, name: str) -> None:
        """Start a server from its files, at its port."""
        listener = self._listeners.pop(name, None) or HttpServer(self.addresses[name])
        log = SqliteLog(self.directory / name)
        ports = Ports(
            log_store=log,
            stable_store=log,
            snapshot_store=FileSnapshots(self.directory / name / "snapshots"),
            transport=HttpTransport(listener, name, "cluster"),
            machine=self.machines[name],
        )
        server = RaftServer(node_id=name, config=CONFIG, ports=ports)
        server.observe(lambda seen: self.roles.append(seen) if isinstance(seen, RoleChanged) else None)
        await server.start()
        self.running[name] = server

    async def stop(self, *names: str) -> None:
        """Stop servers."""
        await asyncio.gather(*(self.running.pop(name).stop() for name in names))

    async def led(self) -> str:
        """Wait until all running servers agree on a leader among them."""

        def agreed() -> bool:
            known = {server.leader for server in self.running.values()}
            return len(known) == 1 and known <= set(self.running) and self.running[next(iter(known)) or ""].leads

        await until(agreed, "the servers agree on a leader")
        return next(iter(self.running.values())).leader or ""

    async def hold(self, commands: list[bytes]) -> None:
        """Wait until the machines of all running servers hold exactly these commands."""
        await until(lambda: all(self.machines[name].commands == commands for name in self.running), f"everybody holds {len(commands)} commands")


@pytest.fixture
def scenario(run: Run, tmp_path: Path) -> Callable[[Callable[[RealServers], Coroutine[Any, Any, None]]], None]:
    """Runs a story with three fresh servers, and stops them."""

    def tell(story: Callable[[RealServers], Coroutine[Any, Any, None]]) -> None:
        async def whole() -> None:
            servers = RealServers(tmp_path)
            await servers.open()
            try:
                await story(servers)
            finally:
                await servers.stop(*servers.running)

        run(whole())

    return tell


Tell = Callable[[Callable[[RealServers], Coroutine[Any, Any, None]]], None]


def test_propose_and_read_at_any_node(scenario: Tell) -> None:
    """Commands and reads work at leader and followers alike, one by one and many at once."""

    async def story(servers: RealServers) -> None:
        await servers.led()
        done: list[bytes] = []
        for name in NAMES:
            await servers.running[name].propose([name.encode()])
            done.append(name.encode())
            for reader in NAMES:
                await servers.running[reader].barrier()
                assert servers.machines[reader].commands == done
        await asyncio.gather(*(servers.running[name].propose([b"%s%d" % (name.encode(), number)]) for name in NAMES for number in range(100)))
        await servers.hold(servers.machines["a"].commands)
        assert len(servers.machines["a"].commands) == 303

    scenario(story)


def test_a_stopped_leader_is_replaced_and_catches_up(scenario: Tell) -> None:
    """The others elect one of them; the old leader comes back from its files and gets what it missed."""

    async def story(servers: RealServers) -> None:
        leader = await servers.led()
        await servers.running[leader].propose([b"before"])
        await servers.stop(leader)
        second = await servers.led()
        await servers.running[second].propose([b"after"])
        await servers.start(leader)
        await servers.hold([b"before", b"after"])

    scenario(story)


def test_a_follower_far_behind_gets_a_snapshot_over_http(scenario: Tell) -> None:
    """A follower that missed more than the log holds gets the state in pieces, then the rest, and keeps both."""

    async def story(servers: RealServers) -> None:
        leader = await servers.led()
        late = next(name for name in NAMES if name != leader)
        await servers.stop(late)
        commands = [b"%04d" % number * 50 for number in range(80)]
        for command in commands:
            await servers.running[leader].propose([command])
        await until(lambda: servers.running[leader].status().boundary_index > 40, "the log is compacted")
        await servers.start(late)
        await servers.hold(commands)
        assert servers.machines[late].restored
        await servers.stop(late)
        await servers.start(late)
        await servers.running[leader].propose([b"later"])
        await servers.hold([*commands, b"later"])

    scenario(story)


def test_cf_06_stop_all_start_all(scenario: Tell) -> None:
    """After all were stopped the files hold everything that was acknowledged, terms and votes included."""

    async def story(servers: RealServers) -> None:
        leader = await servers.led()
        for number in range(30):
            await servers.running[leader].propose([b"%d" % number])
        term = servers.running[leader].status().term
        await servers.stop(*NAMES)
        for name in NAMES:
            log = SqliteLog(servers.directory / name)
            assert log.hard_state().term == term
            log.close()
        for name in NAMES:
            await servers.start(name)
        again = await servers.led()
        assert servers.running[again].status().term > term
        await servers.running[again].barrier()
        assert servers.machines[again].commands == [b"%d" % number for number in range(30)]

    scenario(story)


def test_a_machine_held_up_disturbs_nobody(scenario: Tell) -> None:
    """While a follower's machine waits for three election timeouts heartbeats are answered over HTTP, and the term stays."""

    async def story(servers: RealServers) -> None:
        leader = await servers.led()
        follower = next(name for name in NAMES if name != leader)
        gate = servers.machines[follower].apply_gate
        gate.shut()
        await servers.running[leader].propose([b"x"])
        state = servers.running[leader].driver.node.state
        changes, term, end = len(servers.roles), state.term, state.tick_count + 3 * CONFIG.election_ticks
        await until(lambda: state.tick_count >= end, "three election timeouts have passed")
        assert (len(servers.roles), servers.running[follower].status().term) == (changes, term)
        gate.open()
        await servers.hold([b"x"])

    scenario(story)


def test_leadership_is_handed_over(scenario: Tell) -> None:
    """A leader that is about to stop gives its place away first."""

    async def story(servers: RealServers) -> None:
        leader = await servers.led()
        await servers.running[leader].propose([b"x"])
        assert await servers.running[leader].hand_over(10)
        assert await servers.led() != leader

    scenario(story)
