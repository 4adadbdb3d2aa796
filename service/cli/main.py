"""The command ``kvorum``: finds the subcommand, and turns every way to end into an exit code. Each subcommand is loaded when it is used."""

import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from types import FrameType
from typing import NoReturn

import click

from service.cli.console import EXIT_CODES, FAILED, INTERRUPTED, OUTCOME_UNKNOWN, TERMINATED, Terminated, complain
from service.errors import UNKNOWN, KvorumError, SettingsInvalid

_COMMANDS = {
    "server": ("service.cli.server", "Run one node in the foreground."),
    "dev": ("service.cli.dev", "Run a whole cluster on this machine."),
    "kv": ("service.cli.kv", "Read and write keys."),
    "snapshot": ("service.cli.snapshot", "Save, look at and restore the whole state."),
    "data": ("service.offline.command", "Look at, and mend, the data directory of a node that does not run."),
    "member": ("service.cli.member", "See and change who belongs to the cluster."),
    "reload": ("service.cli.reload", "Have a node read its settings again."),
    "check": ("service.cli.check", "Compare the state of all nodes."),
    "status": ("service.cli.status", "Show what a node knows of the cluster."),
    "healthcheck": ("service.cli.healthcheck", "Say by the exit code whether the local node is well."),
    "version": ("service.cli.version", "Show the version."),
}


class CommandsOnDemand(click.Group):
    """A group whose commands are imported when they are called: a health check every few seconds should load little."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the help."""
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command; None when there is none of that name."""
        if cmd_name not in _COMMANDS:
            return super().get_command(ctx, cmd_name)
        command = getattr(import_module(_COMMANDS[cmd_name][0]), cmd_name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{cmd_name} is no command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_module, text) in _COMMANDS.items()])


@click.group(cls=CommandsOnDemand, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
def cli() -> None:
    """A replicated configuration store that keeps answering, and never lies, while machines die."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    :param arguments: without the program's name; None: those of the process.
    :returns: the exit code.
    """
    try:
        signal.signal(signal.SIGTERM, _terminate)
        result = cli.main(args=arguments, prog_name="kvorum", standalone_mode=False)
        sys.stdout.flush()
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except Terminated:
        return TERMINATED
    except (click.ClickException, KvorumError, OSError) as error:
        return _tell(error)
    return result if isinstance(result, int) else 0


def _tell(error: click.ClickException | KvorumError | OSError) -> int:
    """Tell an error that is the user's or the system's, without a traceback. Returns the exit code."""
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    if isinstance(error, KvorumError):
        complain("the settings can't be used:\n" + str(error) if isinstance(error, SettingsInvalid) else str(error))
        return OUTCOME_UNKNOWN if error.outcome == UNKNOWN else error.exit_code
    if isinstance(error, BrokenPipeError):
        # Whoever read our output has gone; what is still buffered must not be tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    else:
        complain(f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error))
    return FAILED


def _terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    raise Terminated


def main() -> NoReturn:
    """Entry point of the command ``kvorum``."""
    sys.exit(run())
