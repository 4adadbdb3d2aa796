"""What a finished write may be credited to: a server on real files whose disk answers when the test lets it."""

from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import pytest

from raft import Boundary, Configuration, Entry, EntryKind, HardState, Member, Ports, RaftServer
from raft.core.messages import AppendAccepted, AppendRequest, InstallSnapshot, Message, VoteRequest
from raft.ports.storage import SnapshotSource, WriteBatch
from raft.ports.transport import TransportHandler
from raft.storage.snapshots import FileSnapshots
from raft.storage.sqlite import SqliteLog
from raft.testing.servers import BRISK, Gate, ListMachine, until

Run = Callable[[Coroutine[Any, Any, None]], None]
VOTERS = Configuration(voters=tuple(Member(name, name, name) for name in "abcde"))


class GatedLog(SqliteLog):
    """A log on disk whose writes wait, each by itself, until they are let through."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.gates: list[Gate] = []
        self.begun: list[WriteBatch] = []

    def write(self, batch: WriteBatch) -> None:
        """See the port."""
        number = len(self.begun)
        self.begun.append(batch)
        if number < len(self.gates):
            self.gates[number].pass_through()
        super().write(batch)

    def hold(self, count: int) -> None:
        """Let the next writes wait."""
        self.gates = [Gate() for _ in range(len(self.begun) + count)]
        for gate in self.gates[len(self.begun) :]:
            gate.shut()


class Wire:
    """A transport that keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.message_bytes_max = 1 << 30

    async def start(self, handler: TransportHandler) -> None:
        """See the port."""

    def connect(self, addresses: Mapping[str, str]) -> None:
        """See the port."""

    def send(self, messages: tuple[Message, ...]) -> None:
        """See the port."""
        self.sent.extend(messages)

    async def send_snapshot(self, message: InstallSnapshot, source: SnapshotSource) -> None:
        """See the port."""

    async def stop(self) -> None:
        """See the port."""

    def accepted(self, term: int) -> list[int]:
        """How far the log was said to be durable, in messages of a term."""
        return [message.match_index for message in self.sent if isinstance(message, AppendAccepted) and message.term == term]


def commands(term: int, first: int, *data: bytes) -> tuple[Entry, ...]:
    """Entries of one term."""
    return tuple(Entry(first + offset, term, EntryKind.COMMAND, one) for offset, one in enumerate(data))


async def open_follower(directory: Path) -> tuple[RaftServer, GatedLog, Wire, ListMachine]:
    """Server ``a`` of five, with one entry of term 1 from ``b`` on its disk."""
    log, wire, machine = GatedLog(directory), Wire(), ListMachine(keeps=True)
    log.reset(Boundary(configuration=VOTERS), HardState())
    snapshots = FileSnapshots(directory / "snapshots")
    ports = Ports(log_store=log, stable_store=log, snapshot_store=snapshots, transport=wire, machine=machine)
    server = RaftServer(node_id="a", config=BRISK, ports=ports, jitter=lambda n: n - 1)
    await server.start()
    server.driver.receive((AppendRequest("b", "a", 1, 0, 0, commands(1, 1, b"one"), 0),))
    await until(lambda: wire.accepted(1) == [1], "the first entry is durable")
    return server, log, wire, machine


@pytest.mark.parametrize("same_length", [True, False])
def test_a_write_that_was_overtaken_is_not_credited(run: Run, tmp_path: Path, same_length: bool) -> None:
    """While entries of term 1 are being written a leader of term 2 replaces them. When the old write ends nothing is said, applied or counted of the
    new entries; when theirs ends they are, and the file holds them.
    """

    async def scenario() -> None:
        server, log, wire, machine = await open_follower(tmp_path)
        state = server.driver.node.state
        log.hold(3)
        first = len(log.begun)
        server.driver.receive((AppendRequest("b", "a", 1, 1, 1, commands(1, 2, b"old-2", b"old-3"), 1),))
        await until(lambda: len(log.begun) == first + 1, "the old entries are being written")
        new = commands(2, 2, b"new-2", b"new-3") if same_length else commands(2, 2, b"new-2")
        server.driver.receive((AppendRequest("c", "a", 2, 1, 1, new, new[-1].index),))
        await until(lambda: state.log.last_term == 2, "the new entries are in memory")
        log.gates[first].open()
        await until(lambda: len(log.begun) == first + 2, "the old write has ended, the new one waits")
        assert [entry.data for entry in log.begun[first].entries] == [b"old-2", b"old-3"]
        ticks = state.tick_count
        await until(lambda: state.tick_count > ticks + 3, "whatever the old write led to has happened")
        assert state.log.durable == 1
        assert wire.accepted(2) == []
        assert machine.commands == [b"one"]
        log.gates[first + 1].open()
        log.gates[first + 2].open()
        await until(lambda: wire.accepted(2), "the new entries are durable")
        assert set(wire.accepted(2)) == {new[-1].index}
        await until(lambda: machine.commands == [b"one", *(entry.data for entry in new)], "they are applied")
        await server.stop()
        again = SqliteLog(tmp_path)
        assert again.load().entries[1:] == new
        again.close()

    run(scenario())


def test_a_vote_waits_for_its_own_write(run: Run, tmp_path: Path) -> None:
    """A vote leaves when its term and name are in the file, not when an earlier write ends."""

    async def scenario() -> None:
        server, log, wire, _ = await open_follower(tmp_path)
        state = server.driver.node.state
        state.election_elapsed = state.config.election_ticks
        log.hold(2)
        first = len(log.begun)
        server.driver.receive((AppendRequest("b", "a", 1, 1, 1, commands(1, 2, b"two"), 1),))
        await until(lambda: len(log.begun) == first + 1, "an entry is being written")
        server.driver.receive((VoteRequest("c", "a", 7, 9, 6, transfer=True),))
        await until(lambda: state.term == 7, "the later term is known")
        log.gates[first].open()
        await until(lambda: len(log.begun) == first + 2, "the vote is being written")
        ticks = state.tick_count
        await until(lambda: state.tick_count > ticks + 3, "whatever the earlier write led to has happened")
        assert [message for message in wire.sent if type(message).__name__ == "VoteResponse"] == []
        log.gates[first + 1].open()
        await until(lambda: [message for message in wire.sent if type(message).__name__ == "VoteResponse"], "the vote leaves")
        assert log.begun[first + 1].hard_state is not None
        assert log.begun[first + 1].hard_state[:2] == (7, "c")
        await server.stop()

    run(scenario())
