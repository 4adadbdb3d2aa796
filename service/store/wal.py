"""The write-ahead log beside a state file, as far as sums of pages need it: which pages it holds.

The layout is SQLite's (https://sqlite.org/fileformat2.html#the_write_ahead_log): a header, then frames of one page each. Every frame carries the
salts of the log it belongs to and a sum of everything up to it; the last frame of a transaction says how large the database is then.
"""

from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from typing import NamedTuple
from zlib import crc32

PAGE_BYTES = 4096

_HEADER = Struct(">6I8x")  # magic, version, page size, sequence, two salts; then the sum of these
_FRAME = Struct(">2I8s2I")  # page, pages of the database after a commit or 0, both salts, the sum so far
_PAGE = Struct(">I")
_WORDS = Struct("<2I"), Struct(">2I")
_SALTS_AT, _SALTS_BYTES = 16, 8
_SUMMED_OF_HEADER, _SUMMED_OF_FRAME = 24, 8
_LITTLE_ENDIAN, _BIG_ENDIAN = 0x377F0682, 0x377F0683
_FRAMES_A_READ = 256
_MASK = 0xFFFFFFFF
_FRAME_BYTES = _FRAME.size + PAGE_BYTES


class Frame(NamedTuple):
    """A page in the log.

    :ivar page: its number; the first is 1.
    :ivar content: its bytes.
    """

    page: int
    content: memoryview


def path_of(database: Path) -> Path:
    """Where the log of a database lies."""
    return database.with_name(database.name + "-wal")


def salts(path: Path) -> bytes:
    """What tells this log from those before it in the same file; empty when there is none."""
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER.size)
    except FileNotFoundError:
        return b""
    return header[_SALTS_AT : _SALTS_AT + _SALTS_BYTES]


def newest_frames(path: Path, after: int, up_to: int) -> Iterator[Frame]:
    """The frames behind the first ``after`` up to number ``up_to``, the newest first, without a look at their sums.

    For the one whose checkpoints they are, while no writer can start the log anew. A content is good until the next step.
    """
    with path.open("rb") as file:
        while after < up_to:
            first = max(after, up_to - _FRAMES_A_READ)
            file.seek(_HEADER.size + first * _FRAME_BYTES)
            piece = memoryview(file.read((up_to - first) * _FRAME_BYTES))
            for start in range((up_to - first - 1) * _FRAME_BYTES, -1, -_FRAME_BYTES):
                yield Frame(_PAGE.unpack_from(piece, start)[0], piece[start + _FRAME.size : start + _FRAME_BYTES])
            up_to = first


def pages_named(path: Path, after: int) -> set[int]:
    """Pages that frames of the present log name behind the first ``after``, whether their sums hold or not: SQLite itself has it open."""
    try:
        size, own = path.stat().st_size, salts(path)
    except FileNotFoundError:
        return set()
    found: set[int] = set()
    with path.open("rb") as file:
        for start in range(_HEADER.size + after * _FRAME_BYTES, size - _FRAME_BYTES + 1, _FRAME_BYTES):
            file.seek(start)
            page, _, salt, _, _ = _FRAME.unpack(file.read(_FRAME.size))
            if salt != own:
                break
            found.add(page)
    return found


def pages_committed(path: Path) -> dict[int, int]:
    """Pages that SQLite would take from the log and not from the file: those of whole transactions whose every sum holds. With the CRC-32 of each.

    It looks at every byte, in Python: some 0.1 ms a frame. Only a crash in the middle of a checkpoint makes it necessary.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}
    if len(content) < _HEADER.size:
        return {}
    magic, _, page_bytes, *_ = _HEADER.unpack_from(content)
    if magic not in (_LITTLE_ENDIAN, _BIG_ENDIAN) or page_bytes != PAGE_BYTES:
        return {}
    words = _WORDS[magic == _BIG_ENDIAN]
    own = content[_SALTS_AT : _SALTS_AT + _SALTS_BYTES]
    so_far = _add(words, (0, 0), content[:_SUMMED_OF_HEADER])
    if so_far != _stored(content, _SUMMED_OF_HEADER):
        return {}
    found: dict[int, int] = {}
    waiting: dict[int, int] = {}
    for start in range(_HEADER.size, len(content) - _FRAME_BYTES + 1, _FRAME_BYTES):
        page, pages, salt, *stored = _FRAME.unpack_from(content, start)
        so_far = _add(words, so_far, content[start : start + _SUMMED_OF_FRAME])
        held = content[start + _FRAME.size : start + _FRAME_BYTES]
        so_far = _add(words, so_far, held)
        if salt != own or so_far != tuple(stored):
            break
        waiting[page] = crc32(held)
        if pages:
            found |= waiting
            waiting.clear()
    return found


def _stored(content: bytes, at: int) -> tuple[int, int]:
    first, second = _WORDS[1].unpack_from(content, at)
    return first, second


def _add(words: Struct, so_far: tuple[int, int], piece: bytes) -> tuple[int, int]:
    first, second = so_far
    for one, other in words.iter_unpack(piece):
        first = (first + one + second) & _MASK
        second = (second + other + first) & _MASK
    return first, second
