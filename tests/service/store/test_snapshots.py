"""Checkpoints, captures and restores."""

from __future__ import annotations

import io
import shutil
import threading
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from service.domain.commands import KvDelete, KvPut
from service.errors import StateUnreadable
from service.store import engine, files, machine, statements, wal
from service.store import reader as reading
from service.store.changes import Changes
from service.store.machine import KvMachine
from service.store.reader import Reader
from service.store.sums import PageSums

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.store.capture import FileCapture
    from tests.service.store.conftest import Node

    MakeNode = Callable[[str], Node]

PIECE_BYTES = 1024 * 1024


def image_of(capture: FileCapture) -> bytes:
    """What a capture writes."""
    pieces: list[bytes] = []
    capture.write(pieces.append)
    assert all(0 < len(piece) <= PIECE_BYTES for piece in pieces)
    return b"".join(pieces)


def fill(node: Node, name: bytes, count: int = 50) -> None:
    """Some keys, some deletions, in a few batches."""
    for start in range(0, count, 10):
        node.apply(
            *(KvPut(b"%s/%04d" % (name, number), name * 40, number) for number in range(start, start + 10)), KvDelete(b"%s/%04d" % (name, start))
        )


def names_in(directory: Path) -> set[str]:
    """File names without what SQLite keeps beside its files."""
    return {path.name for path in directory.iterdir() if not path.name.endswith(("-wal", "-shm"))}


def test_checkpoint_moves_everything_into_the_file(node: Node, tmp_path: Path) -> None:
    """A checkpoint names the applied index, and the file alone, without its log, then holds everything up to it."""
    fill(node, b"a")
    assert node.machine.checkpoint() == 55
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("CURRENT", "state-1.db", "state-1.db-sums"):
        shutil.copy(node.directory / name, copy / name)
    alone = KvMachine(copy)
    assert alone.digest() == node.machine.digest()
    alone.close()


def test_checkpoint_proves_nothing_under_a_pinned_reader(node: Node) -> None:
    """While somebody reads an old moment the index of the last full run is returned, however often it is tried; then it moves on."""
    node.apply(KvPut(b"k", b"1"))
    assert node.machine.checkpoint() == 1
    node.apply(KvPut(b"k", b"2"))
    connections = node.reader._connections or node.reader._replace(None)
    with connections.borrow() as connection:
        connection.execute(statements.META).fetchone()
        node.apply(KvPut(b"k", b"3"))
        assert [node.machine.checkpoint() for _ in range(3)] == [1, 1, 1]
    assert node.machine.checkpoint() == 3


def test_checkpoint_beside_writes(node: Node) -> None:
    """Checkpoints in another thread never claim what is not applied, and never go back."""
    claims: list[tuple[int, int]] = []
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            claims.append((node.machine.checkpoint(), node.machine.applied_index))

    thread = threading.Thread(target=work)
    thread.start()
    for number in range(300):
        node.apply(KvPut(b"%d" % number, bytes(500)), KvPut(b"k", b"%d" % number))
    done.set()
    thread.join()
    assert all(durable <= applied for durable, applied in claims)
    assert [durable for durable, _ in claims] == sorted(durable for durable, _ in claims)
    assert node.machine.checkpoint() == 600


