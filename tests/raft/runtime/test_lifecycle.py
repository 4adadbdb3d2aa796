"""Start and stop at awkward moments: whatever comes in between, everything is closed once and nothing is left behind."""

import asyncio
import re
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raft import (
    AddLearner,
    Boundary,
    Configuration,
    HardState,
    MachineFailed,
    Member,
    NodeStopped,
    OutcomeUnknown,
    Ports,
    RaftError,
    RaftServer,
    StorageCorrupt,
)
from raft.core.messages import TimeoutNow
from raft.storage.snapshots import FileSnapshots
from raft.storage.sqlite import SqliteLog
from raft.testing.local import LocalCluster
from raft.testing.servers import BRISK, Gate, ListMachine, Servers, until
from raft.transport.http import HttpTransport
from raft.transport.http_server import HttpServer

Run = Callable[[Coroutine[Any, Any, None]], None]
SHORT_LOG = replace(BRISK, snapshot_threshold_entries=20, trailing_entries=5)


async def outcome(action: Coroutine[Any, Any, object]) -> Exception | None:
    """What an operation failed with, or None."""
    try:
        await action
    except (RaftError, OSError, RuntimeError) as error:
        return error
    return None


class SlowStart(ListMachine):
    """A machine that is slow to say where it is."""

    def __init__(self) -> None:
        super().__init__()
        self.start_gate = Gate()

    def applied(self) -> tuple[int, int]:
        """See the port."""
        self.start_gate.pass_through()
        return super().applied()


def slow(servers: Servers, name: str) -> tuple[RaftServer, Gate]:
    """A server that waits in the middle of its start, in a thread."""
    machine = servers.machines[name] = SlowStart()
    machine.start_gate.shut()
    return RaftServer(node_id=name, config=BRISK, ports=servers.ports(name)), machine.start_gate


def test_stopping_in_the_middle_of_the_start(run: Run) -> None:
    """A stop while the disk is read waits for that; the start then says so, and both leave a server that is closed, once."""

    async def scenario() -> None:
        servers = Servers("abc")
        server, gate = slow(servers, "a")
        starting = asyncio.create_task(outcome(server.start()))
        await until(lambda: gate.waiting, "the disk is read")
        stopping = asyncio.create_task(server.stop())
        await asyncio.sleep(0.02)
        assert not stopping.done()
        gate.open()
        await stopping
        assert isinstance(await starting, NodeStopped)
        assert servers.logs["a"].closed == 1
        with pytest.raises(NodeStopped):
            server.status()

    run(scenario())


def test_a_start_whose_caller_is_cancelled_is_undone(run: Run) -> None:
    """After any number of turns of the loop a cancelled start has either succeeded or closed everything, once; its address is free again."""

    async def scenario() -> None:
        for turns in range(40):
            servers = Servers("abc")
            server = RaftServer(node_id="a", config=BRISK, ports=servers.ports("a"))
            starting = asyncio.create_task(server.start())
            for _ in range(turns):
                await asyncio.sleep(0)
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            if starting.cancelled() and turns:
                assert servers.logs["a"].closed == 1
            await server.stop()
            assert servers.logs["a"].closed <= 1
            again = await servers.start("a")
            await again.stop()

    run(scenario())


def test_a_cancelled_start_waits_for_its_thread(run: Run) -> None:
    """While a thread still reads the disk a cancelled start does not return: whoever owns the directory may use it again at once."""

    async def scenario() -> None:
        servers = Servers("abc")
        server, gate = slow(servers, "a")
        starting = asyncio.create_task(server.start())
        await until(lambda: gate.waiting, "the disk is read")
        starting.cancel()
        await asyncio.sleep(0.02)
        assert not starting.done()
        gate.open()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert servers.logs["a"].closed == 1

    run(scenario())


def test_two_stops_at_once_and_one_that_is_cancelled(run: Run) -> None:
    """Every stop returns when all is done and not before; one whose caller is cancelled does not keep it from being done."""

    async def scenario() -> None:
        async with Servers("a") as servers:
            await servers.led()
            server = servers.running.pop("a")
            gate = servers.machines["a"].apply_gate
            gate.shut()
            waiting = asyncio.create_task(outcome(server.propose([b"x"])))
            await until(lambda: gate.waiting, "the machine is at work")
            stops = [asyncio.create_task(server.stop()) for _ in range(3)]
            await asyncio.sleep(0)
            stops[0].cancel()
            await asyncio.sleep(0.02)
            assert [stop.done() for stop in stops] == [True, False, False]
            assert servers.logs["a"].closed == 0
            gate.open()
            await asyncio.gather(*stops[1:])
            assert servers.logs["a"].closed == 1
            assert isinstance(await waiting, OutcomeUnknown)
            await server.stop()
            assert servers.logs["a"].closed == 1

    run(scenario())


