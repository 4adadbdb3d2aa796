"""``kvorum kv export``."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click

from service.cli.console import consistency_options, node_options, say
from service.cli.progress import progress
from service.cli.targets import FORMATS, ExportInvalid, write_directory, write_stream
from service.client import Client, Entry


@click.command("export")
@click.argument("prefix", default="")
@click.option("--format", "form", type=click.Choice(FORMATS), default="consul", show_default=True, help="dir needs --to.")
@click.option("--to", "target", type=click.Path(path_type=Path), metavar="PATH", help="File to write; for dir a new or empty directory.")
@consistency_options
@node_options
def export_command(*, prefix: str, form: str, target: Path | None, consistency: str, address: str | None, token: str | None) -> None:
    """Write all keys that begin with PREFIX, as they are at one moment.

    consul (the form of `consul kv export`) keeps whole keys, flags and bytes. The others name the keys below PREFIX; json and env
    hold text only. import reads all of them.
    """
    with Client(address, token) as client, progress("exporting", None) as advance:
        entries = _counted(client.entries(prefix, consistency), advance)
        if form == "dir":
            if target is None:
                raise click.UsageError("--format dir needs --to DIRECTORY")
            count = write_directory(entries, prefix, target)
        else:
            with _output(target) as stream:
                count = write_stream(entries, form, prefix, stream)
    say(f"exported: {count} keys" + (f" to {target}" if target else ""))


def _counted(entries: Iterable[Entry], advance: Callable[[], None]) -> Iterator[Entry]:
    for entry in entries:
        yield entry
        advance()


@contextmanager
def _output(target: Path | None) -> Iterator[BinaryIO]:
    """Standard output, or a file that appears under its name only when it is complete."""
    if target is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if target.is_dir():
        raise ExportInvalid(f"{target} is a directory")
    unfinished = target.with_name(target.name + ".unfinished")
    try:
        with unfinished.open("wb") as stream:
            yield stream
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
