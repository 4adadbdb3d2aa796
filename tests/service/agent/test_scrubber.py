"""Damage of the state while the node runs: found by reading on and on, and at once when a worker could not read it."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from raft.errors import StorageCorrupt
from service.agent.machine import ObservedMachine
from service.agent.scrubber import Scrubber
from service.domain.commands import KvPut, encode, stamp
from service.store.machine import KvMachine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGE = 4096
SECONDS = 20.0


def entry(index: int, value: bytes) -> tuple[int, int, bytes]:
    """A put of its own key."""
    return index, 1, stamp(encode(KvPut(b"key/%05d" % index, value)), index)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[ObservedMachine]:
    """A state of some mebibytes, all of it in the file."""
    made = ObservedMachine(KvMachine(tmp_path), tmp_path)
    made.apply([entry(index, b"v" * 2_000) for index in range(1, 2_001)])
    assert made.checkpoint() == 2_000
    yield made
    made.store.close()


def damage(machine: ObservedMachine, page: int) -> None:
    """Flip a bit of a page on disk."""
    path = machine.store._data_dir / "state-1.db"
    with path.open("r+b") as file:
        file.seek(page * PAGE - 100)
        byte = file.read(1)[0]
        file.seek(page * PAGE - 100)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("rate", [100, 0])
def test_damage_is_found(machine: ObservedMachine, rate: int) -> None:
    """It is the library's typed error, with the page. Without a rate it takes somebody's suspicion."""
    damage(machine, 700)

    async def scenario() -> None:
        scrubber = Scrubber(machine, rate)
        running = asyncio.create_task(scrubber.run())
        if not rate:
            await asyncio.sleep(0)
            assert not running.done()
            scrubber.suspect()
        with pytest.raises(StorageCorrupt, match=r"compare the state with its sums: .*page 700 of \d+ is not what was written"):
            await asyncio.wait_for(running, SECONDS)

    asyncio.run(scenario())


def test_a_sound_state_stands_suspicion(machine: ObservedMachine) -> None:
    """A suspicion that is wrong costs one reading; it goes on."""
    check = machine.store.check_all

    async def scenario() -> None:
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def checked() -> None:
            check()
            loop.call_soon_threadsafe(done.set)

        machine.store.check_all = checked
        scrubber = Scrubber(machine, 0)
        running = asyncio.create_task(scrubber.run())
        for _ in range(2):
            scrubber.suspect()
            await asyncio.wait_for(done.wait(), SECONDS)
            done.clear()
        assert not running.done()
        running.cancel()

    asyncio.run(scenario())


def test_the_port_says_storage_corrupt(machine: ObservedMachine) -> None:
    """Snapshots, checkpoints and applying report damage as the library's own error; nothing of the state leaves the node."""
    damage(machine, 650)
    pieces: list[bytes] = []
    with closing(machine.capture()) as capture:
        assert (capture.index, capture.term) == (2_000, 1)
        with pytest.raises(StorageCorrupt, match=r"copy the state: .*page 650 of"):
            capture.write(pieces.append)
    assert pieces == []


def test_what_sqlite_finds_while_applying(tmp_path: Path) -> None:
    """A tree that SQLite can't follow any more stops the node at that entry with the same error; nothing of the batch is applied."""
    first = ObservedMachine(KvMachine(tmp_path), tmp_path)
    first.apply([entry(index, b"v" * 2_000) for index in range(1, 2_001)])
    assert first.checkpoint() == 2_000
    path = tmp_path / "state-1.db"
    content = bytearray(path.read_bytes())
    for page in range(2, len(content) // PAGE):
        content[page * PAGE : page * PAGE + 64] = b"\xa5" * 64
    path.write_bytes(content)
    first.store._connection.execute("PRAGMA shrink_memory")
    with pytest.raises(StorageCorrupt, match=r"apply from index 2001: .*state-1\.db is damaged: database disk image is malformed"):
        first.apply([entry(index, b"w" * 3_000) for index in range(2_001, 2_101)])
    assert first.applied() == (2_000, 1)
    first.store.close()
