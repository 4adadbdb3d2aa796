"""What survives: a writer killed at any moment, a torn tail, a compaction cut short."""

import os
import random
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from raft.core.model import Boundary, HardState
from raft.ports import WriteBatch
from raft.storage.sqlite import SqliteLog
from raft.testing.conformance import entries_of

WRITER = Path(__file__).with_name("writer.py")
KILLS = 8


@pytest.mark.processes
def test_st_01_acknowledged_batches_survive_kill_nine(tmp_path: Path) -> None:
    """A writer is killed at random moments, again and again over one file; nothing that it had acknowledged is ever missing or different."""
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails
    random_source = random.Random(seed)
    for kill in range(KILLS):
        acknowledged, terms = _run_and_kill(tmp_path, seed + kill, lines=random_source.randrange(1, 120))
        store = SqliteLog(tmp_path)
        boundary, entries = store.load()
        state = store.hard_state()
        term, _, last, compacted = acknowledged
        assert boundary.index >= compacted
        assert state.term >= term
        assert state.vote == f"node-{state.term}"
        found = {entry.index: entry for entry in entries}
        # The one batch that was under way may be there as a whole, and may have replaced the last entries; never more than five.
        assert max(found, default=boundary.index) >= last - 6
        for index, known in terms.items():
            if boundary.index < index < last - 5:
                assert found[index].term == known
        for entry in entries:
            assert entry.data == f"{entry.index}/{entry.term};".encode() * (1 + entry.index * 7 % 40)
        store.close()


