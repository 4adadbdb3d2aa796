"""Sessions, locks and lock-delays in the state, seen through the reader."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest

from service.domain import results
from service.domain.commands import (
    EndLockDelay,
    KvDelete,
    KvLock,
    KvPut,
    SessionCreate,
    SessionDestroy,
    SessionExpire,
    SessionRenew,
    Txn,
    TxnOperation,
)
from service.domain.entries import Row, ServiceCheck, Session
from service.domain.results import SessionResult, WriteResult
from service.store.changes import Timer
from service.store.reader import Sessions

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.domain.commands import Command
    from tests.service.store.conftest import EntryOf, Node

ONE, TWO = "11111111-aaaa-4aaa-8aaa-111111111111", "22222222-bbbb-4bbb-8bbb-222222222222"
DELAY_NS = 15 * 10**9
TTL_NS = 10 * 10**9


def session(id_: str = ONE, behavior: str = "release", lock_delay_ns: int = 0, ttl_ns: int = 0, **changes: Any) -> Session:
    """A session as the API makes one."""
    made = Session(id_, "name", "n1", lock_delay_ns, behavior, "10s" if ttl_ns else "", ttl_ns, ["serfHealth"], None)
    return made._replace(**changes)


def lock(key: bytes, id_: str = ONE, value: bytes = b"v", flags: int = 0, verb: str = "lock") -> KvLock:
    """Take or let go of a lock."""
    return KvLock(TxnOperation(verb, key, value, flags, session=id_))


class Applying:
    """Applies commands one by one."""

    def __init__(self, node: Node, entry_of: EntryOf) -> None:
        self._node, self._entry_of = node, entry_of

    def raw(self, command: Command) -> bytes:
        """The result in bytes."""
        index = self._node.machine.applied_index + 1
        return self._node.machine.apply([(index, self._node.term, self._entry_of(command))])[0]

    def __call__(self, command: Command) -> WriteResult:
        """The result of a command that is a write."""
        return results.decode(self.raw(command))


@pytest.fixture
def apply(node: Node, entry_of: EntryOf) -> Applying:
    """Applies commands to the node."""
    return Applying(node, entry_of)


def test_a_session_begins_and_ends(node: Node, apply: Applying) -> None:
    """It is kept with all its fields; the index of the table is that of the last beginning or end, whichever session it was."""
    full = session(name="é\0", node_checks=None, service_checks=[ServiceCheck("serfHealth", "x")], ttl_ns=TTL_NS)
    assert node.reader.sessions() == Sessions([], 1, 0)
    assert apply(SessionCreate(full)).ok
    assert apply(SessionCreate(session(TWO, node="N2", node_checks=[]))).ok
    kept = full._replace(create_index=1, modify_index=1)
    assert node.reader.sessions(ONE) == Sessions([kept], 2, 2)
    assert [found.id for found in node.reader.sessions().sessions] == [ONE, TWO]
    assert [found.id for found in node.reader.sessions(node="n2").sessions] == [TWO]
    apply(KvPut(b"k", b"v"))
    assert node.reader.sessions().index == 2
    assert apply(SessionDestroy(TWO)).ok
    assert apply(SessionDestroy(TWO)).ok
    assert node.reader.sessions() == Sessions([kept], 4, 5)


def test_an_id_is_taken_once(node: Node, apply: Applying) -> None:
    """A second session under the same id is refused and changes nothing."""
    apply(SessionCreate(session()))
    assert not apply(SessionCreate(session(name="other"))).ok
    assert node.reader.sessions().sessions == [session(create_index=1, modify_index=1)]


def test_locks(node: Node, apply: Applying) -> None:
    """Taken, taken again, refused to others, let go with a value, and taken by another: LockIndex counts the times."""
    apply(SessionCreate(session()))
    apply(SessionCreate(session(TWO)))
    assert apply(lock(b"k", flags=7)).ok
    assert node.reader.get(b"k").row == Row(b"k", b"v", 7, 1, ONE, 3, 3)
    assert apply(lock(b"k", flags=7)).ok
    assert node.reader.get(b"k").row.modify_index == 3
    assert apply(lock(b"k", TWO, b"no")) == WriteResult(ok=False, index=5)
    assert apply(lock(b"k", ONE, b"w")).ok
    assert node.reader.get(b"k").row == Row(b"k", b"w", 0, 1, ONE, 3, 6)
    assert apply(lock(b"k", TWO, verb="unlock")) == WriteResult(ok=False, index=7)
    assert apply(lock(b"k", ONE, b"", verb="unlock")).ok
    assert node.reader.get(b"k").row == Row(b"k", b"", 0, 1, None, 3, 8)
    assert apply(lock(b"k", ONE, verb="unlock")) == WriteResult(ok=False, index=9)
    assert apply(lock(b"k", TWO)).ok
    assert node.reader.get(b"k").row == Row(b"k", b"v", 0, 2, TWO, 3, 10)


def test_locks_that_can_not_be_meant_so(node: Node, apply: Applying) -> None:
    """No session, one that does not exist, or what can't be an id: Consul's texts, and nothing is stored."""
    assert apply(lock(b"k", "")).error == "missing session"
    assert apply(lock(b"k", "", verb="unlock")).error == "missing session"
    assert apply(lock(b"k", ONE)).error == f'invalid session "{ONE}"'
    assert apply(lock(b"k", "x")).error == "failed session lookup: index error: UUID must be 36 characters"
    assert apply(lock(b"k", "x", verb="unlock")) == WriteResult(ok=False, index=5)
    assert node.reader.list(b"").rows == []


def test_an_id_counts_whatever_its_case(node: Node, apply: Applying) -> None:
    """The holder is kept as it was written and compared so; the end of the session finds the key all the same."""
    apply(SessionCreate(session()))
    assert apply(lock(b"k", ONE.upper())).ok
    assert node.reader.get(b"k").row.session == ONE.upper()
    assert not apply(lock(b"k", ONE, verb="unlock")).ok
    apply(SessionDestroy(ONE))
    assert node.reader.get(b"k").row == Row(b"k", b"v", 0, 1, None, 2, 4)


def test_puts_leave_the_holder(node: Node, apply: Applying) -> None:
    """A plain put, a cas and a set of a transaction keep the session and set LockIndex to 0, once."""
    apply(SessionCreate(session()))
    puts: dict[bytes, Callable[[int], Command]] = {
        b"a": lambda _: KvPut(b"a", b"v"),
        b"b": lambda modified: KvPut(b"b", b"w", cas=modified),
        b"c": lambda _: Txn([TxnOperation("set", b"c", b"v")]),
    }
    for key, put in puts.items():
        apply(lock(key))
        modified = node.reader.get(key).row.modify_index
        apply.raw(put(modified))
        row = node.reader.get(key).row
        assert (row.session, row.lock_index, row.modify_index) == (ONE, 0, modified + 1)
    apply(KvPut(b"a", b"v"))
    assert node.reader.get(b"a").row.modify_index == 3
    assert apply(lock(b"a", ONE, verb="unlock")).ok
    assert node.reader.get(b"a").row.lock_index == 0


@pytest.mark.parametrize("ending", [SessionDestroy(ONE), SessionExpire(ONE, 1)])
def test_keys_go_with_their_session(node: Node, apply: Applying, ending: Command) -> None:
    """All keys of a session are released at one index, those of others and those let go before stay; everyone who watches is told."""
    apply(SessionCreate(session(ttl_ns=TTL_NS)))
    apply(SessionCreate(session(TWO)))
    for key in (b"b", b"a", b"c"):
        apply(lock(key))
    apply(lock(b"c", verb="unlock"))
    apply(lock(b"d", TWO))
    node.machine.take_changes()
    assert apply(ending).ok
    rows = {row.key: (row.session, row.lock_index, row.modify_index) for row in node.reader.list(b"").rows}
    assert rows == {b"a": (None, 1, 8), b"b": (None, 1, 8), b"c": (None, 1, 6), b"d": (TWO, 1, 7)}
    changes = node.machine.take_changes()
    assert (changes.keys, changes.sessions, changes.timers) == ([b"a", b"b"], (ONE,), (Timer(ONE, 8, 0),))
    assert node.reader.get(b"nope").index == 8


def test_keys_may_be_deleted_with_their_session(node: Node, apply: Applying) -> None:
    """With the behaviour delete the keys are gone, and buried; one that was let go before stays."""
    apply(SessionCreate(session(behavior="delete")))
    for key in (b"a", b"b"):
        apply(lock(key))
    apply(lock(b"b", verb="unlock"))
    apply(SessionDestroy(ONE))
    assert [row.key for row in node.reader.list(b"").rows] == [b"b"]
    assert node.reader.list(b"a").index == 5


@pytest.mark.parametrize("behavior", ["release", "delete"])
def test_lock_delays(node: Node, apply: Applying, behavior: str) -> None:
    """A key that was lost with its session can't be locked until the delay is ended, by whatever way; plain puts and deletions go on."""
    apply(SessionCreate(session(behavior=behavior, lock_delay_ns=DELAY_NS)))
    apply(SessionCreate(session(TWO)))
    apply(lock(b"k"))
    node.machine.take_changes()
    apply(SessionDestroy(ONE))
    assert Timer(b"k", 4, DELAY_NS) in node.machine.take_changes().timers
    assert node.machine.timers() == [Timer(b"k", 4, DELAY_NS)]
    assert apply(lock(b"k", TWO)) == WriteResult(ok=False, index=5)
    assert apply(lock(b"k", "x")) == WriteResult(ok=False, index=6)
    txn = Txn([TxnOperation("lock", b"k", session=TWO), TxnOperation("get", b"nope")])
    assert results.decode_txn(apply.raw(txn)).failures == [(0, 'failed to lock key "k" due to lock delay')]
    assert apply(KvPut(b"k", b"plain")).ok
    assert apply(KvDelete(b"k")).ok
    assert not apply(lock(b"k", TWO)).ok
    assert apply(lock(b"other", TWO)).ok
    apply(EndLockDelay(b"k", 3))
    assert not apply(lock(b"k", TWO)).ok
    apply(EndLockDelay(b"k", 4))
    assert apply(lock(b"k", TWO)).ok
    assert node.machine.timers() == []
    assert node.machine.take_changes().timers[-1] == Timer(b"k", 14, 0)


