"""Quorum arithmetic, and nothing else.

An empty group of voters agrees to everything: it commits at infinity and wins every vote. So a configuration outside a joint
change needs no special case: its outgoing half is empty.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum

INFINITY = 2**63 - 1


class VoteResult(Enum):
    """How a vote stands."""

    PENDING = "pending"
    WON = "won"
    LOST = "lost"


def majority(voters: int) -> int:
    """How many of so many voters are more than half."""
    return voters // 2 + 1


def agreed(voters: Sequence[str], value: Callable[[str], int]) -> int:
    """The highest number that a majority of the voters has reached.

    :param value: what each voter has reached: a match index, or a read round.
    """
    if not voters:
        return INFINITY
    reached = sorted((value(voter) for voter in voters), reverse=True)
    return reached[majority(len(reached)) - 1]


def jointly_agreed(incoming: Sequence[str], outgoing: Sequence[str], value: Callable[[str], int]) -> int:
    """The highest number that a majority of both halves has reached (paper, section 6)."""
    return min(agreed(incoming, value), agreed(outgoing, value))


def vote(voters: Sequence[str], votes: Mapping[str, bool]) -> VoteResult:
    """How a vote stands among one group; who has not answered is missing from ``votes``."""
    if not voters:
        return VoteResult.WON
    needed = majority(len(voters))
    granted = sum(1 for voter in voters if votes.get(voter) is True)
    refused = sum(1 for voter in voters if votes.get(voter) is False)
    if granted >= needed:
        return VoteResult.WON
    if len(voters) - refused < needed:
        return VoteResult.LOST
    return VoteResult.PENDING


def joint_vote(incoming: Sequence[str], outgoing: Sequence[str], votes: Mapping[str, bool]) -> VoteResult:
    """How a vote stands when both halves must grant it."""
    results = {vote(incoming, votes), vote(outgoing, votes)}
    if VoteResult.LOST in results:
        return VoteResult.LOST
    return VoteResult.PENDING if VoteResult.PENDING in results else VoteResult.WON


def is_quorum(incoming: Sequence[str], outgoing: Sequence[str], present: Iterable[str]) -> bool:
    """Whether those present are a majority of both halves."""
    votes = dict.fromkeys(present, True)
    return joint_vote(incoming, outgoing, votes) is VoteResult.WON
