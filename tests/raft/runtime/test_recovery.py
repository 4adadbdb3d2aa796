"""What a server makes of the disk it finds: restarts, installations that a crash cut short, parts that do not fit."""

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from raft import Boundary, Configuration, Entry, EntryKind, HardState, StorageCorrupt
from raft.ports.storage import WriteBatch
from raft.runtime.recovery import Recovered, recover
from raft.storage.memory import MemoryLog, MemorySnapshots
from raft.testing.cluster import configuration, entries
from raft.testing.servers import ListMachine, Servers

Run = Callable[[Coroutine[Any, Any, None]], None]
ABC = configuration("abc")
HARD = HardState(4, "a", 3)


class Disk:
    """Everything that a node finds at its start.

    :param log: the terms of the entries after ``boundary``.
    :param machine: how many of the commands a machine holds that keeps its state; None for one that keeps nothing.
    :param snapshots: indexes and terms of stored snapshots.
    """

    def __init__(
        self, *log: int, boundary: Boundary | None = None, machine: tuple[int, int] | None = None, snapshots: tuple[tuple[int, int], ...] = ()
    ) -> None:
        start = boundary or Boundary(configuration=ABC)
        self.log = MemoryLog()
        self.log.reset(start, HARD)
        self.log.write(WriteBatch(HARD, entries(*log, first=start.index + 1)))
        self.machine = ListMachine(keeps=machine is not None)
        if machine is not None:
            self.machine.position = machine
        self.snapshots = MemorySnapshots()
        for index, term in snapshots:
            sink = self.snapshots.create(Boundary(index, term, ABC))
            sink.write(b"%d\n" % index)
            sink.commit()

    def recover(self) -> Recovered:
        """Start from it."""
        return recover(log_store=self.log, stable_store=self.log, snapshot_store=self.snapshots, machine=self.machine)


def test_a_fresh_disk() -> None:
    """An empty node starts at zero."""
    found = Disk().recover()
    assert (found.applied, found.hard_state, found.log.boundary.configuration) == (0, HARD, ABC)


def test_a_log_and_a_state_behind_it() -> None:
    """A machine that keeps its state is fed from where it was; one that keeps nothing from the beginning."""
    assert Disk(1, 1, 2, machine=(2, 1)).recover().applied == 2
    assert Disk(1, 1, 2).recover().applied == 0


def test_a_machine_that_keeps_nothing_starts_from_its_snapshot() -> None:
    """The newest stored snapshot is restored, and the log continues it."""
    disk = Disk(2, 2, boundary=Boundary(5, 1, ABC), snapshots=((5, 1),))
    found = disk.recover()
    assert (found.applied, len(found.log.entries), disk.machine.restored) == (5, 2, [5])


def test_sn_06_killed_before_the_machine_was_restored() -> None:
    """The snapshot arrived, machine and log are the old ones: the node starts from the old state, in full."""
    disk = Disk(1, 1, machine=(2, 1), snapshots=((9, 3),))
    found = disk.recover()
    assert (found.applied, found.log.boundary.index, len(found.log.entries), disk.machine.restored) == (2, 0, 2, [])


def test_sn_06_killed_between_machine_and_log() -> None:
    """The machine holds the snapshot, the log is the old one: the log is reset, with the hard state kept, and the node starts from the new state."""
    disk = Disk(1, 1, machine=(9, 3), snapshots=((9, 3),))
    found = disk.recover()
    assert (found.applied, found.log.boundary.index, found.log.entries) == (9, 9, ())
    assert disk.log.load() == found.log
    assert disk.log.hard_state() == HARD
    assert disk.recover().applied == 9  # and once more


def test_sn_06_killed_after_the_log_before_the_machine() -> None:
    """The other order, of a machine that lost its restored state: the snapshot is restored again."""
    disk = Disk(boundary=Boundary(9, 3, ABC), machine=(2, 1), snapshots=((9, 3),))
    found = disk.recover()
    assert (found.applied, disk.machine.restored, found.log.boundary.index) == (9, [9], 9)


