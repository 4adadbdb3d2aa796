"""``kvorum data``: what can be done with the data directory of a node that stands still."""

import json
import re
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import click

from raft.errors import RaftError
from raft.storage.directory import DirectoryLock
from raft.storage.inspection import hold_for_reading, read_entries
from raft.storage.sqlite import FILE_NAME
from service.addresses import PEER_PORT, parse_address
from service.cli.console import FAILED, leave, say
from service.offline import peers, recovery, report, survivors
from service.offline.directory import DataUnusable, Inspection, inspect

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


@data.command("recover")
@click.argument("directory", type=_DIRECTORY)
@click.option("--compare", "others", multiple=True, type=_DIRECTORY, metavar="DIR", help="Another survivor's directory; may be repeated.")
@click.option("--address", metavar="HOST:PORT", help="Where this node will listen for peers, when it moves; else where it did.")
@click.option("--ask", "more", multiple=True, metavar="HOST:PORT", help="A peer to ask besides those that the log names; may be repeated.")
@click.option("--yes", is_flag=True, help="Do it without asking.")
def recover_command(directory: Path, others: tuple[Path, ...], address: str | None, more: tuple[str, ...], yes: bool) -> None:
    """Begin a cluster anew out of DIRECTORY, the data of one node, when a quorum is lost for good.

    Shows first what is kept and what is lost. Refuses while the nodes that answer are a quorum together with this one, and when a compared
    directory would lose less. The other nodes join afterwards with empty directories.
    """
    member_address = None if address is None else _address(address, "--address")
    asked = [_address(one, "--ask") for one in more]
    if not (directory / FILE_NAME).is_file():
        raise DataUnusable(f"{directory} is no data directory of a node: it holds no {FILE_NAME}")
    try:
        with ExitStack() as held:
            held.enter_context(DirectoryLock(directory))
            for other in others:
                held.enter_context(hold_for_reading(other))
            found = _chosen(directory, others)
            plan = recovery.plan(found, member_address, str(uuid4()), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
            _check_lost(plan, asked)
            say(recovery.told(plan))
            _confirm(yes)
            recovery.carry_out(plan)
    except RaftError as error:
        raise DataUnusable(str(error)) from error
    say(f"done: {plan.member.name} is cluster {plan.cluster.cluster_id} now; start it as always. To undo this before that, put the copy back.")


def _chosen(directory: Path, others: tuple[Path, ...]) -> Inspection:
    """The inspection of the directory, after it was held against the others."""
    inspections = [inspect(path) for path in (directory, *others)]
    survivors.check_comparable(inspections)
    found, best = inspections[0], survivors.best(inspections)
    for one in inspections:
        say(f"compared   {one.path}: last index {one.log.last_index} of term {one.log.last_term}, committed up to {one.known_commit[0]} at least")
    if best is not found:
        better = f"it ends with index {best.log.last_index} of term {best.log.last_term}"
        raise DataUnusable(f"{best.path} is to be recovered, not {directory}: {'; '.join(survivors.lacks(found, inspections)) or better}")
    return found


def _check_lost(plan: recovery.Plan, more: list[str]) -> None:
    known = [member.address for member in plan.old.members if member.id != plan.member.id]
    answers = peers.ask(list(dict.fromkeys([*known, *more])))
    for answer in answers:
        say(f"asked      {answer.address} {answer.text}")
    peers.check_lost(plan.old, plan.member.id, plan.mark.from_cluster, answers)


def _confirm(yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise DataUnusable("nothing was changed; --yes does it")
    if not click.confirm("Go on?", err=True):
        raise DataUnusable("nothing was changed")


def _address(text: str, option: str) -> str:
    try:
        return str(parse_address(text, PEER_PORT))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from error


def _range(text: str) -> tuple[int, int]:
    match = _RANGE.fullmatch(text)
    first, last = (int(match[1]), int(match[2] or 10**18)) if match is not None else (1, 0)
    if first > last:
        raise click.BadParameter(f"{text!r} is no range; expected FROM:TO, such as 10:20, or 10: for the rest", param_hint="--entries")
    return first, last
