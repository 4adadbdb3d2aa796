"""Configurations: their bytes, the changes that lead from one to the next, and which one is in force.

A configuration takes effect when its entry is appended and is undone when the entry is removed (paper, section 6;
dissertation, section 4.1). A single step needs no more than that: the majorities of neighbours always overlap. Several steps at once go
through a joint configuration, in which every decision needs a majority of the old voters and one of the new.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from raft.core.model import Boundary, Configuration, Entry, EntryKind, Member, NodeId, Promotion
from raft.errors import ChangeRefused, MalformedMessage


@dataclass(frozen=True, slots=True)
class AddLearner:
    """Let a server receive entries without a vote.

    :param promote: whether it becomes a voter by itself once it has caught up.
    :param replaces: the id of a member that leaves when it does; with ``promote`` only.
    """

    member: Member
    promote: bool = False
    replaces: NodeId | None = None


@dataclass(frozen=True, slots=True)
class AddVoter:
    """Give a learner that has caught up a vote."""

    member: Member


@dataclass(frozen=True, slots=True)
class Demote:
    """Take a voter's vote; it stays as a learner."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class Remove:
    """Take a server out."""

    node: NodeId


Step = AddLearner | AddVoter | Demote | Remove


@dataclass(frozen=True, slots=True)
class JointChange:
    """Several steps at once, through a joint configuration (paper, section 6).

    :param leaves_by_itself: whether the leader ends it as soon as it is committed; otherwise it lasts until a :class:`LeaveJoint`.
    """

    steps: tuple[Step, ...]
    leaves_by_itself: bool = True


@dataclass(frozen=True, slots=True)
class LeaveJoint:
    """End a joint change: the new half decides alone."""


Change = Step | JointChange | LeaveJoint


def changed(configuration: Configuration, change: Change) -> Configuration:
    """The configuration after a change.

    :raises ChangeRefused: when it makes no sense.
    """
    match change:
        case JointChange(steps, leaves_by_itself):
            return _joint(configuration, steps, leaves_by_itself=leaves_by_itself)
        case LeaveJoint():
            return _left(configuration)
        case _:
            return _checked(_stepped(configuration, change), change)


def new_voters(configuration: Configuration, change: Change) -> tuple[Member, ...]:
    """The servers that a change would give a vote, in its order."""
    steps = change.steps if isinstance(change, JointChange) else (change,)
    return tuple(step.member for step in steps if isinstance(step, AddVoter) and not configuration.is_voter(step.member.id))


def promotion_of(configuration: Configuration, promotion: Promotion) -> Change:
    """The change that a promotion stands for."""
    member = next(member for member in configuration.learners if member.id == promotion.learner)
    if promotion.replaces is None:
        return AddVoter(member)
    return JointChange((Remove(promotion.replaces), AddVoter(member)))


def _joint(configuration: Configuration, steps: tuple[Step, ...], *, leaves_by_itself: bool) -> Configuration:
    if not steps:
        raise ChangeRefused("a joint change without a single step")
    new = configuration
    for step in steps:
        new = _stepped(new, step)
    _checked(new, steps[-1])
    was_voter = set(configuration.voter_ids)
    return replace(
        new,
        outgoing=configuration.voters,
        learners=tuple(member for member in new.learners if member.id not in was_voter),
        learners_next=tuple(member for member in new.learners if member.id in was_voter),
        leaves_by_itself=leaves_by_itself,
    )


def _left(configuration: Configuration) -> Configuration:
    learners = (*configuration.learners, *configuration.learners_next)
    return replace(configuration, learners=learners, outgoing=(), learners_next=(), leaves_by_itself=False)


def _stepped(configuration: Configuration, step: Step) -> Configuration:
    match step:
        case AddLearner():
            return _with_learner(configuration, step)
        case AddVoter(member):
            if configuration.is_voter(member.id):
                raise ChangeRefused(f"{member.name} ({member.id}) is a voter already")
            left = _without(configuration, member.id)
            return replace(left, voters=(*left.voters, member))
        case Demote(node):
            if not configuration.is_voter(node):
                raise ChangeRefused(f"{node} is no voter")
            member = next(member for member in configuration.voters if member.id == node)
            left = _without(configuration, node)
            return replace(left, learners=(*left.learners, member))
        case _:
            if step.node not in configuration:
                raise ChangeRefused(f"{step.node} is no member")
            return _removed(configuration, step.node)


