"""What was given for settings, and where: flags, the environment, a file. What the values mean is for :mod:`service.settings` to judge."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

PREFIX = "KVORUM_"
FILE_SUFFIX = "_FILE"
CONFIG_FILE = "KVORUM_CONFIG_FILE"
"""Names the file with settings."""
# Variables of the command line and its clients; they are no settings of a node.
CLIENT_VARIABLES = frozenset({"KVORUM_HTTP_ADDR", "KVORUM_HTTP_TOKEN", "KVORUM_HTTP_TOKEN_FILE", CONFIG_FILE})
FILE_BYTES_MAX = 1024 * 1024
SHOWN_CHARACTERS_MAX = 200

Known = Mapping[str, bool]
"""The names of all settings, and whether each is a secret."""


class Given(NamedTuple):
    """A value as it was given, and where."""

    value: object
    origin: str


def collect(known: Known, environ: Mapping[str, str], flags: Mapping[str, str], file: Path | None, problems: list[str]) -> dict[str, Given]:
    """All that was given: flags over environment over file.

    :param problems: gets what can't be read and what nobody knows.
    """
    return _from_file(known, file, problems) | _from_environment(known, environ, problems) | _from_flags(known, flags, problems)


def shown(raw: object) -> str:
    """A value in a message: its beginning, where it is long."""
    try:
        text = repr(raw)
    except ValueError:  # Python writes down no number of more than some thousand digits
        return "a number of thousands of digits"
    return text if len(text) <= SHOWN_CHARACTERS_MAX else text[:SHOWN_CHARACTERS_MAX] + "…"


def _from_flags(known: Known, flags: Mapping[str, str], problems: list[str]) -> dict[str, Given]:
    problems += [f"{name}: no such setting (from the command line)" for name in flags if name not in known]
    return {name: Given(value, "--" + name.replace("_", "-")) for name, value in flags.items() if name in known}


def _from_environment(known: Known, environ: Mapping[str, str], problems: list[str]) -> dict[str, Given]:
    given = {}
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable in CLIENT_VARIABLES or not environ[variable]:
            continue
        name = variable.removeprefix(PREFIX).lower()
        secret_name = name.removesuffix(FILE_SUFFIX.lower())
        if variable == PREFIX + name.upper() and name in known:
            given[name] = Given(environ[variable], variable)
        elif variable.endswith(FILE_SUFFIX) and secret_name in known and known[secret_name]:
            _read_secret(variable, secret_name, environ, given, problems)
        elif variable.endswith(FILE_SUFFIX) and secret_name in known:
            problems.append(f"{variable}: {secret_name} is no secret, so it can't be given by a file; use {PREFIX}{secret_name.upper()}")
        else:
            problems.append(f"{variable}: no such setting; docs/settings.md lists them all")
    return given


def _read_secret(variable: str, name: str, environ: Mapping[str, str], given: dict[str, Given], problems: list[str]) -> None:
    if environ.get(PREFIX + name.upper()):
        problems.append(f"{variable}: {PREFIX}{name.upper()} is set too; only one of them is allowed")
        return
    try:
        given[name] = Given(_read_file(Path(environ[variable])).strip(), variable)
    except (OSError, ValueError) as error:
        problems.append(f"{variable}: {environ[variable]!r} can't be read ({_reason(error)})")


def _from_file(known: Known, file: Path | None, problems: list[str]) -> dict[str, Given]:
    if file is None:
        return {}
    try:
        content = tomllib.loads(_read_file(file))
    except (OSError, ValueError, RecursionError) as error:
        problems.append(f"the settings file {str(file)!r} can't be read ({_reason(error)})")
        return {}
    problems += [f"{shown(key)[1:-1]}: no such setting (from {file}); docs/settings.md lists them all" for key in content if key not in known]
    return {key: Given(value, str(file)) for key, value in content.items() if key in known}


def _read_file(file: Path) -> str:
    """The text of a file. It is read again by every reload, so it can't be a pipe.

    :raises OSError: when it can't be read.
    :raises ValueError: when it is something else than a file of text.
    """
    if not file.is_file():
        file.stat()  # says what is wrong with one that can't be found
        raise ValueError("it is no regular file")
    with file.open("rb") as stream:
        data = stream.read(FILE_BYTES_MAX + 1)
    if len(data) > FILE_BYTES_MAX:
        raise ValueError(f"it has more than {FILE_BYTES_MAX} bytes")
    return data.decode("utf-8")


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
