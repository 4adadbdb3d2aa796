"""Carry sequences out on both servers, and make a failing one short."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.differential.compare import Order, compare
from tests.differential.differences import named
from tests.differential.operations import Memory, Operation, Sequence
from tests.differential.wire import Closed, Connection, Reply


@dataclass
class Counts:
    """What was carried out.

    :ivar named: differences that are meant, by name.
    """

    sequences: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    named: Counter[str] = field(default_factory=Counter)

    @property
    def operations(self) -> int:
        """All requests, each counted once though it goes to both servers."""
        return self.kinds.total()

    def add(self, other: "Counts") -> None:
        """Count in what another has counted."""
        self.sequences += other.sequences
        self.kinds += other.kinds
        self.statuses += other.statuses
        self.named += other.named


@dataclass(frozen=True, slots=True)
class Failure:
    """A difference that nobody meant.

    :ivar position: of the operation in its sequence.
    """

    position: int
    operation: Operation
    messages: tuple[str, ...]


class Session:
    """Both servers, and all that was seen of them since they were started.

    :param ports: of Consul and of kvorum.
    """

    def __init__(self, ports: tuple[int, int]) -> None:
        self._connections = (Connection(ports[0]), Connection(ports[1]))
        self._order = Order()
        self._runs = 0
        self.counts = Counts()

    def run(self, sequence: Sequence) -> Failure | None:
        """Carry a sequence out under a prefix of its own, and clean up."""
        self._runs += 1
        self.counts.sequences += 1
        prefix = f"q{self._runs}/"
        memories = (Memory(prefix, sequence.keys), Memory(prefix, sequence.keys))
        try:
            for position, operation in enumerate(sequence.operations):
                messages, ends = self._step(operation, memories)
                if messages:
                    self._order = Order()
                    return Failure(position, operation, tuple(messages))
                if ends:
                    break
            return None
        finally:
            self._clean_up(memories)

    def _step(self, operation: Operation, memories: tuple[Memory, Memory]) -> tuple[list[str], bool]:
        """One request to both.

        :returns: what differs, and whether the sequence has to end.
        """
        replies = self._ask(operation, memories)
        self.counts.kinds[operation.kind] += 1
        self.counts.statuses[str(replies[0].status)] += 1
        for memory, reply in zip(memories, replies, strict=True):
            memory.learn(operation, reply)
        messages = compare(operation, memories, replies, self._order)
        if not messages:
            return [], False
        meant = named(operation, replies, messages)
        if meant is None:
            return messages, True
        self.counts.named[meant.name] += 1
        return [], meant.ends

    def _ask(self, operation: Operation, memories: tuple[Memory, Memory]) -> tuple[Reply, Reply]:
        """Send it to both before either answer is read: each works while the other does."""
        for connection, memory in zip(self._connections, memories, strict=True):
            connection.send(memory.request(operation))
        found = []
        for connection in self._connections:
            try:
                found.append(connection.receive(operation.method))
            except Closed as error:
                found.append(Reply(0, {}, str(error).encode()))
        return found[0], found[1]

    def _clean_up(self, memories: tuple[Memory, Memory]) -> None:
        count = max(len(memory.sessions) for memory in memories)
        for number in range(count):
            self._ask(Operation("", "PUT", f"/v1/session/destroy/<S{number}>"), memories)
        self._ask(Operation("", "DELETE", "/v1/kv/?recurse"), memories)


def shorten(sequence: Sequence, failure: Failure, run: Callable[[Sequence], Failure | None], seconds: float = 20.0) -> tuple[Sequence, Failure]:
    """Leave out whatever is not needed for a sequence to fail in the same operation.

    :param seconds: after which what was reached is good enough.
    """
    deadline = time.monotonic() + seconds
    operations = sequence.operations[: failure.position + 1]
    size = max(1, len(operations) // 2)
    while time.monotonic() < deadline:
        position, removed = 0, False
        while position < len(operations) - 1 and time.monotonic() < deadline:
            fewer = Sequence(sequence.keys, operations[:position] + operations[min(position + size, len(operations) - 1) :])
            again = run(fewer)
            if again is not None and again.operation == failure.operation:
                operations, failure, removed = fewer.operations[: again.position + 1], again, True
            else:
                position += size
        if size == 1 and not removed:
            break
        size = max(1, size // 2)
    return Sequence(sequence.keys, operations), failure
