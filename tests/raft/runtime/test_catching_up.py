"""A follower that is brought up to date while the leader goes on writing and cutting its log."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from raft.core.model import NodeId
from raft.runtime.snapshotter import HELD_FACTOR
from raft.testing.servers import BRISK, Servers, until
from raft.transport.memory import MemoryTransport

SHORT_LOG = replace(BRISK, snapshot_threshold_entries=20, trailing_entries=3)
Run = Callable[[Coroutine[Any, Any, None]], None]


async def installing(servers: Servers, commands: list[bytes]) -> tuple[NodeId, NodeId]:
    """A follower that was away for longer than the log is, and is held up while it installs its snapshot.

    :returns: the leader and the follower.
    """
    leader = await servers.led()
    late = next(name for name in "abc" if name != leader)
    await servers.stop(late)
    await write(servers, leader, commands, 60)
    await until(lambda: servers[leader].status().first_index > 30, "the leader cuts its log")
    servers.machines[late].restore_gate.shut()
    await servers.start(late)
    await until(lambda: servers.machines[late].restore_gate.waiting, "the snapshot is being installed")
    return leader, late


async def write(servers: Servers, leader: NodeId, commands: list[bytes], count: int) -> None:
    """Write some more, one by one, so that the log is looked at after each."""
    for _ in range(count):
        commands.append(b"%d" % len(commands))
        await servers[leader].propose(commands[-1:])


def test_sn_01_one_snapshot_is_enough_under_a_load(run: Run) -> None:
    """What was written since a snapshot was taken is kept for whoever receives it, although the log becomes longer than it should be for that."""

    async def scenario() -> None:
        async with Servers("abc", config=SHORT_LOG, keeps=True) as servers:
            commands: list[bytes] = []
            leader, late = await installing(servers, commands)
            await write(servers, leader, commands, 60)
            servers.machines[late].restore_gate.open()
            await servers.applied(commands)
            assert len(servers.machines[late].restored) == 1
            await write(servers, leader, commands, 30)
            length = servers[leader].status()
            assert length.last_index - length.first_index <= SHORT_LOG.snapshot_threshold_entries + 3, "nobody needs the old entries any more"

    run(scenario())


def test_a_log_is_not_kept_for_ever(run: Run) -> None:
    """A follower that takes too long is not waited for: the log stays within a few times its threshold, and the follower gets another snapshot."""

    async def scenario() -> None:
        async with Servers("abc", config=SHORT_LOG, keeps=True) as servers:
            commands: list[bytes] = []
            leader, late = await installing(servers, commands)
            for _ in range(10):
                await write(servers, leader, commands, 20)
                status = servers[leader].status()
                assert status.last_index - status.first_index <= HELD_FACTOR * SHORT_LOG.snapshot_threshold_entries + 5
            servers.machines[late].restore_gate.open()
            await servers.applied(commands)
            assert len(servers.machines[late].restored) > 1

    run(scenario())


def test_a_broken_attempt_frees_the_log(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the sending of a snapshot fails, what was kept for its receiver is cut, although nobody writes any more."""

    async def scenario() -> None:
        async with Servers("abc", config=SHORT_LOG, keeps=True) as servers:
            broken = asyncio.Event()

            async def send_snapshot(*_: object) -> None:
                await broken.wait()
                raise OSError("the connection broke")

            monkeypatch.setattr(MemoryTransport, "send_snapshot", send_snapshot)
            commands: list[bytes] = []
            leader = await servers.led()
            late = next(name for name in "abc" if name != leader)
            await servers.stop(late)
            await write(servers, leader, commands, 30)
            await until(lambda: servers[leader].status().first_index > 1, "the leader cuts its log")
            await servers.start(late)
            await until(lambda: state_of(servers, leader, late) == "snapshot", "the leader sends a snapshot")
            await write(servers, leader, commands, 40)
            held = servers[leader].status()
            assert held.last_index - held.first_index > SHORT_LOG.snapshot_threshold_entries + 5, "the log is kept for the follower"
            await servers.stop(late)
            broken.set()
            await until(lambda: length(servers, leader) <= SHORT_LOG.snapshot_threshold_entries, "the log is cut")

    run(scenario())


def state_of(servers: Servers, leader: NodeId, peer: NodeId) -> str:
    """How the leader serves a peer."""
    return next(one.state for one in servers[leader].status().peers if one.peer == peer)


def length(servers: Servers, node: NodeId) -> int:
    """Of its log."""
    status = servers[node].status()
    return status.last_index - status.first_index
