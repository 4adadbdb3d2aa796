"""The sums of a state file's pages: kept through checkpoints, closes and crashes, and compared before and during use."""

from __future__ import annotations

import io
import os
import shutil
from contextlib import closing
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest
from pysqlite3 import dbapi2

from service.domain.commands import KvDeleteTree, KvPut
from service.errors import StateDamaged, StateUnreadable
from service.store import files, sums, wal
from service.store.machine import KvMachine
from service.store.reader import Reader
from service.store.sums import PageSums

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.service.store.conftest import EntryOf, Node

PAGE = wal.PAGE_BYTES


def fill(node: Node, count: int = 100, size: int = 300) -> None:
    """Some pages' worth of keys."""
    node.apply(*(KvPut(b"key/%03d" % number, bytes([number % 251]) * size) for number in range(count)))


def turn(path: Path, page: int, at: int = 2_000) -> None:
    """Flip a bit of a page on disk."""
    with path.open("r+b") as file:
        file.seek((page - 1) * PAGE + at)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 4]))


def image(directory: Path, target: Path) -> Path:
    """What a kill at this moment leaves."""
    return shutil.copytree(directory, target, ignore=shutil.ignore_patterns("*-shm"))


def test_sums_follow_every_checkpoint(node: Node) -> None:
    """After each checkpoint, and with entries behind it in the log, the kept sums are those of the file's pages."""
    path = node.directory / "state-1.db"
    for turn_number in range(12):
        fill(node, 20 * turn_number, 50 * turn_number)
        if turn_number % 4 == 3:
            node.apply(KvDeleteTree(b"key/0"))
        assert node.machine.checkpoint() == node.machine.applied_index
        fill(node, 3, turn_number)
        kept, index = sums._load(path)
        content = path.read_bytes()
        assert kept == sums._sums_of(content)
        assert index <= node.machine.applied_index
        assert len(content) == len(kept) * PAGE
        node.machine.check_all()


def test_a_pinned_reader_at_the_close(node: Node) -> None:
    """What a reader kept from being moved stays in the log: SQLite does not move it, unsummed, as the last connection closes."""
    fill(node)
    node.machine.checkpoint()
    held = node.machine.hold()
    fill(node, size=299)
    digest = node.machine.digest()
    node.close()
    held.close()
    assert (node.directory / "state-1.db-wal").stat().st_size
    again = KvMachine(node.directory)
    assert (again.digest(), again.checkpoint()) == (digest, 200)
    again.check_all()
    again.close()
    assert not (node.directory / "state-1.db-wal").exists()


def test_a_disk_that_is_full_at_the_close(node: Node) -> None:
    """Moved, but the sums could not be written: the log stays although nobody else has the state open, and tells the next start what was moved."""
    fill(node)
    node.machine.checkpoint()
    fill(node, size=299)
    digest = node.machine.digest()
    node.reader.close()
    with patch.object(sums, "_store", side_effect=StateUnreadable("no space left")):
        node.machine.close()
    assert (node.directory / "state-1.db-wal").stat().st_size
    with closing(KvMachine(node.directory)) as again:
        assert again.digest() == digest


def test_writes_before_the_sums_are_kept(node: Node) -> None:
    """Entries that are applied between the move and the new sums do not start the log anew: the sums are of what was moved."""
    fill(node)
    node.machine.checkpoint()
    fill(node, size=299)
    keep = PageSums.note

    def late(pages: PageSums, salts: bytes, frames: int, index: int) -> None:
        fill(node, 30, 900)
        keep(pages, salts, frames, index)

    with patch.object(PageSums, "note", late):
        assert node.machine.checkpoint() == 200
    kept, index = sums._load(node.directory / "state-1.db")
    assert (kept, index) == (sums._sums_of((node.directory / "state-1.db").read_bytes()), 200)


def test_killed_before_the_sums_are_kept(node: Node, tmp_path: Path) -> None:
    """Pages that were moved, their sums not yet written: the write-ahead log holds them, so the state is sound, and its sums are mended."""
    fill(node)
    node.machine.checkpoint()
    fill(node, size=298)
    digest = node.machine.digest()
    with patch.object(PageSums, "note"):
        node.machine.checkpoint()
    killed = image(node.directory, tmp_path / "killed")
    (killed / "state-1.db-wal").rename(killed / "aside")
    with closing(PageSums(killed / "state-1.db")) as pages, pytest.raises(StateDamaged, match="is not what was written"):
        pages.check()
    (killed / "aside").rename(killed / "state-1.db-wal")
    again = KvMachine(killed)
    assert again.digest() == digest
    again._pages.check()
    assert sums._load(killed / "state-1.db")[0] == sums._sums_of((killed / "state-1.db").read_bytes())
    again.close()


