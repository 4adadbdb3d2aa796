"""A counter on three nodes in one process: ``python -m raft.examples.counter``. Needs nothing but Python."""

import asyncio
from collections.abc import Callable, Sequence

from raft import Boundary, Configuration, HardState, Member, Ports, RaftConfig, RaftServer
from raft.storage.memory import MemoryLog, MemorySnapshots
from raft.transport.memory import MemoryNetwork


class Counter:
    """The state machine: each command is a number to add; the answer is the sum."""

    total, position = 0, (0, 0)

    def applied(self) -> tuple[int, int]:
        """Index and term of the last entry that was applied."""
        return self.position

    def apply(self, entries: Sequence[tuple[int, int, bytes | None]]) -> list[bytes]:
        """Add the numbers; entries of Raft's own carry none."""
        results = []
        for index, term, data in entries:
            self.position, self.total = (index, term), self.total + int(data or b"0")
            results.append(b"%d" % self.total)
        return results

    def checkpoint(self) -> int:
        """Nothing is kept on a disk."""
        return 0

    def capture(self) -> "Picture":
        """The present sum."""
        return Picture(self)

    def restore(self, index: int, term: int, read: Callable[[int], bytes]) -> None:
        """Become what another node was."""
        self.position, self.total = (index, term), int(read(100))


class Picture:
    """The sum at one moment."""

    def __init__(self, counter: Counter) -> None:
        (self.index, self.term), self._total = counter.position, counter.total

    def write(self, sink: Callable[[bytes], object]) -> None:
        """Hand it over."""
        sink(b"%d" % self._total)

    def close(self) -> None:
        """Nothing is held."""


async def main() -> list[int]:
    """Start three nodes, add 1 to 10 at each of them in turn, and read the sum everywhere."""
    members = tuple(Member(name, name, name) for name in ("one", "two", "three"))
    network, servers, counters = MemoryNetwork(), [], []
    for member in members:
        log, counter = MemoryLog(), Counter()
        log.reset(Boundary(configuration=Configuration(voters=members)), HardState())
        transport = network.transport(member.id, member.address)
        ports = Ports(log_store=log, stable_store=log, snapshot_store=MemorySnapshots(), transport=transport, machine=counter)
        servers.append(RaftServer(node_id=member.id, config=RaftConfig(), ports=ports))
        counters.append(counter)
    await asyncio.gather(*(server.start() for server in servers))
    for number in range(1, 11):
        await servers[number % 3].propose([b"%d" % number])
    for server in servers:
        await server.barrier()  # from here on the local counter is as new as any answer that was given before
    await asyncio.gather(*(server.stop() for server in servers))
    return [counter.total for counter in counters]


if __name__ == "__main__":
    print(asyncio.run(main()))  # noqa: T201  # an example shows its result
