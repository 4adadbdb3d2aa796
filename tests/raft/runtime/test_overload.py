"""More than the cluster can take: refused early and clearly, whoever is asked, and no memory grows without a bound."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from raft import DeadlinePassed, NotLeader, Outcome, RaftError, Rejected, UncommittedLimit
from raft.core.messages import AppendAccepted, AppendRequest, Message, ProposeRequest, ProposeResponse
from raft.core.model import ENTRY_OVERHEAD_BYTES
from raft.runtime.proposals import FORWARDED_MAX
from raft.testing.servers import BRISK, Servers, until

Run = Callable[[Coroutine[Any, Any, None]], None]
COMMAND = b"x" * (1_000 - ENTRY_OVERHEAD_BYTES)
QUOTA, WINDOW = 100_000, 20_000
TIGHT = replace(
    BRISK,
    proposal_bytes_max=1_000,
    uncommitted_bytes_max=QUOTA,
    append_bytes_max=2_000,
    inflight_bytes_max=WINDOW,
    inflight_appends_max=6,
    proposal_timeout_ms=60_000,
)


async def outcome(action: Coroutine[Any, Any, object]) -> RaftError | None:
    """What an operation failed with, or None."""
    try:
        await action
    except RaftError as error:
        return error
    return None


def ask(servers: Servers, name: str, count: int, command: bytes = COMMAND, within: float | None = None) -> list[asyncio.Task[RaftError | None]]:
    """So many callers, each with a proposal of its own, which may take so many seconds."""
    return [asyncio.create_task(outcome(servers[name].propose([command], within))) for _ in range(count)]


async def refused(tasks: list[asyncio.Task[RaftError | None]], count: int) -> None:
    """Wait until that many callers were refused, and see that each was told the bytes, the limit, and that nothing happened."""
    await until(lambda: sum(task.done() for task in tasks) >= count, f"{count} are refused")
    errors = [task.result() for task in tasks if task.done()]
    assert len(errors) == count
    for error in errors:
        assert isinstance(error, Rejected)
        assert error.outcome is Outcome.REJECTED
        assert f"uncommitted bytes would be over the limit of {QUOTA} bytes (uncommitted_bytes_max)" in str(error)


def test_a_leader_that_can_not_commit_refuses(run: Run) -> None:
    """With silent followers the leader takes a quota of proposals and refuses the rest; what is under way to each follower is bounded in count
    and bytes; once the followers answer, those that were taken end well and those that were refused may come again.
    """

    async def scenario() -> None:
        async with Servers("abc", config=TIGHT) as servers:
            leader = await servers.led()
            await servers[leader].propose([b"first"])
            servers.network.drop = lambda message: isinstance(message, AppendAccepted)
            tasks = ask(servers, leader, 150)
            await refused(tasks, 50)
            assert any(peer.inflight for peer in servers[leader].status().peers)
            for _ in range(20):
                status = servers[leader].status()
                assert status.uncommitted_bytes <= QUOTA
                assert [peer.peer for peer in status.peers if peer.inflight > TIGHT.inflight_appends_max or peer.inflight_bytes > WINDOW] == []
                await servers.ticks(leader, 1)
            with pytest.raises(UncommittedLimit) as caught:
                await servers[leader].propose([COMMAND])
            assert (caught.value.limit, caught.value.size > QUOTA) == (QUOTA, True)
            servers.network.drop = lambda _message: False
            assert [error for error in await asyncio.gather(*tasks[:100]) if error] == []
            assert [error for error in await asyncio.gather(*ask(servers, leader, 50)) if error] == []
            await servers.applied([b"first", *[COMMAND] * 150])

    run(scenario())


def test_a_leader_that_is_full_refuses_through_a_follower(run: Run) -> None:
    """A follower's callers are told the same, in the leader's words; none of them is left without an outcome."""

    async def scenario() -> None:
        async with Servers("abc", config=TIGHT) as servers:
            leader = await servers.led()
            await servers[leader].propose([b"first"])
            follower = next(name for name in "abc" if name != leader)
            servers.network.drop = lambda message: isinstance(message, AppendRequest)
            full = ask(servers, leader, 100)
            await until(lambda: servers[leader].status().uncommitted_bytes == QUOTA, "the leader is full")
            await refused(ask(servers, follower, 30), 30)
            servers.network.drop = lambda _message: False
            assert [error for error in await asyncio.gather(*full) if error] == []

    run(scenario())


def test_what_is_under_way_to_the_leader_is_bounded(run: Run) -> None:
    """While the leader does not answer a follower sends it a window of bytes, holds a quota with what it has sent, and refuses the rest at once."""

    async def scenario() -> None:
        async with Servers("abc", config=TIGHT) as servers:
            leader = await servers.led()
            await servers[leader].propose([b"first"])
            follower = next(name for name in "abc" if name != leader)
            sent: list[int] = []

            def lose_answers(message: Message) -> bool:
                if isinstance(message, ProposeRequest):
                    sent.append(sum(map(len, message.commands)))
                return isinstance(message, ProposeResponse)

            servers.network.drop = lose_answers
            tasks = ask(servers, follower, 150)
            await refused(tasks, 50)
            await servers.ticks(follower, 10)
            assert len(sent) == WINDOW // 1_000
            assert servers[follower].driver.proposals.outside_bytes == QUOTA
            servers.network.drop = lambda _message: False
            await servers.stop(follower)
            ends = await asyncio.gather(*tasks)
            assert sum(error is not None and error.outcome is Outcome.UNKNOWN for error in ends) == len(sent)
            await servers.start(follower)

    run(scenario())


def test_the_window_moves_on(run: Run) -> None:
    """Thousands of proposals at once at a follower pass through the window, each once and in their order, and none is refused or unknown."""

    async def scenario() -> None:
        async with Servers("abc", config=replace(BRISK, proposal_timeout_ms=60_000)) as servers:
            leader = await servers.led()
            follower = next(name for name in "abc" if name != leader)
            under_way: list[int] = []

            def watch(message: Message) -> bool:
                if isinstance(message, ProposeRequest):
                    under_way.append(len(servers[follower].driver.proposals._forwarded))
                return False

            servers.network.drop = watch
            commands = [b"%d" % number for number in range(3 * FORWARDED_MAX)]
            await asyncio.gather(*(servers[follower].propose([command]) for command in commands))
            await servers.applied(commands)
            assert max(under_way) <= FORWARDED_MAX

    run(scenario())


def test_without_a_leader_what_waits_is_bounded(run: Run) -> None:
    """A node that knows no leader holds a quota of proposals and refuses the rest; what it held is rejected at its deadline, or was never sent."""

    async def scenario() -> None:
        servers = Servers("abc", config=replace(TIGHT, proposal_timeout_ms=300))
        await servers.start("a")
        tasks = ask(servers, "a", 150)
        await refused(tasks, 50)
        ends = await asyncio.gather(*tasks[:100])
        assert {type(error) for error in ends} == {NotLeader}
        assert servers["a"].driver.proposals.outside_bytes == 0
        assert servers["a"].status().last_index == 0
        await servers.stop("a")

    run(scenario())


def test_who_waited_behind_the_window_learns_that_nothing_was_sent(run: Run) -> None:
    """A proposal that was held until its deadline, because the leader took no more, is rejected and names that leader."""

    async def scenario() -> None:
        async with Servers("abc", config=TIGHT) as servers:
            leader = await servers.led()
            await servers[leader].propose([b"first"])
            follower = next(name for name in "abc" if name != leader)
            servers.network.drop = lambda message: isinstance(message, ProposeResponse)
            sent = ask(servers, follower, WINDOW // 1_000)
            await servers.ticks(follower, 1)
            behind = await asyncio.gather(*ask(servers, follower, 20, within=0.3))
            assert {type(error) for error in behind} == {DeadlinePassed}
            assert all(leader in str(error) for error in behind)
            await servers.stop(follower)
            assert {error.outcome for error in await asyncio.gather(*sent) if error} == {Outcome.UNKNOWN}
            servers.network.drop = lambda _message: False
            await servers.start(follower)

    run(scenario())
