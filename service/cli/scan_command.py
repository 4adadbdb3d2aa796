"""``kvorum kv scan``: keys page by page."""

import json
from base64 import b64encode
from collections.abc import Iterable

import click

from service.cli.console import columns, consistency_options, node_options, printable, say
from service.client import SCAN_PAGE, Client, Page

PAGE_MAX = 10_000


@click.command("scan")
@click.argument("prefix", default="")
@click.option("--start", default="", metavar="KEY", help="Begin at this key.")
@click.option("--limit", type=click.IntRange(0), metavar="NUMBER", help="How many keys at most; all, when it is left out.")
@click.option("--page", type=click.IntRange(1, PAGE_MAX), default=SCAN_PAGE, show_default=True, metavar="NUMBER", help="Keys to ask for at once.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
@consistency_options
@node_options
def scan_command(
    *, prefix: str, start: str, limit: int | None, page: int, output: str, consistency: str, address: str | None, token: str | None
) -> None:
    """Go through the keys that begin with PREFIX in byte order, page by page: unlike a list, it never is too much at once.

    Each page is as of one moment; keys may change between pages. When --limit ends it early, the --start to go on with is told.
    """
    with Client(address, token) as client:
        pages = client.scan_pages(prefix, start=start, limit=limit, page=page, consistency=consistency)
        following = _print_json(pages) if output == "json" else _print_table(pages)
    if following is not None:
        say(f"there is more: --start {printable(following)}")


def _print_table(pages: Iterable[Page]) -> str | None:
    shown, following = False, None
    for page in pages:
        following = page.next
        rows = [(printable(entry.key), len(entry.value), entry.flags, entry.modify_index) for entry in page.entries]
        if rows:
            click.echo(columns([("KEY", "BYTES", "FLAGS", "MODIFY INDEX"), *rows] if not shown else rows))
            shown = True
    if not shown:
        say("no keys")
    return following


def _print_json(pages: Iterable[Page]) -> str | None:
    """A JSON array that grows as the pages come."""
    before, following = "[", None
    for page in pages:
        following = page.next
        for entry in page.entries:
            click.echo(before + "\n  " + json.dumps({**entry._asdict(), "value": b64encode(entry.value).decode("ascii")}), nl=False)
            before = ","
    click.echo("[]" if before == "[" else "\n]")
    return following
