"""Behaviour of a cluster as text that a reviewer can read: a script is prose, commands and what each command led to.

::

    Three servers start together.

    > cluster a b c
    > elect a
      a: pre-candidate of term 0 (nothing heard of a leader)
      a -> b  PreVoteRequest 1: log ends at 0/0
      ...

A line that begins with ``> `` is a command; the indented lines after it are the answer; everything else is prose. A script passes when each command
gives exactly the answer that stands there. ``python -m raft.testing.scripts FILE...`` runs scripts and shows the differences; ``--update`` writes
the answers anew, for a reviewer to read in the diff of the change. Nothing in a script depends on time or chance.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from difflib import unified_diff
from inspect import cleandoc
from pathlib import Path

from raft.errors import RaftError
from raft.testing.script_cluster import NAMES, Commands, ScriptError

PROMPT, ANSWER = "> ", "  "


class ScriptFailed(Exception):
    """A script that could not be run to its end; the text gives file, line and reason."""


def run(text: str, name: str = "script") -> str:
    """Run a script.

    :param text: the script, with or without answers.
    :param name: of the file, for errors.
    :returns: the script with the answers that the cluster gives now.
    :raises ScriptFailed: when a command is none, or breaks an invariant.
    """
    return "".join(line + "\n" for line in _lines(text, name))


def difference(text: str, name: str = "script") -> str:
    """Run a script and compare.

    :returns: the differing lines, as ``diff -u`` shows them; empty when there are none.
    :raises ScriptFailed: see :func:`run`.
    """
    expected, found = text.splitlines(), run(text, name).splitlines()
    return "\n".join(unified_diff(expected, found, f"{name}, as it stands", f"{name}, as it runs", lineterm=""))


def _lines(text: str, name: str) -> Iterator[str]:
    told: list[str] = []
    commands = Commands(told.append)
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith(PROMPT):
            yield line
            try:
                commands(line.removeprefix(PROMPT))
            except (ScriptError, RaftError, RuntimeError) as error:
                raise ScriptFailed(f"{name}:{number}: {line.removeprefix(PROMPT)}: {error}") from error
            yield from (ANSWER + answer for answer in told)
            told.clear()
        elif not line.startswith(ANSWER):
            yield line


def _described(command: str) -> str:
    return "  " + cleandoc(getattr(Commands, command.replace("-", "_")).__doc__).replace("``", "").replace("\n\n", " ")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; see the module's text.

    :returns: the exit status: 0 when every script gives the answers that stand in it, or was updated.
    """
    parser = argparse.ArgumentParser(
        prog="python -m raft.testing.scripts",
        description="Run scripts of cluster behaviour and show where they differ from what stands in them.",
        epilog="commands of a script:\n" + "\n".join(map(_described, NAMES)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--update", action="store_true", help="write the answers anew")
    options = parser.parse_args(arguments)
    failed = False
    for file in options.files:
        try:
            text = file.read_text(encoding="utf-8")
            found = difference(text, file.name)
            if found and options.update:
                file.write_text(run(text, file.name), encoding="utf-8")
        except (ScriptFailed, OSError, UnicodeDecodeError) as error:
            found, failed = str(error), True
        failed |= bool(found) and not options.update
        sys.stdout.write(f"{found}\n" if found else "")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
