"""``kvorum server``: one node in the foreground. Its options are the rows of the settings table."""

import os
from pathlib import Path

import click

from service.cli.console import leave
from service.given import CONFIG_FILE
from service.reloading import Sources, settings_variables
from service.settings import SETTINGS, load_with_origins
from service.settings_text import print_config
from service.supervisor.server import run_node


def _options() -> list[click.Parameter]:
    rows = [row for row in SETTINGS if not row.secret]
    return [click.Option(["--" + row.name.replace("_", "-")], metavar=(row.unit or row.form).upper(), help=row.help) for row in rows]


@click.command(
    params=_options(),
    epilog="Every option can also be given as KVORUM_… in the environment or in a TOML file; a secret (KVORUM_REDIS_URL) only so.",
)
@click.option(
    "--config-file", metavar="FILE", envvar=CONFIG_FILE, type=click.Path(path_type=Path), help="TOML file with settings; else KVORUM_CONFIG_FILE."
)
@click.option("--print-config", "only_print", is_flag=True, help="Show the settings in effect and where each comes from, secrets masked, and end.")
def server(config_file: Path | None, only_print: bool, **given: str | None) -> None:
    """Run one node in the foreground: its agent and its web server.

    SIGTERM or Ctrl-C stops it in order, a second one at once. SIGHUP lets it read its settings again, as kvorum reload does.
    """
    flags = {name: value for name, value in given.items() if value is not None}
    if only_print:
        click.echo(print_config(load_with_origins(os.environ, flags, config_file)), nl=False)
        return
    leave(run_node(Sources(flags, settings_variables(os.environ), config_file and config_file.absolute())))
