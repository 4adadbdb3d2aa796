"""An inspection as JSON and as text for people."""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from raft.core.model import Configuration, EntryKind
from raft.storage.inspection import StoredEntry
from service.cli.console import columns, printable
from service.domain.commands import decode
from service.errors import CommandInvalid
from service.offline.directory import Inspection

_KEY_CHARACTERS_MAX = 80


def as_json(found: Inspection) -> dict[str, Any]:
    """Everything, in names that stay."""
    log = found.log
    boundary, hard = log.boundary, log.hard_state
    state = found.state
    return {
        "directory": str(found.path),
        "whole": not found.damages,
        "node": msgspec.to_builtins(found.identity),
        "cluster": msgspec.to_builtins(found.cluster),
        "recovery": msgspec.to_builtins(found.mark),
        "hard_state": None if hard is None else {"term": hard.term, "vote": hard.vote, "commit": hard.commit},
        "log": {
            "format": log.format_version,
            "boundary": None if boundary is None else {"index": boundary.index, "term": boundary.term},
            "first_index": log.first_index,
            "last_index": log.last_index,
            "last_term": log.last_term,
            "entries": log.entry_count,
            "bytes": log.entry_bytes,
            "dead_rows": log.dead_rows,
        },
        "known_commit": {"index": found.known_commit[0], "term": found.known_commit[1]},
        "configurations": [{"index": index, **_configuration(configuration)} for index, configuration in log.configurations],
        "snapshots": [
            {
                "name": one.name,
                "index": one.boundary.index if one.boundary is not None else None,
                "term": one.boundary.term if one.boundary is not None else None,
                "bytes": one.size,
                "sha256": one.checksum,
                "problem": one.problem,
            }
            for one in found.snapshots
        ],
        "state": None
        if state is None
        else {
            "generation": found.generation,
            "format": state.format_version,
            "applied_index": found.applied[0],
            "applied_term": found.applied[1],
            "keys": state.digest.keys if state.digest is not None else None,
            "tombstones": state.tombstones,
            "sha256": state.digest.sha256 if state.digest is not None else None,
        },
        "damages": [{"part": damage.part, "index": damage.index, "problem": damage.problem} for damage in found.damages],
        "notes": found.notes,
    }


def as_text(found: Inspection) -> str:
    """The same in lines."""
    rows = list(_lines(found))
    width = max(len(title) for title, _ in rows)
    return "\n".join(f"{title.ljust(width)}  {text}".rstrip() for title, text in rows)


def _lines(found: Inspection) -> Iterator[tuple[str, str]]:
    log, unread = found.log, "can't be read"
    node, cluster, mark = found.identity, found.cluster, found.mark
    yield "directory", str(found.path)
    yield "node", f"{node.name}, id {node.incarnation}, format {node.format}" if node is not None else "none yet"
    yield "cluster", f"{cluster.cluster_id}, formed of {', '.join(one.name for one in cluster.members)}" if cluster is not None else "none yet"
    if mark is not None:
        yield "recovered", f"{mark.at} from cluster {mark.from_cluster}, which lost its quorum; first index of this one: {mark.index}"
    hard, boundary = log.hard_state, log.boundary
    yield "hard state", unread if hard is None else f"term {hard.term}, vote {hard.vote or 'none'}, commit index {hard.commit}"
    yield "log", f"format {log.format_version}, {log.entry_count} entries, {log.entry_bytes} bytes"
    yield "  boundary", unread if boundary is None else f"index {boundary.index}, term {boundary.term}"
    yield "  entries", f"{log.first_index} to {log.last_index}, the last of term {log.last_term}" if log.entry_count else "none"
    yield "  committed", f"up to index {found.known_commit[0]} at least, as far as these files tell"
    for index, configuration in log.configurations:
        yield f"  members {index}", told_configuration(configuration)
    for one in found.snapshots:
        told = f"index {one.boundary.index}, term {one.boundary.term}, {one.size} bytes" if one.boundary is not None else unread
        yield "snapshot", f"{told}: {one.problem or 'whole'}"
    state = found.state
    if state is not None:
        yield "state", f"generation {found.generation}, format {state.format_version}"
        if state.digest is not None:
            yield "  applied", f"index {state.digest.index}, term {state.digest.term}"
            yield "  holds", f"{state.digest.keys} keys, {state.tombstones} tombstones"
            yield "  digest", state.digest.sha256
    for note in found.notes:
        yield "note", note
    for damage in found.damages:
        yield "DAMAGED", printable(str(damage))
    yield "verdict", f"{len(found.damages)} damages" if found.damages else "whole"


def told_configuration(configuration: Configuration) -> str:
    """The members in one line."""
    groups = (
        ("voters", configuration.voters),
        ("learners", configuration.learners),
        ("outgoing", configuration.outgoing),
        ("learners next", configuration.learners_next),
    )
    return "; ".join(f"{title} " + ", ".join(f"{one.name}={one.address}" for one in group) for title, group in groups if group) or "nobody"


def _configuration(configuration: Configuration) -> dict[str, Any]:
    return {
        name: [member._asdict() for member in getattr(configuration, name)]
        for name in ("voters", "learners", "outgoing", "learners_next")
        if getattr(configuration, name) or name == "voters"
    }


def entries_as_json(entries: Iterable[StoredEntry]) -> list[dict[str, Any]]:
    """Entries, each with what its command would do."""
    return [
        {
            "index": entry.index,
            "term": entry.term,
            "kind": _kind(entry),
            "bytes": len(entry.data),
            "summary": summary(entry),
            "problem": entry.problem,
        }
        for entry in entries
    ]


def entries_as_text(entries: Iterable[StoredEntry]) -> str:
    """The same as a table."""
    rows = [[entry.index, entry.term, _kind(entry), len(entry.data), entry.problem or summary(entry)] for entry in entries]
    return columns([["INDEX", "TERM", "KIND", "BYTES", "WHAT"], *rows])


def summary(entry: StoredEntry) -> str:
    """What an entry is for, on one line. Values are told by their length: they may be secrets."""
    if entry.problem or entry.kind is not EntryKind.COMMAND:
        return ""
    try:
        _, command = decode(entry.data)
    except CommandInvalid as error:
        return str(error)
    told = [type(command).__name__]
    for field in msgspec.structs.fields(command):
        value = getattr(command, field.name)
        if value == field.default:
            continue
        told.append(f"{field.name}={_told(field.name, value)}")
    return " ".join(told)


def _told(name: str, value: object) -> str:
    if not isinstance(value, bytes):
        return printable(str(value))
    if name not in {"key", "prefix"}:
        return f"{len(value)} bytes"
    text = printable(value.decode("utf-8", "surrogateescape"))
    return text if len(text) <= _KEY_CHARACTERS_MAX else text[:_KEY_CHARACTERS_MAX] + "…"


def _kind(entry: StoredEntry) -> str:
    return entry.kind.name.lower() if entry.kind is not None else "?"
