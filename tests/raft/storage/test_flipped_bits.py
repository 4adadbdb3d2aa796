"""A thousand flipped bits in each kind of file: noticed before anything is used, or without any effect."""

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from raft.core.model import Boundary, HardState
from raft.errors import RaftError, StorageCorrupt
from raft.ports import WriteBatch
from raft.storage.snapshots import FileSnapshots
from raft.storage.sqlite import SqliteLog
from raft.storage.witness import Witness
from raft.testing.conformance import CONFIGURATION, entries_of, raised, store_snapshot
from raft.testing.crashes import workspace_directory

FLIPS = 1_000
Files = dict[str, bytes]
LOG = "log.db"
WAL = "log.db-wal"


def held(directory: Path) -> object:
    """All that a log says it holds."""
    log = SqliteLog(directory)
    try:
        return log.load(), log.hard_state(), log.get("identity")
    finally:
        log.close()


def written(live: Path) -> tuple[Files, Files]:
    """A log's files as a crash leaves them, and as a stop does."""
    log = SqliteLog(live)
    log.write(WriteBatch(HardState(3, "voted", 30), entries_of(1, 600, term=2)))
    log.compact(Boundary(100, 2, CONFIGURATION))
    log.put("identity", b"the identity")
    for first in range(601, 701, 10):
        log.write(WriteBatch(HardState(3, "voted", first), entries_of(first, first + 9, term=3)))
    log.write(WriteBatch(HardState(4, "last vote", 700)))
    crashed = {path.name: path.read_bytes() for path in live.iterdir()}
    log.close()
    return crashed, {path.name: path.read_bytes() for path in live.iterdir()}


def put_down(directory: Path, files: Files) -> Path:
    """A fresh directory with these files."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return directory


def flipped(files: Files, name: str, look: Callable[[Path], object]) -> Counter[str]:
    """What became of a thousand single flips in one file: an error's name, or ``harmless`` when the same is found as without it."""
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails
    chosen, outcomes = random.Random(seed), Counter[str]()
    with workspace_directory() as workspace:
        image = Path(workspace) / "image"
        due = look(put_down(image, files))
        for bit in (chosen.randrange(8 * len(files[name])) for _ in range(FLIPS)):
            content = bytearray(files[name])
            content[bit // 8] ^= 1 << bit % 8
            try:
                found = look(put_down(image, {**files, name: bytes(content)}))
            except RaftError as error:
                outcomes[type(error).__name__] += 1
                continue
            assert found == due, f"bit {bit % 8} of byte {bit // 8} of {name} went unnoticed"
            outcomes["harmless"] += 1
    return outcomes


@pytest.mark.slow
@pytest.mark.parametrize(("name", "stopped"), [(LOG, True), (LOG, False), (WAL, False), ("log.witness", True)])
def test_st_06_a_thousand_flipped_bits_of_the_log(tmp_path: Path, name: str, stopped: bool) -> None:
    """Log, term, vote and records: every flip is an error by name or changes nothing, the last transaction's included."""
    crashed, closed = written(tmp_path)
    outcomes = flipped(closed if stopped else crashed, name, held)
    assert sum(outcomes.values()) == FLIPS
    assert outcomes.keys() <= {"StorageCorrupt", "StorageFailed", "StorageVersion", "IdentityMismatch", "harmless"}
    if name == WAL:
        assert outcomes["StorageCorrupt"] == FLIPS
    if name == "log.witness":
        assert outcomes["harmless"] == FLIPS, "the witness alone condemns nobody"


@pytest.mark.parametrize("suffix", [".state", ".json"])
def test_a_thousand_flipped_bits_of_a_snapshot(tmp_path: Path, suffix: str) -> None:
    """A damaged snapshot is passed over, never handed out: neither restored nor sent to a peer."""
    store_snapshot(FileSnapshots(tmp_path), Boundary(7, 2, CONFIGURATION), b"the state of this moment" * 50)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    name = next(name for name in files if name.endswith(suffix))

    def look(directory: Path) -> object:
        source = FileSnapshots(directory).latest()
        if source is None:
            raise StorageCorrupt("read the snapshot", "it was passed over")
        found = source.boundary, source.read_at(0, source.size)
        source.close()
        return found

    outcomes = flipped(files, name, look)
    assert outcomes["StorageCorrupt"] >= (FLIPS if suffix == ".state" else FLIPS * 9 // 10)
    assert outcomes.total() == FLIPS


def test_the_last_transaction_is_torn_or_damaged(tmp_path: Path) -> None:
    """Without its last bytes a log goes on from the write before, unless that last write was acknowledged: then they are missed."""
    live = tmp_path / "live"
    live.mkdir()
    crashed, _ = written(live)
    short = {**crashed, WAL: crashed[WAL][:-512]}
    error = raised(StorageCorrupt, lambda: held(put_down(tmp_path / "damaged", short)))
    assert "was acknowledged" in str(error)
    torn = put_down(tmp_path / "torn", short)
    witness = Witness(torn)
    witness.acknowledge(witness.number - 1)  # as it was when the write had not returned
    witness.close()
    log = SqliteLog(torn)
    assert log.hard_state() == HardState(3, "voted", 691)
    log.close()


def test_older_copies_and_lost_logs_are_refused(tmp_path: Path) -> None:
    """Fifty older copies of the files, with and without their write-ahead log: none of them votes or acknowledges as the old self."""
    live = tmp_path / "live"
    live.mkdir()
    log = SqliteLog(live)
    older: list[Files] = []
    for number in range(1, 51):
        older.append({path.name: path.read_bytes() for path in live.iterdir() if path.name in {LOG, WAL}})
        log.write(WriteBatch(HardState(number, "a", number - 1), entries_of(number, number, term=number)))
    witness = (live / "log.witness").read_bytes()
    newest = (live / LOG).read_bytes()
    log.close()
    for files in [*older, {LOG: newest}]:
        image = put_down(tmp_path / "image", {**files, "log.witness": witness})
        assert "older copy" in str(raised(StorageCorrupt, lambda image=image: SqliteLog(image)))  # type: ignore[misc]  # the loop's value


def test_rows_that_vanished_at_the_end_are_missed(tmp_path: Path) -> None:
    """A file that is sound to SQLite and ends too early is refused: the tail knows how far the last write went."""
    log = SqliteLog(tmp_path)
    log.write(WriteBatch(HardState(1), entries_of(1, 9)))
    log._execute("DELETE FROM entries WHERE log_index > 7")
    log.close()
    error = raised(StorageCorrupt, lambda: SqliteLog(tmp_path))
    assert "ends with entry 7 where its last write ended with 9" in str(error)
