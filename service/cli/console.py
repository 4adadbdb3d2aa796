"""What all commands share: exit codes, where words and data go, and the options that name a node."""

import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from service.client import read_token

CLEAN = 0
FAILED = 1
USAGE = 2
CONDITION_NOT_MET = 8
OUTCOME_UNKNOWN = 9
INTERRUPTED = 130
TERMINATED = 143

EXIT_CODES = """\b
Exit codes:
  0    done
  1    failed; of kv get: no such key
  2    usage or settings
  3-7  server: 3 data directory, 4 formation, 5 agent ended,
       6 web server ended, 7 address in use
  8    the condition --cas did not hold; nothing was changed
  9    the outcome of a write is unknown: it may have happened
  130  interrupted (Ctrl-C), 143 terminated
"""

_Command = TypeVar("_Command", bound=Callable[..., Any])


class Terminated(BaseException):
    """SIGTERM arrived; the command ends as it does on Ctrl-C, with another exit code."""


def node_options(command: _Command) -> _Command:
    """Add ``--http-addr``, ``--token`` and ``--token-file`` to a command, which gets ``address`` and ``token``."""

    @functools.wraps(command)
    def with_token(*, token: str | None, token_file: Path | None, **rest: Any) -> Any:
        if token is not None and token_file is not None:
            raise click.UsageError("--token and --token-file exclude each other")
        return command(token=token if token_file is None else read_token(token_file, "--token-file"), **rest)

    file = click.option("--token-file", metavar="PATH", type=click.Path(path_type=Path), help="File that holds the access token.")
    about = "Access token; else KVORUM_HTTP_TOKEN, CONSUL_HTTP_TOKEN, or either with _FILE. (Visible in the process list.)"
    token = click.option("--token", metavar="TOKEN", help=about)
    address = click.option(
        "--http-addr",
        "--addr",
        "address",
        metavar="HOST:PORT",
        help="Node to speak to; else KVORUM_HTTP_ADDR, CONSUL_HTTP_ADDR, or 127.0.0.1:8500.",
    )
    return cast("_Command", address(token(file(with_token))))


def consistency_options(command: _Command) -> _Command:
    """Add ``--stale``, ``--consistent`` and ``--available`` to a command that reads."""
    stale = click.option("--stale", "consistency", flag_value="stale", help="Read what this node has, however old.")
    consistent = click.option("--consistent", "consistency", flag_value="consistent", help="Have a quorum confirm the read.")
    available = click.option("--available", "consistency", flag_value="available", help="Read what this node has while there is no leader.")
    plain = click.option("--default", "consistency", flag_value="default", default="default", hidden=True)
    return stale(consistent(available(plain(command))))


def say(text: str) -> None:
    """Words for people go to standard error; standard output is for data."""
    click.echo(text, err=True)


def complain(text: str) -> None:
    """Tell an error; further lines of the text are indented."""
    say("kvorum: error: " + text.replace("\n", "\n  "))


def write_data(data: bytes) -> None:
    """Bytes to standard output, exactly as they are."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def printable(text: str) -> str:
    """A key on one line of a terminal: control characters and bytes that are no text are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in text)


def columns(rows: Sequence[Sequence[object]]) -> str:
    """Rows of a table, aligned by spaces; numbers to the right."""
    cells = [["-" if cell is None or cell == "" else str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    numeric = [all(row[i].isdigit() or row[i] == "-" for row in cells[1:]) for i in range(len(widths))]
    lines = []
    for row in cells:
        padded = (cell.rjust(width) if right else cell.ljust(width) for cell, width, right in zip(row, widths, numeric, strict=True))
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def leave(code: int) -> None:
    """End the command with an exit code other than 0."""
    if code:
        click.get_current_context().exit(code)
