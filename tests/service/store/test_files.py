"""Opening: which file is the state, what is refused, what is cleaned up, and the settings of every connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from service.domain.commands import KvPut
from service.errors import StateDamaged, StateUnreadable
from service.store import engine, files
from service.store.machine import KvMachine
from service.store.reader import Reader
from service.store.sums import seal

if TYPE_CHECKING:
    from pathlib import Path

    from tests.service.store.conftest import Node


def opened_by_both(directory: Path, match: str) -> None:
    """Writer and reader both refuse, with this reason."""
    with pytest.raises(StateUnreadable, match=match):
        KvMachine(directory)
    with pytest.raises(StateUnreadable, match=match):
        Reader(directory).get(b"k")


def test_a_state_is_found_again(node: Node) -> None:
    """A machine that is opened again holds what was applied, and goes on behind it."""
    node.apply(KvPut(b"k", b"v"))
    digest = node.machine.digest()
    node.close()
    again = KvMachine(node.directory)
    assert (again.applied(), again.digest(), again.generation) == ((1, 1), digest, 1)
    again.close()


def test_a_newer_format_is_refused(node: Node) -> None:
    """A file of a later version is named with its version, ours, and what to do; it is not touched."""
    node.machine._connection.execute("PRAGMA user_version = 3")
    node.close()
    opened_by_both(node.directory, r"state-1.db has format version 3, this program knows up to 2: start the newer version")


def test_a_foreign_file_is_refused(node: Node) -> None:
    """A database of another program is no state."""
    node.machine._connection.execute("PRAGMA application_id = 5")
    node.close()
    opened_by_both(node.directory, "application id is 0x5")


def test_an_unfinished_file_is_refused(node: Node) -> None:
    """A file without a version, or without the row that says what it holds, was never completed."""
    node.machine._connection.execute("DELETE FROM meta")
    node.close()
    with pytest.raises(StateUnreadable, match="never completed"):
        KvMachine(node.directory)
    with pytest.raises(StateUnreadable, match="can't be read"):
        Reader(node.directory).get(b"k")
    connection = engine.open_writer(node.directory / "state-1.db")
    connection.execute("PRAGMA user_version = 0")
    connection.close()
    seal(node.directory / "state-1.db", 0)
    opened_by_both(node.directory, "format version 0: it was never completed")


def test_what_is_no_database_is_refused(node: Node) -> None:
    """A file of other bytes is named."""
    node.close()
    (node.directory / "state-1.db").write_bytes(b"hello" * 1000)
    with pytest.raises(StateDamaged, match=r"state-1.db: page 1, and \d+ others of \d+ is not what was written"):
        KvMachine(node.directory)
    seal(node.directory / "state-1.db", 0)
    opened_by_both(node.directory, "not a database")


def test_a_missing_file_is_refused(node: Node) -> None:
    """CURRENT that names a file which is not there is an error: a fresh state in its place would forget acknowledged writes."""
    node.close()
    (node.directory / "state-1.db").unlink()
    opened_by_both(node.directory, r"state-1.db is missing")
    assert not (node.directory / "state-1.db").exists()


@pytest.mark.parametrize(
    "text", [b"", b"state-0.db\n", b"../state-1.db\n", b"state-1.db state-2.db", b"\xff\x00", b"state-1.db" + b" " * 100 + b"x", b"x" * 10_000]
)
def test_a_damaged_current_is_refused(node: Node, text: bytes) -> None:
    """CURRENT must hold the name of one state file and nothing else."""
    node.close()
    (node.directory / "CURRENT").write_bytes(text)
    if text.startswith(b"state-1.db   "):
        assert files.read_current(node.directory) == 1
        return
    opened_by_both(node.directory, "not the name of a state file")


def test_a_lost_current_is_not_a_fresh_start(node: Node) -> None:
    """State with entries but without CURRENT is refused with the way out, and the way out works."""
    node.apply(KvPut(b"k", b"v"))
    node.close()
    (node.directory / "CURRENT").unlink()
    with pytest.raises(StateUnreadable, match=r"state-1.db holds applied entries, but .*CURRENT is missing: write the file's name into it"):
        KvMachine(node.directory)
    (node.directory / "CURRENT").write_text("state-1.db")
    again = KvMachine(node.directory)
    assert again.applied() == (1, 1)
    again.close()


def test_leftovers_are_removed_by_the_writer_alone(node: Node) -> None:
    """Other generations and temporary files go at the writer's start; a reader touches nothing; files of others stay."""
    node.apply(KvPut(b"k", b"v"))
    node.close()
    rubbish = ["state-2.db", "state-2.db-wal", "state-2.db-shm", "state-7.db.new", "state-7.db.new-wal", "capture-abc_12xy.tmp", "CURRENT.new"]
    others = ["log.db", "log.db-wal", "LOCK", "state-x.db", "notes.tmp", "state-2.db.bak"]
    for name in rubbish + others:
        (node.directory / name).write_bytes(b"x")
    reader = Reader(node.directory)
    assert reader.get(b"k").row.value == b"v"
    assert {*rubbish, *others} <= {path.name for path in node.directory.iterdir()}
    machine = KvMachine(node.directory)
    names = {path.name for path in node.directory.iterdir()}
    assert names.isdisjoint(rubbish)
    assert set(others) <= names
    assert reader.get(b"k").row.value == b"v"
    reader.close()
    machine.close()


def test_settings_hold_on_every_connection(node: Node) -> None:
    """Each connection reports the journal, sync, checkpoint and access settings that were meant for it."""
    node.reader.list(b"")
    opened = node.reader._connections
    machine = node.machine
    capture = machine.capture()
    for connection, query_only in (
        (machine._connection, 0),
        (machine._checkpointer, 0),
        (opened.hot, 1),
        (opened._idle[0], 1),
        (capture._connection, 1),
    ):
        values = {
            name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous", "wal_autocheckpoint", "query_only")
        }
        assert values == {"journal_mode": "wal", "synchronous": 1, "wal_autocheckpoint": 0, "query_only": query_only}
    capture.close()


def test_a_setting_that_does_not_hold_is_refused(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pragma that reads back as something else stops the opening and is named."""
    monkeypatch.setitem(engine._READER, "synchronous", 9)
    with pytest.raises(StateUnreadable, match="PRAGMA synchronous is 1 after it was set to 9"):
        node.reader.get(b"k")


def test_an_old_sqlite_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that can lose data is not used; the message names its version and the way out."""
    monkeypatch.setattr(engine, "SQLITE_MINIMUM", (99, 0, 0))
    with pytest.raises(StateUnreadable, match=r"can lose data; 99.0.0 or newer is needed: install the pysqlite3 wheel"):
        KvMachine(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_can_not_be_written(tmp_path: Path) -> None:
    """A data directory that is not there is named."""
    with pytest.raises(StateUnreadable, match=r"the state in .*nowhere can't be prepared: No such file"):
        KvMachine(tmp_path / "nowhere")


def test_paths_with_odd_characters(tmp_path: Path) -> None:
    """Blanks, question marks, percent signs and hashes in the path are only a path."""
    directory = tmp_path / "a b?mode=memory#%41"
    directory.mkdir()
    machine = KvMachine(directory)
    machine.apply([(1, 1, None)])
    assert Reader(directory).get(b"k").applied == 1
    assert (directory / "state-1.db").exists()
    machine.close()