def test_a_server_is_started_once(run: Run) -> None:
    """A second start, beside the first, after it or after the stop, is refused and disturbs nothing."""

    async def scenario() -> None:
        async with Servers("a") as servers:
            await servers.led()
            server = servers["a"]
            assert isinstance(await outcome(server.start()), RuntimeError)
            await server.propose([b"x"])
            await servers.stop("a")
            assert isinstance(await outcome(server.start()), RuntimeError)
            assert servers.logs["a"].closed == 1

    run(scenario())


def test_stopping_while_a_snapshot_is_installed(run: Run) -> None:
    """A node that stops while its machine takes over a snapshot ends cleanly, and finds the same state at its next start."""

    async def scenario() -> None:
        async with Servers("abc", config=SHORT_LOG, keeps=True) as servers:
            leader = await servers.led()
            late = next(name for name in "abc" if name != leader)
            await servers.stop(late)
            commands = [b"%d" % number for number in range(60)]
            for command in commands:
                await servers[leader].propose([command])
            await until(lambda: servers[leader].status().boundary_index > 0, "the log is compacted")
            gate = servers.machines[late].restore_gate
            gate.shut()
            server = await servers.start(late)
            await until(lambda: gate.waiting, "the snapshot is being installed")
            waiting = [asyncio.create_task(outcome(server.propose([b"x"]))), asyncio.create_task(outcome(server.barrier()))]
            await asyncio.sleep(0)
            stopping = asyncio.create_task(servers.stop(late))
            await asyncio.sleep(0.02)
            assert not stopping.done()
            assert all(task.done() for task in waiting)
            gate.open()
            await stopping
            await servers.start(late)
            await until(lambda: servers.machines[late].commands[:60] == commands, "it catches up")

    run(scenario())


def test_stopping_in_the_middle_of_a_transfer(run: Run) -> None:
    """Who waits for a transfer when the leader stops is told at once that the target may still take over."""

    async def scenario() -> None:
        async with Servers("abc") as servers:
            leader = await servers.led()
            await servers[leader].propose([b"x"])
            target = next(name for name in "abc" if name != leader)
            servers.network.drop = lambda message: isinstance(message, TimeoutNow)
            waiting = asyncio.create_task(outcome(servers[leader].transfer(target)))
            held = asyncio.create_task(outcome(servers[leader].propose([b"y"])))
            await asyncio.sleep(0)
            await servers.stop(leader)
            assert isinstance(await waiting, OutcomeUnknown)
            assert isinstance(await held, NodeStopped)
            servers.network.drop = lambda _message: False

    run(scenario())


def asked(operation: str, leader: RaftServer, follower: RaftServer, newcomer: str) -> Coroutine[Any, Any, object]:
    """One of the things that a caller may wait for."""
    calls: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
        "propose": lambda: follower.propose([b"x"]),
        "barrier": follower.barrier,
        "change": lambda: leader.change(AddLearner(Member(newcomer, newcomer, newcomer))),
        "transfer": lambda: leader.transfer(follower.node_id),
        "failure": leader.failure,
        "hand_over": lambda: leader.hand_over(5),
        "retire": lambda: follower.retire(5),
    }
    return calls[operation]()


@pytest.mark.parametrize("operation", ["propose", "barrier", "change", "transfer", "failure", "hand_over", "retire"])
def test_a_caller_may_be_cancelled_at_any_moment(run: Run, operation: str) -> None:
    """Cancelled after any number of turns of the loop a caller leaves no entry behind, and everybody else is served as before."""

    async def scenario() -> None:
        async with Servers("abc") as servers:
            for turns in (0, 1, 2, 3, 4, 6, 8, 12):
                leader = await servers.led()
                await servers[leader].barrier()
                target = next(name for name in "abc" if name != leader)
                task = asyncio.ensure_future(asked(operation, servers[leader], servers[target], f"d{turns}"))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                await until(lambda: not any(server.driver.waiting for server in servers.running.values()), "nobody waits")
                if operation == "retire":
                    await servers.stop(target)
                    await servers.start(target)
                await servers[await servers.led()].propose([b"%d" % turns])

    run(scenario())


def test_a_local_cluster_that_can_not_start_leaves_nothing(run: Run) -> None:
    """When one of its servers does not start the whole is stopped again: no thread and no task stays behind."""

    async def scenario() -> None:
        machines = [ListMachine(), ListMachine(), ListMachine()]
        machines[1].position = (99, 9)
        with pytest.raises(StorageCorrupt):
            async with LocalCluster("abc", machines.pop):
                pytest.fail("it started")

    run(scenario())


