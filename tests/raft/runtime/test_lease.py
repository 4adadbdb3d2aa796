"""The lease: when it begins and ends, and what a running server does with it."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from raft.core.messages import AppendRequest, Heartbeat, Message, TimeoutNow
from raft.runtime import lease as module
from raft.runtime.lease import ROUNDS_KEPT, Lease, Pauses, boot_time_ns
from raft.testing.servers import BRISK, Servers, until

Run = Callable[[Coroutine[Any, Any, None]], None]


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1_000

    def __call__(self) -> int:
        """Nanoseconds."""
        return self.now


def test_it_counts_from_the_sending() -> None:
    """The lease ends its length after the round was sent, however late the answers are looked at."""
    clock = Clock()
    lease = Lease(100, clock)
    lease.sending(1, 1)
    clock.now += 99
    assert not lease.is_held(1, 0)
    assert lease.is_held(1, 1)
    clock.now += 1
    assert not lease.is_held(1, 1)


def test_a_later_round_prolongs_it() -> None:
    """Each answered round begins the time anew, from its own sending; sending again under the same number does not."""
    clock = Clock()
    lease = Lease(100, clock)
    for round_ in (1, 2, 4):  # the third left together with the fourth
        lease.sending(1, round_)
        clock.now += 60
        lease.sending(1, round_)
    clock.now -= 60
    assert not lease.is_held(1, 1)
    assert lease.is_held(1, 3)  # counts as the second
    clock.now += 40
    assert not lease.is_held(1, 3)
    assert lease.is_held(1, 4)
    clock.now += 60
    assert not lease.is_held(1, 4)


def test_another_term_is_another_lease() -> None:
    """Rounds of an earlier leadership count for nothing, although their numbers come again."""
    clock = Clock()
    lease = Lease(100, clock)
    lease.sending(1, 7)
    assert lease.is_held(1, 7)
    assert not lease.is_held(3, 7)
    lease.sending(3, 1)
    assert not lease.is_held(1, 7)
    assert not lease.is_held(3, 0)
    assert lease.is_held(3, 1)


def test_forgotten_rounds_only_shorten_it() -> None:
    """When nobody asks for long, the oldest sending times are forgotten; an answer to one of those rounds gives no lease."""
    clock = Clock()
    lease = Lease(100, clock)
    for round_ in range(1, ROUNDS_KEPT + 2):
        lease.sending(1, round_)
    assert not lease.is_held(1, 1)
    assert lease.is_held(1, 2)


def test_length_zero_is_no_lease() -> None:
    """With a drift of 100 percent there is never a lease."""
    lease = Lease(0, Clock())
    lease.sending(1, 1)
    assert not lease.is_held(1, 1)


def test_the_clock_goes_on_while_the_machine_sleeps() -> None:
    """The lease is counted on CLOCK_BOOTTIME where there is one."""
    before = time.clock_gettime_ns(module._CLOCK)
    assert before <= boot_time_ns() <= time.clock_gettime_ns(module._CLOCK)
    assert getattr(time, "CLOCK_BOOTTIME", module._CLOCK) == module._CLOCK


def test_a_pause_is_noticed_once() -> None:
    """More than the limit between two ticks is a pause; the tick after it is an ordinary one."""
    clock = Clock()
    pauses = Pauses(50, clock)
    found = []
    for step in (10, 50, 51, 10, 500):
        clock.now += step
        found.append(pauses.ended())
    assert found == [False, False, True, False, True]


async def led(servers: Servers) -> str:
    """Wait for a leader that holds the lease. Its clocks stand still from the beginning, so that no stall of the machine ends it.

    :returns: its name.
    """
    for server in servers.running.values():
        server.driver._lease._clock = lambda: 0
    leader = await servers.led()
    await until(lambda: servers[leader].holds_lease, "the leader has its lease")
    return leader


def test_a_read_at_the_leader_asks_nobody(run: Run) -> None:
    """Under the lease the leader answers without a message; without ``lease``, and at a follower, a round is asked for."""

    async def scenario() -> None:
        async with Servers("abc") as servers:
            leader = await led(servers)
            index = int((await servers[leader].propose([b"x"]))[0].split(b":")[0])
            driver = servers[leader].driver
            round_ = driver.node.round_begun
            assert [await servers[leader].barrier(lease=True) for _ in range(20)] == [index] * 20
            assert (driver.lease_reads, driver.node.round_begun) == (20, round_)
            await servers[leader].barrier()
            assert driver.lease_reads == 20
            assert driver.node.round_begun > round_
            follower = next(name for name in "abc" if name != leader)
            assert not servers[follower].holds_lease
            assert await servers[follower].barrier(lease=True) == index
            assert servers[follower].driver.lease_reads == 0

    run(scenario())


def test_a_read_under_the_lease_sees_what_is_committed(run: Run) -> None:
    """What the machine has not applied yet is waited for: the commit index counts, not what the machine happens to hold."""

    async def scenario() -> None:
        async with Servers("abc") as servers:
            leader = await led(servers)
            node = servers[leader].driver.node
            servers.machines[leader].apply_gate.shut()
            proposal = asyncio.create_task(servers[leader].propose([b"x"]))
            await until(lambda: node.state.log.commit > node.state.log.applied, "the command is committed")
            read = asyncio.create_task(servers[leader].barrier(lease=True))
            await asyncio.sleep(0)
            assert not read.done()
            servers.machines[leader].apply_gate.open()
            assert await read == int((await proposal)[0].split(b":")[0])
            assert servers[leader].driver.lease_reads == 1

    run(scenario())


def test_a_lease_that_has_run_out_makes_a_read_ask(run: Run) -> None:
    """A leader whose last answered round is too old asks for another before it serves a read."""

    async def scenario() -> None:
        async with Servers("abc") as servers:
            leader = await led(servers)
            driver = servers[leader].driver
            driver._lease._clock = lambda: BRISK.lease_ns
            assert (servers[leader].leads, servers[leader].holds_lease) == (True, False)
            round_ = driver.node.round_begun
            await servers[leader].barrier(lease=True)
            assert driver.lease_reads == 0
            assert driver.node.round_begun > round_

    run(scenario())


def test_a_transfer_revokes_the_lease_first(run: Run) -> None:
    """From the call of the transfer on the old leader serves nothing under its lease; nor does a node that has stopped."""

    async def scenario() -> None:
        async with Servers("abc") as servers:
            leader = await led(servers)
            target = next(name for name in "abc" if name != leader)
            transfer = asyncio.create_task(servers[leader].transfer(target))
            await asyncio.sleep(0)
            assert (servers[leader].leads, servers[leader].holds_lease) == (True, False)
            assert await transfer == target
            await until(lambda: servers[target].holds_lease, "the new leader has a lease")
            driver = servers[target].driver
            await servers[target].stop()
            assert not driver.holds_lease

    run(scenario())


def test_it_is_told_while_it_lasts_and_that_it_ended() -> None:
    """Others are told its end and the commit index at every change, once that there is none any more, and nothing where there never was one."""
    told: list[tuple[int, int]] = []
    lease = Lease(100, Clock(), lambda *grant: told.append(grant))
    lease.publish(1, 0, 5)
    lease.sending(1, 1)
    lease.publish(1, 0, 5)
    assert told == []
    lease.publish(1, 1, 5)
    lease.publish(1, 1, 6)
    assert told == [(1_100, 5), (1_100, 6)]
    lease.publish(2, 1, 7)
    lease.publish(2, 0, 8)
    assert told[2:] == [(0, 7)]


def test_the_lease_is_told_before_anybody_can_act_on_it(run: Run) -> None:
    """No message says more is committed than whoever relies on the lease was told before it left, and none calls a successor before the lease has
    ended for them; a leader that stops ends it, too.
    """

    async def scenario() -> None:
        async with Servers("abc") as servers:
            told: dict[str, tuple[int, int]] = {}
            ahead: list[Message] = []
            called: list[int] = []

            def look(message: Message) -> bool:
                end_ns, commit = told.get(message.sender, (0, 0))
                if end_ns and isinstance(message, AppendRequest | Heartbeat) and message.commit > commit:
                    ahead.append(message)
                if isinstance(message, TimeoutNow):
                    called.append(end_ns)
                return False

            for name, server in servers.running.items():
                server.driver._lease._publish = lambda end_ns, commit, name=name: told.update({name: (end_ns, commit)})
            servers.network.drop = look
            leader = await servers.led()
            await until(lambda: told.get(leader, (0, 0))[0], "the lease is told")
            for _ in range(50):
                await asyncio.gather(*(servers[leader].propose([b"x"]) for _ in range(3)))
                assert told[leader][1] == servers[leader].status().commit_index
            target = next(name for name in "abc" if name != leader)
            await servers[leader].transfer(target)
            assert (ahead, called, told[leader][0]) == ([], [0], 0)
            await until(lambda: told.get(target, (0, 0))[0], "the new leader's lease is told")
            await servers.stop(target)
            assert told[target][0] == 0

    run(scenario())


def test_a_pause_makes_the_node_silent(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node whose clock has jumped promises silence anew at its next tick, once."""

    async def scenario() -> None:
        async with Servers("abc") as servers:
            leader = await led(servers)
            driver = servers[next(name for name in "abc" if name != leader)].driver
            state = driver.node.state
            lost: list[int] = []
            monkeypatch.setattr(driver.node, "lose_time", lambda: lost.append(state.tick_count))
            driver._pauses._clock = lambda: 0
            driver._pauses._last_ns = -BRISK.election_timeout_ms * 1_000_000 - 1
            count = state.tick_count
            await until(lambda: state.tick_count > count + 2, "three ticks have passed")
            assert lost == [count]

    run(scenario())
