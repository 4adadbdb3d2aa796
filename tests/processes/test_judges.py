"""The judges of locks and of watches: each wrong that they are there for is found in a small log, and nothing is found in the right one."""

from collections.abc import Callable
from typing import Any

import pytest
from lock_log import Attempt, Logged, Row, Seen
from lock_log import judge as judge_locks
from watch_log import Answer, Watched, Write
from watch_log import judge as judge_watches

from service.domain.commands import EndLockDelay, KvDelete, KvDeleteTree, KvLock, KvPut, SessionCreate, SessionExpire, SessionRenew, TxnOperation
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