def test_failure_ends_with_the_stop(run: Run) -> None:
    """Whoever waits for a failure learns when the server is stopped instead; nobody has to."""

    async def scenario() -> None:
        async with Servers("a") as servers:
            waiting = [asyncio.create_task(outcome(servers["a"].failure())) for _ in range(2)]
            await servers.led()
            await servers.stop("a")
            for task in waiting:
                assert isinstance(await task, NodeStopped)

    run(scenario())


def test_an_observer_that_raises_disturbs_nobody() -> None:
    """What observers and the callback for applied indexes raise goes to the loop's exception handler; the node, and other observers, go on."""

    async def scenario() -> None:
        heard: list[BaseException] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: heard.append(context["exception"]))

        def raising(_told: object) -> None:
            raise KeyError("mine")

        servers = Servers("a")
        server = RaftServer(node_id="a", config=BRISK, ports=servers.ports("a"), on_applied=raising)
        seen: list[object] = []
        end_raising = server.observe(raising)
        end_seeing = server.observe(seen.append)
        await server.start()
        assert await server.propose([b"x"]) == (b"2:x",)
        assert (len(seen) > 0, len(heard) > len(seen)) == (True, True)
        assert {type(error) for error in heard} == {KeyError}
        end_raising()
        end_seeing()
        end_seeing()
        before = len(seen)
        await server.change(AddLearner(Member("b", "b", "b")))
        assert len(seen) == before
        await server.stop()

    asyncio.run(scenario())


@pytest.mark.parametrize("results", [lambda good: good[:-1], lambda good: [*good, b""], lambda good: ["text"] * len(good)])
def test_a_machine_that_answers_wrongly_stops_the_node(run: Run, results: Callable[[list[bytes]], Any]) -> None:
    """Results that are too few, too many or no bytes would reach the wrong caller, or none: the node stops and says so."""

    async def scenario() -> None:
        async with Servers("a") as servers:
            await servers.led()
            await servers["a"].propose([b"x"])
            machine = servers.machines["a"]
            good = machine.apply
            machine.apply = lambda entries: results(good(entries))  # type: ignore[method-assign]  # a fault is planted
            assert isinstance(await outcome(servers["a"].propose([b"y"])), OutcomeUnknown)
            assert isinstance(await servers["a"].failure(), MachineFailed)

    run(scenario())


def open_files() -> list[str]:
    """What this process holds open: files and sockets."""
    found = []
    for name in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found.append(str(name.readlink()))
    return sorted(re.sub(r"\d+", "#", link) for link in found if not link.startswith(("anon_inode", "/proc")))


def ports_at(directory: Path, address: str, machine: ListMachine) -> Ports:
    """The real adapters."""
    log = SqliteLog(directory)
    transport = HttpTransport(HttpServer(address), "a", "cluster")
    return Ports(log_store=log, stable_store=log, snapshot_store=FileSnapshots(directory / "snapshots"), transport=transport, machine=machine)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are counted on Linux")
def test_a_start_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    """With real files and sockets: a port that is taken, a state that does not fit, a machine that raises. Threads and open files are as before."""
    member = Member("a", "a", "127.0.0.1:1")
    log = SqliteLog(tmp_path)
    log.reset(Boundary(configuration=Configuration(voters=(member,))), HardState())
    log.close()

    async def scenario() -> None:
        taken = HttpServer("127.0.0.1:0")
        await taken.start()
        ahead, broken = ListMachine(), ListMachine()
        ahead.position = (99, 9)
        broken.applied = lambda: 1 // 0  # type: ignore[method-assign,assignment,return-value]  # a fault is planted
        plans: list[tuple[str, ListMachine, type[Exception]]] = [
            (taken.address, ListMachine(), OSError),
            ("127.0.0.1:0", ahead, StorageCorrupt),
            ("127.0.0.1:0", broken, ZeroDivisionError),
        ]
        await asyncio.to_thread(int)  # the loop's own threads are made now
        before = None
        for round_ in range(4):
            for address, machine, expected in plans:
                server = RaftServer(node_id="a", config=BRISK, ports=ports_at(tmp_path, address, machine))
                with pytest.raises(expected):
                    await server.start()
                await server.stop()
            good = RaftServer(node_id="a", config=BRISK, ports=ports_at(tmp_path, "127.0.0.1:0", ListMachine()))
            await good.start()
            await good.propose([b"%d" % round_])
            await good.stop()
            now = open_files(), [thread.name for thread in threading.enumerate() if thread.name.startswith("raft-")]
            before = before or now
            assert now == before
        assert before is not None
        assert before[1] == []
        await taken.stop()

    asyncio.run(scenario())
