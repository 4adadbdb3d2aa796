"""Restoring an archive: parts are laid aside unseen, one entry puts them in place, and whatever does not belong together changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from service.domain.commands import (
    AutopilotConfiguration,
    KvDelete,
    KvLock,
    KvPut,
    ReapTombstones,
    RestoreAbandon,
    RestoreBegin,
    RestoreCommit,
    RestorePart,
    SessionCreate,
    SessionDestroy,
    SetAutopilot,
    TxnOperation,
    encode,
    stamp,
)
from service.domain.entries import Row, Session
from service.domain.results import decode
from service.store import autopilot_rows, restored
from service.store.apply.archive import FORGOTTEN_AFTER_MS, OVERTAKEN
from service.store.changes import REPLACED, Timer

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.domain.commands import Command
    from tests.service.store.conftest import Node

OLD, NEW = "11111111-aaaa-4aaa-8aaa-111111111111", "22222222-bbbb-4bbb-8bbb-222222222222"
TTL_NS = 10 * 10**9
ONE, TWO = "restore-1", "restore-2"


def session(id_: str, ttl_ns: int = TTL_NS) -> Session:
    """A session."""
    return Session(id_, "n", "node", 0, "release", "10s", ttl_ns, ["serfHealth"], None, 3, 3)


ROWS = [
    Row(b"a", b"archived", (1 << 64) - 1, 0, None, 2, 5),
    Row(b"lock", b"held", 0, 4, NEW.upper(), 3, 4),
    Row(b"lost", b"held", 0, 2, OLD, 3, 4),
    Row(b"z", b"", 7, 0, None, 1_000_000, 2_000_000),  # of another, older cluster
]
RECORDS = [
    (restored.SESSION, restored.encode(session(NEW))),
    (restored.TOMBSTONES, restored.encode([(b"gone", 4), (b"late", 3_000_000)])),
    (restored.AUTOPILOT, restored.encode((AutopilotConfiguration(max_trailing_logs=9), 2, 4))),
]
PARTS: list[Command] = [RestorePart(ONE, 0, ROWS[:2]), RestorePart(ONE, 1, ROWS[2:], RECORDS)]
COMMIT = RestoreCommit(ONE, 2, 5, 3)


def fill(node: Node) -> None:
    """A state with something in every table, at index 8."""
    old = KvPut(b"a", b"old")
    node.apply(old, KvPut(b"mine", b"1"), KvPut(b"dead", b"1"), KvDelete(b"dead"), SessionCreate(session(OLD)))
    node.apply(SetAutopilot(AutopilotConfiguration(max_trailing_logs=1)), KvPut(b"a", b"older"), None)
    node.machine.take_changes()


def texts(node: Node, *commands: Command) -> list[str]:
    """Apply commands one by one; the reason each was refused for."""
    found = []
    for command in commands:
        index = node.machine.applied()[0] + 1
        found.append(decode(node.machine.apply([(index, node.term, stamp(encode(command), 1_000))])[0]).error)
    return found


def test_the_state_is_replaced_at_once(node: Node) -> None:
    """Nothing shows before the last command; then keys, sessions, deletions, locks and the autopilot are those of the archive."""
    fill(node)
    before = node.reader.list(b"")
    assert node.apply(RestoreBegin(ONE), *PARTS) == [True, True, True]
    assert node.reader.list(b"").rows == before.rows
    assert node.machine.take_changes().nothing
    assert node.apply(COMMIT) == [True]
    found = node.reader.list(b"")
    index = 12
    assert found.rows == [ROWS[0], ROWS[1], ROWS[2]._replace(session=None), ROWS[3]._replace(create_index=index, modify_index=index)]
    assert node.reader.get(b"none").index == 5
    assert node.reader.list(b"gone").index == 4
    assert node.reader.list(b"late").index == index
    assert node.reader.list(b"dead").index == 5
    sessions = node.reader.sessions()
    assert ([one.id for one in sessions.sessions], sessions.index) == ([NEW], 3)
    stored, applied = node.reader.tables(autopilot_rows.find)
    assert stored is not None
    assert (stored.configuration.max_trailing_logs, stored.create_index, stored.modify_index, applied) == (9, 2, 4, index)
    assert node.machine.applied() == (index, 1)


def test_who_waits_is_told(node: Node) -> None:
    """Everything may have changed, indexes may have gone back, the timers of old sessions end and those of new ones begin anew."""
    fill(node)
    node.apply(RestoreBegin(ONE), *PARTS, COMMIT, KvPut(b"after", b"1"))
    changes = node.machine.take_changes()
    assert changes.everything
    assert changes.tables == [REPLACED]
    assert changes.timers == (Timer(OLD, 12, 0), Timer(NEW, 12, TTL_NS))
    assert node.machine.timers() == [Timer(NEW, 12, TTL_NS)]
    node.apply(KvPut(b"a", b"2"))
    assert not node.machine.take_changes().everything


def test_the_next_writes_are_above(node: Node) -> None:
    """In the same batch as well: a write after a restore has a higher index than anything in it."""
    fill(node)
    node.apply(RestoreBegin(ONE), *PARTS, KvDelete(b"mine"), COMMIT, KvPut(b"z", b"new"), KvPut(b"new", b"", cas=0), KvPut(b"a", b"", cas=5))
    assert node.reader.get(b"z").index == 14
    assert node.reader.get(b"new").index == 15
    assert node.reader.get(b"a").index == 16
    assert node.reader.list(b"").index == 16
    assert node.machine.applied_index == 16


def test_a_deletion_before_it_in_the_batch(node: Node) -> None:
    """What was deleted in the state that is gone has no say in the index of the new one."""
    fill(node)
    node.apply(RestoreBegin(ONE), *PARTS)
    node.apply(KvDelete(b"mine"), COMMIT)
    assert node.reader.get(b"none").index == 5


def test_delays_of_lost_locks_end(node: Node) -> None:
    """The delay of a lock that was lost in the old state holds up nobody in the new one."""
    node.apply(SessionCreate(session(OLD)._replace(lock_delay_ns=TTL_NS)))
    node.apply(KvLock(TxnOperation("lock", b"a", session=OLD)), SessionDestroy(OLD), RestoreBegin(ONE), *PARTS)
    assert [timer.name for timer in node.machine.timers()] == [b"a"]
    node.machine.take_changes()
    node.apply(COMMIT)
    assert node.machine.timers() == [Timer(NEW, 7, TTL_NS)]
    assert node.machine.take_changes().timers == (Timer(b"a", 7, 0), Timer(NEW, 7, TTL_NS))


def test_asked_twice(node: Node) -> None:
    """Whoever lost an answer may ask again: each command has its effect once, the last one also when the state has gone on since."""
    fill(node)
    twice = [command for command in (RestoreBegin(ONE), *PARTS, COMMIT) for _ in range(2)]
    assert texts(node, *twice[:-1]) == [""] * 7
    node.apply(KvPut(b"after", b"1"))
    assert texts(node, COMMIT, RestoreBegin(ONE)) == ["", ""]
    assert node.reader.get(b"after").row is not None
    assert len(node.reader.list(b"").rows) == 5


@pytest.mark.parametrize(
    "commands",
    [
        (COMMIT,),
        (PARTS[0], PARTS[1], COMMIT),
        (RestoreBegin(ONE), PARTS[1], COMMIT),
        (RestoreBegin(ONE), PARTS[0], COMMIT),
        (RestoreBegin(ONE), *PARTS, RestoreBegin(TWO), PARTS[1], COMMIT),
        (RestoreBegin(ONE), *PARTS, RestoreAbandon(ONE), COMMIT),
        (RestoreBegin(ONE), PARTS[0], RestoreBegin(TWO), PARTS[1], RestoreCommit(TWO, 1, 0, 0)),
    ],
)
def test_what_does_not_belong_together(node: Node, commands: tuple[Command, ...]) -> None:
    """A part that is missing, another restore in between, one that was given up: the last command is refused and changes nothing."""
    fill(node)
    before = node.reader.list(b""), node.reader.sessions().sessions
    assert texts(node, *commands)[-1] == OVERTAKEN
    after = node.reader.list(b""), node.reader.sessions().sessions
    assert (after[0].rows, after[0].index, after[1]) == (before[0].rows, before[0].index, before[1])


def test_an_overtaken_one_leaves_nothing(node: Node) -> None:
    """The parts of a restore that another one overtook are not in the state that it makes."""
    assert texts(node, RestoreBegin(ONE), *PARTS, RestoreBegin(TWO), RestorePart(TWO, 0, [ROWS[0]]), RestoreCommit(TWO, 1, 0, 0))[-1] == ""
    assert node.reader.list(b"").rows == [ROWS[0]]
    assert node.reader.sessions().sessions == []


def test_an_empty_archive(node: Node) -> None:
    """It empties the state; indexes are at least 1."""
    fill(node)
    assert texts(node, RestoreBegin(ONE), RestoreCommit(ONE, 0, 0, 0)) == ["", ""]
    assert (node.reader.list(b"").rows, node.reader.list(b"").index) == ([], 1)


def test_forgotten_after_an_hour(node: Node) -> None:
    """Parts that nobody goes on with are forgotten by a reaping an hour later, by the leader's clock, and not before."""
    start = 5_000
    for at, command in (
        (start, RestoreBegin(ONE)),
        (start + 10, PARTS[0]),
        (start + 10 + FORGOTTEN_AFTER_MS, ReapTombstones(0)),
        (start + 10 + FORGOTTEN_AFTER_MS, PARTS[1]),
    ):
        assert decode(node.machine.apply([(node.machine.applied_index + 1, 1, stamp(encode(command), at))])[0]).ok
    late = stamp(encode(ReapTombstones(0)), start + 11 + 2 * FORGOTTEN_AFTER_MS)
    node.machine.apply([(node.machine.applied_index + 1, 1, late)])
    assert texts(node, COMMIT) == [OVERTAKEN]


