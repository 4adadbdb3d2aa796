"""Transactions in the state: one index, each operation sees those before it, all or nothing."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.domain import commands, results
from service.domain.commands import KvDelete, KvLock, KvPut, Once, SessionCreate, Txn, TxnOperation
from service.domain.entries import Row, Session
from service.domain.results import TxnResult
from service.store.apply import txn
from service.store.changes import Changes

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.service.store.conftest import Node

STAMP_MS = 1_700_000_000_000
_NUMBERS = count()


def carry_out(node: Node, *operations: TxnOperation) -> TxnResult:
    """Apply one transaction as a batch of its own."""
    entry = commands.stamp(commands.encode(Txn(list(operations))), STAMP_MS)
    return results.decode_txn(node.machine.apply([(node.machine.applied_index + 1, node.term, entry)])[0])


def write(verb: str, key: bytes, value: bytes = b"", flags: int = 0, index: int = 0) -> TxnOperation:
    """An operation without a session."""
    return TxnOperation(verb, key, value, flags, index)


def test_one_index_for_everything(node: Node) -> None:
    """All keys get the index of the entry, results come in the order of the operations and without values."""
    node.apply(KvPut(b"b", b"old"))
    found = carry_out(node, write("set", b"a", b"1", 7), write("set", b"b", b"2"), write("delete", b"b"), write("cas", b"c", b"3"))
    rows = [Row(b"a", b"", 7, 0, None, 2, 2), Row(b"b", b"", 0, 0, None, 1, 2), Row(b"c", b"", 0, 0, None, 2, 2)]
    assert found == TxnResult(2, [], rows)
    assert [row.key for row in node.reader.list(b"").rows] == [b"a", b"c"]
    assert node.reader.list(b"").index == 2


def test_operations_see_those_before_them(node: Node) -> None:
    """What is read or asked for inside of a transaction is about the state that its own operations have made so far."""
    node.apply(KvPut(b"t/old", b"o"))
    found = carry_out(
        node,
        write("set", b"t/a", b"1"),
        write("get", b"t/a"),
        write("check-index", b"t/a", index=2),
        write("set", b"t/a", b"2"),
        write("get-tree", b"t/"),
        write("delete-tree", b"t/"),
        write("get-tree", b"t/"),
        write("check-not-exists", b"t/old"),
        write("set", b"t/b", b"3"),
        write("set", b"t/c", b"4"),
        write("delete", b"t/c"),
        write("get-tree", b"t"),
    )
    assert found.failures == []
    assert [(row.key, row.value, row.modify_index) for row in found.rows] == [
        (b"t/a", b"", 2),
        (b"t/a", b"1", 2),
        (b"t/a", b"", 2),
        (b"t/a", b"", 2),
        (b"t/a", b"2", 2),
        (b"t/old", b"o", 1),
        (b"t/b", b"", 2),
        (b"t/c", b"", 2),
        (b"t/b", b"3", 2),
    ]
    assert [(row.key, row.value) for row in node.reader.list(b"").rows] == [(b"t/b", b"3")]


def test_a_deleted_key_is_gone_for_what_follows(node: Node) -> None:
    """A key of the state that was deleted is not listed any more."""
    node.apply(KvPut(b"a", b"1"), KvPut(b"b", b"2"))
    assert [row.key for row in carry_out(node, write("delete", b"a"), write("get-tree", b"a")).rows] == []
    assert [row.key for row in carry_out(node, write("delete", b"a"), write("get-tree", b"b")).rows] == [b"b"]


def test_a_failure_takes_everything_back(node: Node) -> None:
    """Every operation that fails is named, in order; nothing has changed, no index moved, nobody is told."""
    node.apply(KvPut(b"k", b"v"))
    before = node.machine.digest().keys, node.reader.list(b"")
    node.machine.take_changes()
    found = carry_out(
        node,
        write("set", b"new", b"1"),
        write("delete", b"k"),
        write("cas", b"new", b"2", index=1),
        write("get", b"k"),
        write("bogus", b"k"),
    )
    assert found.failures == [(2, 'failed to set key "new", index is stale'), (3, 'key "k" doesn\'t exist'), (4, 'unknown KV verb "bogus"')]
    assert found.rows == []
    assert (node.machine.digest().keys, node.reader.list(b"")._replace(applied=1)) == before
    assert node.machine.take_changes() == Changes(2, [], [], everything=False)


def test_missing_keys_are_named_alone(node: Node) -> None:
    """An operation without a key is objected to before any is tried, so other failures are not named; only delete-tree may go without."""
    found = carry_out(node, write("set", b""), write("get", b"nope"), write("get-tree", b""))
    assert found.failures == [(0, "Must provide key"), (2, "Must provide key")]
    node.apply(KvPut(b"k", b"v"))
    assert carry_out(node, write("delete-tree", b"")).failures == []
    assert node.reader.list(b"").rows == []


def test_the_same_again_moves_nothing(node: Node) -> None:
    """Setting a key to what it is gives back its old index and wakes nobody; two operations that end where they began are a change."""
    node.apply(KvPut(b"k", b"v", 3))
    node.machine.take_changes()
    assert carry_out(node, write("set", b"k", b"v", 3)).rows[0].modify_index == 1
    assert node.machine.take_changes().keys == []
    assert carry_out(node, write("set", b"k", b"w", 3), write("set", b"k", b"v", 3)).rows[1].modify_index == 3
    assert node.reader.get(b"k").row == Row(b"k", b"v", 3, 0, None, 1, 3)
    first, second = carry_out(node, write("set", b"k", b"v", 3), write("set", b"k", b"w", 3)).rows
    assert (first.modify_index, second.modify_index) == (3, 4)


def test_flags_are_unsigned(node: Node) -> None:
    """Flags of 64 bits come back as they were given, from the state and from the results."""
    node.apply(KvPut(b"k", b"v", (1 << 64) - 1))
    found = carry_out(node, write("get", b"k"), write("get-tree", b"k"), write("set", b"l", b"", (1 << 63)))
    assert [row.flags for row in found.rows] == [(1 << 64) - 1, (1 << 64) - 1, 1 << 63]
    assert found.rows[0].value == b"v"


def test_conditions_inside_one_batch(node: Node) -> None:
    """A condition of a later entry of the batch knows what a transaction did, and the other way round."""
    entries = [
        KvPut(b"k", b"1"),
        Txn([write("cas", b"k", b"2", index=1), write("set", b"l", b"x")]),
        KvPut(b"k", b"3", cas=2),
        KvDelete(b"l", cas=2),
        Txn([write("check-index", b"k", index=3), write("check-not-exists", b"l"), write("delete-cas", b"k", index=3)]),
        KvPut(b"k", b"4", cas=0),
    ]
    batch = [(index, 1, commands.stamp(commands.encode(command), STAMP_MS)) for index, command in enumerate(entries, 1)]
    answers = node.machine.apply(batch)
    assert [results.decode(answers[at]).ok for at in (0, 2, 3, 5)] == [True] * 4
    assert [results.decode_txn(answers[at]).failures for at in (1, 4)] == [[], []]
    assert node.reader.list(b"").rows == [Row(b"k", b"4", 0, 0, None, 6, 6)]


def test_more_than_one_statement_holds(node: Node) -> None:
    """A thousand operations, more than one statement's worth, become visible together."""
    operations = [write("set", b"%04d" % number, b"v") for number in range(1000)]
    assert len(carry_out(node, *operations).rows) == 1000
    assert carry_out(node, *operations, write("get", b"nope")).failures == [(1000, 'key "nope" doesn\'t exist')]
    again = carry_out(node, *operations, write("get", b"0007"))
    assert {row.modify_index for row in again.rows} == {1}
    assert again.rows[-1].value == b"v"