def test_sn_06_killed_while_a_newer_snapshot_had_arrived() -> None:
    """The machine holds one snapshot, the store a newer one, the log neither: the newer one is installed."""
    disk = Disk(1, 1, machine=(9, 3), snapshots=((12, 4),))
    found = disk.recover()
    assert (found.applied, disk.machine.restored, found.log.boundary.index) == (12, [12], 12)


def test_a_machine_without_state_finishes_an_installation() -> None:
    """A machine that keeps nothing takes a snapshot beyond its log, and the log follows."""
    disk = Disk(1, 1, snapshots=((9, 3),))
    found = disk.recover()
    assert (found.applied, found.log.boundary.index, found.log.entries) == (9, 9, ())


@pytest.mark.parametrize(
    ("disk", "text"),
    [
        (Disk(1, 1, machine=(7, 2)), "reading the log: the state holds index 7 of term 2, which the log does not"),
        (Disk(1, 1, machine=(2, 2)), "reading the log: the state holds index 2 of term 2, which the log does not"),
        (Disk(1, boundary=Boundary(5, 1, ABC), machine=(2, 1)), "reading the state: the state holds index 2, the log begins after 5"),
        (Disk(1, boundary=Boundary(5, 1, ABC)), "reading the state: the state holds index 0, the log begins after 5"),
        (
            Disk(1, boundary=Boundary(5, 1, ABC), machine=(2, 1), snapshots=((4, 1),)),
            "reading the state: the state holds index 4, the log begins after 5",
        ),
    ],
)
def test_parts_that_do_not_fit_are_named(disk: Disk, text: str) -> None:
    """A state ahead of the log, of another term, or behind its beginning: the node does not start, and says what to do."""
    before = disk.log.load()
    with pytest.raises(StorageCorrupt) as caught:
        disk.recover()
    assert text in str(caught.value)
    assert "put the directory aside" in caught.value.hint
    assert disk.log.load() == before


def test_a_server_does_not_start_on_them(run: Run) -> None:
    """The start raises, and leaves no thread and no task behind."""

    async def scenario() -> None:
        servers = Servers("a", keeps=True)
        servers.machines["a"].position = (7, 2)
        with pytest.raises(StorageCorrupt, match="which the log does not"):
            await servers.start("a")
        await servers.stop("a")

    run(scenario())


def test_cf_06_stop_all_start_all(run: Run) -> None:
    """Everything that was acknowledged is there after all servers were stopped and started, in any order."""

    async def scenario() -> None:
        async with Servers("abc") as servers:
            done = []
            for number, order in enumerate(("abc", "cba", "bca")):
                await servers.led()
                for name in "abc":
                    command = b"%s%d" % (name.encode(), number)
                    await servers[name].propose([command])
                    done.append(command)
                for name in order:
                    await servers.stop(name)
                for name in reversed(order):
                    await servers.start(name)
            for name in "abc":
                await servers[name].barrier()
                assert servers.machines[name].commands == done

    run(scenario())


def test_terms_and_votes_survive(run: Run) -> None:
    """A restarted server is in the term it was in, with the vote it gave."""

    async def scenario() -> None:
        async with Servers("abc") as servers:
            leader = await servers.led()
            follower = next(name for name in "abc" if name != leader)
            before = servers[follower].status()
            await servers.stop(follower)
            assert servers.logs[follower].hard_state()[:2] == (before.term, before.vote)
            await servers.start(follower)
            assert servers[follower].status().term >= before.term

    run(scenario())


def test_a_node_without_a_configuration_waits(run: Run) -> None:
    """A server whose disk names no members starts, never campaigns, and holds what it is asked until its deadline."""

    async def scenario() -> None:
        servers = Servers("a")
        servers.logs["a"].reset(Boundary(configuration=Configuration()), HardState())
        await servers.start("a")
        await servers.ticks("a", 100)
        assert (servers["a"].leads, servers["a"].status().term) == (False, 0)
        await servers.stop("a")

    run(scenario())


def test_an_entry_kind_survives_the_disk() -> None:
    """Entries come back as they were written, their kind included."""
    log = MemoryLog()
    noop = Entry(1, 1, EntryKind.NOOP, b"")
    log.write(WriteBatch(HardState(1), (noop,)))
    assert log.load().entries == (noop,)