def test_sums_are_mended_from_the_log(node: Node) -> None:
    """A page that is neither what its sum says nor what the log holds gets the log's sum: a living reader may keep it from being moved again."""
    fill(node)
    node.machine.checkpoint()
    fill(node, size=298)
    node.machine.checkpoint()
    page = min(wal.pages_committed(node.directory / "state-1.db-wal"))
    with closing(Reader(node.directory)) as survivor:
        survivor.get(b"k")
        turn(node.directory / "state-1.db", page)
        with closing(PageSums(node.directory / "state-1.db")) as pages:
            pages.check()
        kept, _ = sums._load(node.directory / "state-1.db")
        now = sums._sums_of((node.directory / "state-1.db").read_bytes())
        assert [number for number, pair in enumerate(zip(kept, now, strict=True), 1) if pair[0] != pair[1]] == [page]
    turn(node.directory / "state-1.db", page)


def test_a_page_outside_of_the_log_is_not_excused(node: Node, tmp_path: Path) -> None:
    """After such a crash, a damaged page that the log does not hold is still damage, and one of a torn transaction is, too."""
    fill(node)
    node.machine.checkpoint()
    node.apply(KvPut(b"key/000", b"changed"))
    with patch.object(PageSums, "note"):
        node.machine.checkpoint()
    killed = image(node.directory, tmp_path / "killed")
    logged = wal.pages_committed(killed / "state-1.db-wal")
    assert logged
    free = next(page for page in range(1, 99) if page not in logged)
    turn(killed / "state-1.db", free)
    with pytest.raises(StateDamaged, match=rf"state-1\.db: page {free} of \d+ is not what was written"):
        KvMachine(killed)
    turn(killed / "state-1.db", free)
    content = (killed / "state-1.db-wal").read_bytes()
    (killed / "state-1.db-wal").write_bytes(content[:1_000] + bytes([content[1_000] ^ 1]) + content[1_001:])
    assert wal.pages_committed(killed / "state-1.db-wal") == {}
    with pytest.raises(StateDamaged, match="is not what was written"):
        KvMachine(killed)


@pytest.mark.parametrize("lost", ["log", "half of the log"])
def test_a_log_that_lost_what_was_moved(node: Node, tmp_path: Path, lost: str) -> None:
    """Older pages of the log before newer ones of the file would be a state that never was. Without any of it the file alone is one that was."""
    node.apply(KvPut(b"a", b"1"))
    fill(node)
    node.machine.checkpoint()
    node.apply(KvPut(b"b", b"1"))
    fill(node, size=297)
    fill(node, size=296)
    node.machine.checkpoint()
    killed = image(node.directory, tmp_path / "killed")
    log = killed / "state-1.db-wal"
    assert KvMachine(image(killed, tmp_path / "sound")).applied() == (302, 1)
    if lost == "log":
        log.unlink()
        assert KvMachine(killed).applied() == (302, 1)
        return
    content = log.read_bytes()
    log.write_bytes(content[: 32 + 8 * (24 + PAGE)])
    with pytest.raises(StateDamaged, match=r"state-1\.db was at index 302 and is at \d+ now: state-1\.db-wal is damaged, missing, or another's"):
        KvMachine(killed)


def test_damage_while_the_node_runs(node: Node) -> None:
    """A page that changes under a running node is found within a round, and from then on every step says so."""
    fill(node, 5_000)
    node.machine.checkpoint()
    assert not node.machine.check_some()
    while not node.machine.check_some():
        pass
    turn(node.directory / "state-1.db", 280)
    assert not node.machine.check_some()
    with pytest.raises(StateDamaged, match="page 280 of"):
        node.machine.check_some()
    turn(node.directory / "state-1.db", 280)
    with pytest.raises(StateDamaged, match="page 280 of"):
        node.machine.check_some()


def test_pages_that_wait_in_the_log_are_not_suspected(node: Node) -> None:
    """A reader holds a checkpoint up half-way: what was moved but not summed is in the log, and no damage."""
    fill(node)
    node.machine.checkpoint()
    fill(node, size=295)
    held = node.machine.hold()
    node.apply(KvPut(b"later", b"v"))
    proven = node.machine.checkpoint()
    assert proven < node.machine.applied_index
    assert node.machine._pages._differing(0, node.machine._pages._pages_now())
    node.machine.check_all()
    held.close()
    assert node.machine.checkpoint() == node.machine.applied_index
    node.machine.check_all()


def test_a_damaged_state_is_not_sent(node: Node) -> None:
    """A picture of a state with a damaged page is never handed over, not even in part."""
    fill(node)
    node.machine.checkpoint()
    turn(node.directory / "state-1.db", 5)
    pieces: list[bytes] = []
    with closing(node.machine.capture()) as capture, pytest.raises(StateDamaged, match="page 5 of"):
        capture.write(pieces.append)
    assert pieces == []
    with pytest.raises(StateDamaged, match="page 5 of"):
        node.machine.check_some()
    turn(node.directory / "state-1.db", 5)