_KEYS = st.sampled_from([b"a", b"b", b"c", b"locked"])
_PUTS = st.builds(KvPut, _KEYS, st.sampled_from([b"", b"1", b"2"]), st.sampled_from([0, 7, (1 << 64) - 1]))
_LOADS = st.builds(
    lambda puts: Txn([write("set", put.key, put.value, put.flags) for put in puts]),
    st.lists(_PUTS, min_size=1, max_size=4, unique_by=lambda put: put.key),
)


_ONCES = st.builds(lambda key, command: Once(key, b"", command, b"", None, 1_000, 1_000_000), st.sampled_from("abc"), st.one_of(_PUTS, _LOADS))
_COMMANDS = st.one_of(_PUTS, _LOADS, st.builds(KvDelete, _KEYS), _ONCES)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(_COMMANDS, min_size=1, max_size=4), min_size=1, max_size=6), st.booleans())
def test_loading_keys_is_no_special_case(make_node: Callable[[str], Node], batches: list[list[commands.Command]], new_term: bool) -> None:
    """Transactions that only set keys are carried out by fewer statements, and by fewer still where nobody awaits the results: these, the changes and
    the state are those of the rules.
    """
    session = Session("11111111-2222-3333-4444-555555555555", "", "n", 0, "release", "", 0, None, None)
    found, answered = [], []
    for name, only_sets, awaited in (("quick", txn._only_sets, True), ("plain", lambda _: False, True), ("unheard", txn._only_sets, False)):
        node = make_node(f"{name}{next(_NUMBERS)}")
        answers: list[bytes] = []
        node.apply(SessionCreate(session), KvLock(TxnOperation("lock", b"locked", b"1", session=session.id)))
        node.machine.take_changes()
        seen: list[Any] = []
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(txn, "_only_sets", only_sets)
            for number, batch in enumerate(batches):
                index = node.machine.applied_index
                term = 2 if new_term and number else 1
                entries = [(index + 1 + at, term, commands.stamp(commands.encode(command), STAMP_MS)) for at, command in enumerate(batch)]
                answers += node.machine.apply(entries, awaited=awaited)
                changes = node.machine.take_changes()
                seen.append((sorted(set(changes.keys)), changes.index, node.machine.applied(), node.reader.list(b"")))
        found.append((seen, node.machine.digest()))
        answered.append(answers)
        node.close()
    assert found[0] == found[1] == found[2]
    assert answered[0] == answered[1]
    assert answered[2] == []


