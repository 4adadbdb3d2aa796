"""``kvorum snapshot``: the whole state in one file, in the form of Consul's snapshots."""

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any, NamedTuple

import click

from service.archive import acl_records, records
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
        found = read_archive(stream.read)
    say(f"saved: {found.counts[records.KEY]} keys at index {found.meta.index} to {file}" + _without(found))


@snapshot.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def inspect(*, file: Path, output: str) -> None:
    """Verify FILE and tell what it holds. No node is asked."""
    with file.open("rb") as stream:
        found = read_archive(stream.read)
    meta = found.meta
    about = {"id": meta.id, "index": meta.index, "term": meta.term, "version": meta.version, "bytes": meta.size}
    held = {records.NAMES[number]: count for number, count in sorted(found.counts.items())}
    passed_over = [records.NAMES[number] for number in sorted(found.counts) if number not in records.RESTORED]
    passed_over += [acl_records.NO_PLACE] if found.without_place else []
    if output == "json":
        click.echo(json.dumps({**about, "records": held, "not_restored": passed_over, "left_out": found.left_out}, indent=2))
        return
    click.echo(columns([("", "VALUE"), *about.items(), *held.items()]))
    if passed_over:
        say(f"a restore into kvorum passes over: {', '.join(passed_over)}")
    if found.left_out:
        say(f"left out when it was saved: {found.left_out}")


@snapshot.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--yes", is_flag=True, help="Do not ask.")
@node_options
def restore(*, file: Path, yes: bool, address: str | None, token: str | None) -> None:
    """Replace the whole state by what FILE holds: keys, locks and sessions are then those of FILE, on every node. So are tokens, policies and roles,
    if it holds any.
    """
    with file.open("rb") as stream:
        found = read_archive(stream.read)
        keys = found.counts[records.KEY]
        if not yes:
            acl = "" if records.RESTORED_ACL.isdisjoint(found.counts) else ", and all tokens, policies and roles by its own"
            _confirm(f"{keys} keys of index {found.meta.index}{acl}")
        stream.seek(0)
        with Client(address, token, answer_seconds=ANSWER_SECONDS) as client:
            skipped = client.restore_snapshot(stream)
    say(f"restored: {keys} keys from {file}" + (f"; passed over: {skipped}" if skipped else ""))


class Contents(NamedTuple):
    """What an archive holds.

    :ivar counts: of its records, by their number.
    :ivar without_place: how many of the tokens no restore here takes.
    :ivar left_out: what the state had that was not saved, in words.
    """

    meta: Meta
    counts: Counter[int]
    without_place: int
    left_out: str


def read_archive(read: Callable[[int], bytes]) -> Contents:
    """Verify an archive, and count its records.

    :raises ArchiveInvalid: when anything is wrong with it.
    """
    counts: Counter[int] = Counter()
    without_place, left_out = 0, ""

    def take(read_state: Callable[[int], bytes]) -> None:
        nonlocal without_place, left_out
        header, found = records.read(Unpacker(read_state))
        left_out = header.left_out
        for record in found:
            counts[record.number] += 1
            without_place += record.number == records.ACL_TOKEN and acl_records.has_no_place(record)

    meta = Reader(read).read_all(take)
    return Contents(meta, counts, without_place, left_out)


def _without(found: Contents) -> str:
    return f"; left out, for the secrets are not kept: {found.left_out}" if found.left_out else ""


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
