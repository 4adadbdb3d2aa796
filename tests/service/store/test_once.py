"""Commands that are carried out once: what is remembered, for how long, and that every node agrees about it (scenarios CL-01 to CL-03)."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain import commands, results
from service.domain.commands import Command, KvConditional, KvDelete, KvDeleteTree, KvPut, Once, Txn, TxnOperation
from service.domain.conditions import Condition
from service.domain.results import OnceResult, Verdict, WriteResult
from service.store import once_rows
from service.store.machine import KvMachine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.service.store.conftest import Node

MEMORY = Path("/dev/shm")
MANY = 1_000_000


def once(key: str, command: Any, *, entries: int = MANY, size: int = MANY, since: int | None = None, digest: bytes = b"") -> Once:
    """A command under a key, with a digest by what it says."""
    return Once(key, digest or commands.encode(command), command, b"memo", since, entries, size)


def apply(machine: KvMachine, *batch: Command | None) -> list[bytes]:
    """Apply a batch of entries."""
    first = machine.applied()[0] + 1
    return list(machine.apply([(index, 1, command and commands.stamp(commands.encode(command), 1)) for index, command in enumerate(batch, first)]))


def ask(machine: KvMachine, *batch: Once) -> list[OnceResult]:
    """Apply a batch of commands that are to be carried out once."""
    return [results.decode_once(answer) for answer in apply(machine, *batch)]


def test_a_second_attempt_gets_the_first_one_s_answer(node: Node) -> None:
    """Whatever became of the first: the second changes nothing and gets the same result, with the first one's index and memo."""
    for key, command in (("put", KvPut(b"k", b"v")), ("cas", KvPut(b"k", b"w", cas=0)), ("delete", KvDelete(b"k"))):
        first, again = ask(node.machine, once(key, command), once(key, command))
        assert (first.verdict, again.verdict) == (Verdict.FIRST, Verdict.AGAIN)
        assert (again.result, again.memo, again.first_index) == (first.result, b"memo", first.index)
        assert results.decode(first.result).ok is (key != "cas")
    apply(node.machine, KvPut(b"k", b"other"))
    ask(node.machine, once("delete", KvDelete(b"k")))
    assert node.reader.get(b"k").row.value == b"other"


def test_another_request_under_the_key_is_refused(node: Node) -> None:
    """The same key with another digest changes nothing, and the index of what the key stands for is told."""
    ask(node.machine, once("a", KvPut(b"k", b"v")))
    (refused,) = ask(node.machine, once("a", KvPut(b"k", b"w")))
    assert (refused.verdict, refused.first_index, refused.result) == (Verdict.OTHER, 1, b"")
    assert node.reader.get(b"k").row.value == b"v"


def test_cl_03_forgetting_by_the_log(node: Node) -> None:
    """A key is forgotten by how far its entry lies back. Who says since when it asks gets an error then, not a second execution."""
    put = KvPut(b"k", b"v")
    ask(node.machine, once("a", put, entries=3))
    apply(node.machine, KvPut(b"k", b"x"), None)
    assert ask(node.machine, once("a", put, entries=3))[0].verdict is Verdict.AGAIN
    assert ask(node.machine, once("a", put, entries=3, since=0))[0].verdict is Verdict.FORGOTTEN
    assert node.reader.get(b"k").row.value == b"x"
    (fresh,) = ask(node.machine, once("b", put, entries=3, since=1))
    assert fresh.verdict is Verdict.FIRST
    assert ask(node.machine, once("a", KvDelete(b"none"), entries=3))[0].verdict is Verdict.FIRST


def test_forgetting_by_bytes(node: Node) -> None:
    """The oldest go when all together are too long; the newest stays however long it is."""
    size = 3 * (once_rows.ROW_BYTES + 40)
    ask(node.machine, *(once(f"key-{number}", KvPut(b"k", b"%d" % number), size=size) for number in range(10)))
    kept = [number for number in range(10) if once_rows.find(node.machine._connection, f"key-{number}")]
    assert kept[-1] == 9
    assert 2 <= len(kept) <= 4
    assert kept == list(range(kept[0], 10))
    assert once_rows.forgotten_up_to(node.machine._connection) == kept[0]
    ask(node.machine, once("long", Txn([TxnOperation("get", b"k")]), size=1))
    assert [key for (key,) in node.machine._connection.execute("SELECT id FROM requests")] == ["long"]


@pytest.mark.parametrize("how", ["restart", "snapshot"])
def test_cl_01_remembered_over_a_restart_and_a_snapshot(node: Node, make_node: Callable[[str], Node], how: str) -> None:
    """A node that was restarted, and one that was given a snapshot, give the first attempt's answer."""
    (first,) = ask(node.machine, once("a", KvPut(b"k", b"v")))
    if how == "restart":
        node.machine.close()
        machine = node.machine = KvMachine(node.directory)
    else:
        machine = make_node("other").machine
        capture = node.machine.capture()
        pieces: list[bytes] = []
        capture.write(pieces.append)
        picture = b"".join(pieces)
        position = iter(range(0, len(picture) + 1, 4096))
        machine.restore(capture.index, capture.term, lambda _: picture[(at := next(position, len(picture))) : at + 4096])
        capture.close()
        assert machine.digest() == node.machine.digest()
    (again,) = ask(machine, once("a", KvPut(b"k", b"v")))
    assert (again.verdict, again.result) == (Verdict.AGAIN, first.result)


