"""``kvorum kv``: read and write keys. Import and export live in modules of their own."""

import json
import os
import sys
from base64 import b64encode
from collections.abc import Iterable
from pathlib import Path

import click

from service.cli.console import CONDITION_NOT_MET, FAILED, columns, consistency_options, leave, node_options, printable, say, write_data
from service.cli.export_command import export_command
from service.cli.import_command import import_command
from service.cli.scan_command import scan_command
from service.client import Client, Entry, Once

FLAGS_MAX = 2**64 - 1
INDEX_MAX = 2**64 - 1
_STRAYS_SHOWN = 3
_once_option = click.option(
    "--idempotency-key",
    "once",
    metavar="KEY",
    callback=lambda _context, _parameter, text: None if text is None else Once(text),
    help="Takes effect once, however often it is asked for with the same KEY, at any node. (kvorum only)",
)


@click.group()
def kv() -> None:
    """Read and write keys."""


kv.add_command(import_command)
kv.add_command(export_command)
kv.add_command(scan_command)


@kv.command()
@click.argument("key")
@consistency_options
@node_options
def get(*, key: str, consistency: str, address: str | None, token: str | None) -> None:
    """Write the value of KEY to standard output, byte for byte. Exit code 1 when there is no such key."""
    with Client(address, token) as client:
        entry = client.get(_key(key), consistency)
    if entry is None:
        say(f"no such key: {printable(key)}")
        leave(FAILED)
        return
    write_data(entry.value)
    if sys.stdout.isatty() and not entry.value.endswith(b"\n"):
        write_data(b"\n")


@kv.command()
@click.argument("key")
@click.argument("value")
@click.option("--cas", type=click.IntRange(0, INDEX_MAX), metavar="INDEX", help="Only when the key's ModifyIndex is this; 0: only a new key.")
@click.option("--flags", type=click.IntRange(0, FLAGS_MAX), default=0, metavar="NUMBER", help="A number kept with the value.")
@_once_option
@node_options
def put(*, key: str, value: str, cas: int | None, flags: int, once: Once | None, address: str | None, token: str | None) -> None:
    """Set KEY to VALUE; "-" reads the value from standard input, "@PATH" from a file."""
    data = _value(value)
    with Client(address, token) as client:
        done = client.put(_key(key), data, flags=flags, cas=cas, once=once)
    if done:
        say(f"written: {printable(key)} ({len(data)} bytes)")
    else:
        _condition_not_met(key, cas)


@kv.command()
@click.argument("key")
@click.option("--cas", type=click.IntRange(0, INDEX_MAX), metavar="INDEX", help="Only when the key's ModifyIndex is this.")
@click.option("--recurse", is_flag=True, help="Delete every key that begins with KEY, and print how many there were.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_once_option
@node_options
def delete(*, key: str, cas: int | None, recurse: bool, yes: bool, once: Once | None, address: str | None, token: str | None) -> None:
    """Delete KEY. With --recurse KEY is a prefix of text: "foo" means "food" as well, "foo/" does not."""
    if recurse and cas is not None:
        raise click.UsageError("--cas can't be used with --recurse")
    with Client(address, token) as client:
        if recurse:
            _delete_tree(client, _key(key), yes, once)
        elif client.delete(_key(key), cas=cas, once=once):
            say(f"deleted: {printable(key)}")
        else:
            _condition_not_met(key, cas)


@kv.command("list")
@click.argument("prefix", default="")
@click.option("--keys", "only_keys", is_flag=True, help="Only the names, one a line.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
@consistency_options
@node_options
def list_keys(*, prefix: str, only_keys: bool, output: str, consistency: str, address: str | None, token: str | None) -> None:
    """List the keys that begin with PREFIX (all, when it is left out)."""
    with Client(address, token) as client:
        if only_keys:
            names = client.keys(prefix, consistency)
            click.echo(json.dumps(names, indent=2) if output == "json" else "".join(printable(name) + "\n" for name in names), nl=output == "json")
        elif output == "json":
            click.echo(json.dumps([_as_json(entry) for entry in client.entries(prefix, consistency)], indent=2))
        else:
            _print_table(client.entries(prefix, consistency))


def _print_table(entries: Iterable[Entry]) -> None:
    rows = [(printable(entry.key), len(entry.value), entry.flags, entry.modify_index) for entry in entries]
    if rows:
        click.echo(columns([("KEY", "BYTES", "FLAGS", "MODIFY INDEX"), *rows]))
    else:
        say("no keys")


def _as_json(entry: Entry) -> dict[str, object]:
    return {**entry._asdict(), "value": b64encode(entry.value).decode("ascii")}


def _delete_tree(client: Client, prefix: str, yes: bool, once: Once | None) -> None:
    names = client.keys(prefix, "consistent")
    if not names:
        say(f"no key begins with {printable(prefix)}")
        click.echo(0)
        return
    if not yes:
        _confirm(prefix, names)
    client.delete_tree(prefix, once=once)
    say(f"deleted: {len(names)} keys that began with {printable(prefix)}")
    click.echo(len(names))


def _confirm(prefix: str, names: list[str]) -> None:
    """Ask before a tree goes; tell of keys that a reader of paths would not expect to go with it."""
    if not sys.stdin.isatty():
        raise click.UsageError(f"--recurse would delete {len(names)} keys; give --yes when nobody can be asked")
    strays = [name for name in names if not prefix.endswith("/") and name != prefix and not name.startswith(prefix + "/")]
    if strays:
        shown = ", ".join(printable(name) for name in strays[:_STRAYS_SHOWN])
        say(f"{len(strays)} of them are not below {printable(prefix)}/: {shown}" + (", …" if len(strays) > _STRAYS_SHOWN else ""))
    click.confirm(f"Delete {len(names)} keys that begin with {printable(prefix)}?", abort=True, err=True)


def _condition_not_met(key: str, cas: int | None) -> None:
    reason = "the key exists" if cas == 0 else f"the key's ModifyIndex is not {cas}"
    say(f"not changed: {printable(key)}: {reason}")
    leave(CONDITION_NOT_MET)


def _key(key: str) -> str:
    if not key:
        raise click.UsageError("an empty KEY is no key")
    return key


def _value(argument: str) -> bytes:
    if argument == "-":
        return sys.stdin.buffer.read()
    if argument.startswith("@"):
        path = argument[1:]
        try:
            return Path(path).read_bytes()
        except OSError as error:
            raise click.UsageError(f"{path!r} can't be read: {error.strerror}") from error
    return os.fsencode(argument)
