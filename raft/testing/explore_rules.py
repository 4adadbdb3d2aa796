"""What must hold in every state that the explorer reaches. Most names are those of :mod:`raft.testing.checkers`; the core's arithmetic is not used.

Rules come in three kinds. What one step does to one node is held against :class:`Facts` from before and after (:func:`check_step`). What holds
between nodes is checked in pairs (:func:`check_pair`). What holds over all time needs memory: :class:`History`, which is part of every state and
survives all crashes (:func:`check_history`, :func:`check_durable_quorum`).

One rule has no counterpart there. "membership": the configuration in force is the last in the log; a snapshot holds the one that was in force at its
index; and no log holds two changes that are not committed.
"""

from collections.abc import Iterable
from functools import cache
from typing import NamedTuple, NoReturn

from raft.core.membership import decode_configuration
from raft.core.messages import AppendAccepted, Message, VoteResponse
from raft.core.model import Boundary, Configuration, Entry, EntryKind, HardState, NodeId
from raft.testing.trace import Violation


class Facts(NamedTuple):
    """One node as the rules see it: its memory, its disk, and what it believes of its followers while it leads."""

    node: NodeId
    term: int
    vote: NodeId | None
    leads: bool
    boundary: Boundary
    entries: tuple[Entry, ...]
    commit: int
    applied: int
    installing: bool
    configuration: Configuration
    matches: tuple[tuple[NodeId, int], ...]
    disk_boundary: Boundary
    disk_entries: tuple[Entry, ...]
    hard_state: HardState

    @property
    def last_index(self) -> int:
        """Index of the last entry in memory."""
        return self.boundary.index + len(self.entries)

    @property
    def disk_last_index(self) -> int:
        """Index of the last entry on disk."""
        return self.disk_boundary.index + len(self.disk_entries)

    def term_at(self, index: int) -> int | None:
        """The term of an entry in memory; None when it is not held there."""
        return term_at(self.boundary, self.entries, index)

    def disk_term_at(self, index: int) -> int | None:
        """The term of an entry on disk; None when it is not held there."""
        return term_at(self.disk_boundary, self.disk_entries, index)


class History(NamedTuple):
    """What has happened, whoever still remembers it.

    :param leaders: who has led, by term.
    :param committed: what was committed, from index 1 on.
    :param terms: the term in which each of these was committed first.
    :param configuration: the one that was in force where the last of these was committed.
    """

    leaders: tuple[tuple[int, NodeId], ...] = ()
    committed: tuple[Entry, ...] = ()
    terms: tuple[int, ...] = ()
    configuration: Configuration = Configuration()


def term_at(boundary: Boundary, entries: tuple[Entry, ...], index: int) -> int | None:
    """The term of an entry of a log; None when it is not held."""
    offset = index - boundary.index
    if offset <= 0:
        return boundary.term if offset == 0 else None
    return entries[offset - 1].term if offset <= len(entries) else None


# -- one step of one node -----------------------------------------------------------------------------------------------------------------


def check_step(before: Facts, after: Facts, *, restarted: bool) -> None:
    """Check what a step has changed.

    :param restarted: whether memory was lost in it.
    """
    old, new = before.hard_state, after.hard_state
    if new.term < old.term or (new.term == old.term and old.vote not in {None, new.vote}):
        _fail("monotonic", after, f"has {new} on disk after {old}")
    if any(index > after.disk_boundary.index and after.disk_term_at(index) != before.term_at(index) for index in _durably_committed(before)):
        _fail("durability", after, f"has {_text(after.disk_entries)} on disk after {_text(before.disk_entries)}; {before.commit} was committed")
    if not restarted:
        _check_memory(before, after)
    if after.leads and not (before.leads and before.term == after.term) and (new.term, new.vote) != (after.term, after.node):
        _fail("election safety", after, f"leads term {after.term}; on its disk is {new}")
    _check_alone(after)