def test_no_delay_without_a_loss(apply: Applying) -> None:
    """A key that was let go, or deleted, before its session ended can be locked at once; so can one of a session without a delay."""
    apply(SessionCreate(session(lock_delay_ns=DELAY_NS)))
    apply(SessionCreate(session(TWO, lock_delay_ns=-5)))
    apply(lock(b"released"))
    apply(lock(b"released", verb="unlock"))
    apply(lock(b"deleted"))
    apply(KvDelete(b"deleted"))
    apply(lock(b"without", TWO))
    apply(SessionDestroy(ONE))
    apply(SessionDestroy(TWO))
    apply(SessionCreate(session()))
    assert [apply(lock(key)).ok for key in (b"released", b"deleted", b"without")] == [True] * 3


def test_renewals(node: Node, apply: Applying) -> None:
    """A renewal gives the session as it is and moves no index; an expiry that was overtaken by it does nothing."""
    apply(SessionCreate(session(ttl_ns=TTL_NS)))
    assert node.machine.take_changes().timers == (Timer(ONE, 1, TTL_NS),)
    kept = session(ttl_ns=TTL_NS, create_index=1, modify_index=1)
    assert results.decode_session(apply.raw(SessionRenew(ONE))) == SessionResult(2, kept)
    assert node.machine.take_changes()[1:] == ([], [], False, [], (), (Timer(ONE, 2, TTL_NS),))
    assert node.machine.timers() == [Timer(ONE, 2, TTL_NS)]
    assert not apply(SessionExpire(ONE, 1)).ok
    assert node.reader.sessions() == Sessions([kept], 1, 3)
    assert apply(SessionExpire(ONE, 2)).ok
    assert results.decode_session(apply.raw(SessionRenew(ONE))) == SessionResult(5, None)
    assert not apply(SessionExpire(ONE, 2)).ok
    assert node.reader.sessions().index == 4


