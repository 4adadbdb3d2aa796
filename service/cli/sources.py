"""What ``kvorum kv import`` reads: a directory, YAML, JSON, TOML, ``.env``, and Consul's own export.

Nested maps become keys with "/" between the levels, lists likewise with the positions 0, 1, …. Text, numbers and words are stored as they are
written in the file (1.10 stays 1.10), except JSON's and TOML's own words true and false; null is an empty value. Whatever can't be read is an
:class:`ImportInvalid` that names the file and the place; a file is read as a whole before the first key is written.
"""

import json
import os
import re
import stat
import tomllib
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime, time
from pathlib import Path
from typing import Any, NamedTuple

from service.cli.yaml_source import flatten_yaml
from service.errors import ImportInvalid

FORMATS = ("auto", "dir", "consul", "json", "yaml", "toml", "env")
KEYS_MAX = 1_000_000
DEPTH_MAX = 100
_SUFFIXES = {".json": "json", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".env": "env"}
_ENV_LINE = re.compile(r"(?:export\s+)?([^\s=#'\"]+)\s*=\s*(.*)", re.DOTALL)
_ENV_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


class Record(NamedTuple):
    """A key to write. ``read`` yields the value; for a file in a directory it reads the file only then."""

    key: str
    read: Callable[[], bytes]
    flags: int = 0


class Source(NamedTuple):
    """What is to be imported. ``notes`` tells what was left out, for people."""

    records: list[Record]
    notes: tuple[str, ...] = ()


