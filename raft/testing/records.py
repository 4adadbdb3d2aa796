"""Files of evidence that is gathered over many runs: what was done to which code, added up and kept in the repository.

A file holds records. A record belongs to one core (:func:`core_digest`): any change of a file of ``raft/core`` begins another, for what was shown of
one core says nothing about the next. Within a record there is a part for each version of the test code that did the work (and of Python): a change of
that does not unsay what was found, but a seed leads to the same steps only with the same version. The sums of a record are over its parts.

A file is written whole, beside itself, and then put in place, so that a killed run leaves the last one. One run at a time may hold it.
"""

import fcntl
import json
import os
import platform
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import raft

PACKAGE = Path(raft.__file__).parent
DIGITS = 16
"""Hexadecimal digits of a digest: enough to tell versions apart, short enough to be read."""

SAVE_EVERY_S = 20.0
"""A run that is killed loses no more than it did in this time."""

Part = dict[str, Any]


class RecordRefused(Exception):
    """A record can't be used as asked; the text says why, and what to do. Nothing was written."""


def digest(files: Iterable[Path]) -> str:
    """A digest of names and contents; the order of the files does not matter."""
    total = sha256()
    for path in sorted(files):
        content = path.read_bytes()
        total.update(f"{path.relative_to(PACKAGE)}:{len(content)}:".encode() + content)
    return total.hexdigest()[:DIGITS]


def core_digest() -> str:
    """The digest of ``raft/core/*.py``: what the evidence is about."""
    return digest((PACKAGE / "core").glob("*.py"))


class RecordFile:
    """The records of one kind, as they are in a file. Use :func:`held`.

    :ivar records: oldest first; each has a ``core`` and ``parts``.
    """

    def __init__(self, path: Path, kind: str) -> None:
        self._path = path
        self._kind = kind
        self.records: list[dict[str, Any]] = _load(path, kind)

    def of(self, core: str) -> list[Part]:
        """The parts of a core's record; they may be changed and added to."""
        record = next((record for record in self.records if record["core"] == core), None)
        if record is None:
            record = {"core": core, "parts": []}
            self.records.append(record)
        parts: list[Part] = record["parts"]
        return parts

    def save(self) -> None:
        """Put everything into the file."""
        beside = self._path.with_name(f".{self._path.name}.new")
        with beside.open("w", encoding="utf-8") as file:
            file.write(text_of(self._kind, self.records))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._path)


def text_of(kind: str, records: list[dict[str, Any]]) -> str:
    """The text of a file: the same content gives the same text, a line an entry."""
    return json.dumps({"kind": kind, "records": records}, indent=1, sort_keys=True) + "\n"


@contextmanager
def held(path: Path, kind: str) -> Iterator[RecordFile]:
    """The records of a file, held against other runs until the end; an absent file has none.

    :raises RecordRefused: when another run holds it, or it is no record of this kind.
    """
    try:
        path.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise RecordRefused(f"{path} can't be written: {error}") from None
    lock = path.with_name(f".{path.name}.lock")
    with lock.open("a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = file.read().strip() or "another run"
            raise RecordRefused(f"{path} is held by {holder}; wait for it, or give this run a file of its own and merge the two") from None
        file.truncate(0)
        file.write(f"process {os.getpid()}")
        file.flush()
        yield RecordFile(path, kind)


def part_of(parts: list[Part], key: dict[str, str], fresh: dict[str, Any]) -> Part:
    """The part with these digests and this Python; a new one begins as ``fresh``."""
    key = {**key, "python": platform.python_version()}
    part = next((part for part in parts if all(part[name] == value for name, value in key.items())), None)
    if part is None:
        part = {**key, **fresh}
        parts.append(part)
    return part


def _load(path: Path, kind: str) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordRefused(f"{path} can't be read as a record: {error}") from None
    found = content.get("kind") if isinstance(content, dict) else None
    if found != kind:
        raise RecordRefused(f"{path} is no record of {kind}; its kind is {found!r}")
    records = content.get("records")
    if not isinstance(records, list) or not all(isinstance(one, dict) and {"core", "parts"} <= one.keys() for one in records):
        raise RecordRefused(f"{path}: its records are not a list of cores with their parts")
    return records