def _check_memory(before: Facts, after: Facts) -> None:
    if after.term < before.term or (after.term == before.term and before.vote not in {None, after.vote}):
        _fail("monotonic", after, f"is in term {after.term} with a vote for {after.vote}, after {before.term} and {before.vote}")
    if after.commit < before.commit or after.applied < before.applied:
        _fail("monotonic", after, f"has commit {after.commit}, applied {after.applied}; it had {before.commit} and {before.applied}")
    for index in range(max(before.boundary.index, after.boundary.index) + 1, before.commit + 1):
        if after.term_at(index) != before.term_at(index):
            _fail("truncation", after, f"replaces entry {index}; commit was {before.commit}")
    if not (before.leads and after.leads and before.term == after.term):
        return
    kept = after.entries[: before.last_index - after.boundary.index]
    if kept != before.entries[after.boundary.index - before.boundary.index :]:
        _fail("append-only", after, f"leads term {after.term} and changes {_text(before.entries)} to {_text(after.entries)}")
    if after.commit > before.commit and after.term_at(after.commit) != after.term:
        _fail("commit rule", after, f"leads term {after.term} and commits up to {after.commit}, an entry of term {after.term_at(after.commit)}")
    matches = dict(before.matches)
    for peer, match in after.matches:
        if match < matches.get(peer, 0):
            _fail("match", after, f"match of {peer} goes back from {matches[peer]} to {match}")


def _check_alone(facts: Facts) -> None:
    held = [entry.index for entry in facts.entries]
    if held != list(range(facts.boundary.index + 1, facts.last_index + 1)):
        _fail("log matching", facts, f"holds the indexes {held} after {facts.boundary.index}")
    if not facts.applied <= facts.commit <= facts.last_index or facts.applied > facts.disk_last_index:
        _fail("apply", facts, f"applied {facts.applied}, commit {facts.commit}, last {facts.last_index}, on disk {facts.disk_last_index}")
    if facts.boundary.index > facts.applied and not facts.installing:
        _fail("snapshot", facts, f"begins after {facts.boundary.index}; {facts.applied} is applied")
    if facts.configuration != configuration_of(facts.boundary, facts.entries):
        _fail("membership", facts, f"goes by {facts.configuration}, which is not the last in its log")


def _durably_committed(facts: Facts) -> Iterable[int]:
    """What is committed and on this disk. What the disk holds may also be older than what is committed, as long as a write waits."""
    first, last = max(facts.boundary.index, facts.disk_boundary.index) + 1, min(facts.commit, facts.disk_last_index)
    return (index for index in range(first, last + 1) if facts.disk_term_at(index) == facts.term_at(index))


def check_promise(facts: Facts, message: Message) -> None:
    """Check, at the moment a message leaves, that what it promises is on disk."""
    disk, kept = facts.hard_state, True
    if isinstance(message, VoteResponse) and message.granted:
        kept = disk.term > message.term or (disk.term == message.term and disk.vote == message.to)
    elif isinstance(message, AppendAccepted) and message.match_index:
        kept = disk.term > message.term or (disk.term == message.term and facts.disk_last_index >= message.match_index)
    if not kept:
        _fail("durability", facts, f"sends {message}; on disk are {disk} and {_text(facts.disk_entries)}")


def check_applied(facts: Facts, entry: Entry) -> None:
    """Check an entry that is about to be applied: the next one, committed, and durable here."""
    if entry.index != facts.applied + 1 or entry.index > facts.commit:
        _fail("apply", facts, f"applies {entry.index} after {facts.applied}; commit is {facts.commit}")
    if facts.disk_term_at(entry.index) not in {entry.term, None} or entry.index > facts.disk_last_index:
        _fail("apply", facts, f"applies {entry.index}/{entry.term}; on disk are {_text(facts.disk_entries)}")


# -- two nodes ----------------------------------------------------------------------------------------------------------------------------


def check_pair(one: Facts, other: Facts) -> None:
    """Check two nodes against each other."""
    if one.leads and other.leads and one.term == other.term:
        _fail("election safety", one, f"leads term {one.term}, and so does {other.node}")
    first, last = max(one.boundary.index, other.boundary.index), min(one.last_index, other.last_index)
    agree = next((index for index in range(last, first, -1) if one.term_at(index) == other.term_at(index)), first)
    mine, theirs = one.entries[first - one.boundary.index : agree - one.boundary.index], other.entries[first - other.boundary.index :]
    if mine != theirs[: len(mine)]:
        _fail("log matching", one, f"holds {_text(one.entries)}, {other.node} holds {_text(other.entries)}")
    _check_match(one, other)
    _check_match(other, one)


