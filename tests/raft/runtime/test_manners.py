"""What a running server must not do: go on after a bug, fall over a late message, speak after it has stopped."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from raft import InvariantViolation, NodeStopped, Outcome, RaftError
from raft.core.log import RaftLog
from raft.core.messages import InstallSnapshot
from raft.core.model import Boundary
from raft.runtime import driver as driver_module
from raft.testing.servers import Servers, until

Run = Callable[[Coroutine[Any, Any, None]], None]


async def outcome(action: Coroutine[Any, Any, object]) -> RaftError | None:
    """What an operation failed with, or None."""
    try:
        await action
    except RaftError as error:
        return error
    return None


def violated(*_arguments: object) -> None:
    """Stands for a bug of the core."""
    raise InvariantViolation("a bug")


@pytest.mark.parametrize("place", ["applied_to", "propose"])
def test_a_bug_of_the_core_stops_the_node_wherever_it_shows(run: Run, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """An invariant that does not hold, met while entries are applied or proposed, stops the node by name; whoever waits learns that nobody knows."""

    async def scenario() -> None:
        async with Servers("a") as servers:
            server = servers["a"]
            await server.propose([b"good"])
            if place == "applied_to":
                monkeypatch.setattr(RaftLog, "applied_to", violated)
            else:
                monkeypatch.setattr(driver_module.RaftNode, "propose", violated)
            error = await outcome(server.propose([b"x"]))
            assert error is not None
            assert error.outcome is Outcome.UNKNOWN
            assert isinstance(await server.failure(), InvariantViolation)
            assert isinstance(await outcome(server.propose([b"y"])), NodeStopped)
            assert (server.leads, server.leader) == (False, None)

    run(scenario())


def test_sn_03_a_message_for_a_snapshot_that_was_replaced_is_dropped(run: Run) -> None:
    """When the node hears of a snapshot so late that another has taken its place it installs nothing and goes on; the other is installed."""

    async def scenario() -> None:
        servers = Servers("abc")
        server = await servers.start("a")
        configuration = server.status().configuration
        late, newest = (InstallSnapshot("b", "a", 1, Boundary(index, 1, configuration)) for index in (50, 60))
        arrivals = server.driver._snapshotter._arrivals
        for message in (late, newest):
            sink = server.driver.begin_snapshot(message)
            sink.write(b"x\n")
            sink.commit()
            arrivals._clock = lambda: 1e12
        server.driver.receive((late,))
        await servers.ticks("a", 2)
        assert server.status().boundary_index == 0
        server.driver.receive((newest,))
        await until(lambda: server.status().applied_index == 60, "the newest is installed")
        assert servers.machines["a"].restored == [60]
        failure = asyncio.ensure_future(server.failure())
        await asyncio.sleep(0)
        assert not failure.done()
        failure.cancel()
        await servers.stop("a")

    run(scenario())


def test_a_stopped_server_knows_nobody(run: Run) -> None:
    """From the moment its stop begins a server neither leads nor knows a leader, so that whoever looks at it now and then asks it no more."""

    async def scenario() -> None:
        async with Servers("a") as servers:
            await servers.led()
            server = servers.running.pop("a")
            gate = servers.machines["a"].apply_gate
            gate.shut()
            waiting = asyncio.create_task(outcome(server.propose([b"x"])))
            await until(lambda: gate.waiting, "the machine is at work")
            stopping = asyncio.create_task(server.stop())
            assert await waiting is not None
            assert not stopping.done()
            assert (server.leads, server.leader) == (False, None)
            gate.open()
            await stopping

    run(scenario())
