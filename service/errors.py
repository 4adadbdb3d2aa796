"""Every error of the service, in one tree.

::

    KvorumError
    ├── SettingsInvalid           settings that can't be used: every problem at once
    ├── CommandInvalid            bytes in the log that are no known command
    ├── StateUnreadable           the state file can't be opened or is not ours
    │   └── StateDamaged          its bytes are not those that were written
    ├── ForeignDirectory          a data directory of another node, cluster or version
    ├── FormationFailed           the initial members disagree about the cluster to form, or the node's name is taken
    ├── BackendError              a request that the agent did not carry out
    │   ├── NoLeader
    │   ├── RequestRejected
    │   └── OutcomeUnknown
    └── ImportInvalid             a file that can't be imported

Whoever turns one into an HTTP status or an exit code finds in ``outcome`` whether the operation certainly had no effect.
"""

REJECTED = "rejected"
UNKNOWN = "unknown"


class KvorumError(Exception):
    """The root of the tree. ``outcome`` is ``rejected`` or ``unknown``; ``exit_code`` is what a command line ends with."""

    outcome = REJECTED
    exit_code = 1


class SettingsInvalid(KvorumError):
    """Settings that can't be used.

    :param problems: every problem found, each naming the setting, the value and what is allowed.
    """

    exit_code = 2

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class CommandInvalid(KvorumError):
    """Bytes that are no command this version knows. In the log this stops the node: an entry is never skipped."""


class StateUnreadable(KvorumError):
    """The state file can't be opened, or was not written by this program."""

    exit_code = 3


class StateDamaged(StateUnreadable):
    """Bytes of the state file are not those that were written: nothing of it may be used."""


class ForeignDirectory(KvorumError):
    """The data directory belongs to another node, another cluster, or a newer version."""

    exit_code = 3


class FormationFailed(KvorumError):
    """The initial members do not agree about the cluster they are to form, or a running node has this one's name."""

    exit_code = 4


class BackendError(KvorumError):
    """A request that the agent did not carry out."""


class NoLeader(BackendError):
    """No leader was known within the time allowed; nothing was submitted."""

    def __init__(self) -> None:
        super().__init__("No cluster leader")


class RequestRejected(BackendError):
    """Refused before it had any effect; the text says why."""


class OutcomeUnknown(BackendError):
    """It may have taken effect, or may still."""

    outcome = UNKNOWN


class ImportInvalid(KvorumError):
    """A file that can't be imported; the text names the file and the place in it."""