def _check_match(leader: Facts, follower: Facts) -> None:
    """What a leader believes that a follower holds is on its disk, unless a later term has replaced it."""
    match = dict(leader.matches).get(follower.node, 0) if leader.leads else 0
    if not match or follower.hard_state.term > leader.term:
        return
    comparable = match > max(leader.boundary.index, follower.disk_boundary.index)
    if follower.hard_state.term < leader.term or (comparable and follower.disk_term_at(match) != leader.term_at(match)):
        _fail("match", leader, f"believes that {follower.node} holds {match}; on disk are {follower.hard_state} and {_text(follower.disk_entries)}")


# -- all time -----------------------------------------------------------------------------------------------------------------------------


def recorded(history: History, facts: Facts, *, led: bool) -> History:
    """The history after a step of one node.

    :param led: whether the node has just become leader.
    """
    if led:
        known = dict(history.leaders)
        if known.setdefault(facts.term, facts.node) != facts.node:
            _fail("election safety", facts, f"leads term {facts.term}, and {known[facts.term]} did")
        history = history._replace(leaders=tuple(sorted(known.items())))
    count = len(history.committed)
    if facts.commit > count:
        if facts.boundary.index > count:
            _fail("snapshot", facts, f"takes a state of index {facts.boundary.index}; {count} are committed")
        new = facts.entries[count - facts.boundary.index : facts.commit - facts.boundary.index]
        terms = (*history.terms, *[facts.term] * len(new))
        history = History(history.leaders, (*history.committed, *new), terms, facts.configuration)
    return history


def check_history(facts: Facts, history: History, genesis: Configuration) -> None:
    """Check one node against what has ever been committed.

    :param genesis: the configuration before the first entry.
    """
    committed, boundary = history.committed, facts.boundary
    if boundary.index > len(committed) or (boundary.index and committed[boundary.index - 1].term != boundary.term):
        _fail("snapshot", facts, f"begins after {boundary.index}/{boundary.term}; committed is {_text(committed)}")
    if boundary.configuration != configuration_of(Boundary(configuration=genesis), committed[: boundary.index]):
        _fail("membership", facts, f"has {boundary.configuration} at {boundary.index}, where another one was in force")
    if facts.entries[: facts.commit - boundary.index] != committed[boundary.index : facts.commit]:
        _fail("commit", facts, f"holds {_text(facts.entries)}, commit {facts.commit}; committed is {_text(committed)}")
    if facts.leads:
        for entry, term in zip(committed[boundary.index :], history.terms[boundary.index :], strict=True):
            if term < facts.term and facts.term_at(entry.index) != entry.term:
                _fail("leader completeness", facts, f"leads term {facts.term} without {entry.index}/{entry.term}, which term {term} committed")
    pending = [entry.index for entry in facts.entries if entry.kind is EntryKind.CONFIGURATION and entry.index > len(committed)]
    if len(pending) > 1:
        _fail("membership", facts, f"holds the changes {pending}; {len(committed)} are committed")


def check_durable_quorum(nodes: Iterable[Facts], history: History) -> None:
    """Check that what is committed is on the disks of a quorum, of both halves in a joint change."""
    if not history.committed:
        return
    last = history.committed[-1]
    holders = {node.node for node in nodes if node.disk_boundary.index >= last.index or node.disk_term_at(last.index) == last.term}
    for half in (history.configuration.voters, history.configuration.outgoing):
        if half and 2 * sum(member.id in holders for member in half) <= len(half):
            raise Violation(
                "durable quorum", f"{last.index}/{last.term} is committed; of {[member.id for member in half]} only {sorted(holders)} hold it"
            )


# -- helpers ------------------------------------------------------------------------------------------------------------------------------


def configuration_of(boundary: Boundary, entries: tuple[Entry, ...]) -> Configuration:
    """The configuration that a log puts in force: its last one."""
    data = next((entry.data for entry in reversed(entries) if entry.kind is EntryKind.CONFIGURATION), None)
    return boundary.configuration if data is None else _decoded(data)


@cache
def _decoded(data: bytes) -> Configuration:
    return decode_configuration(data)


def _text(entries: Iterable[Entry]) -> str:
    return "[" + " ".join(f"{entry.index}/{entry.term}" for entry in entries) + "]"


def _fail(rule: str, facts: Facts, detail: str) -> NoReturn:
    raise Violation(rule, f"{facts.node} {detail}")
