"""What a lost or damaged sector of the write-ahead log tells: made of frames as SQLite writes them, so that every sector can be chosen."""

from collections.abc import Callable
from pathlib import Path
from struct import pack

import pytest

from raft.errors import StorageCorrupt
from raft.storage.wal import _MAGIC_LITTLE, _checksum, check_wal

Check = Callable[[bytes], None]

PAGE = 4096
FRAME = 24 + PAGE
SECTOR = 512
STRADDLING = 41
"""The frame whose header lies across two sectors, with the word that says whether it commits in the first of them."""


def log_of(commits: list[bool], salt: int) -> bytes:
    """A write-ahead log whose frames commit or not; another salt makes another round, with other pages."""
    head = pack(">6I", _MAGIC_LITTLE, 3007000, PAGE, 0, salt, salt + 1)
    sums = _checksum("<", (0, 0), head)
    content = head + pack(">2I", *sums)
    for number, commit in enumerate(commits):
        page = bytes((salt + number) % 256 for _ in range(PAGE))
        beginning = pack(">2I", salt + number, 50 if commit else 0)
        sums = _checksum("<", _checksum("<", sums, beginning), page)
        content += beginning + pack(">2I", salt, salt + 1) + pack(">2I", *sums) + page
    return content


def frame_at(number: int) -> int:
    """Where a frame begins."""
    return 32 + number * FRAME


def mixed(new: bytes, old: bytes, sectors: set[int]) -> bytes:
    """The new content, but for some sectors."""
    content = bytearray(new)
    for sector in sectors:
        content[sector * SECTOR : (sector + 1) * SECTOR] = old[sector * SECTOR : (sector + 1) * SECTOR]
    return bytes(content)


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Checks a log of this content."""

    def checked(content: bytes) -> None:
        path = tmp_path / "log.db-wal"
        path.write_bytes(content)
        check_wal(path)

    return checked


def test_which_header_lies_across_two_sectors() -> None:
    """One of 64: the others have the word and the salts in one sector."""
    across = [number for number in range(128) if (frame_at(number) + 4) // SECTOR != (frame_at(number) + 8) // SECTOR]
    assert across == [STRADDLING, STRADDLING + 64]


def test_any_sectors_of_the_last_transaction_may_be_lost(check: Check) -> None:
    """It was never synced, and an earlier round of the log, in which every frame committed, shows through: that is a torn end, not damage."""
    new, old = log_of([True] * 40 + [False] * 5 + [True], 7), log_of([True] * 46, 99)
    first, last = frame_at(40) // SECTOR + 1, (len(new) - 1) // SECTOR
    for sector in range(first, last + 1):
        check(mixed(new, old, {sector}))
        check(mixed(new, old, {sector, frame_at(STRADDLING) // SECTOR}))
    check(new)


@pytest.mark.parametrize("damaged", [0, 17, 38, 39, STRADDLING - 1, STRADDLING, 43])
@pytest.mark.parametrize("at", [0, 5, 20, 24, 2000])
def test_a_flipped_bit_before_the_last_transactions_is_damage(check: Check, damaged: int, at: int) -> None:
    """Whatever it hits of a frame: later transactions were written, so this one had been synced."""
    content = bytearray(log_of([True] * 46, 7))
    content[frame_at(damaged) + at] ^= 16
    with pytest.raises(StorageCorrupt, match=f"frame {damaged + 1} .* is damaged"):
        check(bytes(content))
