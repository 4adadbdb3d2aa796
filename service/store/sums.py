"""Checksums of the pages of a state file, kept beside it in ``state-<generation>.db-sums``.

SQLite has none: a flipped bit in a value goes unnoticed, and one in the tree of the keys makes a key disappear, which no checksum of a row can tell.
So every page has one, used or not. Only checkpoints change pages, and all of them are ours:

* While everything up to a moment is moved into the file, a reader of that moment keeps the write-ahead log from starting anew. The sums of the moved
  pages are made of what the log says of them, and are durable before that reader lets go.
* Whoever opens the state compares all pages first. One that differs is sound only if the write-ahead log holds it, whole: a crash came in the middle
  of a checkpoint. Then SQLite takes it from there.
* The sums note how far the state was. A write-ahead log that ends *before* that has pages older than the file's, and is noticed by this. One that
  has lost more recent entries leaves the state of an earlier moment; the log of the node applies them again.

CRC-32 finds each flipped bit and each run of up to 32 damaged ones, and lets one other damage in four thousand million through. The enemy is a disk,
not an attacker.
"""

import os
import sys
from array import array
from collections.abc import Iterable
from pathlib import Path
from struct import Struct
from zlib import crc32

from service.errors import StateDamaged, StateUnreadable
from service.store import files, wal
from service.store.wal import PAGE_BYTES

PAGES_A_STEP = 256
"""Pages of one read: a mebibyte."""

_MAGIC = b"kvsums01"
_HEADER = Struct("<8sIQ")  # magic, pages, how far the state was
_TOTAL = Struct("<I")
_EMPTY_PAGE = crc32(bytes(PAGE_BYTES))