def test_a_long_log_starts_anew_under_load(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """However fast entries follow each other: the last step of a checkpoint holds them back, and the next entry is written to the log's beginning."""
    monkeypatch.setattr(machine, "LOG_FRAMES_MAX", 20)
    log = wal.path_of(files.state_path(node.directory, 1))
    pages, steps = node.machine._pages, 0

    def busy(*arguments: Any) -> None:
        nonlocal steps
        steps += 1
        PageSums.note(pages, *arguments)
        if node.machine._apply_lock.acquire(blocking=False):  # where entries are not held back one comes while pages are moved
            node.machine._apply_lock.release()
            node.apply(KvPut(b"busy", b"%d" % steps))

    monkeypatch.setattr(pages, "note", busy)
    node.machine.checkpoint()
    assert steps == 1
    salts = wal.salts(log)
    for number in range(30):
        node.apply(KvPut(b"k", b"%d" % number))
    node.machine.checkpoint()
    assert (steps, wal.salts(log)) == (4, salts)
    size = log.stat().st_size
    for number in range(30):
        node.apply(KvPut(b"k", b"%d again" % number))
    assert wal.salts(log) != salts
    assert log.stat().st_size == size
    assert node.machine.checkpoint() == node.machine.applied_index


def test_a_checkpoint_is_due_after_many_changes(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted since the last one began, whatever became of it: a reader that holds it up must not have it tried after each entry."""
    monkeypatch.setattr(machine, "CHANGES_MAX", 6)
    due = []
    for number in range(4):
        node.apply(KvPut(b"k", b"%d" % number))  # the key, and by a trigger the applied index
        due.append(node.machine.checkpoint_due())
    assert due == [False, False, True, True]
    connections = node.reader._connections or node.reader._replace(None)
    with connections.borrow() as connection:
        connection.execute(statements.META).fetchone()
        node.apply(KvPut(b"k", b"held"))
        node.machine.checkpoint()
        assert not node.machine.checkpoint_due()


def test_a_capture_is_of_its_moment(node: Node, make_node: MakeNode) -> None:
    """What is applied after the capture is not in it, though it is written later; index and term are those of the picture."""
    fill(node, b"a")
    node.term = 3
    node.apply(None)
    expected = node.machine.digest()
    capture = node.machine.capture()
    fill(node, b"b")
    other = make_node("other")
    other.machine.restore(capture.index, capture.term, io.BytesIO(image_of(capture)).read)
    capture.close()
    assert (capture.index, capture.term) == (56, 3) == other.machine.applied()
    assert other.machine.digest() == expected
    assert other.machine.take_changes() == Changes(56, [], [], everything=True)


def test_a_capture_written_beside_writes(node: Node, make_node: MakeNode) -> None:
    """Written in a thread while entries are applied and checkpoints run, a capture still is one moment, whole."""
    fill(node, b"a", 2_000)
    capture = node.machine.capture()
    expected = node.machine.digest()
    image: list[bytes] = []
    thread = threading.Thread(target=lambda: image.append(image_of(capture)))
    thread.start()
    for number in range(200):
        node.apply(KvPut(b"a/%04d" % number, b"later"))
        node.machine.checkpoint()
    thread.join()
    capture.close()
    other = make_node("other")
    other.machine.restore(capture.index, capture.term, io.BytesIO(image[0]).read)
    assert other.machine.digest() == expected


def test_a_closed_capture_leaves_nothing(node: Node) -> None:
    """Writing twice gives the same bytes; closing removes the copy and lets go of the moment; closing again is harmless."""
    fill(node, b"a")
    capture = node.machine.capture()
    assert image_of(capture) == image_of(capture)
    node.apply(KvPut(b"k", b"v"))
    assert node.machine.checkpoint() == 56
    capture.close()
    capture.close()
    assert names_in(node.directory) == {"CURRENT", "state-1.db", "state-1.db-sums"}
    with pytest.raises(StateUnreadable, match="closed"):
        capture.write(len)


def test_restore_replaces_everything(node: Node, make_node: MakeNode) -> None:
    """Old keys, deletions and indexes are gone, the machine goes on from the picture's index, and so does a machine opened anew."""
    fill(node, b"new")
    capture = node.machine.capture()
    other = make_node("other")
    fill(other, b"old", 20)
    other.machine.restore(55, 1, io.BytesIO(image_of(capture)).read)
    capture.close()
    assert other.machine.generation == 2
    assert names_in(other.directory) == {"CURRENT", "state-2.db", "state-2.db-sums"}
    with other.reader._replace(None).borrow() as connection:
        connection.execute(statements.META).fetchone()
        for made in (node, other):
            made.apply(None)
        assert other.machine.checkpoint() == 55
    for made in (node, other):
        made.apply(KvPut(b"k", b"v"), KvDelete(b"new/0001"))
    assert other.machine.digest() == node.machine.digest()
    other.close()
    again = KvMachine(other.directory)
    assert (again.digest(), again.generation) == (node.machine.digest(), 2)
    again.close()


def test_restore_refuses_what_is_wrong(node: Node, make_node: MakeNode) -> None:
    """A picture that is cut, damaged, empty, foreign, or of another index or term is refused by name; state and files stay as they were."""
    fill(node, b"a", 500)
    capture = node.machine.capture()
    image = image_of(capture)
    capture.close()
    node.machine._connection.execute("CREATE TABLE extra (x)")
    with closing(node.machine.capture()) as foreign_capture:
        foreign = image_of(foreign_capture)
    other = make_node("other")
    fill(other, b"old")
    before = (other.machine.digest(), names_in(other.directory))
    for index, term, bad, reason in (
        (551, 1, image, "announced were"),
        (550, 2, image, "announced were"),
        (550, 1, image[: len(image) // 2], "damaged|malformed"),
        (550, 1, image[:5000], "damaged|malformed|can't be opened"),
        (550, 1, b"", "no state file"),
        (550, 1, b"not a database" * 1000, "can't be opened"),
        *((550, 1, image[:at] + bytes(100) + image[at + 100 :], "damaged|malformed") for at in range(4096, len(image), 4096)),
        (550, 1, foreign, "other tables"),
    ):
        with pytest.raises(StateUnreadable, match=reason):
            other.machine.restore(index, term, io.BytesIO(bad).read)
        assert (other.machine.digest(), names_in(other.directory)) == before
    assert other.apply(KvPut(b"k", b"v")) == [True]
    assert other.machine.generation == 1


def test_restore_survives_a_source_that_breaks_off(make_node: MakeNode) -> None:
    """When reading the picture fails the error passes through and nothing has changed."""
    other = make_node("other")
    fill(other, b"old")
    before = (other.machine.digest(), names_in(other.directory))

    def read(_length: int) -> bytes:
        raise ConnectionResetError("peer gone")

    with pytest.raises(ConnectionResetError, match="peer gone"):
        other.machine.restore(5, 1, read)
    assert (other.machine.digest(), names_in(other.directory)) == before


def test_restore_on_a_disk_that_refuses(node: Node, make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the picture can't be written the error names the file, and nothing has changed."""
    fill(node, b"new")
    other = make_node("other")
    before = (other.machine.digest(), names_in(other.directory))
    with closing(node.machine.capture()) as capture:
        picture = image_of(capture)

    def publish(_new: Path, _path: Path) -> None:
        raise OSError(28, "no space")

    monkeypatch.setattr(files, "publish", publish)
    with pytest.raises(StateUnreadable, match=r"can't be written to .*state-2.db.new: no space"):
        other.machine.restore(55, 1, io.BytesIO(picture).read)
    assert (other.machine.digest(), names_in(other.directory)) == before


def test_a_reader_follows_a_restore(node: Node, make_node: MakeNode) -> None:
    """A reader that has the old file open answers from the new one by itself, in point reads and listings, and says the new generation."""
    fill(node, b"new")
    other = make_node("other")
    fill(other, b"old", 10)
    second = Reader(other.directory)
    assert other.reader.get(b"old/0001").row is not None
    assert len(second.list(b"old").rows) == 9
    with closing(node.machine.capture()) as capture:
        other.machine.restore(55, 1, io.BytesIO(image_of(capture)).read)
    found = other.reader.get(b"old/0001")
    assert (found.row, found.applied, other.reader.generation()) == (None, 55, 2)
    assert (len(second.list(b"new").rows), second.generation()) == (45, 2)
    second.close()


def test_a_file_that_vanishes_while_it_is_opened(node: Node, make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """A restore between CURRENT, the opening of the file and the first read never shows the old file without its log: the new one is read."""
    fill(node, b"new")
    with closing(node.machine.capture()) as capture:
        picture = image_of(capture)
    for place, name in ((files, "read_current"), (engine.dbapi2, "connect")):
        other = make_node(f"before-{name}")
        fill(other, b"old")
        second = Reader(other.directory)
        second.get(b"k")  # somebody has the log open, so the writer does not move it into the file when it closes
        original = getattr(place, name)
        restored: list[int] = []

        def step(
            *arguments: object, original: Callable[..., object] = original, other: Node = other, restored: list[int] = restored, **named: object
        ) -> object:
            result = original(*arguments, **named)
            if not restored:
                restored.append(1)
                other.machine.restore(55, 1, io.BytesIO(picture).read)
            return result

        with monkeypatch.context() as patched:
            patched.setattr(place, name, step)
            found = other.reader.get(b"new/0001")
        assert (found.applied, other.reader.generation()) == (55, 2)
        assert found.row is not None
        second.close()
        assert not (other.directory / "state-1.db-shm").exists()


def test_a_reader_that_many_restores_overtake(node: Node, make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow reader whose every new file is replaced again before it reads goes on until one holds still."""
    fill(node, b"new")
    with closing(node.machine.capture()) as capture:
        picture = image_of(capture)
    other = make_node("other")
    position, waiting = reading._position, list(range(12))

    def overtaken(*arguments: Any) -> tuple[int, int]:
        if waiting:
            waiting.pop()
            other.machine.restore(55, 1, io.BytesIO(picture).read)
        return position(*arguments)

    monkeypatch.setattr(reading, "_position", overtaken)
    assert other.reader.list(b"new/0001").applied == 55
    assert other.reader.generation() == 13


def test_a_listing_outlives_a_restore(node: Node, make_node: MakeNode) -> None:
    """A listing that began on the old file ends on it, whole, though the file has gone; the next one is of the new state."""
    fill(node, b"new")
    other = make_node("other")
    other.apply(*(KvPut(b"old/%04d" % number, b"v") for number in range(3_000)))
    connections = other.reader._replace(None)
    with connections.borrow() as connection:
        cursor = connection.execute("SELECT key FROM kv")
        cursor.fetchmany(5)
        with closing(node.machine.capture()) as capture:
            other.machine.restore(55, 1, io.BytesIO(image_of(capture)).read)
        assert other.reader.get(b"x").applied == 55
        assert len(cursor.fetchall()) == 2_995
    assert other.reader.list(b"old").rows == []
    assert len(connections._idle) == 0


def test_reads_during_restores(node: Node, make_node: MakeNode) -> None:
    """Readers in threads, through many restores and writes, see only whole states, and the applied index of no thread goes back."""
    other = make_node("other")
    done = threading.Event()
    problems: list[object] = []

    def work() -> None:
        reader = Reader(other.directory)
        last = 0
        while not done.is_set():
            found = reader.get(b"k")
            listing = reader.list(b"k")
            if found.row is not None and found.row.value != b"%d" % found.applied:
                problems.append(found)
            if listing.rows and listing.rows[0].value != b"%d" % listing.applied:
                problems.append(listing)
            if not last <= found.applied <= listing.applied:
                problems.append((last, found.applied, listing.applied))
            last = listing.applied
        reader.close()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(25):
        node.apply(KvPut(b"k", b"%d" % (2 * turn + 1)))
        with closing(node.machine.capture()) as capture:
            other.machine.restore(capture.index, capture.term, io.BytesIO(image_of(capture)).read)
        for made in (node, other):
            made.apply(KvPut(b"k", b"%d" % (2 * turn + 2)))
    done.set()
    for thread in threads:
        thread.join()
    assert problems == []
    assert other.machine.generation == 26


def test_a_crash_at_any_step_leaves_one_whole_state(node: Node, make_node: MakeNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image of the directory before and after each step of a restore opens as the old state or the new one, and cleans up the rest."""
    fill(node, b"new")
    other = make_node("other")
    fill(other, b"old")
    old, new = other.machine.digest(), node.machine.digest()
    images: list[Path] = []
    with closing(node.machine.capture()) as capture:
        picture = image_of(capture)
    with monkeypatch.context() as patched:
        _take_images(patched, other.directory, tmp_path / "images", images)
        other.machine.restore(55, 1, io.BytesIO(picture).read)
    outcomes = []
    for image in images:
        machine = KvMachine(image)
        outcomes.append(machine.digest())
        assert names_in(image) == {"CURRENT", f"state-{machine.generation}.db", f"state-{machine.generation}.db-sums"}
        reader = Reader(image)
        assert (len(reader.list(b"new").rows), len(reader.list(b"old").rows)) == ((45, 0) if outcomes[-1] == new else (0, 45))
        reader.close()
        machine.close()
    assert len(images) >= 20
    assert outcomes == sorted(outcomes, key=[old, new].index)
    assert {outcomes[0], outcomes[-1]} == {old, new}


def test_a_crash_at_any_step_of_the_first_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image taken at any step of making the state opens as a fresh state."""
    directory = tmp_path / "first"
    directory.mkdir()
    images: list[Path] = []
    with monkeypatch.context() as patched:
        _take_images(patched, directory, tmp_path / "images", images)
        KvMachine(directory).close()
    for image in images:
        machine = KvMachine(image)
        assert (machine.applied(), machine.generation, names_in(image)) == ((0, 0), 1, {"CURRENT", "state-1.db", "state-1.db-sums"})
        machine.close()
    assert len(images) >= 10


def test_a_disk_that_refuses_to_move_current_stops_the_machine(node: Node, make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """When CURRENT may name either generation the machine takes no more entries; opened anew it is one of both."""
    fill(node, b"new")
    other = make_node("other")
    old = other.machine.digest()
    with closing(node.machine.capture()) as capture:
        picture = image_of(capture)
    with monkeypatch.context() as patched:
        patched.setattr(files, "write_current", _refuse)
        with pytest.raises(StateUnreadable, match="can't be moved to generation 2: no space"):
            other.machine.restore(55, 1, io.BytesIO(picture).read)
    with pytest.raises(Exception, match="closed"):
        other.apply(KvPut(b"k", b"v"))
    again = KvMachine(other.directory)
    assert again.digest() == old
    again.close()


def _refuse(_directory: Path, _generation: int) -> None:
    raise OSError(28, "no space")


def _take_images(patched: pytest.MonkeyPatch, directory: Path, target: Path, images: list[Path]) -> None:
    """Copy the directory before and after every sync, rename, replace and unlink."""

    def copy() -> None:
        image = target / f"{len(images):03d}"
        shutil.copytree(directory, image)
        images.append(image)

    def watched(original: Callable[..., object]) -> Callable[..., object]:
        def step(*arguments: object, **named: object) -> object:
            copy()
            try:
                return original(*arguments, **named)
            finally:
                copy()

        return step

    patched.setattr(files, "sync", watched(files.sync))
    for name in ("rename", "replace", "unlink"):
        patched.setattr(Path, name, watched(getattr(Path, name)))
