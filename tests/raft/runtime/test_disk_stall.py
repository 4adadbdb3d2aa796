"""A leader whose disk hangs gives way; one whose disk is merely slow does not."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from raft import OutcomeUnknown, RaftError, Role, RoleChanged
from raft.testing.servers import BRISK, Servers, until

Run = Callable[[Coroutine[Any, Any, None]], None]
T = BRISK.election_ticks
STALL = 2 * T
EAGER = replace(BRISK, disk_stall_ms=STALL * BRISK.tick_ms)


async def outcome(action: Coroutine[Any, Any, object]) -> RaftError | None:
    """What an operation failed with, or None."""
    try:
        await action
    except RaftError as error:
        return error
    return None


def test_st_11_a_leader_whose_disk_hangs_gives_way(run: Run) -> None:
    """While its heart still beats: it steps down at the limit and says why, and another leads and commits.

    It does not lead again, nor disturb the new leader, before its disk works; then it has everything.
    """

    async def scenario() -> None:
        async with Servers("abc", config=EAGER) as servers:
            first = await servers.led()
            others = [name for name in "abc" if name != first]
            await servers[first].propose([b"before"])
            servers.observations[first].clear()
            servers.logs[first].gate.shut()
            waiting = asyncio.create_task(outcome(servers[first].propose([b"during"])))
            await until(lambda: servers.logs[first].gate.waiting, "the disk hangs")
            await until(lambda: not servers[first].leads, "the leader gives way")
            begin = servers[others[0]].driver.node.state.tick_count
            second = await servers.led(*others)
            await servers[second].propose([b"after"])
            print(f"{servers[others[0]].driver.node.state.tick_count - begin} ticks; an election timeout has {T}")  # noqa: T201 - a figure, no assertion
            reasons = [seen.reason for seen in servers.observations[first] if isinstance(seen, RoleChanged) and seen.role is Role.FOLLOWER]
            assert reasons[0] == f"the disk has not answered for {EAGER.disk_stall_ms} ms (disk_stall_ms)"
            term = servers[second].status().term
            for name in "abc":
                await servers.ticks(name, 2 * STALL)
            assert (servers.leaders(), servers[second].status().term) == ([second], term)
            servers.logs[first].gate.open()
            error = await waiting
            assert error is None or isinstance(error, OutcomeUnknown)
            await until(lambda: servers.machines[first].commands == servers.machines[second].commands, "the first catches up")

    run(scenario())


def test_st_11_a_slow_disk_keeps_its_leader(run: Run) -> None:
    """A disk that answers every write just before the limit costs nobody the leadership, however long that goes on."""

    async def scenario() -> None:
        async with Servers("abc", config=EAGER) as servers:
            leader = await servers.led()
            term, gate = servers[leader].status().term, servers.logs[leader].gate
            for number in range(4):
                gate.shut()
                waiting = asyncio.create_task(servers[leader].propose([b"%d" % number]))
                await until(lambda: gate.waiting, "a write is under way")
                await servers.ticks(leader, STALL - T // 2)
                gate.open()
                await waiting
            assert (servers.leaders(), servers[leader].status().term) == ([leader], term)

    run(scenario())


def test_a_single_node_keeps_its_place(run: Run) -> None:
    """Where nobody else could lead a hanging disk changes nothing: what waits for it succeeds once it works."""

    async def scenario() -> None:
        async with Servers("a", config=EAGER) as servers:
            await servers.led()
            servers.logs["a"].gate.shut()
            waiting = asyncio.create_task(servers["a"].propose([b"x"]))
            await until(lambda: servers.logs["a"].gate.waiting, "the disk hangs")
            await servers.ticks("a", 2 * STALL)
            assert servers["a"].leads
            servers.logs["a"].gate.open()
            await waiting

    run(scenario())
