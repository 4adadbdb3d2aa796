"""``kvorum snapshot``: the whole state in one file, in the form of Consul's snapshots."""

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any

import click

from service.archive import records
from service.archive.container import Meta, Reader
from service.archive.msgpack import Unpacker
from service.cli.console import columns, consistency_options, node_options, say
from service.client import Client

ANSWER_SECONDS = 900.0
"""How long a node may take to restore an archive: it puts millions of keys in their places before it answers."""


@click.group()
def snapshot() -> None:
    """Save, look at and restore the whole state. The files are those of `consul snapshot`, in both directions."""


@snapshot.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@consistency_options
@node_options
def save(*, file: Path, consistency: str, address: str | None, token: str | None) -> None:
    """Write the whole state into FILE, as it is at one moment. FILE appears only when it is whole and verified; only its owner may read it."""
    with Client(address, token, answer_seconds=ANSWER_SECONDS) as client, _new_file(file) as stream:
        for piece in client.save_snapshot(consistency):
            stream.write(piece)
        stream.seek(0)
        meta, counts = read_archive(stream.read)
    say(f"saved: {counts[records.KEY]} keys at index {meta.index} to {file}")


@snapshot.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def inspect(*, file: Path, output: str) -> None:
    """Verify FILE and tell what it holds. No node is asked."""
    with file.open("rb") as stream:
        meta, counts = read_archive(stream.read)
    found = {"id": meta.id, "index": meta.index, "term": meta.term, "version": meta.version, "bytes": meta.size}
    held = {records.NAMES[number]: count for number, count in sorted(counts.items())}
    passed_over = [records.NAMES[number] for number in sorted(counts) if number not in records.RESTORED]
    if output == "json":
        click.echo(json.dumps({**found, "records": held, "not_restored": passed_over}, indent=2))
        return
    click.echo(columns([("", "VALUE"), *found.items(), *held.items()]))
    if passed_over:
        say(f"a restore into kvorum passes over: {', '.join(passed_over)}")


@snapshot.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--yes", is_flag=True, help="Do not ask.")
@node_options
def restore(*, file: Path, yes: bool, address: str | None, token: str | None) -> None:
    """Replace the whole state by what FILE holds: keys, locks and sessions are then those of FILE, on every node."""
    with file.open("rb") as stream:
        meta, counts = read_archive(stream.read)
        if not yes:
            _confirm(f"{counts[records.KEY]} keys of index {meta.index}")
        stream.seek(0)
        with Client(address, token, answer_seconds=ANSWER_SECONDS) as client:
            skipped = client.restore_snapshot(stream)
    say(f"restored: {counts[records.KEY]} keys from {file}" + (f"; passed over: {skipped}" if skipped else ""))


def read_archive(read: Callable[[int], bytes]) -> tuple[Meta, Counter[int]]:
    """Verify an archive, and count its records by their number.

    :raises ArchiveInvalid: when anything is wrong with it.
    """
    counts: Counter[int] = Counter()

    def take(read_state: Callable[[int], bytes]) -> None:
        for record in records.read(Unpacker(read_state))[1]:
            counts[record.number] += 1

    return Reader(read).read_all(take), counts


def _confirm(what: str) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError(f"restore would replace the whole state by {what}; give --yes when nobody can be asked")
    click.confirm(f"Replace the whole state by {what}?", abort=True, err=True)


@contextmanager
def _new_file(path: Path) -> Iterator[IO[Any]]:
    """A file that appears under its name only when it is complete and on the disk; nobody but its owner may read it."""
    with NamedTemporaryFile(prefix=path.name + ".", suffix=".unfinished", dir=path.parent, delete=False) as stream:
        unfinished = Path(stream.name)
        try:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