def test_a_session_without_a_time_never_ends(node: Node, apply: Applying) -> None:
    """It may be renewed, and is not timed."""
    apply(SessionCreate(session()))
    assert results.decode_session(apply.raw(SessionRenew(ONE))).session is not None
    assert node.machine.timers() == []
    assert node.machine.take_changes().timers == ()


def test_locks_inside_of_transactions(node: Node, apply: Applying) -> None:
    """A transaction locks, writes and lets go at one index; its conditions are about the holder that it made itself."""
    apply(SessionCreate(session()))
    operations = [
        TxnOperation("lock", b"k", b"1", 3, session=ONE),
        TxnOperation("check-session", b"k", session=ONE),
        TxnOperation("set", b"k", b"2"),
        TxnOperation("unlock", b"k", b"3", session=ONE),
        TxnOperation("lock", b"l", session=ONE),
    ]
    rows = results.decode_txn(apply.raw(Txn(operations))).rows
    assert [(row.lock_index, row.session, row.flags, row.modify_index) for row in rows] == [
        (1, ONE, 3, 2),
        (1, ONE, 3, 2),
        (0, ONE, 0, 2),
        (0, None, 0, 2),
        (1, ONE, 0, 2),
    ]
    assert node.reader.get(b"k").row == Row(b"k", b"3", 0, 0, None, 2, 2)
    failing = Txn([TxnOperation("set", b"m"), TxnOperation("unlock", b"l", session=TWO), TxnOperation("lock", b"l", session=TWO)])
    assert results.decode_txn(apply.raw(failing)).failures == [
        (1, 'failed to unlock key "l", lock isn\'t held, or is held by another session'),
        (2, f'invalid session "{TWO}"'),
    ]
    assert node.reader.get(b"m").row is None