def _with_learner(configuration: Configuration, step: AddLearner) -> Configuration:
    member = step.member
    if member.id in configuration:
        raise ChangeRefused(f"{member.name} ({member.id}) is a member already")
    if step.replaces is not None and not step.promote:
        raise ChangeRefused(f"{member.name} ({member.id}) can replace {step.replaces} only by becoming a voter")
    if step.replaces is not None and step.replaces not in configuration:
        raise ChangeRefused(f"{member.name} ({member.id}) can't replace {step.replaces}, which is no member")
    promoted = (*configuration.promotions, Promotion(member.id, step.replaces)) if step.promote else configuration.promotions
    return replace(configuration, learners=(*configuration.learners, member), promotions=promoted)


def _removed(configuration: Configuration, node: NodeId) -> Configuration:
    """Promotions that were to replace the node replace nobody any more."""
    promotions = tuple(one._replace(replaces=None) if one.replaces == node else one for one in configuration.promotions)
    return _without(replace(configuration, promotions=promotions), node)


def _without(configuration: Configuration, node: NodeId) -> Configuration:
    """Neither voter nor learner, and not to be promoted."""
    return replace(
        configuration,
        voters=tuple(member for member in configuration.voters if member.id != node),
        learners=tuple(member for member in configuration.learners if member.id != node),
        promotions=tuple(promotion for promotion in configuration.promotions if promotion.learner != node),
    )


def _checked(configuration: Configuration, last: Step) -> Configuration:
    if not configuration.voters:
        node = last.node if isinstance(last, Demote | Remove) else last.member.id
        raise ChangeRefused(f"{node} is the last voter")
    return configuration


def encode_configuration(configuration: Configuration) -> bytes:
    """The bytes of a configuration entry."""
    fields = {
        "voters": configuration.voters,
        "learners": configuration.learners,
        "outgoing": configuration.outgoing,
        "learners_next": configuration.learners_next,
        "leaves_by_itself": configuration.leaves_by_itself,
        "promotions": configuration.promotions,
    }
    return json.dumps({name: value for name, value in fields.items() if value or name == "voters"}, separators=(",", ":")).encode()


def decode_configuration(data: bytes) -> Configuration:
    """The inverse of :func:`encode_configuration`.

    :raises MalformedMessage: when the bytes are no configuration.
    """
    try:
        fields = json.loads(data)
        groups = {"voters": tuple(Member(*member) for member in fields.pop("voters"))}
        groups |= {name: tuple(Member(*member) for member in fields.pop(name, ())) for name in _GROUPS[1:]}
        leaves = fields.pop("leaves_by_itself", False)
        promotions = tuple(Promotion(*promotion) for promotion in fields.pop("promotions", ()))
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise MalformedMessage(f"bytes that are no configuration: {error}") from error
    if fields:
        raise MalformedMessage(f"a configuration with the unknown fields {sorted(fields)}")
    configuration = Configuration(**groups, leaves_by_itself=leaves, promotions=promotions)
    check_configuration(configuration)
    return configuration


_GROUPS = ("voters", "learners", "outgoing", "learners_next")


def check_configuration(configuration: Configuration) -> None:
    """Check what must hold of a configuration that came from outside.

    :raises MalformedMessage: naming what does not.
    """
    groups = {name: getattr(configuration, name) for name in _GROUPS}
    if any(not isinstance(part, str) for group in groups.values() for member in group for part in member):
        raise MalformedMessage("a configuration whose members are not made of text")
    ids = {name: [member.id for member in group] for name, group in groups.items()}
    if any("" in group or len(set(group)) < len(group) for group in ids.values()):
        raise MalformedMessage(f"a configuration with an empty id, or one twice: {ids}")
    if not isinstance(configuration.leaves_by_itself, bool):
        raise MalformedMessage(f"a configuration that leaves by itself: {configuration.leaves_by_itself!r}")
    voters = {*ids["voters"], *ids["outgoing"]}
    if not voters.isdisjoint(ids["learners"]) or not set(ids["learners_next"]) <= set(ids["outgoing"]) - set(ids["voters"]):
        raise MalformedMessage(f"a configuration with a voter among its learners: {ids}")
    if not _are_of(configuration.promotions, {*ids["learners"], *ids["learners_next"]}):
        raise MalformedMessage(f"a configuration with a promotion of no learner: {configuration.promotions}")


def _are_of(promotions: Sequence[Promotion], learners: set[NodeId]) -> bool:
    texts = all(isinstance(one.learner, str) and isinstance(one.replaces, str | None) for one in promotions)
    return texts and all(one.learner in learners for one in promotions)


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

    def since(self, index: int) -> tuple[Configuration, ...]:
        """The one in force at ``index`` and every later one."""
        return (self.at(index), *(configuration for since, configuration in self._trail if since > index))

    def compact(self, boundary: Boundary) -> None:
        """The log now begins after ``boundary``."""
        self._trail = [(boundary.index, boundary.configuration), *(item for item in self._trail if item[0] > boundary.index)]
