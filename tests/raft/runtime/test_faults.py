"""Slow and failing disks and machines under running servers."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from raft import MachineFailed, NodeStopped, Outcome, OutcomeUnknown, RaftError, SnapshotMoved, StorageFailed, StorageFull
from raft.core.messages import Heartbeat, InstallSnapshot
from raft.core.model import Boundary
from raft.ports.storage import SnapshotSink
from raft.runtime import snapshotter
from raft.testing.servers import BRISK, Gate, Servers, until

Run = Callable[[Coroutine[Any, Any, None]], None]
SHORT_LOG = replace(BRISK, snapshot_threshold_entries=10, trailing_entries=3)
T = BRISK.election_ticks


async def outcome(action: Coroutine[Any, Any, object]) -> RaftError | None:
    """What an operation failed with, or None."""
    try:
        await action
    except RaftError as error:
        return error
    return None


def others(leader: str) -> list[str]:
    """The followers of three."""
    return [name for name in "abc" if name != leader]


async def nothing_changes(servers: Servers, leader: str) -> None:
    """Three election timeouts pass by every clock, and nobody campaigns."""
    term = servers[leader].status().term
    for name in "abc":
        await servers.ticks(name, 3 * T)
    assert servers.leaders() == [leader]
    assert {servers[name].status().term for name in "abc"} == {term}


@pytest.mark.parametrize("slow", ["disk", "machine"])
def test_st_11_a_slow_follower_answers_heartbeats(run: Run, slow: str) -> None:
    """While a follower's disk write, or its machine, takes three election timeouts nothing changes, and writes go on elsewhere."""

    async def scenario() -> None:
        async with Servers("abc") as servers:
            leader = await servers.led()
            follower = others(leader)[0]
            gate: Gate = servers.logs[follower].gate if slow == "disk" else servers.machines[follower].apply_gate
            gate.shut()
            await servers[leader].propose([b"x"])
            await until(lambda: gate.waiting, "the follower's thread waits")
            await nothing_changes(servers, leader)
            await servers[leader].propose([b"y"])
            gate.open()
            await servers.applied([b"x", b"y"])

    run(scenario())


@pytest.mark.parametrize("slow", ["disk", "machine"])
def test_st_11_a_slow_leader_keeps_beating(run: Run, slow: str) -> None:
    """A leader whose disk or machine is held up still leads, and commits by its followers' disks."""

    async def scenario() -> None:
        async with Servers("abc") as servers:
            leader = await servers.led()
            await servers[leader].barrier()
            gate = servers.logs[leader].gate if slow == "disk" else servers.machines[leader].apply_gate
            gate.shut()
            waiting = asyncio.create_task(servers[leader].propose([b"x"]))
            await until(lambda: servers[leader].status().commit_index == 2, "the followers' disks commit it")
            await nothing_changes(servers, leader)
            assert not waiting.done()
            gate.open()
            await waiting

    run(scenario())


@pytest.mark.parametrize("keeps", [False, True])
def test_sn_01_a_follower_far_behind_catches_up_by_snapshot(run: Run, keeps: bool) -> None:
    """A follower that missed more than the log holds gets the state and then the rest, and keeps both across a restart."""

    async def scenario() -> None:
        async with Servers("abc", config=SHORT_LOG, keeps=keeps) as servers:
            leader = await servers.led()
            late = others(leader)[0]
            await servers.stop(late)
            commands = [b"%d" % number for number in range(40)]
            for command in commands:
                await servers[leader].propose([command])
            await until(lambda: servers[leader].status().boundary_index > 20, "the log is compacted")
            await servers.start(late)
            await servers.applied(commands)
            assert servers.machines[late].restored
            index = servers.machines[late].restored[-1]
            await until(lambda: SnapshotMoved("installed", index) in servers.observations[late], "the log has followed the machine")
            await until(lambda: SnapshotMoved("sent", index, late) in servers.observations[leader], "the leader has seen it arrive")
            assert any(isinstance(seen, SnapshotMoved) and seen.event == "compacted" for seen in servers.observations[leader])
            assert servers[late].status().boundary_index > 0
            await servers.stop(late)
            await servers.start(late)
            await servers[late].barrier()
            await servers[leader].propose([b"later"])
            await servers.applied([*commands, b"later"])

    run(scenario())