def test_one_batch_is_like_many(make_node: Callable[[str], Node], entry_of: EntryOf) -> None:
    """Sessions, locks, puts and deletions give the same state and the same answers, however the log is cut."""
    log: list[Command] = [
        SessionCreate(session(lock_delay_ns=DELAY_NS, ttl_ns=TTL_NS)),
        KvPut(b"k", b"1"),
        lock(b"k"),
        KvPut(b"k", b"v", cas=3),
        SessionRenew(ONE),
        Txn([TxnOperation("lock", b"l", session=ONE), TxnOperation("set", b"m", b"x")]),
        KvPut(b"k", b"2", cas=4),
        SessionExpire(ONE, 1),
        SessionExpire(ONE, 5),
        KvPut(b"k", b"3", cas=9),
        lock(b"l"),
        SessionCreate(session(TWO, behavior="delete")),
        lock(b"m", TWO),
        SessionDestroy(TWO),
        EndLockDelay(b"l", 9),
    ]
    answers, digests = [], []
    for name, step in (("one", len(log)), ("two", 2), ("single", 1)):
        node = make_node(name)
        entries = [(index, 1, entry_of(command)) for index, command in enumerate(log, 1)]
        answers.append([answer for start in range(0, len(log), step) for answer in node.machine.apply(entries[start : start + step])])
        digests.append(node.machine.digest())
        assert node.machine.timers() == [Timer(b"k", 9, DELAY_NS)]
        assert node.reader.get(b"k").row == Row(b"k", b"3", 0, 0, None, 2, 10)
    assert answers[0] == answers[1] == answers[2]
    assert digests[0] == digests[1] == digests[2]


def test_digests_know_sessions_and_delays(make_node: Callable[[str], Node]) -> None:
    """States that differ in a session, in its renewal or in a delay have other digests."""
    logs: list[list[Command | None]] = [
        [SessionCreate(session(ttl_ns=TTL_NS, lock_delay_ns=1)), None, None],
        [SessionCreate(session(ttl_ns=TTL_NS, lock_delay_ns=2)), None, None],
        [SessionCreate(session(ttl_ns=TTL_NS, lock_delay_ns=1)), SessionRenew(ONE), None],
        [None, None, None],
        [SessionCreate(session()), SessionDestroy(ONE), None],
    ]
    digests = set()
    for number, log in enumerate(logs):
        node = make_node(str(number))
        node.machine.apply([(index, 1, _entry(command)) for index, command in enumerate(log, 1)])
        digests.add(node.machine.digest())
    assert len(digests) == len(logs)


def _entry(command: Command | None) -> bytes | None:
    from tests.service.store.conftest import entry  # noqa: PLC0415 - a plain function beside the fixtures

    return entry(command)


def test_snapshots_carry_sessions(make_node: Callable[[str], Node], entry_of: EntryOf) -> None:
    """A node that installs a snapshot has the sessions, the locks and the delays, and knows what is timed."""
    giver, taker = make_node("giver"), make_node("taker")
    log: list[Command] = [SessionCreate(session(lock_delay_ns=DELAY_NS)), lock(b"k"), SessionDestroy(ONE), SessionCreate(session(TWO, ttl_ns=TTL_NS))]
    log += [lock(b"l", TWO), SessionRenew(TWO)]
    giver.machine.apply([(index, 1, entry_of(command)) for index, command in enumerate(log, 1)])
    capture = giver.machine.capture()
    picture = io.BytesIO()
    capture.write(picture.write)
    capture.close()
    picture.seek(0)
    taker.machine.restore(6, 1, picture.read)
    assert sorted(taker.machine.timers(), key=lambda timer: timer.index) == [Timer(b"k", 3, DELAY_NS), Timer(TWO, 6, TTL_NS)]
    assert taker.reader.sessions(TWO).sessions == giver.reader.sessions(TWO).sessions
    answer = taker.machine.apply([(7, 1, entry_of(lock(b"k", TWO)))])[0]
    assert not results.decode(answer).ok
    assert taker.reader.get(b"l").row.session == TWO


def test_held_keys_are_found_by_an_index(node: Node) -> None:
    """Ending a session does not visit every key."""
    plan = node.machine._connection.execute(
        "EXPLAIN QUERY PLAN SELECT key FROM kv WHERE session = ? COLLATE NOCASE AND session IS NOT NULL ORDER BY key", (ONE,)
    ).fetchall()
    assert any("USING INDEX kv_sessions" in row[3] for row in plan)
