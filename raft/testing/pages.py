"""The parts of the library's pages that follow from the code: tables between markers in ``DESIGN.md`` and ``README.md``.

``python -m raft.testing.pages`` writes them anew in the pages beside the package; ``--check`` says which are out of date. The facts stand in the
code, in tables and docstrings; here they are only put in order.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from inspect import cleandoc
from pathlib import Path
from typing import Any, get_args

import raft
from raft import errors
from raft.config import SETTINGS
from raft.core import ready
from raft.core.messages import CONTROL, Message
from raft.core.model import EntryKind
from raft.core.roles import TRANSITIONS
from raft.ports import LogStore, SnapshotStore, StableStore, StateMachine, Transport

PAGES = tuple(Path(raft.__file__).parent / name for name in ("DESIGN.md", "README.md"))

_BLOCK = re.compile(r"(?P<begin><!-- (?P<name>[a-z]+): made by raft\.testing\.pages -->\n).*?(?P<end>^<!-- end -->$)", re.DOTALL | re.MULTILINE)
_FIELD = re.compile(r"^:(?P<name>[^:]+): (?P<text>.*(?:\n {4,}.*)*)", re.MULTILINE)
_ROLE = re.compile(r":[a-z]+:`~?([^`]+)`")
_COMMON = {"sender", "to", "term"}


def render(page: str) -> str:
    """A page with its tables as they follow from the code now.

    :raises KeyError: for a marker that names no table.
    """
    return _BLOCK.sub(lambda found: f"{found['begin']}{TABLES[found['name']]()}{found['end']}", page)


def names(page: str) -> list[str]:
    """The tables that a page holds."""
    return [found["name"] for found in _BLOCK.finditer(page)]


def told(subject: type) -> dict[str, str]:
    """The fields (``:name: text``) of a docstring, as Markdown."""
    return {found["name"]: _markdown(found["text"]) for found in _FIELD.finditer(cleandoc(subject.__doc__ or ""))}


def message_table() -> str:
    """Every message: what it says, its own fields, who sends it, who acts on it, after what it leaves, and on which lane."""
    rows = []
    for message in get_args(Message):
        facts = told(message)
        lane = "control" if message in CONTROL else "bulk"
        rows.append(
            (f"`{message.__name__}`", _summary(message), _fields_of(message, _COMMON), facts["sent by"], facts["acted on by"], facts["after"], lane)
        )
    return _table(("message", "meaning", "fields besides `sender`, `to`, `term`", "sent by", "acted on by", "leaves after", "lane"), rows)


def entry_table() -> str:
    """Every kind of entry."""
    facts = told(EntryKind)
    return _table(("kind", "number", "meaning and data"), [(f"`{kind.name}`", str(kind.value), facts[f"cvar {kind.name}"]) for kind in EntryKind])


def role_table() -> str:
    """The moves between roles."""
    return _table(("role", "may become"), [(role.value, ", ".join(sorted(other.value for other in next_))) for role, next_ in TRANSITIONS.items()])


def port_table() -> str:
    """The five ports, with their methods."""
    rows = []
    for port in (LogStore, StableStore, SnapshotStore, Transport, StateMachine):
        methods = ", ".join(f"`{name}`" for name, value in vars(port).items() if callable(value) and not name.startswith("_"))
        rows.append((f"`{port.__name__}`", methods, _markdown(cleandoc(port.__doc__ or ""))))
    return _table(("port", "methods", "what it promises"), rows)


def settings_table() -> str:
    """Every setting of :class:`raft.RaftConfig`."""
    rows = [
        (f"`{row.name}`", f"{row.default:,}", row.unit, f"{row.minimum:,} to {row.maximum:,}" + (f"; {row.rule}" if row.rule else ""), row.help)
        for row in SETTINGS
    ]
    return _table(("setting", "default", "unit", "allowed", "what it trades"), [tuple(map(_markdown, row)) for row in rows])


def error_table() -> str:
    """Every error, indented by its place in the tree, with what is known of the operation."""
    rows: list[tuple[str, str, str]] = []

    def add(error: type[errors.RaftError], depth: int) -> None:
        rows.append((f"{'&emsp;' * depth}`{error.__name__}`", error.outcome.value, _summary(error)))
        for below in error.__subclasses__():
            if below.__module__ == errors.__name__:  # an application may have its own
                add(below, depth + 1)

    add(errors.RaftError, 0)
    return _table(("error", "outcome", "meaning"), rows)


def observation_table() -> str:
    """What an observer is told."""
    return _table(
        ("observation", "fields", "meaning"), [(f"`{each.__name__}`", _fields_of(each), _summary(each)) for each in get_args(ready.Observation)]
    )


TABLES: dict[str, Callable[[], str]] = {
    "messages": message_table,
    "entries": entry_table,
    "roles": role_table,
    "ports": port_table,
    "settings": settings_table,
    "errors": error_table,
    "observations": observation_table,
}
"""The tables, by the names that the markers use."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; see the module's text.

    :returns: the exit status: 1 when ``--check`` finds a page out of date.
    """
    parser = argparse.ArgumentParser(prog="python -m raft.testing.pages", description="Write the tables of the library's pages anew.")
    parser.add_argument("--check", action="store_true", help="write nothing, name the pages that are out of date")
    parser.add_argument("pages", nargs="*", type=Path, default=PAGES, metavar="PAGE", help="default: DESIGN.md and README.md of the package")
    options = parser.parse_args(arguments)
    late = []
    for page in options.pages:
        text = page.read_text(encoding="utf-8")
        rendered = render(text)
        if rendered != text:
            late.append(page)
            if not options.check:
                page.write_text(rendered, encoding="utf-8")
    sys.stdout.write("".join(f"{page.name}: {'out of date' if options.check else 'written'}\n" for page in late))
    return 1 if late and options.check else 0


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = (head, ["---"] * len(head), *rows)
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def _summary(subject: type) -> str:
    """The first paragraph of a docstring."""
    return _markdown(cleandoc(subject.__doc__ or "").partition("\n\n")[0])


def _fields_of(subject: Any, without: Iterable[str] = ()) -> str:
    return "<br>".join(f"`{field.name}: {_type(field.type)}`" for field in fields(subject) if field.name not in without) or "none"


def _type(annotation: object) -> str:
    name = annotation.__name__ if isinstance(annotation, type) and not get_args(annotation) else str(annotation)
    return re.sub(r"\b[a-z_]+(?:\.[a-z_]+)*\.(?=[A-Z])", "", name)


def _markdown(text: str) -> str:
    joined = " ".join(text.split())
    return _ROLE.sub(lambda found: f"`{found[1].rpartition('.')[2]}`", joined).replace("``", "`")


if __name__ == "__main__":
    sys.exit(main())
