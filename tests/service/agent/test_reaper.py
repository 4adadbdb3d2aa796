"""Old deletions are forgotten after a while, on the leader's word."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from raft.errors import NotLeader
from service.agent import reaper
from service.domain.commands import ReapTombstones, decode, stamp


class Server:
    """A Raft server whose applied index grows by ten with every look at it."""

    def __init__(self, *, leads: bool) -> None:
        self.leads = leads
        self.looks = 0
        self.proposed: list[Any] = []
        self.fail = False

    def status(self) -> Any:
        """See :class:`raft.runtime.server.RaftServer`."""
        self.looks += 1
        return SimpleNamespace(applied_index=10 * self.looks)

    async def propose(self, commands: list[bytes]) -> list[bytes]:
        """See :class:`raft.runtime.server.RaftServer`."""
        self.proposed += [decode(stamp(command, 0))[1] for command in commands]
        if self.fail:
            raise NotLeader
        return [b""]


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaper, "INTERVAL_SECONDS", 0)


def run(server: Server, looks: int) -> None:
    """Let it go on until it has looked so often."""

    async def main() -> None:
        task = asyncio.create_task(reaper.run(server))  # type: ignore[arg-type]  # stands in for it
        while server.looks < looks:  # noqa: ASYNC110 - the reaper runs meanwhile
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(asyncio.wait_for(main(), 10))


def test_deletions_are_kept_for_fifteen_intervals() -> None:
    """Nothing is forgotten before its time; then, with every interval, what was deleted before the oldest note."""
    server = Server(leads=True)
    run(server, reaper.KEEP_INTERVALS)
    assert server.proposed == []
    server = Server(leads=True)
    run(server, reaper.KEEP_INTERVALS + 3)
    assert server.proposed[:2] == [ReapTombstones(10), ReapTombstones(20)]


def test_followers_propose_nothing() -> None:
    """A follower takes notes, so that it knows what is old when it comes to lead, and proposes nothing."""
    server = Server(leads=False)
    run(server, reaper.KEEP_INTERVALS + 3)
    assert server.proposed == []


def test_a_failed_proposal_ends_nothing() -> None:
    """When the proposal fails the next one comes all the same."""
    server = Server(leads=True)
    server.fail = True
    run(server, reaper.KEEP_INTERVALS + 4)
    assert len(server.proposed) >= 3
