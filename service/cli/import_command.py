"""``kvorum kv import``."""

import json
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import click

from service.cli.bulk import MESSAGES_MAX, BulkWriter, Digest, Tally, digest
from service.cli.console import FAILED, OUTCOME_UNKNOWN, Terminated, complain, leave, node_options, printable, say
from service.cli.progress import progress
from service.cli.sources import FORMATS, Source, open_source
from service.client import Client, ClientError
from service.errors import ImportInvalid


@click.command("import")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--prefix", default="", metavar="KEY", help="Put everything below this key.")
@click.option("--format", "form", type=click.Choice(FORMATS), default="auto", show_default="by the name", help="What PATH is.")
@click.option("--skip-unchanged", is_flag=True, help="Read what is stored first, and write only what differs.")
@click.option("--parallel", type=click.IntRange(1, 64), default=8, show_default=True, help="Writes at the same time.")
@click.option(
    "--patience", "patience_seconds", type=click.FloatRange(0, 600), default=10.0, show_default=True, help="Seconds to retry what did not succeed."
)
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="json: the counts on standard output.")
@node_options
def import_command(
    *,
    path: Path,
    prefix: str,
    form: str,
    skip_unchanged: bool,
    parallel: int,
    patience_seconds: float,
    output: str,
    address: str | None,
    token: str | None,
) -> None:
    """Write every file of a directory, or every entry of a YAML, JSON, TOML or .env file, as a key.

    PATH "-" is standard input (with --format). Levels are joined by "/"; Consul's own export is understood too. A bad file is refused before
    anything is written. A write that certainly did not happen is tried again; in kvorum also one whose outcome is unknown, under a key by which it
    takes effect once.
    """
    source = open_source(path, form, sys.stdin.buffer.read)
    if not source.records:
        raise ImportInvalid(f"{path}: nothing to import")
    source = _below(source, prefix)

    def connect() -> Client:
        return Client(address, token)

    started = time.monotonic()
    known = _stored(connect, prefix) if skip_unchanged else None
    with progress("importing", len(source.records)) as advance:
        writer = BulkWriter(connect, parallel, patience_seconds, since=_index(connect), known=known)
        tally = writer.write(source.records, advance)
    _report(source, tally, time.monotonic() - started, output)
    if writer.stopped_by is not None:
        raise Terminated if writer.stopped_by == signal.SIGTERM else KeyboardInterrupt
    leave(_exit_code(tally))


def _below(source: Source, prefix: str) -> Source:
    if not prefix:
        return source
    base = prefix if prefix.endswith("/") else prefix + "/"
    return source._replace(records=[record._replace(key=base + record.key) for record in source.records])


def _stored(connect: Callable[[], Client], prefix: str) -> dict[str, Digest]:
    with connect() as client, progress("reading", None) as advance:
        known = {}
        for entry in client.entries(prefix, "consistent"):
            known[entry.key] = digest(entry.value, entry.flags)
            advance()
        return known


def _index(connect: Callable[[], Client]) -> int:
    """A log index of this moment; 0 where no kvorum answers."""
    with connect() as client:
        try:
            return int(client.status()["node"]["applied_index"])
        except (ClientError, KeyError, TypeError, ValueError):
            return 0


def _report(source: Source, tally: Tally, seconds: float, output: str) -> None:
    for note in source.notes:
        say(note)
    for message in tally.messages:
        complain(printable(message))
    silent = tally.rejected + tally.unknown + tally.unreadable - len(tally.messages)
    if silent > 0:
        complain(f"{silent} more like these ({MESSAGES_MAX} are shown)")
    counts = {name: count for name, count in asdict(tally).items() if isinstance(count, int)}
    if output == "json":
        click.echo(json.dumps({**counts, "seconds": round(seconds, 3)}))
    told = ", ".join(f"{counts[name]} {name.replace('_', ' ')}" for name in ("written", "unchanged", "rejected", "unknown"))
    extra = "".join(f", {counts[name]} {name.replace('_', ' ')}" for name in ("unreadable", "not_tried") if counts[name])
    say(f"{len(source.records)} keys: {told}{extra}; {tally.bytes_written} bytes in {seconds:.1f} s")


def _exit_code(tally: Tally) -> int:
    if tally.unknown:
        return OUTCOME_UNKNOWN
    return FAILED if tally.rejected or tally.unreadable or tally.not_tried else 0
