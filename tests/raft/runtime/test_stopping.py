"""Whoever waits when a node stops, retires or loses interest: everybody is told the truth, nothing is left behind."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from raft import AddLearner, Member, NodeStopped, NotLeader, Outcome, OutcomeUnknown, RaftError, RaftServer
from raft.core.messages import AppendRequest, TimeoutNow
from raft.testing.servers import BRISK, Servers, until

Run = Callable[[Coroutine[Any, Any, None]], None]
REFUSING = replace(BRISK, forwarding=0)
T = BRISK.election_ticks


async def outcome(action: Coroutine[Any, Any, object]) -> RaftError | None:
    """What an operation failed with, or None."""
    try:
        await action
    except RaftError as error:
        return error
    return None


def operation(server: RaftServer, dice: random.Random, command: bytes) -> Coroutine[Any, Any, object]:
    """Something that a caller may ask, with any deadline."""
    within = dice.choice([None, None, 0.0, 0.02, 5.0])
    kind = dice.choice(["propose"] * 4 + ["barrier"] * 2 + ["transfer", "change"])
    if kind == "propose":
        return server.propose([command], within)
    if kind == "barrier":
        return server.barrier(within)
    if kind == "transfer":
        return server.transfer(dice.choice("abc"), within)
    return server.change(AddLearner(Member(command.decode(), "x", "x:1")), within)


@pytest.mark.parametrize("seed", range(12))
def test_stop_settles_everybody_at_any_moment(run: Run, seed: int) -> None:
    """Whatever is under way, cut, cancelled or late when a node stops: each of its callers is told at once, no table keeps an entry.

    What was rejected never takes effect; what was acknowledged has.
    """
    print(f"seed {seed}")  # noqa: T201 - a failing run must name it
    dice = random.Random(seed)

    async def scenario() -> None:
        async with Servers("abc") as servers:
            await servers.led()
            asked: dict[bytes, tuple[str, asyncio.Task[RaftError | None]]] = {}
            for number in range(dice.randrange(20, 120)):
                name = dice.choice("abc")
                command = b"%d" % number
                asked[command] = name, asyncio.create_task(outcome(operation(servers[name], dice, command)))
                if dice.random() < 0.15:
                    servers.network.drop = dice.choice(
                        [lambda _: False, lambda m: isinstance(m, AppendRequest), lambda m: m.to == "a", lambda m: isinstance(m, TimeoutNow)]
                    )
                if dice.random() < 0.1:
                    await asyncio.sleep(0)
                    dice.choice(list(asked.values()))[1].cancel()
                if dice.random() < 0.3:
                    await asyncio.sleep(dice.choice([0, 0, 0.002, 0.01]))
            victim = dice.choice("abc")
            driver = servers[victim].driver
            stopping = asyncio.create_task(servers.stop(victim))
            await asyncio.sleep(0)
            assert driver.waiting == 0
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert [command for command, (name, task) in asked.items() if name == victim and not task.done()] == []
            await stopping
            servers.network.drop = lambda _: False
            await asyncio.gather(*(task for _, task in asked.values()), return_exceptions=True)
            await servers.start(victim)
            await servers.led()
            await asyncio.gather(*(servers[name].barrier() for name in "abc"))
            for name in "abc":
                held = servers.machines[name].commands
                assert len(held) == len(set(held))
                for command, (_, task) in asked.items():
                    error = None if task.cancelled() else task.result()
                    assert error is None or error.outcome is Outcome.UNKNOWN or command not in held

    run(scenario())


def test_a_cancelled_caller_is_forgotten(run: Run) -> None:
    """What a caller had asked and was held is never sent once the caller is cancelled, and its entry goes at the next tick."""

    async def scenario() -> None:
        servers = Servers("abc")
        await servers.start("a")
        calls = [servers["a"].propose([b"x"], 1_000), servers["a"].barrier(1_000)]
        tasks = [asyncio.create_task(call) for call in calls]  # type: ignore[arg-type]  # one list of both kinds
        await servers.ticks("a", 2)
        assert servers["a"].driver.waiting == 2
        for task in tasks:
            task.cancel()
        await servers.ticks("a", 2)
        assert servers["a"].driver.waiting == 0
        await servers.start("b")
        await servers.led()
        await servers["a"].propose([b"y"])
        await servers.applied([b"y"])
        for name in "ab":
            await servers.stop(name)

    run(scenario())


def test_without_forwarding_a_follower_names_the_leader(run: Run) -> None:
    """With the setting forwarding at 0 proposals and reads at a follower are refused at once, with the leader's name; the leader takes them."""

    async def scenario() -> None:
        async with Servers("abc", config=REFUSING) as servers:
            leader = await servers.led()
            await servers[leader].propose([b"x"])
            await servers[leader].barrier()
            for name in set("abc") - {leader}:
                for action in (servers[name].propose([b"y"]), servers[name].barrier()):
                    error = await outcome(action)  # type: ignore[arg-type]  # two kinds of result
                    assert isinstance(error, NotLeader)
                    assert error.leader == leader
            assert servers.machines[leader].commands == [b"x"]

    run(scenario())


