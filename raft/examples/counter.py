"""A counter on three nodes in one process: ``python -m raft.examples.counter``. Needs nothing but Python."""

import asyncio

from raft.storage.machine import MemoryMachine
from raft.testing.local import LocalCluster


class Counter(MemoryMachine):
    """The state is a number, a command is a number to add, the answer is the sum."""

    total = 0

    def execute(self, command: bytes) -> bytes:
        """Add."""
        self.total += int(command)
        return self.dump()

    def dump(self) -> bytes:
        """The sum, as digits."""
        return b"%d" % self.total

    def load(self, state: bytes) -> None:
        """Become what another node was."""
        self.total = int(state)


async def main() -> list[int]:
    """Start three nodes, add 1 to 10 at each of them in turn, and read the sum everywhere."""
    names = ("one", "two", "three")
    async with LocalCluster(names, Counter) as cluster:
        for number in range(1, 11):
            await cluster[names[number % 3]].propose([b"%d" % number])
        for name in names:
            await cluster[name].barrier()  # from here on the local counter is as new as any answer that was given before
        return [cluster.machines[name].total for name in names]


if __name__ == "__main__":
    print(asyncio.run(main()))  # noqa: T201  # an example shows its result