def _run_and_kill(directory: Path, seed: int, lines: int) -> tuple[tuple[int, ...], dict[int, int]]:
    """The last acknowledgement, and the term that was last acknowledged for each index."""
    process = subprocess.Popen([sys.executable, str(WRITER), str(directory), str(seed)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    terms: dict[int, int] = {}
    acknowledged: tuple[int, ...] = ()
    with process:
        for number, line in enumerate(process.stdout):
            if not line.endswith("\n"):
                break
            acknowledged = tuple(map(int, line.split()))
            term, first, last, _ = acknowledged
            terms = {index: known for index, known in terms.items() if index < first} | dict.fromkeys(range(first, last + 1), term)
            if number == lines:
                process.kill()
    assert acknowledged, "the writer ended before its first acknowledgement"
    return acknowledged, terms


def test_st_06_torn_tails_of_every_length_open(tmp_path: Path) -> None:
    """Whatever part of the last transaction reached the disk, the log opens with all earlier batches; the last is there whole or not at all."""
    live = tmp_path / "live"
    live.mkdir()
    store = SqliteLog(live)
    store.write(WriteBatch(HardState(1, "a", 0), entries_of(1, 20)))
    before = (live / "log.db-wal").stat().st_size
    store.write(WriteBatch(HardState(2, "b", 20), entries_of(15, 80, term=2)))
    after = (live / "log.db-wal").stat().st_size
    old, new = (HardState(1, "a", 0), entries_of(1, 20)), (HardState(2, "b", 20), entries_of(1, 14) + entries_of(15, 80, term=2))
    for length in range(before, after + 1, 515):
        image = tmp_path / f"image-{length}"
        image.mkdir()
        for name in ("log.db", "log.db-wal"):
            shutil.copy(live / name, image / name)
        os.truncate(image / "log.db-wal", length)
        opened = SqliteLog(image)
        found = (opened.hard_state(), opened.load().entries)
        opened.close()
        assert found == (new if length == after else old), f"at {length} of {after} bytes"
    store.close()


def test_power_losses_in_a_row(tmp_path: Path) -> None:
    """Each loss leaves any mixture of old and new sectors of the write that was under way, over the remains of earlier losses.

    The log always opens, with everything acknowledged: the search for damage in the write-ahead log takes no torn write for damage.
    """
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails
    random_source = random.Random(seed)
    live = tmp_path / "live-0"
    live.mkdir()
    store = SqliteLog(live)
    term, last = 1, 0
    for loss in range(1, 61):
        for _ in range(random_source.randrange(4)):
            count = random_source.randrange(1, 40)
            store.write(WriteBatch(HardState(term, None, last), entries_of(last + 1, last + count, term)))
            last += count
        state, acknowledged = store.hard_state(), store.load().entries
        before = (live / "log.db-wal").read_bytes() if (live / "log.db-wal").exists() else b""
        database = (live / "log.db").read_bytes()
        under_way = entries_of(last + 1, last + random_source.randrange(1, 300), term + 1)
        store.write(WriteBatch(HardState(term + 1, "x", last), under_way))
        image = tmp_path / f"live-{loss}"
        image.mkdir()
        (image / "log.db").write_bytes(database)
        (image / "log.db-wal").write_bytes(_mixed(random_source, before, (live / "log.db-wal").read_bytes()))
        store.close()
        shutil.rmtree(live)
        live, store = image, SqliteLog(image)
        found = (store.hard_state(), store.load().entries)
        assert found in ((state, acknowledged), (HardState(term + 1, "x", last), acknowledged + under_way))
        last, term = len(found[1]), term + 2
    store.close()


def _mixed(random_source: random.Random, before: bytes, after: bytes) -> bytes:
    """Each sector as it was before or after; those never written are zero. The header is synced before the frames that follow it."""
    before = after[:32] + before[32:].ljust(len(after) - 32, b"\x00")
    chance = random_source.choice((0.05, 0.5, 0.95))
    sectors = range(0, len(after), 512)
    return b"".join((after if random_source.random() < chance else before)[start : start + 512] for start in sectors)


def test_st_12_an_interrupted_compaction_is_finished(tmp_path: Path) -> None:
    """A crash between the boundary and the removal of what lies before it leaves dead rows, which load() skips and removes."""
    live, image = tmp_path / "live", tmp_path / "image"
    live.mkdir()
    image.mkdir()
    store = SqliteLog(live)
    store.write(WriteBatch(HardState(1), entries_of(1, 2_000)))
    store.compact(Boundary(1_500, 1))
    for name in ("log.db", "log.db-wal"):
        shutil.copy(live / name, image / name)
    store.close()
    opened = SqliteLog(image)
    assert _rows(opened) == 2_000
    opened.write(WriteBatch(entries=entries_of(2_001, 2_001)))
    assert opened.load() == (Boundary(1_500, 1), entries_of(1_501, 2_001))
    assert _rows(opened) == 501
    opened.close()


def test_dead_rows_go_with_the_writes(tmp_path: Path) -> None:
    """After a compaction the dead rows vanish faster than new entries arrive, a bounded number with each write."""
    store = SqliteLog(tmp_path)
    store.write(WriteBatch(entries=entries_of(1, 3_000)))
    store.compact(Boundary(2_900, 1))
    found = [_rows(store)]
    for first in range(3_001, 3_801, 16):
        store.write(WriteBatch(entries=entries_of(first, first + 15)))
        found.append(_rows(store))
    assert max(earlier - later for earlier, later in pairwise(found)) <= 512
    assert found[-1] <= 3_000 + 800 - 50 * 48 + 512
    assert store.load().entries == entries_of(2_901, 3_800)
    store.close()


def test_the_file_does_not_keep_what_a_burst_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Free pages beyond the reserve go back to the file system, a bounded number with each compaction and the rest at start."""
    monkeypatch.setattr("raft.storage.sqlite.FREE_PAGES_KEPT", 16)
    store = SqliteLog(tmp_path)
    big = tuple(entry._replace(data=bytes(65_536)) for entry in entries_of(1, 100))
    store.write(WriteBatch(entries=big))
    store.compact(Boundary(99, 1))
    store.load()
    pages = store._execute("PRAGMA page_count").scalar_one()
    free = store._execute("PRAGMA freelist_count").scalar_one()
    assert free <= 16
    assert pages < 16 + 40
    store.close()
    assert (tmp_path / "log.db").stat().st_size < 56 * 4096


def _rows(store: SqliteLog) -> int:
    return int(store._execute("SELECT count(*) FROM entries WHERE log_index > 0").scalar_one())