def test_a_transfer_that_fails_says_so(run: Run) -> None:
    """A target that never hears of it leaves the leader in place; its caller learns that it may still take over, whichever limit comes first."""

    async def scenario() -> None:
        async with Servers("abc") as servers:
            leader = await servers.led()
            await servers[leader].propose([b"x"])
            target = next(name for name in "abc" if name != leader)
            servers.network.drop = lambda message: isinstance(message, TimeoutNow)
            for within in (None, 0.01):
                error = await outcome(servers[leader].transfer(target, within))
                assert isinstance(error, OutcomeUnknown)
                assert f"{target} has not taken over in time" in str(error)
                assert servers[leader].leads
            servers.network.drop = lambda _: False

    run(scenario())


@pytest.mark.parametrize("who", ["leader", "follower"])
def test_a_node_that_retires_leaves_no_unknown_write(run: Run, who: str) -> None:
    """Under load at all nodes one is retired and stopped: every write is acknowledged, or refused because that node was stopping."""

    async def scenario() -> None:
        async with Servers("abc") as servers:
            leader = await servers.led()
            retiring = leader if who == "leader" else next(name for name in "abc" if name != leader)
            ended = asyncio.Event()
            seen: list[tuple[str, RaftError | None]] = []

            async def client(name: str, number: int) -> None:
                for attempt in range(10_000):
                    if ended.is_set() or name not in servers.running:
                        return
                    error = await outcome(servers[name].propose([b"%s-%d-%d" % (name.encode(), number, attempt)]))
                    seen.append((name, error))
                    if error is not None:
                        await asyncio.sleep(0.005)

            clients = [asyncio.create_task(client(name, number)) for name in "abc" for number in range(8)]
            await until(lambda: len(seen) > 200, "the load runs")
            assert await servers[retiring].retire(5)
            assert not servers[retiring].leads
            await servers.stop(retiring)
            others = [name for name in "abc" if name != retiring]
            await servers.led(*others)
            before = len(seen)
            await until(lambda: len(seen) > before + 200, "the others go on")
            ended.set()
            await asyncio.gather(*clients)
            assert {(name, type(error)) for name, error in seen if error is not None} <= {(retiring, NodeStopped)}

    run(scenario())


def test_a_node_that_retires_is_not_chosen(run: Run) -> None:
    """A leader that hands over finds another than a node that is about to stop, and such a node doesn't stand when the leader falls silent."""

    async def scenario() -> None:
        async with Servers("abc") as servers:
            leader = await servers.led()
            await servers[leader].propose([b"x"])
            retiring, other = [name for name in "abc" if name != leader]
            await servers[retiring].retire(1)
            assert isinstance(await outcome(servers[leader].transfer(retiring)), OutcomeUnknown)
            assert await servers[leader].hand_over(5)
            assert await servers.led(leader, other) == other
            await servers.stop(leader)
            await servers.stop(other)
            term = servers[retiring].status().term
            driver = servers[retiring].driver
            await until(lambda: driver._would_stand, "its patience has ended")
            await asyncio.sleep(3 * BRISK.tick_ms / 1000)
            assert (servers[retiring].status().term, servers[retiring].status().role.value) == (term, "follower")

    run(scenario())


def test_retiring_alone(run: Run) -> None:
    """A node without a peer can hand over to nobody: it says so, after it has answered everybody; nobody new is let in."""

    async def scenario() -> None:
        async with Servers("a") as servers:
            await servers.led()
            waiting = asyncio.create_task(servers["a"].propose([b"x"]))
            await asyncio.sleep(0)
            assert not await servers["a"].retire(5)
            assert waiting.done()
            for action in (servers["a"].propose([b"y"]), servers["a"].barrier()):
                assert isinstance(await outcome(action), NodeStopped)  # type: ignore[arg-type]  # two kinds of result

    run(scenario())
