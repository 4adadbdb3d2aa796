"""Damage in SQLite's write-ahead log that its own recovery would pass over in silence.

Recovery replays frames up to the first whose checksum fails, and forgets the rest. After a power loss that is right: what follows the last sync
was never acknowledged. After a flipped bit it loses acknowledged entries. The two can be told apart: every commit is synced before
the next transaction writes its first frame. So a frame that continues the checksum of a *commit* frame proves that this commit, and
all before it, had reached the disk; a bad frame at or before it is damage.

What says that a frame commits must be the frame's own. In a transaction that was never synced any sector may be missing, and the file then holds
there what an earlier round of the log had written. So the word counts in a sound frame, and in another one if it shares its sector with the salts of
this round.

A damaged last transaction can't be told from a torn one here: nothing in the file tells it. :mod:`raft.storage.witness` does.
The format: https://www.sqlite.org/fileformat2.html#the_write_ahead_log
"""

from pathlib import Path
from struct import Struct, unpack
from typing import NamedTuple

from raft.errors import StorageCorrupt
from raft.storage.failures import RESTORE_HINT

_HEADER = Struct(">8I")
_FRAME = Struct(">6I")
_MAGIC_LITTLE, _MAGIC_BIG = 0x377F0682, 0x377F0683
_MASK = 0xFFFFFFFF
_SECTOR_BYTES = 512
_COMMITS_AT, _SALTS_AT = 4, 8


class _Header(NamedTuple):
    order: str
    page_bytes: int
    salts: tuple[int, int]
    checksum: tuple[int, int]


class _Frame(NamedTuple):
    commits: bool
    salts: tuple[int, int]
    stored: tuple[int, int]
    offset: int


def check_wal(path: Path) -> None:
    """Refuse a write-ahead log that has lost acknowledged transactions. To be called before SQLite opens the database.

    :param path: the ``-wal`` file; it may be absent.
    :raises StorageCorrupt: naming the frame.
    :raises OSError: when the file can't be read.
    """
    if not path.exists():
        return
    content = path.read_bytes()
    header = _header(content)
    if header is None:
        # The header is synced before the first frame is written: without it there can be no frames.
        if content.strip(b"\x00"):
            raise StorageCorrupt("open the log", f"the header of {path} is damaged", RESTORE_HINT)
        return
    frames = _frames(content, header)
    bad = _first_bad(content, header, frames)
    for number in range(bad, len(frames) - 1):
        if _is_commit(content, header, frames, number) and _continues(content, header, frames[number].stored, frames[number + 1]):
            raise StorageCorrupt("open the log", f"frame {bad + 1} of {path} is damaged, and later transactions follow it", RESTORE_HINT)


def _header(content: bytes) -> _Header | None:
    if len(content) < _HEADER.size:
        return None
    magic, _, page_bytes, _, salt_1, salt_2, *stored = _HEADER.unpack_from(content)
    if magic not in {_MAGIC_LITTLE, _MAGIC_BIG}:
        return None
    order = ">" if magic == _MAGIC_BIG else "<"
    checksum = _checksum(order, (0, 0), content[: _HEADER.size - 8])
    if checksum != tuple(stored):
        return None
    return _Header(order, page_bytes, (salt_1, salt_2), checksum)


def _frames(content: bytes, header: _Header) -> list[_Frame]:
    frames = []
    for offset in range(_HEADER.size, len(content) - _FRAME.size - header.page_bytes + 1, _FRAME.size + header.page_bytes):
        _, pages_after, salt_1, salt_2, sum_1, sum_2 = _FRAME.unpack_from(content, offset)
        frames.append(_Frame(pages_after != 0, (salt_1, salt_2), (sum_1, sum_2), offset))
    return frames


def _first_bad(content: bytes, header: _Header, frames: list[_Frame]) -> int:
    previous = header.checksum
    for number, frame in enumerate(frames):
        if not _continues(content, header, previous, frame):
            return number
        previous = frame.stored
    return len(frames)


def _is_commit(content: bytes, header: _Header, frames: list[_Frame], number: int) -> bool:
    frame = frames[number]
    if not frame.commits:
        return False
    if (frame.offset + _COMMITS_AT) // _SECTOR_BYTES == (frame.offset + _SALTS_AT) // _SECTOR_BYTES:
        return True
    return number > 0 and _continues(content, header, frames[number - 1].stored, frame)


def _continues(content: bytes, header: _Header, previous: tuple[int, int], frame: _Frame) -> bool:
    if frame.salts != header.salts:
        return False
    body = frame.offset + _FRAME.size
    checksum = _checksum(header.order, previous, content[frame.offset : frame.offset + 8])
    return _checksum(header.order, checksum, content[body : body + header.page_bytes]) == frame.stored


def _checksum(order: str, start: tuple[int, int], content: bytes) -> tuple[int, int]:
    """SQLite's running checksum: two sums over pairs of 32-bit words, each of which feeds the other."""
    first, second = start
    words = iter(unpack(f"{order}{len(content) // 4}I", content))
    for even, odd in zip(words, words, strict=True):
        first = (first + even + second) & _MASK
        second = (second + odd + first) & _MASK
    return first, second