def open_source(path: Path, form: str, standard_input: Callable[[], bytes]) -> Source:
    """Find out what to import.

    :param path: a file, a directory, or ``-`` for standard input.
    :param form: one of :data:`FORMATS`; ``auto`` goes by the name.
    :raises ImportInvalid: naming the file and the place in it.
    """
    place = "standard input" if str(path) == "-" else str(path)
    chosen = _guess(path, place) if form == "auto" else form
    if chosen == "dir":
        return _directory(path, place)
    try:
        data = standard_input() if str(path) == "-" else path.read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise ImportInvalid(f"{place}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ImportInvalid(f"{place}: byte {error.start} is no UTF-8") from error
    readers = {"json": _json, "consul": _json, "yaml": flatten_yaml, "toml": _toml, "env": _env}
    try:
        return Source(_unique(readers[chosen](text, place), place))
    except RecursionError as error:
        raise ImportInvalid(f"{place}: nested too deeply") from error


def _guess(path: Path, place: str) -> str:
    if str(path) != "-" and path.is_dir():
        return "dir"
    suffix = ".env" if path.name == ".env" or path.name.startswith(".env.") else path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise ImportInvalid(f"{place}: the name does not tell the format; --format names it ({', '.join(FORMATS[1:])})")
    return _SUFFIXES[suffix]


def _directory(root: Path, place: str) -> Source:
    """Every regular file below ``root``; links and special files are left out, and counted."""
    if not root.is_dir():
        raise ImportInvalid(f"{place}: is no directory")
    records, skipped = [], 0

    def fail(error: OSError) -> None:
        raise ImportInvalid(f"{error.filename}: {error.strerror}") from error

    for folder, folders, names in os.walk(root, onerror=fail):
        folders.sort()
        skipped += sum((Path(folder) / name).is_symlink() for name in folders)
        for name in sorted(names):
            file = Path(folder) / name
            try:
                regular = stat.S_ISREG(file.lstat().st_mode)
            except OSError as error:
                fail(error)
            if regular:
                records.append(Record(file.relative_to(root).as_posix(), file.read_bytes))
            else:
                skipped += 1
    notes = (f"{skipped} links and special files left out",) if skipped else ()
    return Source(records, notes)


def _unique(pairs: Iterable[tuple[str, bytes, int]], place: str) -> list[Record]:
    found: dict[str, Record] = {}
    for key, value, flags in pairs:
        if not key:
            raise ImportInvalid(f"{place}: an empty key")
        if key in found:
            raise ImportInvalid(f"{place}: the key {key!r} appears twice")
        if len(found) >= KEYS_MAX:
            raise ImportInvalid(f"{place}: more than {KEYS_MAX} keys")
        found[key] = Record(key, _constant(value), flags)
    return list(found.values())


def _constant(value: bytes) -> Callable[[], bytes]:
    return lambda: value


def _json(text: str, place: str) -> Iterator[tuple[str, bytes, int]]:
    def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            names = [name for name, _value in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise ImportInvalid(f"{place}: {twice!r} appears twice in one object")
        return content

    try:
        content = json.loads(text, parse_int=str, parse_float=str, parse_constant=str, object_pairs_hook=without_duplicates)
    except json.JSONDecodeError as error:
        raise ImportInvalid(f"{place}: line {error.lineno}, column {error.colno}: {error.msg}") from error
    if isinstance(content, list):
        yield from (_consul_entry(entry, f"{place}: entry {number}") for number, entry in enumerate(content, 1))
    elif isinstance(content, dict):
        yield from _flatten("", content, place)
    else:
        raise ImportInvalid(f"{place}: neither an object nor a list of exported entries")


def _consul_entry(entry: Any, place: str) -> tuple[str, bytes, int]:
    if not isinstance(entry, dict) or not isinstance(entry.get("key"), str):
        raise ImportInvalid(f'{place}: no object with a "key"; a list is read as what `consul kv export` writes')
    flags = str(entry.get("flags", "0"))
    if not (flags.isascii() and flags.isdigit() and int(flags) < 2**64):
        raise ImportInvalid(f"{place}: flags {flags!r}; a whole number from 0 to {2**64 - 1} is allowed")
    try:
        return entry["key"], b64decode(entry.get("value") or "", validate=True), int(flags)
    except (Base64Error, ValueError, TypeError) as error:
        raise ImportInvalid(f"{place}: the value is no base64") from error


def _toml(text: str, place: str) -> Iterator[tuple[str, bytes, int]]:
    try:
        content = tomllib.loads(text, parse_float=str)
    except tomllib.TOMLDecodeError as error:
        raise ImportInvalid(f"{place}: {error}") from error
    yield from _flatten("", content, place)


def _flatten(prefix: str, content: Any, place: str, depth: int = 0) -> Iterator[tuple[str, bytes, int]]:
    if depth > DEPTH_MAX:
        raise ImportInvalid(f"{place}: {prefix!r} is nested more than {DEPTH_MAX} levels deep")
    if isinstance(content, (dict, list)):
        items = content.items() if isinstance(content, dict) else enumerate(content)
        for name, value in items:
            yield from _flatten(str(name) if depth == 0 else f"{prefix}/{name}", value, place, depth + 1)
    else:
        yield prefix, _scalar(content).encode("utf-8", "surrogatepass"), 0


def _scalar(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if isinstance(value, (date, datetime, time)) else str(value)


def _env(text: str, place: str) -> Iterator[tuple[str, bytes, int]]:
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        match = _ENV_LINE.fullmatch(stripped)
        if match is None:
            raise ImportInvalid(f"{place}: line {number}: NAME=VALUE is expected")
        yield match[1], _env_value(match[2], f"{place}: line {number}").encode("utf-8"), 0


def _env_value(text: str, place: str) -> str:
    if text[:1] not in {"'", '"'}:
        return re.split(r"\s#", text, maxsplit=1)[0].rstrip() if not text.startswith("#") else ""
    quote = text[0]
    body = r"[^']*" if quote == "'" else r'(?:[^"\\]|\\.)*'
    match = re.fullmatch(rf"{quote}({body}){quote}\s*(#.*)?", text)
    if match is None:
        raise ImportInvalid(f"{place}: the quotation does not end, or text follows it")
    if quote == "'":
        return match[1]
    return re.sub(r"\\(.)", lambda found: _ENV_ESCAPES.get(found[1], found[1]), match[1])
