"""Every error of the library, in one tree.

::

    RaftError
    ├── Rejected                  the operation had no effect and never will
    │   ├── NotLeader
    │   ├── ProposalInvalid
    │   ├── ProposalTooLarge
    │   ├── BatchTooLarge
    │   ├── EmptyProposal
    │   ├── UncommittedLimit
    │   ├── TransferInProgress
    │   ├── ChangeRefused
    │   │   ├── ChangePending
    │   │   ├── InsideJointChange
    │   │   ├── OutsideJointChange
    │   │   └── LearnerBehind
    │   ├── TransferRefused
    │   ├── ReadRefused
    │   ├── DeadlinePassed
    │   └── NodeStopped
    ├── OutcomeUnknown            the operation may have taken effect, or may still
    │   ├── LeadershipLost
    │   └── ProposalTimeout
    ├── MessageRefused            a message that was not taken; the state is untouched
    │   ├── MalformedMessage
    │   ├── UnsupportedVersion
    │   ├── WrongCluster
    │   └── WrongRecipient
    ├── ConfigInvalid
    ├── StorageError
    │   ├── StorageFailed
    │   │   └── StorageFull
    │   ├── StorageCorrupt
    │   ├── DirectoryLocked
    │   ├── IdentityMismatch
    │   └── StorageVersion
    ├── MachineFailed             the state machine raised; the node stops at that index
    └── InvariantViolation        a bug: the node stops rather than go on

Whoever catches one asks a single question, :attr:`RaftError.outcome`: did the operation certainly not happen
(``rejected``), or is that unknown? Status codes, retry advice and the intervals of a linearizability checker
all follow from it.
"""

from enum import StrEnum


class Outcome(StrEnum):
    """What is known about an operation that did not succeed."""

    REJECTED = "rejected"
    UNKNOWN = "unknown"


class RaftError(Exception):
    """The root of the tree."""

    outcome = Outcome.REJECTED


class Rejected(RaftError):
    """The operation had no effect and never will have one."""


class NotLeader(Rejected):
    """This node does not lead, and can't pass the operation on.

    :param leader: the id of the leader as far as this node knows, or None.
    """

    def __init__(self, leader: str | None = None) -> None:
        super().__init__(f"not the leader; the leader is {leader}" if leader else "no leader is known")
        self.leader = leader


class ProposalInvalid(Rejected):
    """A proposal that is not bytes, or that the application's stamp does not take; the text names it."""


class ProposalTooLarge(Rejected):
    """A proposal over the limit.

    :param size: its length in bytes.
    :param limit: ``proposal_bytes_max``.
    """

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"a proposal of {size} bytes is over the limit of {limit} bytes (proposal_bytes_max)")
        self.size = size
        self.limit = limit


class BatchTooLarge(Rejected):
    """A batch of proposals that no leader would ever take, or that no message can carry: it must be split.

    :param count: its proposals.
    :param size: its length in bytes.
    :param limit: the most that is taken, in bytes.
    :param rule: what sets the limit, for people.
    """

    def __init__(self, count: int, size: int, limit: int, rule: str) -> None:
        super().__init__(f"a batch of {count} proposals and {size} bytes is over the limit of {limit} bytes ({rule})")
        self.count = count
        self.size = size
        self.limit = limit


class EmptyProposal(Rejected):
    """A batch without a single proposal. (An empty byte string is a legal proposal.)"""

    def __init__(self) -> None:
        super().__init__("a batch of proposals must hold at least one")


class UncommittedLimit(Rejected):
    """The leader, or the node that was asked, holds as many uncommitted bytes as it may. It may be tried again a little later.

    :param size: bytes that would then be uncommitted.
    :param limit: ``uncommitted_bytes_max``.
    """

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"{size} uncommitted bytes would be over the limit of {limit} bytes (uncommitted_bytes_max)")
        self.size = size
        self.limit = limit


class TransferInProgress(Rejected):
    """The leader is handing over and takes no proposals until that has ended.

    :param target: the id of the node that is to lead.
    """

    def __init__(self, target: str) -> None:
        super().__init__(f"leadership is being transferred to {target}")
        self.target = target


