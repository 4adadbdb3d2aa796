"""What commands do to keys, seen through the reader."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from service.domain.commands import KvDelete, KvDeleteTree, KvPut, ReapTombstones
from service.domain.entries import Row
from service.errors import CommandInvalid
from service.store.changes import Changes
from service.store.engine import DATABASE_ERRORS

if TYPE_CHECKING:
    from tests.service.store.conftest import EntryOf, Node


def test_put_creates_and_overwrites(node: Node) -> None:
    """CreateIndex survives an overwrite, ModifyIndex is the entry's index, flags fall back to 0."""
    assert node.apply(KvPut(b"k", b"one", 7)) == [True]
    assert node.apply(KvPut(b"k", b"two")) == [True]
    assert node.reader.get(b"k") == (Row(b"k", b"two", 0, 0, None, 1, 2), 2, 2)


def test_put_of_the_same_moves_nothing(node: Node) -> None:
    """A write of the same value and flags is ok and moves no index, neither the key's nor the table's."""
    node.apply(KvPut(b"k", b"v", 7))
    node.machine.take_changes()
    assert node.apply(KvPut(b"k", b"v", 7)) == [True]
    assert node.reader.get(b"k") == (Row(b"k", b"v", 7, 0, None, 1, 1), 1, 2)
    assert node.reader.get(b"other").index == 1
    assert node.machine.take_changes() == Changes(2, [], [], everything=False)


def test_put_with_other_flags_moves(node: Node) -> None:
    """The same value with other flags is a change."""
    node.apply(KvPut(b"k", b"v", 7))
    node.apply(KvPut(b"k", b"v", 8))
    assert node.reader.get(b"k").index == 2


def test_same_values_inside_one_batch(node: Node) -> None:
    """Within a batch each write is compared with the one before it, not with the state before the batch."""
    node.apply(KvPut(b"k", b"a"))
    node.apply(KvPut(b"k", b"b"), KvPut(b"k", b"a"), KvPut(b"k", b"a"), KvPut(b"k", b"a"))
    found = node.reader.get(b"k")
    assert (found.row.value, found.row.modify_index, found.row.create_index, found.applied) == (b"a", 3, 1, 5)


def test_put_keeps_session_and_resets_lock_index(node: Node) -> None:
    """A plain put of the same value on a locked key keeps the session, resets LockIndex to 0 and moves the index once."""
    node.apply(KvPut(b"k", b"v"))
    node.machine._connection.execute("UPDATE kv SET session = 'holder', lock_index = 3")
    node.apply(KvPut(b"k", b"v"))
    assert node.reader.get(b"k").row == Row(b"k", b"v", 0, 0, "holder", 1, 2)
    node.apply(KvPut(b"k", b"v"))
    assert node.reader.get(b"k").row.modify_index == 2


@pytest.mark.parametrize(
    ("exists", "cas", "ok"),
    [(False, 0, True), (True, 0, False), (True, 1, True), (True, 9, False), (False, 1, False)],
)
def test_put_with_condition(node: Node, exists: bool, cas: int, ok: bool) -> None:
    """0 wants the key absent, another number wants that ModifyIndex; a failed condition changes nothing."""
    node.apply(KvPut(b"k", b"old") if exists else None)
    node.machine.take_changes()
    assert node.apply(KvPut(b"k", b"new", cas=cas)) == [ok]
    row = node.reader.get(b"k").row
    assert (row.value if row else None) == (b"new" if ok else b"old" if exists else None)
    assert node.machine.take_changes().keys == ([b"k"] if ok else [])


def test_conditional_put_of_the_same_moves_nothing(node: Node) -> None:
    """A condition that holds with a value that is there already is ok and moves no index."""
    node.apply(KvPut(b"k", b"v"))
    assert node.apply(KvPut(b"k", b"v", cas=1)) == [True]
    assert node.reader.get(b"k").index == 1


def test_conditions_see_earlier_entries_of_the_batch(node: Node) -> None:
    """A condition is judged on what the entries before it in the same batch did, effective or not."""
    assert node.apply(KvPut(b"k", b"a"), KvPut(b"k", b"b", cas=1), KvPut(b"k", b"c", cas=1), KvPut(b"k", b"b"), KvPut(b"k", b"d", cas=2)) == [
        True,
        True,
        False,
        True,
        True,
    ]
    assert node.reader.get(b"k").row == Row(b"k", b"d", 0, 0, None, 1, 5)
    assert node.apply(KvDelete(b"k"), KvPut(b"k", b"e", cas=5), KvPut(b"k", b"f", cas=0), KvDelete(b"k", cas=8)) == [True, False, True, True]
    assert node.reader.get(b"k") == (None, 9, 9)


