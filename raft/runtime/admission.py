"""What is refused before anything has changed or left: arguments that no leader would take, wherever they are given.

A limit that only the leader knew would make the answer depend on which node was asked, and a batch that no message can carry would be lost
on its way. So every node looks at the same things, and at the leader too.
"""

from collections.abc import Callable, Sequence
from math import isnan

from raft.config import RaftConfig
from raft.core.membership import AddLearner, AddVoter, Change, Demote, JointChange, LeaveJoint, Remove
from raft.core.model import ENTRY_OVERHEAD_BYTES, Member
from raft.core.replication import check_commands
from raft.core.state import State
from raft.errors import BatchTooLarge, ChangeRefused, ConfigInvalid, DeadlinePassed, ProposalInvalid, UncommittedLimit

ITEM_BYTES = 5
"""More than the length of a command or of a result adds to a message."""
MESSAGE_BYTES = 64
"""More than the other fields of such a message take."""


def carried_bytes(items: Sequence[bytes]) -> int:
    """The length of a message with these commands or results, at most."""
    return sum(map(len, items)) + ITEM_BYTES * len(items) + MESSAGE_BYTES


def check_transport(config: RaftConfig, message_bytes_max: int) -> None:
    """Refuse settings whose appends the transport would drop: a follower could never get them, however often they are sent.

    :raises ConfigInvalid: naming the setting, what it needs, and what there is.
    """
    needed = {
        "append_bytes_max": config.append_bytes_max + MESSAGE_BYTES,
        "proposal_bytes_max": config.proposal_bytes_max + ENTRY_OVERHEAD_BYTES + MESSAGE_BYTES,
    }
    problems = [
        f"{name} {getattr(config, name)} needs messages of {size} bytes; the transport carries {message_bytes_max}"
        for name, size in needed.items()
        if size > message_bytes_max
    ]
    if problems:
        raise ConfigInvalid(tuple(problems))


def check_batch(state: State, commands: Sequence[bytes], message_bytes_max: int) -> int:
    """Refuse a batch that no leader could take.

    :param message_bytes_max: the longest message of the transport.
    :returns: what the batch counts where bytes are limited.
    :raises ProposalInvalid: for what is not bytes.
    :raises EmptyProposal: for a batch without commands.
    :raises ProposalTooLarge: for a command over the limit.
    :raises BatchTooLarge: for a batch that would never fit, into a leader's quota or into a message.
    """
    for position, command in enumerate(commands):
        if type(command) is not bytes:
            raise ProposalInvalid(f"proposal {position} of the batch is of type {type(command).__name__}; it must be bytes")
    check_commands(state, commands)
    size, carried = sum(map(len, commands)) + ENTRY_OVERHEAD_BYTES * len(commands), carried_bytes(commands)
    limit = state.config.uncommitted_bytes_max
    if size > limit and len(commands) > 1:
        raise BatchTooLarge(len(commands), size, limit, f"uncommitted_bytes_max; each counts {ENTRY_OVERHEAD_BYTES} bytes beside its data")
    if carried > message_bytes_max:
        raise BatchTooLarge(len(commands), carried, message_bytes_max, "what the transport carries in one message")
    return size


def check_quota(state: State, waiting: int, size: int) -> None:
    """Refuse a batch for which there is no room outside of the log: what waits for a leader is bounded as what waits at one.

    :param waiting: what the batches count that are held or forwarded by this node.
    :param size: what one more counts; it always fits where none waits.
    :raises UncommittedLimit: when that is too much.
    """
    if waiting and waiting + size > state.config.uncommitted_bytes_max:
        raise UncommittedLimit(waiting + size, state.config.uncommitted_bytes_max)


def stamped(commands: Sequence[bytes], stamp: Callable[[bytes], bytes]) -> list[bytes]:
    """The commands as the leader appends them.

    :raises ProposalInvalid: when the application's stamp raises or gives something else than bytes.
    """
    done: list[bytes] = []
    for position, command in enumerate(commands):
        try:
            result = stamp(command)
        except Exception as error:
            raise ProposalInvalid(f"proposal {position} of the batch can't be stamped: {error!r}") from error
        if type(result) is not bytes:
            raise ProposalInvalid(f"the stamp made proposal {position} of the batch a {type(result).__name__}; it must be bytes")
        done.append(result)
    return done


def check_deadline(seconds: float) -> float:
    """How long a caller waits; ``inf`` means for ever.

    :raises DeadlinePassed: for 0 and less: nothing was begun.
    :raises TypeError: for what is no number.
    :raises ValueError: for what is no time.
    """
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        raise TypeError(f"a deadline of {seconds!r}; it must be a number of seconds")
    if isnan(seconds):
        raise ValueError("a deadline of nan; it must be a number of seconds")
    if seconds <= 0:
        raise DeadlinePassed(f"a deadline of {seconds:g} s has passed before anything was begun")
    return seconds


def check_change(wanted: Change) -> None:
    """Refuse a change that is not made of what changes are made of. Whether it makes sense now, the core decides.

    :raises ChangeRefused: naming what is wrong.
    """
    if isinstance(wanted, LeaveJoint):
        return
    steps = wanted.steps if isinstance(wanted, JointChange) else (wanted,)
    if not isinstance(steps, tuple):
        raise ChangeRefused(f"the steps of a joint change are a {type(steps).__name__}; they must be a tuple")
    if isinstance(wanted, JointChange) and not isinstance(wanted.leaves_by_itself, bool):
        raise ChangeRefused(f"a joint change that leaves by itself: {wanted.leaves_by_itself!r}; it must be True or False")
    for step in steps:
        _check_step(step)


def _check_step(step: object) -> None:
    match step:
        case AddLearner(member, promote, replaces):
            if not isinstance(promote, bool) or not isinstance(replaces, str | None):
                raise ChangeRefused(f"a learner with promote={promote!r} and replaces={replaces!r}; True or False, and an id or None, are needed")
            _check_member(member)
        case AddVoter(member):
            _check_member(member)
        case Remove(node) | Demote(node):
            if not isinstance(node, str):
                raise ChangeRefused(f"{node!r} is no id")
        case _:
            raise ChangeRefused(f"{step!r} is no membership change")


def _check_member(member: object) -> None:
    if not isinstance(member, Member) or not all(isinstance(part, str) for part in member) or not member.id or not member.address:
        raise ChangeRefused(f"{member!r} is no member: it needs an id, a name and an address, all of them text")