def test_a_slow_restore_disturbs_nobody(run: Run) -> None:
    """While a follower restores for three election timeouts, and the leader compacts on, nothing changes; then it catches up."""

    async def scenario() -> None:
        async with Servers("abc", config=SHORT_LOG, keeps=True) as servers:
            leader = await servers.led()
            late = others(leader)[0]
            await servers.stop(late)
            commands = [b"%d" % number for number in range(80)]
            for command in commands[:40]:
                await servers[leader].propose([command])
            gate = servers.machines[late].restore_gate
            gate.shut()
            await servers.start(late)
            await until(lambda: gate.waiting, "the follower restores")
            for command in commands[40:]:
                await servers[leader].propose([command])
            await nothing_changes(servers, leader)
            gate.open()
            await servers.applied(commands)
            assert servers[late].status().term == servers[leader].status().term

    run(scenario())


def test_a_snapshot_whose_message_was_lost_does_not_block_the_next(run: Run) -> None:
    """A snapshot that was stored, and of which the node was never told, is no obstacle to the one that follows."""

    async def scenario() -> None:
        async with Servers("abc", config=SHORT_LOG, keeps=True) as servers:
            leader = await servers.led()
            late = others(leader)[0]
            await servers.stop(late)
            commands = [b"%d" % number for number in range(40)]
            for command in commands:
                await servers[leader].propose([command])
            await until(lambda: servers[leader].status().boundary_index > 20, "the log is compacted")
            server = await servers.start(late)
            state = servers[leader].driver.node.state
            sink = server.driver.begin_snapshot(InstallSnapshot(leader, late, state.term, state.log.boundary))
            sink.write(b"".join(b"%s\n" % command for command in commands[: state.log.boundary.index - 1]))
            sink.commit()  # and the connection breaks
            await servers.applied(commands)

    run(scenario())


@pytest.mark.parametrize("who", ["leader", "follower"])
def test_st_03_a_disk_that_fails_is_fatal(run: Run, who: str) -> None:
    """A failed write stops the node by name, is never tried again, and whoever waits learns that nobody knows; the others go on."""

    async def scenario() -> None:
        async with Servers("abc") as servers:
            leader = await servers.led()
            broken = leader if who == "leader" else others(leader)[0]
            server, log = servers[broken], servers.logs[broken]
            await server.barrier()
            before = log.load()
            log.failing = True
            waiting = asyncio.create_task(outcome(server.propose([b"x"])))
            failure = await server.failure()
            assert isinstance(failure, StorageFailed)
            assert "no space left on device" in str(failure)
            error = await waiting
            assert error is None or error.outcome is Outcome.UNKNOWN
            log.failing = False
            for action in (server.propose([b"y"]), server.barrier()):
                assert isinstance(await outcome(action), NodeStopped)
            assert log.load() == before
            await servers.stop(broken)
            rest = [name for name in "abc" if name != broken]
            await servers.led(*rest)
            await servers[rest[0]].propose([b"z"])
            await servers[rest[0]].barrier()
            assert servers.machines[rest[0]].commands[-1] == b"z"

    run(scenario())


def test_a_machine_that_raises_stops_the_node_at_that_index(run: Run) -> None:
    """The entry is named and never skipped; whoever waits is told unknown, whoever comes later that the node has stopped."""

    async def scenario() -> None:
        async with Servers("a") as servers:
            await servers["a"].propose([b"good"])
            servers.machines["a"].poison = b"bad"
            error = await outcome(servers["a"].propose([b"bad"]))
            assert isinstance(error, OutcomeUnknown)
            failure = await servers["a"].failure()
            assert isinstance(failure, MachineFailed)
            assert failure.index == 3
            assert "b'bad' can't be applied" in str(failure)
            assert isinstance(await outcome(servers["a"].propose([b"later"])), NodeStopped)
            assert isinstance(await outcome(servers["a"].barrier()), NodeStopped)
            assert servers.machines["a"].commands == [b"good"]

    run(scenario())


