"""What a full or a damaged disk looks like to the agent, and how it waits for room."""

import asyncio
import errno
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from sqlite3 import Connection

import pytest
from pysqlite3 import dbapi2

from raft.errors import StorageFailed, StorageFull
from service.agent import space
from service.agent.machine import ObservedMachine, StateCorrupt, told_apart
from service.agent.space import Space, has_room
from service.agent.stores import open_stores
from service.domain.commands import KvPut, encode, stamp
from service.errors import StateUnreadable
from service.store import files
from service.store.machine import KvMachine


@pytest.fixture
def machine(tmp_path: Path) -> ObservedMachine:
    """A machine that holds something."""
    made = ObservedMachine(KvMachine(tmp_path), tmp_path)
    put(made, 1, b"small")
    return made


def put(machine: ObservedMachine, index: int, value: bytes) -> None:
    """Apply one put."""
    machine.apply([(index, 1, stamp(encode(KvPut(b"key/%d" % index, value, 0)), 1))])


def no_room(connection: Connection) -> None:
    """Let the file grow no more: SQLite says the same as on a full disk."""
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}").fetchall()


def test_an_apply_without_room(machine: ObservedMachine) -> None:
    """It is a full disk by name, nothing of the batch is visible, and the same entry fits once there is room."""
    no_room(machine.store._connection)
    with pytest.raises(StorageFull, match=r"apply from index 2.*free space"):
        put(machine, 2, bytes(400_000))
    machine.store._connection.execute("PRAGMA max_page_count = 1000000").fetchall()
    assert machine.store._connection.execute("SELECT count(*) FROM kv").fetchone() == (1,)
    put(machine, 2, bytes(400_000))
    assert machine.store.applied_index == 2
    machine.store.close()


def test_a_capture_without_room(machine: ObservedMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that does not fit is a full disk, too, and leaves nothing behind."""

    def refuse(**_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    capture = machine.capture()
    monkeypatch.setattr("service.store.capture.tempfile.NamedTemporaryFile", refuse)
    with pytest.raises(StorageFull):
        capture.write(lambda _: None)
    capture.close()
    machine.store.close()


def test_a_copy_without_room(tmp_path: Path, machine: ObservedMachine) -> None:
    """SQLite's online copy tells of a full disk by its text alone."""
    put(machine, 2, bytes(3_000_000))
    with closing(dbapi2.connect(str(tmp_path / "copy"), isolation_level=None)) as target:
        target.execute("PRAGMA max_page_count = 10").fetchall()
        with pytest.raises(StorageFull), told_apart("copy the state", tmp_path):
            machine.store._connection.backup(target)
    machine.store.close()


def test_a_failing_disk_is_not_a_full_one(machine: ObservedMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else the disk says is passed on as it is: the node stops."""

    def refuse(**_arguments: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    capture = machine.capture()
    monkeypatch.setattr("service.store.capture.tempfile.NamedTemporaryFile", refuse)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        capture.write(lambda _: None)
    capture.close()
    machine.store.close()


def test_a_restore_without_room(machine: ObservedMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot that does not fit is a full disk; the state stays what it was."""

    def refuse(_new: Path, _path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    picture: list[bytes] = []
    capture = machine.capture()
    capture.write(picture.append)
    capture.close()
    content = iter([*picture, b""])
    monkeypatch.setattr(files, "publish", refuse)
    with pytest.raises(StorageFull, match="install a snapshot"):
        machine.restore(1, 1, lambda _: next(content))
    put(machine, 2, b"goes on")
    machine.store.close()


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_sync_that_fails_is_no_full_disk(machine: ObservedMachine, monkeypatch: pytest.MonkeyPatch, reason: int) -> None:
    """Whatever the reason, also for want of space: what the disk holds is not known then, so it is not waited out."""

    def refuse(_descriptor: int) -> None:
        raise OSError(reason, os.strerror(reason))

    picture: list[bytes] = []
    capture = machine.capture()
    capture.write(picture.append)
    capture.close()
    content = iter([*picture, b""])
    monkeypatch.setattr("service.store.files.os.fsync", refuse)
    with pytest.raises(StateUnreadable, match=f"the sync failed: {os.strerror(reason)}") as failed:
        machine.restore(1, 1, lambda _: next(content))
    assert not isinstance(failed.value, StorageFull)
    monkeypatch.undo()
    put(machine, 2, b"goes on")
    machine.store.close()


def test_a_damaged_state_has_a_name(tmp_path: Path, machine: ObservedMachine) -> None:
    """A page that is rubbish is damage of the state, whether it is met at work or at the start."""
    for index in range(2, 200):
        put(machine, index, bytes(2_000))
    machine.checkpoint()
    machine.store.close()
    path = files.state_path(tmp_path, 1)
    content = path.read_bytes()
    opened = ObservedMachine(KvMachine(tmp_path), tmp_path)
    path.write_bytes(content[: len(content) // 2] + b"\x55" * (len(content) - len(content) // 2))

    def put_everywhere() -> None:
        for index in range(200, 400):
            put(opened, index, b"x")

    with pytest.raises(StateCorrupt):
        put_everywhere()
    opened.store.close()
    path.write_bytes(b"\x55" * len(content))
    with pytest.raises(StateCorrupt, match="open the state"):
        open_stores(tmp_path, "n1")


def test_waiters_look_again_after_a_reopening(tmp_path: Path, machine: ObservedMachine) -> None:
    """What was applied just before the disk was full may never have been published: everything counts as changed."""
    machine.changes.clear()
    machine.store.close()
    machine.replace(KvMachine(tmp_path))
    assert machine.changes.popleft().everything
    put(machine, 2, b"x")
    machine.store.close()


def test_room_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Free bytes that a quota does not give are no room; any other refusal is told; and nothing stays behind."""
    assert has_room(tmp_path, 4096)
    assert not has_room(tmp_path, 1 << 60)

    def refuse(number: int) -> Callable[..., None]:
        def fallocate(*_arguments: int) -> None:
            raise OSError(number, os.strerror(number))

        return fallocate

    monkeypatch.setattr(os, "posix_fallocate", refuse(errno.EDQUOT))
    assert not has_room(tmp_path, 4096)
    monkeypatch.setattr(os, "posix_fallocate", refuse(errno.EIO))
    with pytest.raises(StorageFailed, match="look for room"):
        has_room(tmp_path, 4096)
    assert list(tmp_path.iterdir()) == []


def test_waiting_for_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks until there is room; who comes back soon waits longer each time, up to a bound."""
    answers = iter([False, False, True, True, True, True, True, True, True])
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(space, "has_room", lambda _directory: next(answers))
    monkeypatch.setattr(space.asyncio, "sleep", sleep)

    async def scenario() -> None:
        room = Space(tmp_path)
        for _ in range(7):
            await room.wait()

    asyncio.run(scenario())
    assert slept == [0.5, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
