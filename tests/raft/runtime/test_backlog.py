"""Committed entries wait a moment at a follower, and never where somebody waits for them."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from raft import Entry
from raft.runtime import backlog
from raft.runtime.backlog import DELAY_SECONDS, ENTRIES_MAX, Apply, Backlog
from raft.testing.cluster import entries
from raft.testing.servers import BRISK, Servers, until

Run = Callable[[Coroutine[Any, Any, None]], None]
NEVER = 3_600.0


def into(left: list[tuple[Entry, ...]]) -> Apply:
    """Puts what leaves into a list."""

    def apply(found: tuple[Entry, ...], *, awaited: bool) -> None:
        assert isinstance(awaited, bool)
        left.append(found)

    return apply


def test_entries_gather(run: Run) -> None:
    """After a pause they go at once; what comes behind them leaves together after the delay, in order and only once."""

    async def scenario() -> None:
        left: list[tuple[Entry, ...]] = []
        loop = asyncio.get_running_loop()
        gathering = Backlog(loop, into(left))
        first, second, third = entries(1, 1), entries(1, first=3), entries(1, 1, first=4)
        gathering.add(first, awaited=False)
        await until(lambda: left == [first], "the first have left")
        since = loop.time()
        gathering.add(second, awaited=False)
        gathering.add(third, awaited=False)
        assert left == [first]
        await until(lambda: len(left) > 1, "the others have left")
        assert loop.time() - since > DELAY_SECONDS / 2
        assert left == [first, (*second, *third)]
        gathering.flush()
        assert len(left) == 2

    run(scenario())


def test_somebody_waits(run: Run) -> None:
    """Then all that have gathered go, the older ones first, and no timer is left."""

    async def scenario() -> None:
        left: list[tuple[Entry, ...]] = []
        gathering = Backlog(asyncio.get_running_loop(), into(left))
        gathering.add(entries(1), awaited=False)
        gathering.add(entries(1, first=2), awaited=True)
        assert [entry.index for entry in left[0]] == [1, 2]
        await asyncio.sleep(2 * DELAY_SECONDS)
        assert len(left) == 1

    run(scenario())


def test_results_are_asked_for_where_somebody_waits(run: Run) -> None:
    """Of the leader's machine, and of none that only follows: also when a read lets the entries go, and until another leads."""

    async def scenario() -> None:
        async with Servers("abc") as servers:
            leader = await servers.led()
            for number in range(3):
                await servers[leader].propose([b"%d" % number])
            follower = next(name for name in "abc" if name != leader)
            assert await servers[follower].propose([b"forwarded"])
            await servers.applied([b"0", b"1", b"2", b"forwarded"])
            assert {name: machine.awaited[-1] for name, machine in servers.machines.items()} == {name: name == leader for name in "abc"}

    run(scenario())


def test_many_do_not_wait(run: Run) -> None:
    """More than a good batch only hold up what comes behind."""

    async def scenario() -> None:
        left: list[tuple[Entry, ...]] = []
        gathering = Backlog(asyncio.get_running_loop(), into(left))
        gathering.add(entries(*[1] * (ENTRIES_MAX - 1)), awaited=False)
        assert left == []
        gathering.add(entries(1, first=ENTRIES_MAX), awaited=False)
        assert len(left[0]) == ENTRIES_MAX

    run(scenario())


def test_nobody_is_held_up(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a follower would wait for ever: writes are answered at the leader and through a follower, and reads at any node."""
    monkeypatch.setattr(backlog, "DELAY_SECONDS", NEVER)

    async def scenario() -> None:
        async with Servers("abc") as servers:
            leader = await servers.led()
            for name in (leader, *(name for name in "abc" if name != leader)):
                await asyncio.wait_for(servers[name].propose([name.encode()]), 20)
            for name in "abc":
                index = await asyncio.wait_for(servers[name].barrier(20), 25)
                assert servers[name].status().applied_index >= index
                assert len(servers.machines[name].commands) == 3

    run(scenario())


def test_a_snapshot_comes_behind_what_waits(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was committed before it is applied before it: a machine that went back would stop the node."""
    monkeypatch.setattr(backlog, "DELAY_SECONDS", NEVER)

    async def scenario() -> None:
        async with Servers("abc", config=replace(BRISK, snapshot_threshold_entries=20, trailing_entries=3), keeps=True) as servers:
            leader = await servers.led()
            late = next(name for name in "abc" if name != leader)
            await servers[leader].propose([b"first"])
            await until(
                lambda: servers[late].status().commit_index == servers[leader].status().commit_index, "the follower knows that it is committed"
            )
            for other in set("abc") - {late}:
                servers.network.cut(late, other)
            for number in range(60):
                await servers[leader].propose([b"%d" % number])
            await until(lambda: servers[leader].status().first_index > 30, "the leader cuts its log")
            servers.network.heal()
            await until(lambda: bool(servers.machines[late].restored), "a snapshot is installed")
            await asyncio.wait_for(servers[late].barrier(20), 25)
            assert servers.machines[late].commands == servers.machines[leader].commands

    run(scenario())