def test_delete(node: Node) -> None:
    """A delete moves the table's index; deleting what is missing is ok and moves nothing; delete and create give a new CreateIndex."""
    node.apply(KvPut(b"k", b"v"), KvPut(b"other", b"v"))
    assert node.apply(KvDelete(b"k")) == [True]
    assert node.reader.get(b"k") == (None, 3, 3)
    assert node.machine.take_changes() == Changes(3, [b"k", b"other"], [], everything=False)
    assert node.apply(KvDelete(b"k")) == [True]
    assert node.reader.get(b"k") == (None, 3, 4)
    node.apply(KvDelete(b"other"))
    assert node.machine.take_changes() == Changes(5, [b"other"], [], everything=False)
    node.apply(KvPut(b"k", b"v"))
    assert node.reader.get(b"k").row.create_index == 6


@pytest.mark.parametrize(
    ("exists", "cas", "ok", "gone"), [(True, 1, True, True), (True, 2, False, False), (True, 0, False, False), (False, 5, True, True)]
)
def test_delete_with_condition(node: Node, exists: bool, cas: int, ok: bool, gone: bool) -> None:
    """An existing key goes only with its ModifyIndex, never with 0; a missing key counts as deleted."""
    node.apply(KvPut(b"k", b"v") if exists else None)
    assert node.apply(KvDelete(b"k", cas=cas)) == [ok]
    assert (node.reader.get(b"k").row is None) is gone


def test_delete_tree(node: Node) -> None:
    """Every key with the bytes of the prefix goes, children of a similar name too; others stay; an unmatched prefix moves nothing."""
    node.apply(*(KvPut(key, b"v") for key in (b"a", b"a/1", b"a/2", b"ab", b"b")))
    node.machine.take_changes()
    node.apply(KvDeleteTree(b"a"), KvDeleteTree(b"zzz"))
    assert [row.key for row in node.reader.list(b"").rows] == [b"b"]
    assert node.machine.take_changes() == Changes(7, [], [b"a"], everything=False)
    assert node.reader.list(b"a/").index == 6
    assert node.reader.get(b"a").index == 6


def test_delete_tree_of_everything(node: Node) -> None:
    """The empty prefix stands for all keys, even those of nothing but 0xff."""
    node.apply(KvPut(b"\xff\xff", b"v"), KvPut(b"", b"v"), KvDeleteTree(b""))
    assert node.reader.list(b"") == ([], 3, 3)


def test_delete_tree_between_puts_of_one_batch(node: Node) -> None:
    """Order inside a batch holds: puts before a tree delete go, puts after it stay, with a new CreateIndex."""
    node.apply(KvPut(b"a/1", b"old"))
    node.apply(KvPut(b"a/2", b"x"), KvDeleteTree(b"a/"), KvPut(b"a/1", b"new"))
    assert node.reader.list(b"a/").rows == [Row(b"a/1", b"new", 0, 0, None, 4, 4)]


def test_conditions_behind_a_tree_delete(node: Node) -> None:
    """A condition behind a tree delete of the same batch finds the key absent."""
    node.apply(KvPut(b"a/1", b"old"))
    assert node.apply(KvDeleteTree(b"a/"), KvPut(b"a/1", b"x", cas=1), KvPut(b"a/1", b"new", cas=0)) == [True, False, True]
    assert node.reader.get(b"a/1").row == Row(b"a/1", b"new", 0, 0, None, 4, 4)


def test_reaping_forgets_deletions(node: Node) -> None:
    """Up to the index named tombstones go, and an emptied prefix then answers with the table's index."""
    node.apply(KvPut(b"a/1", b"v"), KvPut(b"b/1", b"v"), KvDelete(b"a/1"), KvDelete(b"b/1"), KvPut(b"c", b"v"))
    assert node.reader.list(b"a/").index == 3
    assert node.apply(ReapTombstones(3)) == [True]
    assert node.reader.list(b"a/").index == 5
    assert node.reader.list(b"b/").index == 4


def test_flags_are_unsigned(node: Node) -> None:
    """Flags keep all 64 bits, in point reads and listings."""
    for flags in (0, 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1):
        node.apply(KvPut(b"k", b"v", flags))
        assert node.reader.get(b"k").row.flags == flags
        assert node.reader.list(b"k").rows[0].flags == flags


def test_any_bytes_are_a_key_and_a_value(node: Node) -> None:
    """Keys and values are bytes: zero bytes, invalid UTF-8, slashes; an empty value is a value."""
    keys = [b"", b"\x00", b"\x00\xff", b"a\x00b", b"\xc3\x28", b"//a/../b", b"\xff" * 20, b"x" * 8_000]
    node.apply(*(KvPut(key, key[::-1]) for key in keys))
    assert {row.key: row.value for row in node.reader.list(b"").rows} == {key: key[::-1] for key in keys}
    assert [row.key for row in node.reader.list(b"").rows] == sorted(keys)
    for key in keys:
        assert node.reader.get(key).row.value == key[::-1]


