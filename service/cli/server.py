"""``kvorum server``: one node in the foreground. Its options are the rows of the settings table."""

import os
from pathlib import Path

import click

from service.cli.console import leave
from service.settings import SETTINGS, load
from service.settings_text import print_config
from service.supervisor.server import run_node


def _options() -> list[click.Parameter]:
    rows = [row for row in SETTINGS if not row.secret]
    return [click.Option(["--" + row.name.replace("_", "-")], metavar=(row.unit or row.form).upper(), help=row.help) for row in rows]


@click.command(
    params=_options(),
    epilog="Every option can also be given as KVORUM_… in the environment or in a TOML file; a secret (KVORUM_REDIS_URL) only so.",
)
@click.option("--config", metavar="PATH", envvar="KVORUM_CONFIG", type=click.Path(path_type=Path), help="TOML file with settings.")
@click.option("--print-config", "only_print", is_flag=True, help="Show the settings in effect, secrets masked, and end.")
def server(config: Path | None, only_print: bool, **given: str | None) -> None:
    """Run one node in the foreground: its agent and its web server.

    SIGTERM or Ctrl-C stops it in order, a second one at once.
    """
    settings = load(os.environ, {name: value for name, value in given.items() if value is not None}, config)
    if only_print:
        click.echo(print_config(settings), nl=False)
        return
    leave(run_node(settings))
