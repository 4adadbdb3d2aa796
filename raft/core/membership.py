"""Configurations: their bytes, the changes that lead from one to the next, and which one is in force.

A configuration takes effect when its entry is appended and is undone when the entry is removed (paper, section 6;
dissertation, section 4.1). Changes are single steps: two majorities of neighbouring configurations always overlap.
"""

import json
from dataclasses import dataclass, replace

from raft.core.model import Boundary, Configuration, Entry, EntryKind, Member, NodeId
from raft.errors import ChangeRefused, MalformedMessage


@dataclass(frozen=True, slots=True)
class AddLearner:
    """Let a server receive entries without a vote."""

    member: Member


@dataclass(frozen=True, slots=True)
class AddVoter:
    """Give a server a vote: a new one, or a learner."""

    member: Member


@dataclass(frozen=True, slots=True)
class Demote:
    """Take a voter's vote; it stays as a learner."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class Remove:
    """Take a server out."""

    node: NodeId


Change = AddLearner | AddVoter | Demote | Remove


def changed(configuration: Configuration, change: Change) -> Configuration:
    """The configuration after a change.

    :raises ChangeRefused: when it makes no sense.
    """
    match change:
        case AddLearner(member):
            if member.id in configuration:
                raise ChangeRefused(f"{member.name} ({member.id}) is a member already")
            return replace(configuration, learners=(*configuration.learners, member))
        case AddVoter(member):
            if configuration.is_voter(member.id):
                raise ChangeRefused(f"{member.name} ({member.id}) is a voter already")
            learners = tuple(other for other in configuration.learners if other.id != member.id)
            return replace(configuration, voters=(*configuration.voters, member), learners=learners)
        case Demote(node):
            left = _without_voter(configuration, node)
            member = next(member for member in configuration.voters if member.id == node)
            return replace(left, learners=(*left.learners, member))
        case Remove(node):
            if configuration.is_voter(node):
                return _without_voter(configuration, node)
            if node not in configuration:
                raise ChangeRefused(f"{node} is no member")
            return replace(configuration, learners=tuple(member for member in configuration.learners if member.id != node))


def _without_voter(configuration: Configuration, node: NodeId) -> Configuration:
    if node not in configuration.voter_ids:
        raise ChangeRefused(f"{node} is no voter")
    if len(configuration.voters) == 1:
        raise ChangeRefused(f"{node} is the last voter")
    return replace(configuration, voters=tuple(member for member in configuration.voters if member.id != node))


def encode_configuration(configuration: Configuration) -> bytes:
    """The bytes of a configuration entry."""
    fields = {"voters": configuration.voters, "learners": configuration.learners, "outgoing": configuration.outgoing}
    return json.dumps(fields, separators=(",", ":")).encode()


def decode_configuration(data: bytes) -> Configuration:
    """The inverse of :func:`encode_configuration`.

    :raises MalformedMessage: when the bytes are no configuration.
    """
    try:
        fields = json.loads(data)
        groups = {name: tuple(Member(*member) for member in fields[name]) for name in ("voters", "learners", "outgoing")}
    except (ValueError, KeyError, TypeError) as error:
        raise MalformedMessage(f"bytes that are no configuration: {error}") from error
    if any(not isinstance(part, str) for group in groups.values() for member in group for part in member):
        raise MalformedMessage("a configuration whose members are not made of text")
    return Configuration(**groups)


class ConfigurationTrail:
    """The configuration at the boundary and each later one in the log; the last is in force."""

    def __init__(self, boundary: Boundary, entries: tuple[Entry, ...]) -> None:
        self._trail: list[tuple[int, Configuration]] = [(boundary.index, boundary.configuration)]
        self.note(entries)

    @property
    def current(self) -> Configuration:
        """The one in force."""
        return self._trail[-1][1]

    @property
    def current_index(self) -> int:
        """The index of its entry, or of the boundary."""
        return self._trail[-1][0]

    def note(self, entries: tuple[Entry, ...]) -> bool:
        """Take over the configurations among appended entries.

        :returns: whether there was one.
        """
        found = [(entry.index, decode_configuration(entry.data)) for entry in entries if entry.kind is EntryKind.CONFIGURATION]
        self._trail.extend(found)
        return bool(found)

    def undo_from(self, index: int) -> bool:
        """Entries from ``index`` on were removed.

        :returns: whether a configuration was among them.
        """
        kept = [item for item in self._trail if item[0] < index]
        undone = len(kept) < len(self._trail)
        self._trail = kept
        return undone

    def at(self, index: int) -> Configuration:
        """The one in force at ``index``, which is not before the boundary."""
        return next(configuration for since, configuration in reversed(self._trail) if since <= index)

    def compact(self, boundary: Boundary) -> None:
        """The log now begins after ``boundary``."""
        self._trail = [(boundary.index, boundary.configuration), *(item for item in self._trail if item[0] > boundary.index)]
