"""What the leader does by itself: the record of the servers, the first autopilot configuration, dead servers."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raft.core.membership import Remove
from raft.core.model import Configuration, Member
from raft.core.roles import Role
from raft.core.status import PeerStatus, Status
from raft.errors import NotLeader
from service.agent.caretaker import DEAD_MS, FAILED_MS, Caretaker
from service.domain import commands
from service.domain.autopilot import DEFAULT, removable
from service.domain.commands import AutopilotConfiguration, SetAutopilot
from service.store import autopilot_rows, server_rows
from service.store.machine import KvMachine
from service.store.reader import Reader

TICK_MS = 50
ELECTION_MS = 500


class Cluster:
    """A leader of some members over a real state file; nobody else runs.

    :ivar silent_ms: for how long each follower was silent.
    :ivar heard: followers that have answered this leader at least once.
    """

    leads = True

    def __init__(self, directory: Path, size: int) -> None:
        self.machine = KvMachine(directory)
        self.reader = Reader(directory)
        self.members = tuple(Member(f"i{number}", f"n{number}", f"host{number}:8300") for number in range(1, size + 1))
        self.silent_ms = {member.id: 0 for member in self.members[1:]}
        self.heard = set(self.silent_ms)
        self.changes: list[Any] = []
        self.entries = 0
        self.care = Caretaker(self, directory, TICK_MS, ELECTION_MS)  # type: ignore[arg-type]  # as much of a server as it needs

    def status(self) -> Status:
        """As the core describes itself."""
        known = {member.id for member in self.members}
        peers = tuple(
            PeerStatus(one, 90 if one in self.heard else 0, 91, "replicate", 0, 0, silent // TICK_MS)
            for one, silent in self.silent_ms.items()
            if one in known
        )
        configuration = Configuration(voters=self.members)
        return Status("i1", Role.LEADER, 3, "i1", "i1", 1, 90, 90, 90, 90, 0, 0, 0, configuration, 1, None, peers)

    async def propose(self, batch: list[bytes]) -> None:
        """Apply at once."""
        for data in batch:
            self.entries += 1
            self.machine.apply([(self.machine.applied_index + 1, 1, commands.stamp(data, 1))])

    async def change(self, wanted: Any) -> None:
        """Remove at once."""
        self.changes.append(wanted)
        self.members = tuple(member for member in self.members if member.id != wanted.node)

    def look(self) -> None:
        """One pass."""
        asyncio.run(self.care.look())

    def alive(self) -> dict[str, bool]:
        """What is recorded."""
        return {one.name: one.alive for one in self.reader.tables(server_rows.every)[0].servers}

    def configure(self, **fields: Any) -> None:
        """Set the autopilot's configuration."""
        asyncio.run(self.propose([commands.encode(SetAutopilot(AutopilotConfiguration(**fields)))]))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Three voters, all well."""
    made = Cluster(tmp_path, 3)
    yield made
    made.reader.close()
    made.machine.close()


def test_records_what_changes(cluster: Cluster) -> None:
    """The first pass records the members and the default configuration; the next ones write nothing until something is different."""
    cluster.look()
    assert cluster.alive() == {"n1": True, "n2": True, "n3": True}
    assert cluster.reader.tables(autopilot_rows.find)[0].configuration == DEFAULT
    assert cluster.entries == 2
    cluster.look()
    cluster.silent_ms["i3"] = FAILED_MS - TICK_MS
    cluster.look()
    assert cluster.entries == 2
    cluster.silent_ms["i3"] = FAILED_MS
    cluster.look()
    cluster.look()
    assert cluster.alive() == {"n1": True, "n2": True, "n3": False}
    assert cluster.entries == 3
    cluster.silent_ms["i3"] = 0
    cluster.look()
    assert cluster.alive()["n3"]


@pytest.mark.parametrize("error", [NotLeader(), RuntimeError("nobody thought of this")])
def test_a_pass_that_fails_is_not_the_last(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Whatever goes wrong, the next pass comes; a node that does not lead does nothing."""
    monkeypatch.setattr("service.agent.caretaker.PASS_SECONDS", 0)
    passes = [error, error]
    status = cluster.status
    leading = iter([False, False])
    monkeypatch.setattr(Cluster, "leads", property(lambda _: next(leading, True)), raising=False)

    def fail_first() -> Status:
        if passes:
            raise passes.pop()
        return status()

    monkeypatch.setattr(cluster, "status", fail_first)

    async def until_recorded() -> None:
        caring = asyncio.create_task(cluster.care.run())
        while not cluster.alive():  # noqa: ASYNC110 - nothing tells when a pass has ended
            await asyncio.sleep(0)
        caring.cancel()

    asyncio.run(asyncio.wait_for(until_recorded(), 20))
    assert (cluster.alive(), passes) == ({"n1": True, "n2": True, "n3": True}, [])