class PageSums:
    """The sums of one state file.

    The file stays open until :meth:`close`, which belongs behind the closing of all connections of this process: to close any descriptor of a file
    drops all the locks that the process has on it.

    :param path: the state file.
    :raises StateUnreadable: when it can't be read.
    :raises StateDamaged: when the sums are missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._log = wal.path_of(path)
        self._position = 0
        self._noted: tuple[bytes, int] = (b"", 0)
        if not path.exists():
            raise StateUnreadable(f"{path} is missing")
        self._sums, self.index = _load(path)
        with files.explained(f"{path} can't be read"):
            self._descriptor = os.open(path, os.O_RDONLY)

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def check(self, *, mend: bool = True) -> None:
        """Compare every page, before SQLite opens the file.

        :param mend: keep new sums for the pages that a checkpoint was moving when the node crashed.
        :raises StateDamaged: naming the first page that is not what was written.
        """
        now = self._pages_now()
        differing = self._differing(0, now) | set(range(now + 1, len(self._sums) + 1))
        if not differing:
            return
        logged = wal.pages_committed(self._log)
        self._excuse(differing, logged)
        if mend:
            # If a reader has lived through the crash, SQLite may know these pages as moved and start the log anew without another checkpoint.
            self._resize()
            for page in differing.intersection(range(1, len(self._sums) + 1)):
                self._sums[page - 1] = logged[page]
            self._write()

    def check_index(self, applied: int) -> None:
        """Whether the state is as far as its file was; asked once SQLite has read the write-ahead log.

        :raises StateDamaged: when the log has lost what had been moved into the file already, and older pages with newer ones would be the state.
        """
        if applied < self.index:
            raise StateDamaged(f"{self._path} was at index {self.index} and is at {applied} now: {self._log.name} is damaged, missing, or another's")

    def check_some(self, pages: int = PAGES_A_STEP) -> bool:
        """Compare the next pages of a file in use, round and round. No checkpoint may run.

        :returns: whether this step ended a round.
        :raises StateDamaged: as :meth:`check`.
        """
        total = min(self._pages_now(), len(self._sums))
        count = min(pages, total - self._position)
        differing = self._differing(self._position, count) if count > 0 else set()
        if differing:
            self._excuse(differing, wal.pages_named(self._log, self._known(self.salts())))
        self._position = self._position + count if 0 < count < total - self._position else 0
        return self._position == 0

    def start_over(self) -> None:
        """Let the next :meth:`check_some` begin at the first page."""
        self._position = 0

    def salts(self) -> bytes:
        """Which write-ahead log there is now."""
        return wal.salts(self._log)

    def note(self, salts: bytes, frames: int, index: int) -> None:
        """All frames have been moved into the file: keep the sums of their pages. A reader still holds the log.

        :param salts: of the log, before the move and after it.
        :param frames: how many it had.
        :param index: of the last entry that they hold.
        :raises StateUnreadable: when the disk refuses.
        """
        known = self._known(salts)
        if frames <= known:
            return
        moved: dict[int, int] = {}
        with files.explained(f"{self._log} can't be read"):
            for page, content in wal.newest_frames(self._log, known, frames):
                if page not in moved:
                    moved[page] = crc32(content)
        self._resize()
        for page, found in moved.items():
            self._sums[page - 1] = found
        self.index = index
        self._write()
        self._noted = (salts, frames)

    def _known(self, salts: bytes) -> int:
        """How many frames of that log the sums know of; readers may take the pages of these from the file."""
        return self._noted[1] if self._noted[0] == salts else 0

    def _differing(self, first: int, count: int) -> set[int]:
        """Which of ``count`` pages behind the first ``first`` are not what was written."""
        found: set[int] = set()
        for start in range(first, first + count, PAGES_A_STEP):
            piece = self._read(start, min(PAGES_A_STEP, first + count - start))
            now = _sums_of(piece)
            kept = self._sums[start : start + len(now)]
            if now != kept:
                kept.extend([_EMPTY_PAGE] * (len(now) - len(kept)))  # SQLite leaves holes where a new page was given back at once
                found.update(start + offset + 1 for offset, pair in enumerate(zip(now, kept, strict=True)) if pair[0] != pair[1])
        return found

    def _excuse(self, differing: set[int], logged: Iterable[int]) -> None:
        damaged = sorted(differing.difference(logged))
        if damaged:
            more = f", and {len(damaged) - 1} others" if len(damaged) > 1 else ""
            raise StateDamaged(f"{self._path}: page {damaged[0]}{more} of {len(self._sums)} is not what was written")

    def _pages_now(self) -> int:
        with files.explained(f"{self._path} can't be read"):
            return -(-os.fstat(self._descriptor).st_size // PAGE_BYTES)

    def _read(self, first: int, count: int) -> bytes:
        with files.explained(f"{self._path} can't be read"):
            return os.pread(self._descriptor, count * PAGE_BYTES, first * PAGE_BYTES)

    def _resize(self) -> None:
        now = self._pages_now()
        del self._sums[now:]
        self._sums.extend([_EMPTY_PAGE] * (now - len(self._sums)))

    def _write(self) -> None:
        _store(self._path, self._sums, self.index)


def seal(path: Path, index: int) -> None:
    """Keep the sums of a file at rest, whatever it holds: it has just been made or verified, and has no write-ahead log.

    :param index: of the last entry that it holds.
    :raises StateUnreadable: when the disk refuses.
    """
    found = array("I")
    with files.explained(f"{path} can't be read"), path.open("rb") as file:
        while piece := file.read(PAGES_A_STEP * PAGE_BYTES):
            found.extend(_sums_of(piece))
    _store(path, found, index)


def _sums_of(piece: bytes) -> "array[int]":
    view = memoryview(piece)
    return array("I", [crc32(view[start : start + PAGE_BYTES]) for start in range(0, len(piece), PAGE_BYTES)])


def _load(path: Path) -> tuple["array[int]", int]:
    file = files.sums_path(path)
    try:
        content = file.read_bytes()
    except FileNotFoundError as error:
        raise StateDamaged(f"{file} is missing: without it nobody can tell whether {path.name} is what was written") from error
    except OSError as error:
        raise StateUnreadable(f"{file} can't be read: {error.strerror}") from error
    body, total = content[: -_TOTAL.size], content[-_TOTAL.size :]
    sums = array("I")
    if len(body) >= _HEADER.size and _TOTAL.pack(crc32(body)) == total:
        magic, pages, index = _HEADER.unpack_from(body)
        if magic == _MAGIC and len(body) == _HEADER.size + pages * sums.itemsize:
            sums.frombytes(body[_HEADER.size :])
            if sys.byteorder == "big":
                sums.byteswap()
            return sums, index
    raise StateDamaged(f"{file} is damaged: nobody can tell whether {path.name} is what was written")


def _store(path: Path, sums: "array[int]", index: int) -> None:
    ordered = array("I", sums)
    if sys.byteorder == "big":
        ordered.byteswap()
    body = _HEADER.pack(_MAGIC, len(sums), index) + ordered.tobytes()
    file = files.sums_path(path)
    new = file.with_name(file.name + ".new")
    with files.explained(f"{file} can't be written"):
        new.write_bytes(body + _TOTAL.pack(crc32(body)))
        files.sync(new)
        new.replace(file)
        files.sync(file.parent)
