"""The judges of locks, watches and writes: each wrong that they are there for is found in a small log, and nothing is found in the right one."""

from collections.abc import Callable
from typing import Any

import pytest
from lock_log import Attempt, Logged, Row, Seen
from lock_log import judge as judge_locks
from watch_log import Answer, Watched, Write
from watch_log import judge as judge_watches
from write_log import Attempt as Asked
from write_log import Row as Stored
from write_log import judge as judge_writes

from service.domain.commands import (
    EndLockDelay,
    KvConditional,
    KvDelete,
    KvDeleteTree,
    KvLock,
    KvPut,
    Once,
    Origin,
    SessionCreate,
    SessionExpire,
    SessionRenew,
    Txn,
    TxnOperation,
)
from service.domain.conditions import Condition
from service.domain.entries import Session

ONE, TWO = "1" * 36, "2" * 36
TTL_MS = 10_000


def session(name: str) -> SessionCreate:
    """A session with a TTL of 10 s and a lock-delay of 1 s."""
    return SessionCreate(Session(name, "", "n1", 10**9, "release", "10s", TTL_MS * 10**6, None, None))


def lock(verb: str, key: str, name: str, nonce: bytes) -> KvLock:
    """An attempt as the log has it."""
    return KvLock(TxnOperation(verb, key.encode(), nonce, session=name))


LOG = [
    Logged(1, 1_000, session(ONE)),
    Logged(2, 1_000, session(TWO)),
    Logged(3, 2_000, lock("lock", "k", ONE, b"a")),
    Logged(4, 2_100, lock("lock", "k", TWO, b"b")),
    Logged(5, 3_000, SessionRenew(ONE)),
    Logged(6, 3_000, SessionRenew(TWO)),
    Logged(7, 23_100, SessionExpire(ONE, 5)),
    Logged(8, 23_200, lock("lock", "k", TWO, b"c")),
    Logged(9, 24_200, EndLockDelay(b"k", 7)),
    Logged(10, 24_300, lock("lock", "k", TWO, b"d")),
    Logged(11, 24_400, SessionExpire(TWO, 2)),
]
ATTEMPTS = [
    Attempt("acquire", ONE, "k", b"a", 1.9, 2.05, "true"),
    Attempt("acquire", TWO, "k", b"b", 2.06, 2.2, "false"),
    Attempt("renew", ONE, "", b"r", 2.9, 3.1, "true"),
    Attempt("acquire", TWO, "k", b"c", 23.15, 23.3, "false"),
    Attempt("acquire", TWO, "k", b"d", 24.25, 24.4, "true"),
    Attempt("renew", ONE, "", b"s", 24.3, 24.4, "gone"),
    Attempt("acquire", TWO, "k", b"e", 24.5, 24.6, "rejected"),
]
SEEN = [Seen("k", Row(ONE, 1, 3)), Seen("k", Row("", 1, 7)), Seen("k", Row(TWO, 2, 10))]


def test_a_right_log_of_locks_passes() -> None:
    """Nothing is wrong; what is held at the end, and how long a session lived, is told."""
    model = judge_locks(LOG, ATTEMPTS, SEEN)
    assert model.verdict.violations == []
    assert model.rows == {"k": Row(TWO, 2, 10)}
    assert model.alive() == {TWO}
    assert (model.verdict.shortest, model.verdict.longest_ms) == (2.01, 100.0)


def with_entry(position: int, **changes: Any) -> Callable[[list[Logged], list[Attempt], list[Seen]], None]:
    """Change an entry of the log."""
    return lambda log, _attempts, _seen: log.__setitem__(position, log[position]._replace(**changes))


def with_attempt(position: int, **changes: Any) -> Callable[[list[Logged], list[Attempt], list[Seen]], None]:
    """Change what a client was told."""
    return lambda _log, attempts, _seen: attempts.__setitem__(position, attempts[position]._replace(**changes))


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (with_attempt(1, outcome="true"), "was told true; by the log it is false, at 4"),
        (with_attempt(4, outcome="false"), "was told false; by the log it is true"),
        (with_attempt(4, outcome="rejected"), "was told rejected; by the log it is true"),
        (with_attempt(6, outcome="true"), "was told true; by the log it is rejected"),
        (with_attempt(3, sent=1.0, answered=1.5), "at 3 was sent after 8 had been answered"),
        (with_attempt(2, sent=10.0, answered=10.1), "the renewal acknowledged at 10.100 is not in the log"),
        (with_attempt(5, answered=20.0), "was told to be gone while it lived"),
        (with_entry(6, stamp_ms=12_900), "died 9900 ms after a renewal, at index 7"),
        (with_entry(6, stamp_ms=60_000), "stayed 37000 ms beyond twice its TTL"),
        (with_entry(8, stamp_ms=24_000), "the delay of k ended after 900 of 1000 ms"),
        (with_entry(7, command=lock("lock", "k", TWO, b"b")), "is in the log twice, at 4 and 8"),
        (lambda _log, _attempts, seen: seen.append(Seen("k", Row(TWO, 1, 4))), "k was read as"),
        (lambda _log, attempts, _seen: attempts.append(Attempt("renew", "3" * 36, "", b"", 1, 2, "true")), "has never heard of it"),
    ],
)
def test_a_wrong_log_of_locks_is_noticed(spoil: Callable[[list[Logged], list[Attempt], list[Seen]], None], found: str) -> None:
    """One thing is changed, and the judge names it."""
    log, attempts, seen = list(LOG), list(ATTEMPTS), list(SEEN)
    spoil(log, attempts, seen)
    assert any(found in violation for violation in judge_locks(log, attempts, seen).verdict.violations)