def test_a_checkpoint_that_raises_stops_the_node(run: Run) -> None:
    """Whatever a machine raises where it should make its state durable, the node says so and stops."""

    async def scenario() -> None:
        async with Servers("a", config=SHORT_LOG, keeps=True) as servers:
            await servers["a"].propose([b"x"])
            servers.machines["a"].failing_checkpoint = ValueError("a page is damaged")
            for number in range(12):
                await outcome(servers["a"].propose([b"%d" % number]))
            failure = await servers["a"].failure()
            assert isinstance(failure, MachineFailed)
            assert "a page is damaged" in str(failure)

    run(scenario())


def test_a_machine_that_wants_a_checkpoint_gets_one(run: Run) -> None:
    """However few entries there were; until it does, none is made."""

    async def scenario() -> None:
        async with Servers("a", keeps=True) as servers:
            machine = servers.machines["a"]
            await servers["a"].propose([b"x"])
            await servers["a"].propose([b"y"])
            assert machine.checkpoints == 0
            machine.wants_checkpoint = True
            await servers["a"].propose([b"z"])
            await until(lambda: machine.checkpoints > 0, "a checkpoint is made")

    run(scenario())


@pytest.mark.parametrize("keeps", [True, False])
def test_a_full_disk_puts_a_compaction_off(run: Run, monkeypatch: pytest.MonkeyPatch, keeps: bool) -> None:
    """Without room for a checkpoint, or for a snapshot, the node goes on and says so; once there is room the log is shortened."""
    monkeypatch.setattr(snapshotter, "PUT_OFF_SECONDS", 0.01)

    async def scenario() -> None:
        async with Servers("a", config=SHORT_LOG, keeps=keeps) as servers:
            server, machine = servers["a"], servers.machines["a"]
            machine.failing_checkpoint = StorageFull("writing the state", "no space")
            count = 0
            while server.put_off < 3:
                await server.propose([b"%d" % count])
                count += 1
            assert server.status().boundary_index == 0
            machine.failing_checkpoint = None
            while server.status().boundary_index == 0:
                await server.propose([b"%d" % count])
                count += 1
            assert machine.commands == [b"%d" % number for number in range(count)]

    run(scenario())


