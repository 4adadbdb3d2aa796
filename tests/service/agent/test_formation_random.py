"""The formation under random delays, losses, crashes and wiped disks."""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass

import pytest

from service.addresses import Address, Member
from service.agent import formation
from service.agent.formation import Formation, Outside
from service.agent.identity import FORMAT, Cluster, Identity

SEEDS = 150
STEPS = 400


@dataclass
class Request:
    """A question under way."""

    address: str
    answered: asyncio.Future[tuple[int, bytes]]
    answer: tuple[int, bytes] | None = None


@dataclass
class Process:
    """A node that runs, or not; ``incarnation`` and ``record`` are its disk."""

    name: str
    incarnation: str
    record: Cluster | None = None
    node: Formation | None = None
    task: asyncio.Task[None] | None = None


class World:
    """Nodes whose questions are answered, and their answers delivered, in random order, late, or never."""

    def __init__(self, random_: random.Random, names: list[str], *, wiping: bool) -> None:
        self._random = random_
        self._wiping = wiping
        self._requests: list[Request] = []
        self._members = [Member(name, Address(name, 8300)) for name in names]
        self.processes = {name: Process(name, f"{name}-0") for name in names}
        self.kept: list[tuple[str, Cluster]] = []
        self._incarnations = 0

    async def call(self, address: str, _path: str, _body: bytes, _seconds: float) -> tuple[int, bytes]:
        """The ``call`` of every node."""
        request = Request(address, asyncio.get_running_loop().create_future())
        self._requests.append(request)
        return await request.answered

    def start(self, process: Process) -> None:
        """Start it with what its disk holds."""
        identity = Identity(FORMAT, process.name, process.incarnation)
        process.node = Formation(identity, self._members, process.record, self.call)
        process.task = asyncio.create_task(self._run(process, process.node)) if process.record is None else None

    async def crash(self, process: Process) -> None:
        """End it; its disk stays."""
        if process.task is not None:
            process.task.cancel()
            await asyncio.gather(process.task, return_exceptions=True)
        process.node = process.task = None

    async def _run(self, process: Process, node: Formation) -> None:
        cluster = await node.find()
        if isinstance(cluster, Outside):
            return  # it would have to be added
        await asyncio.sleep(0)  # a crash here loses the record
        process.record = cluster
        self.kept.append((process.incarnation, cluster))
        node.cluster = cluster

    async def step(self, *, calm: bool) -> None:
        """One thing happens."""
        for _ in range(3):
            await asyncio.sleep(0)
        process = self._random.choice(list(self.processes.values()))
        dice = self._random.random()
        if process.node is None:
            if calm or dice < 0.3:
                self.start(process)
        elif not calm and dice < 0.03:
            await self.crash(process)
            if self._wiping and self._random.random() < 0.3:
                self._incarnations += 1
                process.incarnation, process.record = f"{process.name}-{self._incarnations}", None
        elif self._requests:
            await self._advance(self._random.choice(self._requests), lossy=not calm)

    async def _advance(self, request: Request, *, lossy: bool) -> None:
        """Let the other side answer; the next time deliver its answer. Either may fail."""
        if request.answered.done():
            self._requests.remove(request)
            return
        node = self.processes[request.address.partition(":")[0]].node
        if request.answer is None and node is not None and not (lossy and self._random.random() < 0.2):
            request.answer = await node.answer(b"")
            return
        self._requests.remove(request)
        if request.answer is None or (lossy and self._random.random() < 0.2):
            request.answered.set_exception(ConnectionResetError())
        else:
            request.answered.set_result(request.answer)

    async def close(self) -> None:
        """End all."""
        for process in self.processes.values():
            await self.crash(process)


async def _scenario(seed: int, *, wiping: bool) -> World:
    random_ = random.Random(seed)
    world = World(random_, [f"n{number}" for number in range(1, random_.randint(2, 5) + 1)], wiping=wiping)
    for _ in range(STEPS):
        await world.step(calm=False)
    for _ in range(2 * STEPS if wiping else 20 * STEPS):
        if all(process.record is not None for process in world.processes.values()):
            break
        await world.step(calm=True)
    await world.close()
    return world


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formation, "PAUSE_SECONDS", 0)


def test_all_members_end_with_the_same_record() -> None:
    """Whatever is late, lost or crashes: as soon as it is calm every member keeps the same record, and nobody ever kept another."""
    for seed in range(SEEDS):
        world = asyncio.run(_scenario(seed, wiping=False))
        assert all(process.record is not None for process in world.processes.values()), f"seed {seed}: not everybody belongs to the cluster"
        assert len({record.cluster_id for _, record in world.kept}) == 1, f"seed {seed}: {world.kept}"


def test_no_incarnation_belongs_to_two_clusters() -> None:
    """Disks may be wiped at any time: no incarnation ever keeps two records, everybody is counted on by its own, and no two have a majority."""
    wiped = 0
    for seed in range(SEEDS):
        world = asyncio.run(_scenario(seed, wiping=True))
        incarnations = [incarnation for incarnation, _ in world.kept]
        assert len(incarnations) == len(set(incarnations)), f"seed {seed}: {world.kept}"
        assert all(record.member(incarnation) for incarnation, record in world.kept), f"seed {seed}: {world.kept}"
        present = Counter(process.record.cluster_id for process in world.processes.values() if process.record is not None)
        assert sum(count > len(world.processes) // 2 for count in present.values()) <= 1, f"seed {seed}: {present}"
        wiped += len({record.cluster_id for _, record in world.kept}) > 1
    assert wiped > 0, "no schedule wiped a first member in time: the test proves nothing"
