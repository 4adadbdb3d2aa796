"""When sessions and lock-delays end: on a clock of the test's, with a server that takes proposals or refuses them."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from raft.errors import NotLeader
from service.agent import session_expiry
from service.agent.session_expiry import TICK_SECONDS_MAX, Deadlines, SessionExpiry
from service.domain import commands
from service.domain.commands import EndLockDelay, KvPut, SessionCreate, SessionDestroy, SessionExpire, SessionRenew, encode, stamp
from service.domain.entries import Session
from service.store.changes import Timer
from service.store.machine import KvMachine

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from service.domain.commands import Command

ONE, TWO = "11111111-aaaa-4aaa-8aaa-111111111111", "22222222-bbbb-4bbb-8bbb-222222222222"
SECOND = 10**9
TTL = 10.0


def session(id_: str = ONE, ttl_seconds: float = TTL, lock_delay_ns: int = 0) -> Session:
    """A session as the API makes one."""
    return Session(id_, "", "n1", lock_delay_ns, "release", "10s", int(ttl_seconds * SECOND), ["serfHealth"], None)


class Node:
    """A state with its expiry, and a clock that is moved by hand."""

    def __init__(self, directory: Path) -> None:
        self.machine = KvMachine(directory)
        self.expiry = SessionExpiry(self.machine)
        self.now = 100.0
        self.expiry.tick(self.now, has_leader=True)

    def apply(self, *log: Command) -> None:
        """Apply commands and tell of them, as the agent does."""
        index = self.machine.applied_index
        self.machine.apply([(index + number, 1, stamp(encode(command), 1)) for number, command in enumerate(log, 1)])
        self.expiry.publish(self.machine.take_changes(), 1)

    def pass_time(self, seconds: float, *, has_leader: bool = True) -> None:
        """Tick as often as it takes."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(self.now + 0.1, end)
            self.expiry.tick(self.now, has_leader=has_leader)

    def due(self) -> list[Timer]:
        """What is up."""
        return self.expiry.due()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """One node."""
    made = Node(tmp_path)
    yield made
    made.machine.close()


def test_a_session_ends_after_twice_its_ttl(node: Node) -> None:
    """Not before, and at that time; the proposal will name the entry that its time began with."""
    node.apply(SessionCreate(session()))
    node.pass_time(2 * TTL - 0.2)
    assert node.due() == []
    node.pass_time(0.4)
    assert node.due() == [Timer(ONE, 1, int(TTL * SECOND))]


def test_a_renewal_begins_anew(node: Node) -> None:
    """The time counts from the last renewal that was applied."""
    node.apply(SessionCreate(session()))
    for _ in range(5):
        node.pass_time(1.5 * TTL)
        assert node.due() == []
        node.apply(SessionRenew(ONE))
    node.pass_time(2 * TTL + 0.2)
    assert node.due() == [Timer(ONE, 6, int(TTL * SECOND))]


def test_what_has_ended_is_not_due(node: Node) -> None:
    """A session that was destroyed, and one without a TTL, never come up; keys don't matter."""
    node.apply(SessionCreate(session()), SessionCreate(session(TWO, 0)))
    node.apply(KvPut(b"k", b"v"), SessionDestroy(ONE))
    node.pass_time(10 * TTL)
    assert node.due() == []


def test_time_without_a_leader_does_not_count(node: Node) -> None:
    """While nobody leads nobody can renew, so the session gets that time on top; so it does when this process did not run."""
    node.apply(SessionCreate(session()))
    node.pass_time(1.5 * TTL)
    node.pass_time(60, has_leader=False)
    node.now += 60
    node.pass_time(0.5 * TTL - TICK_SECONDS_MAX - 0.3)
    assert node.due() == []
    node.pass_time(TICK_SECONDS_MAX + 0.4)
    assert len(node.due()) == 1


def test_lock_delays_count_once(node: Node) -> None:
    """A lock-delay is as long as it says, from the loss of the lock."""
    node.apply(SessionCreate(session(ttl_seconds=0, lock_delay_ns=5 * SECOND)))
    node.apply(commands.KvLock(commands.TxnOperation("lock", b"k", session=ONE)), SessionDestroy(ONE))
    node.pass_time(4.9)
    assert node.due() == []
    node.pass_time(0.2)
    assert node.due() == [Timer(b"k", 3, 5 * SECOND)]


def test_a_restart_counts_from_the_start(node: Node) -> None:
    """A node that did not see the renewal counts from when it learned of it: never a moment too short."""
    node.apply(SessionCreate(session()))
    node.pass_time(1.9 * TTL)
    node.expiry = SessionExpiry(node.machine)
    node.expiry.tick(node.now, has_leader=True)
    node.pass_time(1.9 * TTL)
    assert node.due() == []
    node.pass_time(0.2 * TTL)
    assert len(node.due()) == 1