def test_large_values(node: Node) -> None:
    """Values of 512 KiB are kept whole, several in one batch, and compared whole."""
    size = 512 * 1024
    node.apply(*(KvPut(b"%d" % number, bytes([number]) * size) for number in range(8)))
    for number in range(8):
        assert node.reader.get(b"%d" % number).row.value == bytes([number]) * size
    node.apply(KvPut(b"0", bytes(size)), KvPut(b"1", b"\x01" * (size - 1) + b"\x02"))
    assert (node.reader.get(b"0").index, node.reader.get(b"1").index) == (1, 10)


def test_entries_of_raft_itself_move_the_applied_index_only(node: Node) -> None:
    """A no-op is noted, in a new term too, and no key's index moves."""
    node.apply(KvPut(b"k", b"v"), None)
    node.term = 4
    assert node.apply(None, None) == [None, None]
    assert node.machine.applied() == (4, 4)
    assert node.reader.get(b"none") == (None, 1, 4)


def test_unknown_bytes_stop_the_batch(node: Node, entry_of: EntryOf) -> None:
    """An entry that is no command raises, and nothing of its batch was applied."""
    with pytest.raises(CommandInvalid, match="version 99"):
        node.machine.apply([(1, 1, entry_of(KvPut(b"k", b"v"))), (2, 1, bytes(8) + b"\x63rest")])
    assert node.machine.applied() == (0, 0)
    assert node.reader.get(b"k") == (None, 1, 0)


def test_a_failing_statement_takes_the_whole_batch_back(node: Node) -> None:
    """When SQLite refuses in the middle of a batch nothing of it stays, and the machine can go on."""
    node.machine._connection.execute("CREATE TEMP TRIGGER refuse BEFORE INSERT ON kv WHEN NEW.key = x'62' BEGIN SELECT RAISE(ABORT, 'disk'); END")
    for batch in ([KvPut(b"a", b"v"), KvPut(b"b", b"v")], [KvPut(b"a", b"v"), KvDelete(b"a"), KvPut(b"b", b"v")]):
        with pytest.raises(DATABASE_ERRORS, match="disk"):
            node.apply(*batch)
    assert node.machine.applied() == (0, 0)
    assert node.reader.list(b"") == ([], 1, 0)
    assert node.apply(KvPut(b"a", b"v")) == [True]


def test_entries_must_follow_each_other(node: Node, entry_of: EntryOf) -> None:
    """A gap or a repetition in the indexes is refused and changes nothing."""
    with pytest.raises(ValueError, match="entry 2 does not follow entry 0"):
        node.machine.apply([(2, 1, entry_of(KvPut(b"k", b"v")))])
    with pytest.raises(ValueError, match="entry 1 does not follow entry 1"):
        node.machine.apply([(1, 1, None), (1, 1, None)])
    assert node.machine.applied() == (0, 0)


def test_puts_are_one_statement(node: Node) -> None:
    """A batch of puts, conditional ones too, costs one lookup at most and one write outside a transaction: few hand-overs of the interpreter lock.

    (SQLite reports a statement anew for each row that fires a trigger.)
    """
    node.apply(KvPut(b"k", b"v"))
    statements: list[str] = []
    node.machine._connection.set_trace_callback(statements.append)
    node.apply(*(KvPut(b"%d" % number, b"v") for number in range(64)))
    assert [text.split()[0] for text in dict.fromkeys(statements)] == ["INSERT"]
    statements.clear()
    node.apply(*(KvPut(b"%d" % number, b"w", cas=0) for number in range(60, 80)))
    assert [text.split()[0] for text in dict.fromkeys(statements)] == ["WITH", "INSERT"]
    node.machine._connection.set_trace_callback(None)


def test_nothing_to_apply(node: Node) -> None:
    """An empty batch is allowed and does nothing."""
    assert node.machine.apply([]) == []


def test_many_changes_are_not_named(node: Node) -> None:
    """Up to 1,000 keys are named; with one more everything may have changed."""
    node.apply(*(KvPut(b"%d" % number, b"v") for number in range(1_000)))
    changes = node.machine.take_changes()
    assert (len(changes.keys), changes.everything) == (1_000, False)
    node.apply(*(KvPut(b"%d" % number, b"w") for number in range(1_001)))
    assert node.machine.take_changes() == Changes(2_001, [], [], everything=True)
    node.apply(KvPut(b"k", b"v"))
    assert node.machine.take_changes() == Changes(2_002, [b"k"], [], everything=False)


def test_only_effective_changes_of_a_mixed_batch(node: Node) -> None:
    """Of a batch of changes and repetitions the changes alone are named."""
    node.apply(KvPut(b"same", b"v"), KvPut(b"other", b"v"))
    node.machine.take_changes()
    node.apply(KvPut(b"same", b"v"), KvPut(b"other", b"w"), KvPut(b"new", b"v"), KvPut(b"same", b"v"), KvPut(b"same", b"x", cas=99))
    changes = node.machine.take_changes()
    assert (sorted(changes.keys), changes.prefixes, changes.index) == ([b"new", b"other"], [], 7)
    assert node.machine.applied() == (7, 1)
    assert node.reader.get(b"missing").index == 5
