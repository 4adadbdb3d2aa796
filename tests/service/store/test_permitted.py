"""Commands that count only while the ACL is the one by which they were permitted: applied to real state files, against a model of one number."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain import results
from service.domain.acl.records import Token, made, secret_hash
from service.domain.commands import AclChange, KvDelete, KvDeleteTree, KvPut, Once, Permitted, Txn, TxnOperation, encode, stamp
from service.domain.results import WriteResult
from service.store.machine import KvMachine

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from service.domain.commands import Command

MEMORY = Path("/dev/shm")
MANY = 10**9


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[KvMachine]:
    """An empty state."""
    opened = KvMachine(tmp_path)
    yield opened
    opened.close()


def apply(machine: KvMachine, *batch: Command) -> list[bytes]:
    """Entries of one batch."""
    first = machine.applied_index + 1
    return list(machine.apply([(first + number, 1, stamp(encode(command), 1_000)) for number, command in enumerate(batch)]))


def change(number: int, seen_index: int) -> AclChange:
    """One more token."""
    return AclChange(seen_index, [made(Token(f"{number:036}", secret_hash(str(number)), ""))])


def row(machine: KvMachine, key: bytes) -> Any:
    """Value and ModifyIndex of a key."""
    return machine._connection.execute("SELECT value, modify_index FROM kv WHERE key = ?", (key,)).fetchone()


def test_counts_while_the_acl_is_the_same(machine: KvMachine) -> None:
    """Without any change of the ACL its index is 0; each change makes void what was permitted before, and nothing else does."""
    done, _, late, again = apply(
        machine, Permitted(0, KvPut(b"a", b"1")), change(1, 0), Permitted(0, KvPut(b"a", b"2")), Permitted(2, KvPut(b"b", b"3"))
    )
    assert results.decode(done) == WriteResult(ok=True, index=1, modify_index=1)
    assert results.acl_moved(late)
    assert results.decode(again) == WriteResult(ok=True, index=4, modify_index=4)
    assert (row(machine, b"a"), row(machine, b"b")) == ((b"1", 1), (b"3", 4))
    (late,) = apply(machine, Permitted(1, KvDeleteTree(b"")))
    assert results.acl_moved(late)
    assert machine.applied_index == 5
    assert row(machine, b"a") == (b"1", 1)


def test_conditions_are_judged_as_without(machine: KvMachine) -> None:
    """A condition on a key is looked up for the whole batch, inside what was permitted, too."""
    apply(machine, KvPut(b"a", b"1"))
    failed, done = apply(machine, Permitted(0, KvPut(b"a", b"2", cas=7)), Permitted(0, KvPut(b"a", b"3", cas=1)))
    assert results.decode(failed) == WriteResult(ok=False, index=2, modify_index=1)
    assert results.decode(done) == WriteResult(ok=True, index=3, modify_index=3)


def test_what_comes_too_late_is_not_remembered(machine: KvMachine) -> None:
    """A client's key stands for nothing before its command was carried out."""
    once = Once("key", b"digest", KvPut(b"a", b"1"), b"", None, MANY, MANY)
    late, first, second = apply(machine, Permitted(9, once), Permitted(0, once), once)
    assert results.acl_moved(late)
    assert [results.decode_once(answer).verdict for answer in (first, second)] == [results.Verdict.FIRST, results.Verdict.AGAIN]


@pytest.mark.parametrize(
    "result",
    [
        WriteResult(ok=False, index=0),
        results.SessionResult(0),
        results.TxnResult(0),
        results.OnceResult(0, results.Verdict.FIRST),
        results.AclResult(ok=False, index=0, stamp_ms=0),
    ],
)
def test_no_other_result_looks_like_it(result: results.Result) -> None:
    """The worker tells it from the bytes alone, whatever was asked."""
    assert results.acl_moved(results.encode(results.AclMoved()))
    assert not results.acl_moved(results.encode(result))


keys = st.sampled_from([b"a", b"b", b"a/b"])
values = st.sampled_from([b"x", b"y"])
writes = st.one_of(
    st.builds(KvPut, keys, values, st.just(0), st.none() | st.integers(0, 9)),
    st.builds(KvDelete, keys, st.none()),
    st.builds(lambda key, value: Txn([TxnOperation("set", key, value), TxnOperation("get", key)]), keys, values),
)
steps = st.lists(st.tuples(st.sampled_from(["write", "permitted", "permitted", "change"]), st.booleans(), writes), min_size=8, max_size=30)


@settings(max_examples=60, deadline=None, derandomize=True, print_blob=True)
@given(steps=steps, cuts=st.sets(st.integers(1, 29)))
def test_replicas_agree_however_the_log_is_cut(steps: list[tuple[str, bool, Any]], cuts: set[int]) -> None:
    """What comes too late is as if it had not been there, in whichever batches the log is applied."""
    acl_index, log, late = 0, [], set()
    for index, (kind, knows, command) in enumerate(steps, 1):
        seen = acl_index if knows else max(acl_index - 1, 0)
        log.append(command if kind == "write" else Permitted(seen, command) if kind == "permitted" else change(index, seen))
        if seen != acl_index and kind == "permitted":
            late.add(index)
        if seen == acl_index and kind == "change":
            acl_index = index
    without = [KvDelete(b"none") if index in late else command for index, command in enumerate(log, 1)]
    plain = [command.command if isinstance(command, Permitted) else command for command in without]
    size = len(log)
    ends = [*sorted(cut for cut in cuts if cut < size), size]
    with TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as directory:
        runs = [
            _run(Path(directory) / str(number), chosen, where)
            for number, (chosen, where) in enumerate([(log, [size]), (log, ends), (log, range(1, size + 1)), (plain, ends)])
        ]
    assert runs[0] == runs[1] == runs[2]
    assert runs[0][0] == late
    assert runs[3][1] == runs[0][1]


def _run(directory: Path, log: Sequence[Command], ends: Sequence[int]) -> tuple[set[int], Any]:
    """Which entries came too late, and what the state is then."""
    directory.mkdir()
    machine = KvMachine(directory)
    answers: list[bytes] = []
    for start, end in zip([0, *ends], ends, strict=False):
        answers += apply(machine, *log[start:end])
    digest = machine.digest()
    machine.close()
    return {index for index, answer in enumerate(answers, 1) if results.acl_moved(answer)}, digest