def test_a_restored_state_has_sums(node: Node, make_node: Callable[[str], Node]) -> None:
    """The file of a snapshot is summed before CURRENT names it, and the old generation's sums go with it."""
    fill(node)
    pieces: list[bytes] = []
    with closing(node.machine.capture()) as capture:
        capture.write(pieces.append)
    other = make_node("other")
    other.machine.restore(100, 1, io.BytesIO(b"".join(pieces)).read)
    other.machine.check_all()
    other.close()
    assert sorted(path.name for path in other.directory.iterdir()) == ["CURRENT", "state-2.db", "state-2.db-sums"]
    turn(other.directory / "state-2.db", 3)
    with pytest.raises(StateDamaged, match=r"state-2\.db: page 3 of"):
        KvMachine(other.directory)


def test_lost_sums(node: Node) -> None:
    """Without sums, or with those of another file, nobody can tell whether the state is sound."""
    node.close()
    kept = node.directory / "state-1.db-sums"
    content = kept.read_bytes()
    for wrong in (b"", b"kvsums01", content[:-1], content + b"x", content[:-8] + content[-4:]):
        kept.write_bytes(wrong)
        with pytest.raises(StateDamaged, match=r"state-1\.db-sums is damaged"):
            KvMachine(node.directory)
    kept.unlink()
    with pytest.raises(StateDamaged, match=r"state-1\.db-sums is missing: without it nobody can tell whether state-1\.db is what was written"):
        KvMachine(node.directory)


def test_what_sqlite_can_not_decode_is_named(node: Node) -> None:
    """A damaged text of the schema fails as an error of ours, in the writer and in the reader."""
    node.close()
    path = node.directory / "state-1.db"
    path.write_bytes(path.read_bytes().replace(b"tablemetameta", b"table\xff\xfe\xfd\xfcmeta"))
    with pytest.raises(StateDamaged, match=r"page 1(, and \d+ others)? of"):
        KvMachine(node.directory)
    with pytest.raises(StateDamaged, match="can't be read"):
        Reader(node.directory).get(b"k")
    sums.seal(path, 0)
    with pytest.raises(StateUnreadable):
        KvMachine(node.directory)


def as_format_1(directory: Path) -> Path:
    """The directory as the version before this one leaves it: no sums, the lower number."""
    path = directory / "state-1.db"
    files.sums_path(path).unlink()
    with closing(dbapi2.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA user_version = 1")
    return path


def test_a_state_without_sums_is_upgraded(node: Node, entry_of: EntryOf) -> None:
    """A file of format 1 is verified, given its sums and its new number, and goes on as any other."""
    fill(node)
    digest = node.machine.digest()
    node.close()
    as_format_1(node.directory)
    again = KvMachine(node.directory)
    assert (again.digest(), again.applied()) == (digest, (100, 1))
    again.apply([(101, 1, entry_of(KvPut(b"new", b"v")))])
    again.close()
    turn(node.directory / "state-1.db", 4)
    with pytest.raises(StateDamaged, match="page 4 of"):
        KvMachine(node.directory)


def test_an_upgrade_that_was_cut_short(node: Node, tmp_path: Path) -> None:
    """Killed when the sums are there and the number is not, or not yet in the file: it opens, and nothing is lost."""
    fill(node)
    digest = node.machine.digest()
    node.close()
    path = as_format_1(node.directory)
    with patch("service.store.upgrade.finish", side_effect=StateUnreadable("killed")), pytest.raises(StateUnreadable, match="killed"):
        KvMachine(node.directory)
    assert path.read_bytes()[63] == 1
    half = KvMachine(node.directory)
    killed = image(node.directory, tmp_path / "killed")
    assert (killed / "state-1.db").read_bytes()[63] == 1
    half.close()
    with patch("service.store.sums.seal", side_effect=StateUnreadable("killed again")), closing(KvMachine(image(killed, tmp_path / "twice"))):
        pass
    for directory in (killed, node.directory):
        with closing(KvMachine(directory)) as again:
            assert again.digest() == digest
        assert (directory / "state-1.db").read_bytes()[63] == 2


def test_a_damaged_state_without_sums_is_refused(node: Node) -> None:
    """What SQLite finds wrong in a file of format 1 ends the upgrade, and the file stays of that format."""
    fill(node)
    node.close()
    path = as_format_1(node.directory)
    path.write_bytes(path.read_bytes().replace(b"key/050", b"key/05x", 1))
    with pytest.raises(StateDamaged, match=r"state-1\.db is damaged: row \d+ missing from index"):
        KvMachine(node.directory)
    assert not files.sums_path(path).exists()
