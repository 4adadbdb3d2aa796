"""``kvorum reload``: a running node reads its settings again."""

import click

from service.cli.console import node_options, say
from service.client import Client


@click.command()
@node_options
def reload(address: str | None, token: str | None) -> None:
    """Have the addressed node read its settings again, as SIGHUP does.

    Its file and its secrets' files are read; flags and environment are as they were. Either all of it takes effect, or nothing changes and every
    reason is told. docs/settings.md says which settings can change while a node runs.
    """
    with Client(address, token) as client:
        client.reload()
        say(f"reloaded: {client.url}")
