"""The nouns of Raft as plain values. Nothing here decides anything."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import NamedTuple

NodeId = str
"""The identity of one incarnation of a node: opaque, unique, never used again once its data are gone."""


class EntryKind(IntEnum):
    """What an entry of the log is for.

    :cvar NOOP: opens a leader's term; no data. Its commit commits everything before it (paper, section 8). The machine is told the index only.
    :cvar COMMAND: a proposal; the data are its bytes, which nobody but the state machine reads.
    :cvar CONFIGURATION: another membership; the data are those of :func:`raft.core.membership.encode_configuration`. In force once appended. One
        opens the first term of a cluster, so that a log tells it at every index.
    """

    NOOP = 0
    COMMAND = 1
    CONFIGURATION = 2


class Entry(NamedTuple):
    """One entry of the log (paper, section 5.3).

    Invariants: ``index`` and ``term`` are at least 1; two entries with the same index and term are the same entry.
    """

    index: int  # type: ignore[assignment]  # the field's word; tuple.index is of no use here
    term: int
    kind: EntryKind
    data: bytes


ENTRY_OVERHEAD_BYTES = 32
"""What an entry counts beside its data wherever bytes are limited, so that no limit lets any number of empty ones through. A peer's message takes
less for it."""


def weight_of(entries: Iterable[Entry]) -> int:
    """What entries count where bytes are limited."""
    return sum(len(entry.data) + ENTRY_OVERHEAD_BYTES for entry in entries)


class HardState(NamedTuple):
    """What must be on disk before a message that depends on it leaves (paper, figure 2).

    ``commit`` is a hint that shortens the start: losing it is harmless, so a change of it alone is not written.
    """

    term: int = 0
    vote: NodeId | None = None
    commit: int = 0


class Suffrage(StrEnum):
    """Whether a member counts."""

    VOTER = "voter"
    LEARNER = "learner"


class Member(NamedTuple):
    """One server of a configuration.

    :param id: its identity.
    :param name: what people call it; a node that comes back empty keeps its name and changes its id.
    :param address: where its peers reach it, ``host:port``.
    """

    id: NodeId
    name: str
    address: str


class Promotion(NamedTuple):
    """A learner that becomes a voter by itself, as soon as it has caught up.

    :param learner: its id.
    :param replaces: the id of the member whose place it takes, which leaves in the same change; None when it takes nobody's.
    """

    learner: NodeId
    replaces: NodeId | None = None


@dataclass(frozen=True, slots=True)
class Configuration:
    """Who belongs to the cluster (paper, section 6).

    :param voters: members that count toward every quorum.
    :param learners: members that receive entries and count toward nothing.
    :param outgoing: the voters of the old half while a joint change is under way, else empty.
    :param learners_next: outgoing voters that become learners when the joint change is left; until then they vote in the old half.
    :param leaves_by_itself: whether the leader leaves the joint change as soon as it is committed.
    :param promotions: learners that become voters by themselves.

    Invariants: ids are unique within each group; no id is both voter and learner; ``learners_next`` is part of ``outgoing`` and has no voter;
    every promotion is of a learner.
    """

    voters: tuple[Member, ...] = ()
    learners: tuple[Member, ...] = ()
    outgoing: tuple[Member, ...] = ()
    learners_next: tuple[Member, ...] = ()
    leaves_by_itself: bool = False
    promotions: tuple[Promotion, ...] = ()

    @property
    def is_joint(self) -> bool:
        """Whether a joint change is under way: decisions need a majority of both halves."""
        return bool(self.outgoing)

    @property
    def voter_ids(self) -> tuple[NodeId, ...]:
        """Ids of the incoming voters, in order."""
        return tuple(member.id for member in self.voters)

    @property
    def outgoing_ids(self) -> tuple[NodeId, ...]:
        """Ids of the outgoing voters, in order."""
        return tuple(member.id for member in self.outgoing)

    @property
    def members(self) -> tuple[Member, ...]:
        """Every member once: voters, then outgoing voters that are no voters any more, then learners."""
        known = {member.id: member for member in (*self.voters, *self.outgoing, *self.learners)}
        return tuple(known.values())

    def is_voter(self, node: NodeId) -> bool:
        """Whether the node counts toward a quorum of either half."""
        return any(member.id == node for member in (*self.voters, *self.outgoing))

    def __contains__(self, node: object) -> bool:
        return any(member.id == node for member in self.members)


@dataclass(frozen=True, slots=True)
class Boundary:
    """Where the log begins: everything up to ``index`` has been compacted into the state.

    It is also the label of a snapshot: a state that holds the effects of exactly the entries up to ``index``.

    :param configuration: the committed configuration at ``index``.
    """

    index: int = 0
    term: int = 0
    configuration: Configuration = Configuration()