def test_a_snapshot_replaces_what_was_known(node: Node, tmp_path: Path) -> None:
    """Sessions that a snapshot brings count from its installation; what it does not hold is forgotten, what was known goes on."""
    other = tmp_path / "other"
    other.mkdir()
    giver = Node(other)
    giver.apply(SessionCreate(session(TWO)), KvPut(b"k", b"v"), SessionCreate(session("3" * 8 + TWO[8:])))
    node.apply(KvPut(b"k", b"v"))
    node.apply(SessionCreate(session()))
    node.pass_time(1.5 * TTL)
    capture = giver.machine.capture()
    pieces: list[bytes] = []
    capture.write(pieces.append)
    capture.close()
    pieces.append(b"")
    node.machine.restore(3, 1, lambda _: pieces.pop(0))
    node.expiry.publish(node.machine.take_changes(), 0)
    node.pass_time(1.5 * TTL)
    assert node.due() == []
    node.pass_time(0.6 * TTL)
    assert sorted(timer.name for timer in node.due()) == [TWO, "3" * 8 + TWO[8:]]
    giver.machine.close()


def test_a_timer_put_back_comes_again() -> None:
    """A timer whose end did not show is due again later; one that began anew meanwhile only at its own time."""
    deadlines = Deadlines()
    timer = Timer(b"k", 1, SECOND)
    deadlines.note(timer, 0.0)
    assert deadlines.due(1.0) == [timer]
    deadlines.put_back(timer, 2.0)
    assert deadlines.due(1.5) == []
    assert deadlines.due(2.0) == [timer]
    deadlines.put_back(timer, 3.0)
    deadlines.note(timer._replace(index=2), 2.5)
    assert deadlines.due(3.0) == []
    assert deadlines.due(3.5) == [timer._replace(index=2)]
    deadlines.note(Timer(b"k", 3, 0), 3.5)
    deadlines.put_back(timer, 4.0)
    assert deadlines.due(9.0) == []


def test_what_is_known_goes_on() -> None:
    """A timer that is told again with the same entry keeps its time, and comes up once."""
    deadlines = Deadlines()
    timer = Timer(b"k", 1, SECOND)
    deadlines.note(timer, 0.0)
    deadlines.replace([timer], 0.5)
    assert deadlines.due(1.0) == [timer]
    assert deadlines.due(9.0) == []


class Server:
    """A server that leads or not; it applies what it is proposed, or refuses it."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.leads = False
        self.leader: str | None = "n2"
        self.refusing = False
        self.proposed: list[Command] = []

    async def propose(self, batch: Sequence[bytes]) -> None:
        """Take a batch."""
        found = [commands.decode(stamp(data, 1))[1] for data in batch]
        self.proposed += found
        if self.refusing:
            raise NotLeader
        self.node.apply(*found)


def run(node: Node, server: Server, monkeypatch: pytest.MonkeyPatch, steps: Any) -> None:
    """Run the expiry on a clock that is moved by the generator ``steps``, some rounds between its steps."""
    real_sleep = asyncio.sleep

    async def drive() -> None:
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "time", lambda: node.now)
        task = asyncio.ensure_future(node.expiry.run(server))  # type: ignore[arg-type]  # all of a server that it looks at
        for _ in steps:
            for _ in range(5):
                await real_sleep(0)
        task.cancel()

    async def round_of_the_loop(_seconds: float) -> None:
        await real_sleep(0)

    monkeypatch.setattr(session_expiry.asyncio, "sleep", round_of_the_loop)
    asyncio.run(drive())


def test_only_a_leader_proposes(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A follower keeps the time and proposes nothing; when it comes to lead, what is up is ended, with the entry that its time began with."""
    server = Server(node)
    node.apply(SessionCreate(session(lock_delay_ns=SECOND)), SessionRenew(ONE))
    node.apply(commands.KvLock(commands.TxnOperation("lock", b"k", session=ONE)))

    def steps() -> Iterator[None]:
        node.pass_time(3 * TTL)
        yield
        assert server.proposed == []
        server.leads = True
        yield
        assert server.proposed == [SessionExpire(ONE, 2)]
        node.pass_time(1.1)
        yield
        assert server.proposed == [SessionExpire(ONE, 2), EndLockDelay(b"k", 4)]
        node.pass_time(60)
        yield
        assert len(server.proposed) == 2

    run(node, server, monkeypatch, steps())


def test_a_refused_proposal_is_made_again(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that was refused is proposed again after a pause, not in every round."""
    server = Server(node)
    server.leads = server.refusing = True
    node.apply(*(SessionCreate(session(f"{number:08}{ONE[8:]}")) for number in range(100)))

    def steps() -> Iterator[None]:
        node.pass_time(3 * TTL)
        yield
        assert len(server.proposed) == 64
        server.refusing = False
        node.pass_time(0.5)
        yield
        assert len(server.proposed) == 64
        node.pass_time(1.0)
        yield
        assert len(server.proposed) == 164
        assert node.machine.timers() == []

    run(node, server, monkeypatch, steps())


def test_sl_02_the_wall_clock_does_not_count(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wall clock that is set forward and back ends no session and prolongs none: the leader counts on a clock that nobody sets."""
    server = Server(node)
    server.leads = True
    node.apply(SessionCreate(session()))
    wall = 1_700_000_000.0
    monkeypatch.setattr(time, "time", lambda: wall)

    def steps() -> Iterator[None]:
        nonlocal wall
        for jump in (86_400.0, -2 * 86_400.0, 3600.0):
            wall += jump
            for _ in range(5):
                wall += 0.4
                node.now += 0.4
                yield
            assert server.proposed == []
        for _ in range(int(2 * TTL / 0.4)):
            node.now += 0.4
            yield
        assert server.proposed == [SessionExpire(ONE, 1)]

    run(node, server, monkeypatch, steps())
