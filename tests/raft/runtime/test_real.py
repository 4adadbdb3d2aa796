"""Three servers in one process over the real adapters: SQLite files, snapshot files, HTTP on loopback."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any, Protocol

import pytest

from raft import (
    BatchTooLarge,
    Boundary,
    ConfigInvalid,
    Configuration,
    HardState,
    Member,
    Outcome,
    OutcomeUnknown,
    Ports,
    RaftConfig,
    RaftServer,
    RoleChanged,
)
from raft.storage.snapshots import FileSnapshots
from raft.storage.sqlite import SqliteLog
from raft.testing.servers import BRISK, ListMachine, until
from raft.transport.http import HttpTransport
from raft.transport.http_server import HttpServer
from raft.transport.limits import HttpLimits

Run = Callable[[Coroutine[Any, Any, None]], None]
NAMES = ("a", "b", "c")
CONFIG = replace(BRISK, snapshot_threshold_entries=20, trailing_entries=5, snapshot_chunk_bytes=1024)


class RealServers:
    """Servers whose disks are files and whose network is HTTP.

    :param limits: of the transports.
    """

    def __init__(self, directory: Path, config: RaftConfig, limits: HttpLimits) -> None:
        self.directory = directory
        self.config = config
        self.limits = limits
        self.addresses: dict[str, str] = {}
        self.machines = {name: ListMachine(keeps=True) for name in NAMES}
        self.running: dict[str, RaftServer] = {}
        self._listeners: dict[str, HttpServer] = {}
        self.roles: list[RoleChanged] = []

    async def open(self) -> None:
        """Take three ports, found the cluster on three disks, and start."""
        for name in NAMES:
            listener = HttpServer("127.0.0.1:0", limits=self.limits)
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
        listener = self._listeners.pop(name, None) or HttpServer(self.addresses[name], limits=self.limits)
        log = SqliteLog(self.directory / name)
        ports = Ports(
            log_store=log,
            stable_store=log,
            snapshot_store=FileSnapshots(self.directory / name / "snapshots"),
            transport=HttpTransport(listener, name, "cluster"),
            machine=self.machines[name],
        )
        server = RaftServer(node_id=name, config=self.config, ports=ports)
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


Story = Callable[[RealServers], Coroutine[Any, Any, None]]


class Tell(Protocol):
    """Runs a story."""

    def __call__(self, story: Story, config: RaftConfig = CONFIG, limits: HttpLimits | None = None) -> None:
        """Run it with three servers."""
        ...


@pytest.fixture
def scenario(run: Run, tmp_path: Path) -> Tell:
    """Runs a story with three fresh servers, and stops them."""

    def tell(story: Story, config: RaftConfig = CONFIG, limits: HttpLimits | None = None) -> None:
        async def whole() -> None:
            servers = RealServers(tmp_path, config, limits or HttpLimits())
            await servers.open()
            try:
                await story(servers)
            finally:
                await servers.stop(*servers.running)

        run(whole())

    return tell


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


def test_a_batch_that_no_body_holds_is_refused_at_once(scenario: Tell) -> None:
    """Over HTTP, at a follower: a batch over the body's limit is rejected by name before it leaves, one within it passes; results over the limit are
    unknown, and told at once. The deadline plays no part.
    """

    async def story(servers: RealServers) -> None:
        leader = await servers.led()
        follower = servers.running[next(name for name in NAMES if name != leader)]
        with pytest.raises(BatchTooLarge) as caught:
            await follower.propose([b"x" * 10_000] * 7, inf)
        assert (caught.value.limit, caught.value.outcome) == (68_976, Outcome.REJECTED)
        await follower.propose([b"x" * 10_000] * 6, inf)
        with pytest.raises(OutcomeUnknown, match=r"its results of \d+ bytes are over the limit of 68976 bytes"):
            await follower.propose([b""] * 9_000, inf)
        await servers.hold([b"x" * 10_000] * 6 + [b""] * 9_000)

    scenario(story, replace(CONFIG, append_bytes_max=50_000, proposal_bytes_max=50_000), HttpLimits(body_bytes_max=70_000))


def test_settings_that_the_transport_can_not_carry_fail_the_start(tmp_path: Path, run: Run) -> None:
    """Appends over the body's limit would be dropped for ever: the server does not start, names setting, need and limit, and closes everything."""

    async def story() -> None:
        log = SqliteLog(tmp_path)
        transport = HttpTransport(HttpServer("127.0.0.1:0", limits=HttpLimits(body_bytes_max=70_000)), "a", "cluster")
        snapshots = FileSnapshots(tmp_path / "snapshots")
        ports = Ports(log_store=log, stable_store=log, snapshot_store=snapshots, transport=transport, machine=ListMachine())
        with pytest.raises(ConfigInvalid, match="append_bytes_max 1048576 needs messages of 1048640 bytes; the transport carries 68976") as caught:
            await RaftServer(node_id="a", config=CONFIG, ports=ports).start()
        assert len(caught.value.problems) == 2
        SqliteLog(tmp_path).close()

    run(story())


@pytest.mark.timeout(120)
def test_thousands_at_once_through_a_follower(scenario: Tell) -> None:
    """More proposals in one turn than the transport's queue holds: all of them get their results, none is lost on its way."""

    async def story(servers: RealServers) -> None:
        leader = await servers.led()
        follower = servers.running[next(name for name in NAMES if name != leader)]
        commands = [b"%d" % number for number in range(servers.limits.bulk.queue_messages_max + 2_000)]
        await asyncio.gather(*(follower.propose([command], inf) for command in commands))
        await servers.hold(commands)

    scenario(story, RaftConfig(election_timeout_ms=1_000))