WRITTEN = [
    Logged(3, 0, KvPut(b"t/a", b"1")),
    Logged(4, 0, KvPut(b"t/b", b"2")),
    Logged(5, 0, KvDelete(b"t/a")),
    Logged(6, 0, KvPut(b"other", b"3")),
    Logged(7, 0, KvDelete(b"t/a")),
    Logged(8, 0, KvDeleteTree(b"t/")),
    Logged(9, 0, KvPut(b"t/a", b"5")),
]
WRITES = [
    Write("t/a", b"1", "true", 1.0),
    Write("t/b", b"2", "unknown", 2.0),
    Write("other", b"3", "true", 3.0),
    Write("other", b"4", "rejected", 3.0),
    Write("t/a", b"5", "true", 4.0),
]
ANSWERS = [
    Answer(0, 4, {"t/a": (b"1", 3), "t/b": (b"2", 4)}, 1.5),
    Answer(4, 5, {"t/b": (b"2", 4)}, 2.0),
    Answer(5, 8, {}, 3.0),
    Answer(8, 9, {"t/a": (b"5", 9)}, 4.25),
]


def test_right_answers_to_a_watcher_pass() -> None:
    """Nothing is wrong; each acknowledged write reached the watcher after so long."""
    verdict = judge_watches(WRITTEN, WRITES, [Watched("t/", ANSWERS), Watched("nobody", [Answer(0, 9, {}, 1.0)])])
    assert verdict.violations == []
    assert verdict.delays == [0.5, 0.25]


@pytest.mark.parametrize(
    ("answers", "writes", "found"),
    [
        (ANSWERS[:-1], WRITES, "never saw its last change, at 9"),
        ([], WRITES, "never saw its last change, at 9"),
        ([ANSWERS[1], ANSWERS[0], *ANSWERS[2:]], WRITES, "went back from 5 to 4"),
        ([ANSWERS[0], Answer(4, 5, {"t/b": (b"9", 4)}, 2.0), *ANSWERS[2:]], WRITES, "which nobody ever wrote"),
        ([ANSWERS[0], Answer(4, 5, {}, 2.0), *ANSWERS[2:]], WRITES, "t/ was answered at 5 with {}"),
        (ANSWERS, [*WRITES[:3], Write("t/a", b"5", "rejected", 4.0)], "was called rejected and is in the log at 9"),
        (ANSWERS, [*WRITES, Write("t/z", b"7", "true", 4.0)], "was acknowledged and is not in the log"),
    ],
)
def test_wrong_answers_to_a_watcher_are_noticed(answers: list[Answer], writes: list[Write], found: str) -> None:
    """One thing is changed, and the judge names it."""
    assert any(found in violation for violation in judge_watches(WRITTEN, writes, [Watched("t/", answers)]).violations)


def by(name: str) -> Origin:
    """Whose attempt an entry is."""
    return Origin(request_id=name)


def once(key: str, value: bytes, name: str) -> Once:
    """A put under an Idempotency-Key; its value stands for its digest."""
    return Once(key, value, KvPut(b"k", value, origin=by(name)), b"", None, 100, 1000)


