"""The state machine in memory keeps the contract of its port; and the contract finds machines that do not."""

import asyncio
from collections.abc import Callable

import pytest

from raft import AddLearner, RaftConfig
from raft.examples.counter import Counter
from raft.testing.local import LocalCluster
from raft.testing.machine_conformance import StateMachineContract
from raft.testing.servers import BRISK, until


class TestCounter(StateMachineContract):
    """The example's machine, and with it the base class."""

    commands = (b"1", b"-20", b"300")

    def make(self) -> Counter:
        """A counter at 0."""
        return Counter()


class Forgetful(Counter):
    """Its picture lacks the state."""

    def execute(self, command: bytes) -> bytes:
        """Add, and answer with the sum."""
        self.total += int(command)
        return b"%d" % self.total

    def dump(self) -> bytes:
        """Nothing."""
        return b"0"


class Random(Counter):
    """Its answers are not a function of the commands."""

    made = 0

    def __init__(self) -> None:
        super().__init__()
        Random.made += 1
        self.total = Random.made


class Meddling(Counter):
    """Takes entries of Raft's own for commands."""

    def apply(self, entries: object, *, awaited: bool = True) -> list[bytes]:
        """Count them."""
        self.total += 1
        return super().apply(entries, awaited=awaited)  # type: ignore[arg-type]  # passed on as it is


class Additive(Counter):
    """Does not replace its state by a picture."""

    def load(self, state: bytes) -> None:
        """Add."""
        self.total += int(state)


CONTRACTS = [getattr(TestCounter, name) for name in vars(StateMachineContract) if name.startswith("test_")]


@pytest.mark.parametrize("machine", [Forgetful, Random, Meddling, Additive])
def test_the_contract_finds_a_broken_machine(machine: Callable[[], Counter]) -> None:
    """Each machine that breaks one promise fails a test of the suite, and the sound one fails none."""

    class Suite(TestCounter):
        def make(self) -> Counter:
            return machine()

    failed = []
    for test in CONTRACTS:
        try:
            test(Suite())
        except AssertionError:
            failed.append(test.__name__)
    assert failed


def test_a_machine_comes_back_from_snapshot_and_log() -> None:
    """In a local cluster a counter that is started again, and one that is added, reach the sum of the others, by snapshot and by log."""

    async def story() -> None:
        config = RaftConfig(
            **{name: getattr(BRISK, name) for name in ("tick_ms", "heartbeat_ms", "election_timeout_ms")},
            snapshot_threshold_entries=20,
            trailing_entries=5,
        )
        async with LocalCluster(["a", "b", "c"], Counter, config=config) as cluster:
            for _ in range(60):
                await cluster["a"].propose([b"2"])
            leader = next(name for name in "abc" if cluster[name].leads)
            other = next(name for name in "abc" if name != leader)
            await until(lambda: cluster[other].status().boundary_index > 0, f"{other} has compacted its log")
            await cluster.stop(other)
            await cluster[leader].propose([b"3"])
            await cluster.start(other)
            await cluster[other].barrier()
            assert cluster.machines[other].total == 123
            await cluster.start("d")
            await cluster[leader].change(AddLearner(cluster.member("d")))
            await until(lambda: cluster.machines["d"].total == 123, "d has got the sum")

    asyncio.run(story())
