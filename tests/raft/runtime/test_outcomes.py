"""The callers' side of scenarios whose other side is tested on the core: whoever waits is told the truth, whatever becomes of the leader."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from raft import NotLeader, OutcomeUnknown, RaftError, ReadRefused
from raft.core.messages import AppendRequest
from raft.testing.servers import BRISK, Servers, until

Run = Callable[[Coroutine[Any, Any, None]], None]
T = BRISK.election_ticks


async def outcome(action: Coroutine[Any, Any, object]) -> RaftError | None:
    """What an operation failed with, or None."""
    try:
        await action
    except RaftError as error:
        return error
    return None


def isolate(servers: Servers, name: str) -> None:
    """Cut a server off from all others."""
    for other in servers.names:
        if other != name:
            servers.network.cut(name, other)


def test_re_04_no_quorum_no_success(run: Run) -> None:
    """A proposal whose acknowledgements never come back is unknown to its caller; here it takes effect once, later."""

    async def told() -> None:
        async with Servers("abc") as servers:
            leader = await servers.led()
            servers.network.drop = lambda message: message.to == leader
            assert isinstance(await outcome(servers[leader].propose([b"tail"])), OutcomeUnknown)
            assert servers.machines[leader].commands == []
            servers.network.drop = lambda _message: False
            await servers[await servers.led()].propose([b"after"])
            await servers.applied([b"tail", b"after"])

    run(told())


def test_lr_07_who_waits_for_a_deposed_leader_is_told(run: Run) -> None:
    """A proposal at a leader that is cut off and replaced is unknown to its caller, and no machine ever sees it."""

    async def told() -> None:
        async with Servers("abc") as servers:
            leader = await servers.led()
            await servers[leader].propose([b"before"])
            isolate(servers, leader)
            assert isinstance(await outcome(servers[leader].propose([b"tail"])), OutcomeUnknown)
            second = await servers.led(*[name for name in "abc" if name != leader])
            await servers[second].propose([b"after"])
            assert servers.machines[leader].commands == [b"before"]
            servers.network.heal()
            await servers.applied([b"before", b"after"])

    run(told())


def test_pv_04_a_leader_without_a_quorum_tells_everybody(run: Run) -> None:
    """When a leader steps down for want of a quorum its proposals are unknown, its reads are refused, and it names no leader."""

    async def told() -> None:
        async with Servers("abc") as servers:
            leader = await servers.led()
            isolate(servers, leader)
            began = servers[leader].driver.node.state.tick_count
            proposal = asyncio.create_task(outcome(servers[leader].propose([b"x"])))
            read = asyncio.create_task(outcome(servers[leader].barrier(within=0.3)))
            await until(lambda: not servers[leader].leads, "the leader steps down")
            assert servers[leader].driver.node.state.tick_count - began <= 2 * T
            assert servers[leader].leader is None
            assert isinstance(await proposal, OutcomeUnknown)
            assert isinstance(await read, ReadRefused | NotLeader)

    run(told())


def test_rd_06_a_follower_waits_until_it_has_applied(run: Run) -> None:
    """A read at a follower whose machine is behind returns only once that machine holds what was acknowledged before the read."""

    async def told() -> None:
        async with Servers("abc") as servers:
            leader = await servers.led()
            follower = next(name for name in "abc" if name != leader)
            gate = servers.machines[follower].apply_gate
            await servers[leader].propose([b"x"])
            await servers.applied([b"x"])
            gate.shut()
            await servers[leader].propose([b"y"])
            read = asyncio.create_task(servers[follower].barrier())
            await until(lambda: gate.waiting, "the follower's machine waits")
            await servers.ticks(follower, 2 * T)
            assert not read.done()
            gate.open()
            assert await read == servers.machines[leader].position[0]
            assert servers.machines[follower].commands == [b"x", b"y"]

    run(told())


def test_rd_09_stale_mode_is_honest(run: Run) -> None:
    """A node that is cut off says so: it names no leader, its age grows, and what it has applied never goes back, across a restart too."""

    async def told() -> None:
        async with Servers("abc", keeps=True) as servers:
            leader = await servers.led()
            alone = next(name for name in "abc" if name != leader)
            await servers[leader].propose([b"x"])
            await servers.applied([b"x"])
            assert servers[alone].leader == leader
            assert servers[leader].silence_seconds == 0
            isolate(servers, alone)
            before = servers[alone].silence_seconds
            await until(lambda: servers[alone].silence_seconds > before + BRISK.heartbeat_ms / 1000, "its age grows while it still hopes")
            await until(lambda: servers[alone].leader is None, "it knows of no leader")
            await servers[leader].propose([b"y"])
            held = servers.machines[alone].position
            assert servers.machines[alone].commands == [b"x"]
            await servers.stop(alone)
            await servers.start(alone)
            assert servers[alone].leader is None
            assert servers.machines[alone].position >= held
            servers.network.heal()
            await servers.applied([b"x", b"y"])

    run(told())


def test_what_is_held_back_is_not_confirmed(run: Run) -> None:
    """As long as appends are lost no proposal ends, though heartbeats keep the leader; then each ends once."""

    async def told() -> None:
        async with Servers("abc") as servers:
            leader = await servers.led()
            servers.network.drop = lambda message: isinstance(message, AppendRequest)
            waiting = [asyncio.create_task(servers[leader].propose([b"%d" % number])) for number in range(3)]
            await servers.ticks(leader, 3 * T)
            assert servers.leaders() == [leader]
            assert not any(task.done() for task in waiting)
            servers.network.drop = lambda _message: False
            await asyncio.gather(*waiting)
            await servers.applied([b"0", b"1", b"2"])

    run(told())
