"""``kvorum version``."""

import platform
from importlib.metadata import version as distribution_version

import click


@click.command()
def version() -> None:
    """Show the version of kvorum and of the Python that runs it."""
    click.echo(f"kvorum {distribution_version('kvorum')} (Python {platform.python_version()})")
