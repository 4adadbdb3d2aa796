"""Flipped bits in the files of a state: noticed before anything of it is used, or harmless."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

import pytest

from service.domain.commands import Command, KvDelete, KvDeleteTree, KvPut, ReapTombstones, encode, stamp
from service.errors import StateDamaged, StateUnreadable
from service.store.digest import Digest
from service.store.machine import KvMachine
from service.store.reader import Reader

if TYPE_CHECKING:
    from pathlib import Path

SEED = 20_261_121
FLIPS = 1_000
ENTRIES = 600
KEYS = 160
PREFIXES = (b"", b"key/", b"key/1", b"none/")


class Answers(NamedTuple):
    """All that can be asked of a state."""

    digest: Digest
    keys: list[object]
    listings: list[object]


def _command(index: int, chosen: random.Random) -> Command:
    key = b"key/%d/%d" % (chosen.randrange(4), chosen.randrange(KEYS // 4))
    draw = chosen.random()
    if draw < 0.08:
        return KvDelete(key)
    if draw < 0.085:
        return KvDeleteTree(key[:7])
    if draw < 0.09:
        return ReapTombstones(index - 100)
    return KvPut(key, chosen.randbytes(chosen.choice((0, 10, 120, 1_000, 6_000))), chosen.randrange(1 << 64))


def entries() -> list[tuple[int, int, bytes]]:
    """What the log holds: always the same."""
    chosen = random.Random(SEED)
    return [(index, 1, stamp(encode(_command(index, chosen)), index)) for index in range(1, ENTRIES + 1)]


def answers(directory: Path, machine: KvMachine) -> Answers:
    """Ask for every key there ever was, listings of every kind, and the digest."""
    with closing(Reader(directory)) as reader:
        keys: list[object] = [reader.get(b"key/%d/%d" % (group, number)) for group in range(4) for number in range(KEYS // 4)]
        listings: list[object] = [listed(prefix) for prefix in PREFIXES for listed in (reader.list, reader.keys, lambda p: reader.keys(p, b"/"))]
    return Answers(machine.digest(), keys, listings)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a node that was stopped in order: no write-ahead log is left."""
    directory = tmp_path_factory.mktemp("stopped")
    machine = KvMachine(directory)
    for start in range(0, ENTRIES, 50):
        machine.apply(entries()[start : start + 50])
    machine.close()
    assert {path.name for path in directory.iterdir()} == {"CURRENT", "state-1.db", "state-1.db-sums"}
    return directory


@pytest.fixture(scope="module", params=["moved", "waiting", "never"])
def killed(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """The directory of a node that was killed: all of its second write-ahead log had been moved, or nothing of it, or nothing at all."""
    directory = tmp_path_factory.mktemp("killed")
    machine = KvMachine(directory)
    for start in range(0, ENTRIES, 50):
        machine.apply(entries()[start : start + 50])
        if request.param != "never" and start == ENTRIES // 2:
            machine.checkpoint()
    if request.param == "moved":
        machine.checkpoint()
    image = tmp_path_factory.mktemp("image")
    for name in ("CURRENT", "state-1.db", "state-1.db-wal", "state-1.db-sums"):
        shutil.copy(directory / name, image / name)
    machine.close()
    return image


def flipped(content: bytes, bit: int) -> bytes:
    """The content with one bit turned."""
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def look(directory: Path, sound: Answers) -> str:
    """What becomes of a start: refused by name, the same answers, or those once the log has brought it up to date."""
    try:
        machine = KvMachine(directory)
    except StateDamaged:
        return "detected"
    except StateUnreadable:
        return "refused"
    with closing(machine):
        applied, _ = machine.applied()
        machine.apply(entries()[applied:])
        return ("same" if applied == ENTRIES else "earlier, log replayed") if answers(directory, machine) == sound else "WRONG"


def strike(directory: Path, name: str, count: int, workplace: Path) -> Counter[str]:
    """Flip one bit of a file at a time, each time from a sound copy."""
    with closing(KvMachine(shutil.copytree(directory, workplace / "sound"))) as machine:
        sound = answers(workplace / "sound", machine)
    chosen, content, seen = random.Random(f"{SEED}/{name}"), (directory / name).read_bytes(), Counter[str]()
    for _ in range(count):
        bit = chosen.randrange(len(content) * 8)
        shutil.rmtree(workplace / "damaged", ignore_errors=True)
        damaged = shutil.copytree(directory, workplace / "damaged")
        (damaged / name).write_bytes(flipped(content, bit))
        outcome = look(damaged, sound)
        assert outcome != "WRONG", f"bit {bit} of {name}, seed {SEED}"
        seen[outcome] += 1
    print(f"{name}: {dict(seen)} of {count} flips, seed {SEED}")  # noqa: T201 - shown when the test fails, and with -s
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("name", ["state-1.db", "state-1.db-sums"])
def test_flips_in_a_stopped_state(stopped: Path, tmp_path: Path, name: str) -> None:
    """Wherever a bit of the file or of its sums is flipped, also where nothing is in use: the start is refused by name."""
    assert strike(stopped, name, FLIPS, tmp_path) == Counter(detected=FLIPS)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["state-1.db", "state-1.db-wal", "state-1.db-sums"])
def test_flips_with_a_live_log(killed: Path, tmp_path: Path, name: str) -> None:
    """With a write-ahead log beside it too: refused, or the state of an earlier moment, which the log makes whole."""
    seen = strike(killed, name, FLIPS // 8, tmp_path)
    assert not seen["refused"]
    if name == "state-1.db-sums":
        assert seen["detected"] == FLIPS // 8