def test_nodes_agree_however_the_log_is_cut(make_node: Callable[[str], Node]) -> None:
    """One batch, single entries, and a node that was closed in between hold the same, at every index."""
    log: list[Command | None] = [KvPut(b"a", b"1"), SessionCreate(session(OLD)), RestoreBegin(ONE), *PARTS, KvPut(b"b", b"2"), COMMIT]
    log += [KvPut(b"c", b"3"), KvDelete(b"a"), None]
    whole, single = make_node("whole"), make_node("single")
    whole.apply(*log)
    for number, command in enumerate(log):
        if number in {4, 7}:
            single.close()
            single = make_node("single")
        single.apply(command)
        cut = make_node(f"cut-{number}")
        cut.apply(*log[: number + 1])
        assert cut.machine.digest() == single.machine.digest()
    assert whole.machine.digest() == single.machine.digest()


def test_a_snapshot_carries_what_is_laid_aside(make_node: Callable[[str], Node]) -> None:
    """A node that was brought up to date between the parts goes on with the next one."""
    one, two = make_node("one"), make_node("two")
    one.apply(RestoreBegin(ONE), PARTS[0])
    capture = one.machine.capture()
    pieces: list[bytes] = []
    capture.write(pieces.append)
    capture.close()
    stream = iter(pieces)
    two.machine.restore(2, 1, lambda _: next(stream, b""))
    for node in (one, two):
        assert node.apply(PARTS[1], COMMIT) == [True, True]
    assert one.machine.digest() == two.machine.digest()
    assert len(two.reader.list(b"").rows) == 4
