"""Settings that change while the node runs: where they are read from again, what may change, and the object in force.

Every process of a node has one :class:`Live`: a frozen :class:`~service.settings.Settings` that is swapped as a whole. Whoever needs settings takes
the object once for all of an operation, so nobody sees half of a change. The agent decides about a reload (:mod:`service.agent.reloading`);
web workers and the supervisor are told the values.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from service import logs
from service.errors import SettingsInvalid
from service.given import CLIENT_VARIABLES, PREFIX
from service.settings import SETTINGS, Settings, load

SOURCES_VARIABLE = "_KVORUM_SOURCES"
"""How a supervisor tells its agent where the settings came from, for :meth:`Sources.from_environ`."""
REPORT_VARIABLE = "_KVORUM_REPORT_FD"
"""The number of the descriptor on which the agent tells its supervisor, a line of JSON each, what is in force now."""

Plain = str | int | float

RELOADABLE = tuple(row for row in SETTINGS if row.reloadable)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sources:
    """Where a node's settings come from; all but the file's content stays as it was when the node was started.

    :param flags: of the command line, by the setting's name.
    :param environ: the ``KVORUM_`` variables.
    :param file: the settings file, if there is one.
    """

    flags: Mapping[str, str]
    environ: Mapping[str, str]
    file: Path | None = None

    def read(self) -> Settings:
        """Read the settings again, file and secrets' files included.

        :raises SettingsInvalid: with every problem.
        """
        return load(self.environ, self.flags, self.file)

    def to_environ(self) -> dict[str, str]:
        """One variable, from which :meth:`from_environ` makes the same sources in another process. Secrets may be in it."""
        told = {"flags": dict(self.flags), "environ": settings_variables(self.environ), "file": str(self.file.absolute()) if self.file else None}
        return {SOURCES_VARIABLE: json.dumps(told)}

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """The sources that a supervisor told; without one, the variables themselves."""
        text = environ.get(SOURCES_VARIABLE)
        if text is None:
            return cls({}, settings_variables(environ))
        told = json.loads(text)
        return cls(told["flags"], told["environ"], Path(told["file"]) if told["file"] else None)


def settings_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that give settings."""
    return {name: value for name, value in environ.items() if name.startswith(PREFIX) and name not in CLIENT_VARIABLES}


class Live:
    """The settings in force in this process. For one thread.

    :ivar now: take it once for each operation.
    """

    def __init__(self, settings: Settings) -> None:
        self.now = settings

    def swap(self, settings: Settings) -> None:
        """Let other settings be in force from now on, the level of this process's log among them."""
        previous, self.now = self.now, settings
        if previous.log_level != settings.log_level:
            logs.set_level(settings.log_level)

    def take(self, values: Mapping[str, Plain]) -> None:
        """Let the values be in force that the agent told (see :func:`reloadable_values`)."""
        self.swap(replace(self.now, **values))  # type: ignore[arg-type]  # each came from a field of that name


def reloadable_values(settings: Settings) -> dict[str, Plain]:
    """What other processes of the node must be told: all that may change, and no secret."""
    return {row.name: getattr(settings, row.name) for row in RELOADABLE}


def changes(old: Settings, new: Settings) -> tuple[str, ...]:
    """How a running node would change, a text for each setting: ``name: old -> new``.

    :raises SettingsInvalid: naming each setting that can't change without a restart.
    """
    changed = [row for row in SETTINGS if getattr(old, row.name) != getattr(new, row.name)]
    problems = tuple(
        f"{row.name}: can't change{'' if row.secret else _from_to(old, new, row.name, ' from ', ' to ')} while the node runs; it needs a restart"
        for row in changed
        if not row.reloadable
    )
    if problems:
        raise SettingsInvalid(problems)
    return tuple(f"{row.name}:{_from_to(old, new, row.name, ' ', ' -> ')}" for row in changed)


def _from_to(old: Settings, new: Settings, name: str, first: str, second: str) -> str:
    before, after = (str(getattr(settings, name)) or "nothing" for settings in (old, new))
    return f"{first}{before}{second}{after}"