class ChangeRefused(Rejected):
    """A membership change that can't be made now, or not at all; the text names the reason."""


class ChangePending(ChangeRefused):
    """A change while an earlier one is not yet applied.

    :param index: of the earlier one's entry.
    """

    def __init__(self, index: int) -> None:
        super().__init__(f"the change at index {index} is not applied yet")
        self.index = index


class InsideJointChange(ChangeRefused):
    """A change while a joint one is under way: only leaving it is possible."""

    def __init__(self) -> None:
        super().__init__("a joint change is under way; it must be left first")


class OutsideJointChange(ChangeRefused):
    """Leaving a joint change where there is none."""

    def __init__(self) -> None:
        super().__init__("there is no joint change to leave")


class LearnerBehind(ChangeRefused):
    """A vote for a server that is not a learner that has caught up (dissertation, section 4.2.1).

    :param node: its id.
    """

    def __init__(self, node: str, why: str) -> None:
        super().__init__(f"{node} can't become a voter: {why}")
        self.node = node


class TransferRefused(Rejected):
    """A transfer of leadership to a node that can't lead; the text names the reason."""


class ReadRefused(Rejected):
    """A linearizable read that could not be confirmed."""


class DeadlinePassed(Rejected):
    """The deadline had passed before anything was sent; the text says what it waited for."""


class NodeStopped(Rejected):
    """The node had stopped before the operation was submitted."""


class OutcomeUnknown(RaftError):
    """The operation may have taken effect, or may take effect later."""

    outcome = Outcome.UNKNOWN


class LeadershipLost(OutcomeUnknown):
    """The leader that had accepted the proposal stopped leading before the proposal was committed."""


class ProposalTimeout(OutcomeUnknown):
    """No answer within the deadline.

    :param seconds: how long it was waited for.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no answer within {seconds:g} s")
        self.seconds = seconds


class MessageRefused(RaftError):
    """A message that was not taken; the state of the node is what it was."""


class MalformedMessage(MessageRefused):
    """A message whose bytes or fields make no sense."""


class UnsupportedVersion(MessageRefused):
    """A message in a version of the protocol that this node does not speak."""


class WrongCluster(MessageRefused):
    """A message of another cluster."""


class WrongRecipient(MessageRefused):
    """A message for another node, or for an earlier incarnation of this one."""


class ConfigInvalid(RaftError):
    """Settings that can't be used.

    :param problems: every problem found, not only the first.
    """

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class StorageError(RaftError):
    """The disk, or what is on it.

    :param operation: what was being done.
    :param cause: what went wrong.
    :param hint: what an operator can do about it.
    """

    def __init__(self, operation: str, cause: str, hint: str = "") -> None:
        super().__init__(f"{operation}: {cause}" + (f" ({hint})" if hint else ""))
        self.operation = operation
        self.cause = cause
        self.hint = hint


class StorageFailed(StorageError):
    """A write, a sync or a read failed. A failed sync is final: it is never tried again."""

    outcome = Outcome.UNKNOWN


class StorageFull(StorageFailed):
    """The disk has no room for what was to be written. What had been synced before is whole: once there is room the stores can be opened anew.

    A sync that fails for want of space is no such error but a :class:`StorageFailed`: nobody knows what the disk holds then.
    """


class StorageCorrupt(StorageError):
    """Bytes on disk that are not the bytes that were written. When a write finds them, nobody knows whether it has happened."""

    outcome = Outcome.UNKNOWN


class DirectoryLocked(StorageError):
    """Another process owns the data directory."""


class IdentityMismatch(StorageError):
    """The data directory belongs to another node or another cluster."""


class StorageVersion(StorageError):
    """The data were written by a newer version, or the SQLite library can't be used."""


class MachineFailed(RaftError):
    """The state machine raised while applying an entry.

    :param index: the entry's index. The node stops there; an entry is never skipped.
    """

    outcome = Outcome.UNKNOWN

    def __init__(self, index: int, cause: BaseException) -> None:
        super().__init__(f"the state machine failed at index {index}: {cause!r}")
        self.index = index


class InvariantViolation(RaftError):
    """Something that can't be, is: a bug. The node stops rather than go on."""

    outcome = Outcome.UNKNOWN
