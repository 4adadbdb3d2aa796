"""What a program does to its files, call by call: recorded from outside, so that nothing of it is missed and nothing of the program changes.

A small library (``recorder.c``), compiled when it is first needed and loaded before the C library, notes every write, truncation, sync, rename and
removal below one directory. It can also make one sync fail, as a disk does.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import NamedTuple

_SOURCE = Path(__file__).with_name("recorder.c")
_RECORD = Struct("=c3xiqqqq")

MARKS = "marks"
"""A file of this name in the recorded directory is no file of the program: what is written to it are its acknowledgements, in their place."""


class NoRecorder(Exception):
    """The recorder can't be built here; the text says why."""


class ProgramFailed(Exception):
    """The recorded program failed; the text holds what it said."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A file was opened; ``empties`` when its content went."""

    descriptor: int
    path: str
    creates: bool
    empties: bool


@dataclass(frozen=True, slots=True)
class Closed:
    """A descriptor may be used again."""

    descriptor: int


@dataclass(frozen=True, slots=True)
class Wrote:
    """Bytes at a place."""

    descriptor: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Truncated:
    """A file has another length."""

    descriptor: int
    length: int


@dataclass(frozen=True, slots=True)
class Synced:
    """A file or a directory was synced; not when ``failed``."""

    descriptor: int
    failed: bool


@dataclass(frozen=True, slots=True)
class Renamed:
    """A name moved."""

    path: str
    to: str


@dataclass(frozen=True, slots=True)
class Removed:
    """A name went."""

    path: str


@dataclass(frozen=True, slots=True)
class MadeDirectory:
    """A directory came."""

    path: str


@dataclass(frozen=True, slots=True)
class Marked:
    """The program said something: an acknowledgement."""

    text: str


Event = Opened | Closed | Wrote | Truncated | Synced | Renamed | Removed | MadeDirectory | Marked


def build(directory: Path) -> Path:
    """Compile the recorder.

    :raises NoRecorder: when there is no C compiler, or not this system.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        raise NoRecorder("recording what a program does to its files needs Linux and a C compiler (cc or gcc)")
    library = directory / "recorder.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(_SOURCE), "-ldl", "-lpthread"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise NoRecorder(f"the recorder can't be compiled: {result.stderr.strip()[-500:]}")
    return library


class Recorded(NamedTuple):
    """What a program did, and what it said when it failed (empty when it did not)."""

    events: list[Event]
    complaint: str


def record(library: Path, command: Sequence[str], directory: Path, *, fail_sync: int = 0) -> Recorded:
    """Run a program to its end and return what it did below ``directory``.

    :param fail_sync: which sync fails, counted from 1; 0 for none.
    :raises ProgramFailed: when it fails although no sync was made to.
    """
    target = directory.with_name(directory.name + ".record")
    environment = {
        **os.environ,
        "LD_PRELOAD": str(library),
        "RECORD_DIRECTORY": str(directory),
        "RECORD_TO": str(target),
        "RECORD_FAIL_SYNC": str(fail_sync),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode and not fail_sync:
        raise ProgramFailed(f"{' '.join(command)} ended with status {result.returncode}: {result.stderr.strip()}")
    try:
        return Recorded(_decode(target.read_bytes(), str(directory)), result.stderr if result.returncode else "")
    finally:
        target.unlink()


def _decode(content: bytes, top: str) -> list[Event]:
    events: list[Event] = []
    marks: set[int] = set()
    offset = 0
    while offset < len(content):
        kind, descriptor, at, length, path_bytes, data_bytes = _RECORD.unpack_from(content, offset)
        begin = offset + _RECORD.size
        path = _relative(content[begin : begin + path_bytes], top)
        data = content[begin + path_bytes : begin + path_bytes + data_bytes]
        offset = begin + path_bytes + data_bytes
        if path == MARKS:
            marks.add(descriptor)
        elif descriptor not in marks:
            events.append(_event(kind, descriptor, (at, length), path, data if kind != b"r" else _relative(data, top).encode()))
        elif kind == b"w":
            events.append(Marked(data.decode()))
        elif kind == b"c":
            marks.discard(descriptor)
    return events


def _event(kind: bytes, descriptor: int, numbers: tuple[int, int], path: str, data: bytes) -> Event:  # noqa: PLR0911 - one a kind
    at, length = numbers
    match kind:
        case b"o":
            return Opened(descriptor, path, bool(at), bool(length))
        case b"c":
            return Closed(descriptor)
        case b"w":
            return Wrote(descriptor, at, data)
        case b"t":
            return Truncated(descriptor, length)
        case b"s" | b"f":
            return Synced(descriptor, kind == b"f")
        case b"r":
            return Renamed(path, data.decode())
        case b"u":
            return Removed(path)
        case b"d":
            return MadeDirectory(path)
    raise ValueError(f"a record of kind {kind!r}")


def _relative(path: bytes, top: str) -> str:
    return path.decode().removeprefix(top).strip("/")
