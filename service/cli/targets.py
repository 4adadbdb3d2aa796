"""What ``kvorum kv export`` writes. Each form can be read back by ``kvorum kv import``."""

import json
import re
from base64 import b64encode
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from service.client import Entry
from service.errors import KvorumError

FORMATS = ("consul", "json", "yaml", "env", "dir")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,-]*")


class ExportInvalid(KvorumError):
    """Keys that the chosen form can't hold, or a target that can't be written; the text names the key or path."""


def write_stream(entries: Iterable[Entry], form: str, prefix: str, stream: BinaryIO) -> int:
    """Write keys in one of the forms that are one text.

    :param prefix: left off the keys by every form but ``consul``.
    :returns: how many keys were written.
    :raises ExportInvalid: naming the key that the form can't hold; ``consul`` holds every key.
    """
    if form == "consul":
        return _consul(entries, stream)
    found = [(_below(entry.key, prefix), entry.value) for entry in entries]
    if form == "env":
        text = _env(found)
    elif form == "json":
        text = json.dumps(_nested([(key, _text(key, value)) for key, value in found]), indent=2, ensure_ascii=False) + "\n"
    else:
        text = yaml.safe_dump(_nested([(key, _text_or_bytes(value)) for key, value in found]), allow_unicode=True, sort_keys=False)
    stream.write(text.encode("utf-8"))
    return len(found)


def write_directory(entries: Iterable[Entry], prefix: str, root: Path) -> int:
    """Write each key as a file below ``root``, which must be new or empty: so nothing is overwritten, and no link is followed.

    :returns: how many keys were written.
    :raises ExportInvalid: naming the key that can't be a file's path.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        if next(root.iterdir(), None) is not None:
            raise ExportInvalid(f"{root} is not empty; an export never overwrites")
    except (FileExistsError, NotADirectoryError) as error:
        raise ExportInvalid(f"{root} is no directory") from error
    count = 0
    for entry in entries:
        key = _below(entry.key, prefix)
        parts = key.split("/")
        if any(part in {"", ".", ".."} or "\0" in part for part in parts):
            raise ExportInvalid(f"the key {entry.key!r} can't be a path below {root}; --format consul holds every key")
        path = root.joinpath(*parts)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                file.write(entry.value)
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise ExportInvalid(f"the key {entry.key!r} is both a value and a folder of others; --format consul holds every key") from error
        count += 1
    return count


def _consul(entries: Iterable[Entry], stream: BinaryIO) -> int:
    """The form of Consul's own export, written entry by entry."""
    count = 0
    stream.write(b"[")
    for entry in entries:
        item = {"key": entry.key, "flags": entry.flags, "value": b64encode(entry.value).decode("ascii")}
        lines = json.dumps(item, indent="\t", ensure_ascii=False).encode("utf-8", "surrogatepass").replace(b"\n", b"\n\t")
        stream.write((b",\n\t" if count else b"\n\t") + lines)
        count += 1
    stream.write(b"\n]\n" if count else b"]\n")
    return count


def _below(key: str, prefix: str) -> str:
    below = key.removeprefix(prefix)
    return below.removeprefix("/") if prefix and not prefix.endswith("/") else below


def _text(key: str, value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ExportInvalid(f"the value of {key!r} is no text; the forms consul, yaml and dir hold bytes") from error


def _text_or_bytes(value: bytes) -> str | bytes:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value


def _nested(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    root: dict[str, Any] = {}
    for key, value in pairs:
        level = root
        *folders, name = key.split("/")
        for folder in folders:
            level = level.setdefault(folder, {})
            if not isinstance(level, dict):
                break
        if not isinstance(level, dict) or name in level:
            raise ExportInvalid(f"the key {key!r} is both a value and a folder of others; --format consul holds every key")
        level[name] = value
    return root


def _env(pairs: Iterable[tuple[str, bytes]]) -> str:
    lines: dict[str, tuple[str, str]] = {}
    for key, value in pairs:
        name = re.sub(r"[/.-]", "_", key)
        if not _NAME.fullmatch(name):
            raise ExportInvalid(f"the key {key!r} can't be the name of a variable")
        if name in lines:
            raise ExportInvalid(f"the keys {lines[name][0]!r} and {key!r} are both the variable {name}")
        lines[name] = (key, f"{name}={_quoted(_text(key, value))}\n")
    return "".join(line for _key, line in lines.values())


def _quoted(text: str) -> str:
    if _PLAIN.fullmatch(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    return f'"{escaped}"'
