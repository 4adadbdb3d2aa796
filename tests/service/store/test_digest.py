"""The digest of a state tells two states apart and nothing else, and holds still while the writer goes on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.domain.commands import KvDelete, KvPut, ReapTombstones
from service.store import digest, engine, files
from service.store.inspection import inspect_state

KEYS = 3 * digest.ROWS_A_STEP + 5


def _key(number: int) -> bytes:
    return b"k%04d" % number


def _fill(node: Any) -> None:
    node.apply(*(KvPut(_key(number), b"v%d" % number) for number in range(KEYS)))


def test_same_commands_same_digest(make_node: Callable[[str], Any]) -> None:
    """However the entries were cut into batches, the digest is the same, and it counts the keys."""
    whole, pieces = make_node("whole"), make_node("pieces")
    _fill(whole)
    for number in range(KEYS):
        pieces.apply(KvPut(_key(number), b"v%d" % number))
    assert whole.machine.digest() == pieces.machine.digest()
    assert whole.machine.digest().keys == KEYS


@pytest.mark.parametrize("number", [0, digest.ROWS_A_STEP - 1, digest.ROWS_A_STEP, KEYS - 1])
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE kv SET value = x'00' WHERE key = ?",
        "UPDATE kv SET flags = 1 WHERE key = ?",
        "UPDATE kv SET lock_index = 1 WHERE key = ?",
        "UPDATE kv SET session = 'NULL' WHERE key = ?",
        "UPDATE kv SET create_index = 99 WHERE key = ?",
        "UPDATE kv SET key = CAST(key || x'00' AS BLOB) WHERE key = ?",
        "DELETE FROM kv WHERE key = ?",
        "INSERT INTO tombstones VALUES (?, 1, 1)",
    ],
)
def test_every_column_counts(make_node: Callable[[str], object], statement: str, number: int) -> None:
    """A state that differs in one column of one row, first or last of a step, has another digest."""
    node = make_node("node")
    _fill(node)
    before = node.machine.digest()
    connection = engine.open_writer(files.state_path(node.directory, 1))
    connection.execute(statement, (_key(number),))
    connection.close()
    after = node.machine.digest()
    assert after.index == before.index
    assert after.sha256 != before.sha256


def test_empty_key_and_tombstones(make_node: Callable[[str], Any]) -> None:
    """The empty key is counted like any other, and so are deletions and their being forgotten."""
    node = make_node("node")
    node.apply(KvPut(b"", b"1"), KvPut(b"a", b"1"))
    assert node.machine.digest().keys == 2
    node.apply(KvDelete(b"a"))
    assert node.machine.digest().keys == 1
    seen = {node.machine.digest().sha256}
    node.apply(ReapTombstones(3))
    seen.add(node.machine.digest().sha256)
    assert len(seen) == 2


def test_held_state_stands_still(make_node: Callable[[str], Any]) -> None:
    """What was held has the digest of its own moment, however much was written since; a digest can be broken off."""
    node = make_node("node")
    _fill(node)
    expected = node.machine.digest()
    held = node.machine.hold()
    node.apply(*(KvPut(_key(number), b"other") for number in range(KEYS)))
    assert held.digest() == expected
    assert held.digest(lambda: False) is None
    held.close()
    assert node.machine.digest() != expected


def test_inspection(make_node: Callable[[str], object], tmp_path: Path) -> None:
    """A still file tells its digest and what it holds; a damaged, foreign or missing one says what is wrong."""
    node = make_node("node")
    _fill(node)
    node.apply(KvDelete(_key(0)))
    expected = node.machine.digest()
    node.close()
    path = files.state_path(node.directory, 1)
    assert not path.with_name(path.name + "-wal").exists()
    report = inspect_state(path, path)
    assert (report.problems, report.digest, report.tombstones, report.superseded_by) == ([], expected, 1, 0)
    content = path.read_bytes()
    path.write_bytes(content[:8192] + b"\xff" * 4096 + content[12288:])
    assert inspect_state(path, path).problems
    path.write_bytes(b"x" * 4096)
    assert inspect_state(path, path).problems
    missing = tmp_path / "state-9.db"
    assert "is missing" in inspect_state(missing, missing).problems[0]
