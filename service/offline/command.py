"""``kvorum data``: what can be done with the data directory of a node that stands still."""

import json
import re
from pathlib import Path

import click

from raft.errors import RaftError
from raft.storage.inspection import hold_for_reading, read_entries
from service.cli.console import FAILED, leave
from service.offline import report
from service.offline.directory import DataUnusable, inspect

_DIRECTORY = click.Path(path_type=Path)
_RANGE = re.compile(r"([0-9]{1,18}):([0-9]{1,18})?")


@click.group()
def data() -> None:
    """Look at, and mend, the data directory of a node that does not run."""


@data.command("inspect")
@click.argument("directory", type=_DIRECTORY)
@click.option("--entries", "wanted", metavar="FROM:TO", help="List entries of the log instead; both ends included, TO may be left out.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def inspect_command(directory: Path, wanted: str | None, output: str) -> None:
    """Read and verify everything in DIRECTORY; change nothing.

    Works on a stopped node's directory or on a copy of one. Ends with 1 when anything is damaged, and names it.
    """
    bounds = None if wanted is None else _range(wanted)
    try:
        with hold_for_reading(directory):
            if bounds is not None:
                found = list(read_entries(directory, *bounds))
                click.echo(json.dumps(report.entries_as_json(found), indent=2) if output == "json" else report.entries_as_text(found))
                leave(FAILED if any(entry.problem for entry in found) else 0)
                return
            inspection = inspect(directory)
    except RaftError as error:
        raise DataUnusable(str(error)) from error
    click.echo(json.dumps(report.as_json(inspection), indent=2) if output == "json" else report.as_text(inspection))
    leave(FAILED if inspection.damages else 0)


def _range(text: str) -> tuple[int, int]:
    match = _RANGE.fullmatch(text)
    first, last = (int(match[1]), int(match[2] or 10**18)) if match is not None else (1, 0)
    if first > last:
        raise click.BadParameter(f"{text!r} is no range; expected FROM:TO, such as 10:20, or 10: for the rest", param_hint="--entries")
    return first, last