ENTRIES = [
    Logged(3, 0, KvPut(b"k", b"1", origin=by("a"))),
    Logged(4, 0, KvPut(b"k", b"2", cas=9, origin=by("b"))),
    Logged(5, 0, once("key", b"3", "c")),
    Logged(6, 0, once("key", b"3", "d")),
    Logged(7, 0, once("key", b"4", "e")),
    Logged(8, 0, Txn([TxnOperation("set", b"t", b"5"), TxnOperation("cas", b"k", b"6", index=5)], by("f"))),
    Logged(9, 0, Txn([TxnOperation("set", b"t", b"7"), TxnOperation("check-not-exists", b"k")], by("g"))),
    Logged(10, 0, KvConditional(KvPut(b"k", b"8", origin=by("h")), Condition(one_of=[5]))),
    Logged(11, 0, KvDelete(b"t", cas=8, origin=by("i"))),
    Logged(12, 0, KvPut(b"below/1", b"9", origin=by("j"))),
    Logged(13, 0, KvDeleteTree(b"below/", by("k"))),
]
ASKED = [
    Asked("a", "A", "put", (b"1",), "done", 200, 3),
    Asked("b", "B", "cas", (b"2",), "unmet", 200, 4),
    Asked("c", "C", "put", (b"3",), "unknown", 500, 0),
    Asked("d", "C", "put", (b"3",), "done", 200, 5),
    Asked("e", "E", "other", (b"4",), "rejected", 422, 0),
    Asked("f", "F", "transaction", (b"5", b"6"), "done", 200, 8),
    Asked("g", "G", "transaction", (b"7",), "unmet", 409, 9),
    Asked("h", "H", "guarded", (b"8",), "unmet", 412, 10),
    Asked("i", "I", "delete", (), "done", 200, 11),
    Asked("j", "J", "put", (b"9",), "unknown", 0, 0),
    Asked("k", "K", "delete tree", (), "done", 200, 13),
    Asked("l", "L", "put", (b"10",), "rejected", 500, 0),
    Asked("m", "M", "put", (b"11",), "unknown", 500, 0),
]
AT_THE_END = [Stored("k", b"6", 8)]
READ = [Stored("k", b"1", 3), Stored("k", b"3", 5), Stored("t", b"5", 8), Stored("below/1", b"9", 12)]


def test_right_outcomes_of_writes_pass() -> None:
    """Nothing is wrong; what is unknown is told by what became of it."""
    verdict = judge_writes({"n1": ENTRIES, "n2": [*ENTRIES, Logged(14, 0, KvPut(b"z", b"", origin=by("m")))]}, 13, ASKED, READ, {"n1": AT_THE_END})
    assert verdict.violations == []
    assert (verdict.counts["done"], verdict.counts["unmet"], verdict.counts["rejected"], verdict.counts["unknown"]) == (5, 3, 2, 3)
    assert (verdict.counts["unknown, applied"], verdict.counts["unknown, never in the log"]) == (2, 1)
    assert verdict.counts["values of failed writes"] == 5


Spoiled = tuple[dict[str, list[Logged]], list[Asked], list[Stored], dict[str, list[Stored]]]


def told(position: int, **changes: Any) -> Callable[[Spoiled], None]:
    """Change what a writer was told."""
    return lambda run: run[1].__setitem__(position, run[1][position]._replace(**changes))


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (told(9, told="rejected"), "put j was told rejected (0) and was applied at 12"),
        (told(0, told="unmet"), "put a was told unmet (200) and was applied at 3"),
        (told(0, index=4), "put a was acknowledged at 4; the log has applied it at 3"),
        (told(1, told="done"), "cas b was acknowledged at 4; the log has applied it at 0"),
        (told(3, index=6), "put d was acknowledged at 6; the log has applied it at 5"),
        (told(11, told="done", index=20), "put l was acknowledged at 20; the log has applied it at 0"),
        (
            lambda run: run[0]["n1"].append(Logged(15, 0, KvPut(b"z", b"10", origin=by("l")))),
            "put l was told rejected (500) and may still be applied",
        ),
        (lambda run: run[0]["n1"].append(Logged(13, 0, KvPut(b"k", b"6", origin=by("f")))), "transaction f is in the log 2 times, at [8, 13]"),
        (lambda run: run[0]["n2"].pop(0), "the log of n2 is not that of n1, though both have applied it up to 13"),
        (lambda run: run[2].append(Stored("k", b"8", 10)), "k was read as b'8', which guarded h brought, told unmet"),
        (lambda run: run[2].append(Stored("k", b"1", 4)), "k was read as b'1' of 4; the log has None there"),
        (lambda run: run[3]["n2"].clear(), "n2 has None at the end; the log has Row(key='k', value=b'6', modify_index=8)"),
        (lambda run: run[3]["n2"].append(Stored("t", b"5", 8)), "n2 has Row(key='t', value=b'5', modify_index=8) at the end; the log has None"),
    ],
)
def test_wrong_outcomes_of_writes_are_noticed(spoil: Callable[[Spoiled], None], found: str) -> None:
    """One thing is changed, and the judge names it."""
    run: Spoiled = {"n1": list(ENTRIES), "n2": list(ENTRIES)}, list(ASKED), list(READ), {"n1": list(AT_THE_END), "n2": list(AT_THE_END)}
    spoil(run)
    logs, asked, seen, states = run
    assert any(found in violation for violation in judge_writes(logs, 13, asked, seen, states).violations)