def test_a_full_disk_puts_a_snapshot_for_a_peer_off(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A leader without room for a follower's snapshot goes on leading; once there is room the follower gets it."""
    monkeypatch.setattr(snapshotter, "PUT_OFF_SECONDS", 0.01)

    async def scenario() -> None:
        async with Servers("abc", config=SHORT_LOG, keeps=True) as servers:
            leader = await servers.led()
            late = others(leader)[0]
            create = servers.snapshots[leader].create

            def refuse(_boundary: Boundary) -> SnapshotSink:
                raise StorageFull("begin a snapshot", "no space")

            monkeypatch.setattr(servers.snapshots[leader], "create", refuse)
            await servers.stop(late)
            commands = [b"%d" % number for number in range(40)]
            for command in commands:
                await servers[leader].propose([command])
            await until(lambda: servers[leader].status().boundary_index > 20, "the log is compacted")
            await servers.start(late)
            await until(lambda: servers[leader].put_off > 1, "it was put off, and tried again")
            assert servers.leaders() == [leader]
            monkeypatch.setattr(servers.snapshots[leader], "create", create)
            await servers.applied(commands)
            assert servers.machines[late].restored
            assert servers.machines[leader].captures_open == 0

    run(scenario())


def test_stopping_waits_for_what_the_machine_has_begun(run: Run) -> None:
    """After the stop nobody is in the machine any more: a checkpoint under way has ended, so its files can be closed."""

    async def scenario() -> None:
        async with Servers("a", config=SHORT_LOG, keeps=True) as servers:
            gate = servers.machines["a"].checkpoint_gate
            gate.shut()
            for number in range(3):
                await servers["a"].propose([b"%d" % number])
            await until(lambda: gate.waiting, "a checkpoint is under way")
            stopping = asyncio.create_task(servers.stop("a"))
            await asyncio.sleep(0)
            for _ in range(20):
                await asyncio.sleep(0.001)
            assert not stopping.done()
            gate.open()
            await stopping
            assert gate.waiting == 0

    run(scenario())


@pytest.mark.parametrize("step", ["capture", "compact"])
def test_stopping_in_the_middle_of_a_compaction(run: Run, step: str) -> None:
    """A node that stops while its machine captures, or its log is being cut, ends cleanly: no error unheard, no capture left open."""

    async def scenario() -> None:
        async with Servers("a", config=SHORT_LOG) as servers:
            machine, log = servers.machines["a"], servers.logs["a"]
            gate = machine.capture_gate if step == "capture" else log.compact_gate
            gate.shut()
            waiting = [asyncio.create_task(outcome(servers["a"].propose([b"%d" % number]))) for number in range(20)]
            await until(lambda: gate.waiting, f"{step} is under way")
            server = servers.running.pop("a")
            stopping = asyncio.create_task(server.stop())
            await until(lambda: server._ending is not None, "the stop has begun")
            await asyncio.sleep(0)
            gate.open()
            await stopping
            await asyncio.gather(*waiting)
            assert machine.captures_open == 0
            assert log.closed == 1

    run(scenario())


def test_sn_02_bounded_log(run: Run) -> None:
    """Under many writes every log is compacted, for machines that keep their state and for those that need snapshots."""

    async def scenario() -> None:
        for keeps in (False, True):
            async with Servers("abc", config=SHORT_LOG, keeps=keeps) as servers:
                leader = await servers.led()
                for number in range(100):
                    await servers[leader].propose([b"%d" % number])
                for name in "abc":
                    await until(lambda name=name: servers[name].status().applied_index == 101, "everything is applied")
                    await until(
                        lambda name=name: servers[name].status().last_index - servers[name].status().boundary_index <= 2 * 10,
                        f"the log of {name} is short",
                    )
                    assert len(servers.logs[name].load().entries) <= 2 * 10

    run(scenario())


def test_a_silent_peer_costs_the_others_nothing(run: Run) -> None:
    """With one follower deaf the leader writes and reads with the other."""

    async def scenario() -> None:
        async with Servers("abc") as servers:
            leader = await servers.led()
            deaf = others(leader)[0]
            servers.network.drop = lambda message: message.to == deaf and not isinstance(message, Heartbeat)
            for number in range(20):
                await servers[leader].propose([b"%d" % number])
                await servers[leader].barrier()
            servers.network.drop = lambda _message: False
            await servers.applied([b"%d" % number for number in range(20)])

    run(scenario())


def test_connections_that_break_are_made_up_for(run: Run) -> None:
    """Cut links between all nodes heal; what was forwarded over them is unknown, and the cluster goes on."""

    async def scenario() -> None:
        async with Servers("abc") as servers:
            leader = await servers.led()
            follower = others(leader)[0]
            servers.network.drop = lambda message: message.sender == leader
            waiting = asyncio.create_task(outcome(servers[follower].propose([b"x"])))
            await until(lambda: len(servers.logs[leader].load().entries) > 1, "the leader has it")
            servers.network.cut(leader, follower)
            assert isinstance(await waiting, OutcomeUnknown)
            servers.network.drop = lambda _message: False
            servers.network.heal()
            await servers.led()
            await servers[follower].propose([b"y"])

    run(scenario())