def test_a_version_is_told_exactly(node: Node) -> None:
    """What is remembered of a put is the key's true version, also when the put changed nothing or a later one of the batch hides it."""
    answers = ask(node.machine, *(once(str(number), KvPut(b"k", value)) for number, value in enumerate([b"a", b"a", b"b"])))
    assert [results.decode(answer.result) for answer in answers] == [
        WriteResult(ok=True, index=index, modify_index=at) for index, at in ((1, 1), (2, 1), (3, 3))
    ]


keys = st.sampled_from([b"a", b"b", b"a/b"])
values = st.sampled_from([b"x", b"y"])
cas = st.none() | st.integers(0, 9)
simple = st.one_of(
    st.builds(KvPut, keys, values, st.just(0), cas),
    st.builds(KvDelete, keys, cas),
    st.builds(KvDeleteTree, keys),
    st.builds(KvConditional, st.builds(KvPut, keys, values), st.builds(Condition, st.none() | st.lists(st.integers(0, 9), max_size=4))),
    st.builds(lambda key, value: Txn([TxnOperation("set", key, value), TxnOperation("get", key)]), keys, values),
)
onces = st.builds(
    lambda key, command, entries, size, since: once(key, command, entries=entries, size=size, since=since),
    st.sampled_from("pqr"),
    simple,
    st.sampled_from([2, 5, MANY, MANY]),
    st.sampled_from([1, 200, 300, 320, MANY]),
    st.none() | st.integers(0, 30),
)
logs = st.lists(st.one_of(onces, onces, onces, onces, simple, st.none()), min_size=12, max_size=30)


@settings(max_examples=40, deadline=None, derandomize=True, print_blob=True)
@given(log=logs, cuts=st.sets(st.integers(1, 29)))
def test_cl_03_replicas_agree_however_the_log_is_cut(log: list[Command | None], cuts: set[int]) -> None:
    """Nodes that apply the same log in other batches remember, forget and answer the same, as a list of what is remembered says."""
    ends = [*sorted(cut for cut in cuts if cut < len(log)), len(log)]
    with TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as directory:
        seen = [
            _run(Path(directory) / name, log, chosen) for name, chosen in (("one", [len(log)]), ("cut", ends), ("single", range(1, len(log) + 1)))
        ]
    assert seen[0] == seen[1] == seen[2]
    answers, _, rows = seen[0]
    assert ([answer for answer in answers if answer is not None], [row[0] for row in rows]) == _expected(log, answers)


def _run(directory: Path, log: list[Command | None], ends: Sequence[int]) -> tuple[list[OnceResult | None], Any, list[Any]]:
    directory.mkdir()
    machine = KvMachine(directory)
    answers: list[bytes] = []
    for start, end in zip([0, *ends], ends, strict=False):
        answers += apply(machine, *log[start:end])
    found = [results.decode_once(answer) if isinstance(command, Once) else None for command, answer in zip(log, answers, strict=True)]
    rows = machine._connection.execute("SELECT * FROM requests").fetchall()
    digest = machine.digest()
    machine.close()
    return found, digest, rows


def _expected(log: list[Command | None], answers: list[OnceResult | None]) -> tuple[list[OnceResult], list[int]]:
    """The answers, and which entries are remembered at the end, by a list of them. Results are taken as they are."""
    kept: list[tuple[int, str, bytes, bytes]] = []
    forgotten = 0
    expected = []
    for index, (command, answer) in enumerate(zip(log, answers, strict=True), 1):
        if not isinstance(command, Once) or answer is None:
            continue

        def trim(command: Once = command, index: int = index) -> None:
            nonlocal forgotten
            while kept and (kept[0][0] < index - command.entries_max or (len(kept) > 1 and sum(map(_size, kept)) > command.bytes_max)):
                forgotten = kept.pop(0)[0]

        trim()
        known = next((row for row in kept if row[1] == command.key), None)
        if known is not None:
            same = known[2] == command.digest
            expected.append(
                OnceResult(index, Verdict.AGAIN if same else Verdict.OTHER, known[3] if same else b"", b"memo" if same else b"", known[0])
            )
        elif command.since is not None and command.since < forgotten:
            expected.append(OnceResult(index, Verdict.FORGOTTEN))
        else:
            kept.append((index, command.key, command.digest, answer.result))
            expected.append(OnceResult(index, Verdict.FIRST, answer.result, b"memo", index))
            trim()
    return expected, [row[0] for row in kept]


def _size(row: tuple[int, str, bytes, bytes]) -> int:
    return once_rows.ROW_BYTES + len(row[1]) + len(row[3]) + len(b"memo")
