"""A peer that does not take its snapshots is let alone for longer and longer, and gets one as soon as it takes it."""

from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from raft.core.messages import InstallSnapshot
from raft.core.model import NodeId
from raft.ports.storage import SnapshotSource
from raft.runtime import snapshotter
from raft.testing.servers import BRISK, Servers, until
from raft.transport.memory import MemoryTransport

Run = Callable[[Coroutine[Any, Any, None]], None]
FAR_TOO_LONG = 10_000.0


class Refusing:
    """Lets the sending of snapshots fail, as with a receiver that has no room.

    :ivar tried: how often one was sent.
    :ivar on: whether they fail now.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tried = 0
        self.on = True
        plain = MemoryTransport.send_snapshot

        async def send_snapshot(transport: MemoryTransport, message: InstallSnapshot, source: SnapshotSource) -> None:
            self.tried += 1
            if self.on:
                raise OSError("no room")
            await plain(transport, message, source)

        monkeypatch.setattr(MemoryTransport, "send_snapshot", send_snapshot)


async def behind(servers: Servers, commands: list[bytes]) -> tuple[NodeId, NodeId]:
    """A leader, and a follower that needs a snapshot as soon as it is started."""
    leader = await servers.led()
    late = next(name for name in "abc" if name != leader)
    await servers.stop(late)
    for _ in range(60):
        commands.append(b"%d" % len(commands))
        await servers[leader].propose(commands[-1:])
    await until(lambda: servers[leader].status().first_index > 30, "the leader cuts its log")
    return leader, late


SHORT_LOG = replace(BRISK, snapshot_threshold_entries=20, trailing_entries=3)


def test_after_two_failures_nothing_is_sent_for_a_while(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A heartbeat later the first failure is made good; after the second the peer is let alone, however many heartbeats pass."""
    monkeypatch.setattr(snapshotter, "pause_seconds", lambda _failures: FAR_TOO_LONG)

    async def scenario() -> None:
        refusing = Refusing(monkeypatch)
        async with Servers("abc", config=SHORT_LOG, keeps=True) as servers:
            leader, late = await behind(servers, [])
            await servers.start(late)
            await until(lambda: refusing.tried == 2, "it is sent twice")
            await servers.ticks(leader, 100)
            assert refusing.tried == 2

    run(scenario())


def test_it_arrives_in_the_end(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it has failed, the next one that is taken brings the peer up to date, and its failures are forgotten."""
    waited: list[int] = []
    monkeypatch.setattr(snapshotter, "pause_seconds", lambda failures: waited.append(failures) or 0.0)

    async def scenario() -> None:
        refusing = Refusing(monkeypatch)
        async with Servers("abc", config=SHORT_LOG, keeps=True) as servers:
            commands: list[bytes] = []
            leader, late = await behind(servers, commands)
            await servers.start(late)
            await until(lambda: refusing.tried >= 5, "it is sent again and again")
            refusing.on = False
            await servers.applied(commands)
            assert waited[:4] == [2, 3, 4, 5]
            await until(lambda: not servers[leader].driver._snapshotter._failures, "its failures are forgotten")

    run(scenario())


def test_pauses() -> None:
    """Twice as long each time, up to some seconds, however long it goes on."""
    found = [snapshotter.pause_seconds(failures) for failures in range(2, 10)]
    assert found == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    assert snapshotter.pause_seconds(10**9) == snapshotter.RETRY_SECONDS_MAX