def test_new_leader_does_not_raise_the_dead(cluster: Cluster) -> None:
    """A follower that a new leader has not heard of yet stays what it was: its silence is counted from the election on."""
    cluster.silent_ms["i3"] = FAILED_MS
    cluster.look()
    cluster.heard, cluster.silent_ms["i3"] = set(), 0
    cluster.look()
    assert cluster.alive() == {"n1": True, "n2": True, "n3": False}
    cluster.heard = {"i3"}
    cluster.look()
    assert cluster.alive()["n3"]


def test_nobody_is_removed_by_default(cluster: Cluster) -> None:
    """A server that is removed comes back empty only, so that has to be asked for."""
    cluster.silent_ms["i3"] = 100 * DEAD_MS
    cluster.look()
    cluster.look()
    assert cluster.changes == []


def test_dead_server_is_removed(cluster: Cluster) -> None:
    """With the clean-up on, one that is dead for long is removed, and its record goes with it."""
    cluster.configure(cleanup_dead_servers=True)
    cluster.silent_ms["i3"] = DEAD_MS - TICK_MS
    cluster.look()
    assert cluster.changes == []
    cluster.silent_ms["i3"] = DEAD_MS
    cluster.look()
    assert cluster.changes == [Remove("i3")]
    cluster.look()
    assert set(cluster.alive()) == {"n1", "n2"}
    cluster.silent_ms["i2"] = DEAD_MS
    cluster.look()
    assert cluster.changes == [Remove("i3")]  # one of two is no minority


def test_a_minimum_is_kept(cluster: Cluster) -> None:
    """No fewer voters than MinQuorum are left."""
    cluster.configure(cleanup_dead_servers=True, min_quorum=3)
    cluster.silent_ms["i3"] = DEAD_MS
    cluster.look()
    assert cluster.changes == []


def test_removable_never_costs_the_quorum() -> None:
    """Whatever the numbers: only a minority, so that those who live are a quorum before and after."""
    for voters in range(1, 12):
        for dead in range(voters + 1):
            for minimum in range(6):
                gone = removable(voters, dead, minimum)
                assert 0 <= gone <= dead
                if gone:
                    assert voters - gone >= max(1, minimum)
                    assert 2 * (voters - dead) > voters
                    assert 2 * (voters - dead) > voters - gone
    assert (removable(3, 1, 0), removable(5, 2, 0), removable(5, 2, 4), removable(2, 1, 0)) == (1, 2, 1, 0)


def test_health(cluster: Cluster) -> None:
    """A server that is slow or behind is not healthy; one that has failed has no last contact. Since when is kept until it changes."""
    told = cluster.care.health()
    assert (told["healthy"], told["failure_tolerance"], [one["leader"] for one in told["servers"]]) == (True, 1, [True, False, False])
    since = told["servers"][2]["stable_since_ms"]
    assert cluster.care.health()["servers"][2]["stable_since_ms"] == since > 0
    cluster.silent_ms["i3"] = ELECTION_MS + TICK_MS
    told = cluster.care.health()
    assert (told["healthy"], told["failure_tolerance"], told["servers"][2]["last_contact_ms"]) == (False, 0, ELECTION_MS + TICK_MS)
    cluster.silent_ms["i3"] = FAILED_MS
    assert cluster.care.health()["servers"][2]["last_contact_ms"] is None
    cluster.silent_ms["i3"] = 0
    cluster.configure(last_contact_threshold_ns=10**9, max_trailing_logs=0)
    cluster.heard = {"i3"}
    assert [one["healthy"] for one in cluster.care.health()["servers"]] == [True, False, True]