@pytest.mark.parametrize("term", [1, 2])
def test_a_batch_that_breaks_off_leaves_nothing(node: Node, monkeypatch: pytest.MonkeyPatch, term: int) -> None:
    """Keys that were loaded by an entry in its midst are not in the state either, nor are those of a batch whose term was not written yet."""
    load = [Txn([write("set", b"a", b"1")]), Txn([write("set", b"b", b"1"), write("delete", b"b")])]
    monkeypatch.setattr(txn, "evaluate", lambda *_: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        node.machine.apply([(at, term, commands.stamp(commands.encode(command), STAMP_MS)) for at, command in enumerate(load, 1)])
    assert node.machine.applied() == (0, 0)
    assert (node.reader.list(b"").rows, node.reader.applied()) == ([], 0)


def test_answers_are_bounded(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a transaction gives back travels in one piece, so it may not be longer than allowed; nothing is changed then."""
    monkeypatch.setattr(txn, "ANSWER_BYTES_MAX", 20)
    node.apply(KvPut(b"a", b"x" * 10), KvPut(b"b", b"x" * 10))
    assert carry_out(node, write("set", b"c"), write("get-tree", b"a")).failures == []
    for operations in ([write("get-tree", b"b"), write("get", b"a")], [write("get-tree", b"")], [write("get", b"a"), write("get", b"b")]):
        found = carry_out(node, write("set", b"d"), *operations)
        assert [text[:26] for _, text in found.failures] == ["the results are longer tha" if operations[0].key else "Must provide key"]
    assert node.reader.get(b"d").row is None
