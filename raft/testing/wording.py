"""Messages, entries and configurations in a line for people: the language of the answers in :mod:`raft.testing.scripts`."""

from collections.abc import Iterable, Sequence

from raft.core.membership import decode_configuration
from raft.core.messages import (
    AppendAccepted,
    AppendRejected,
    AppendRequest,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    Message,
    PreVoteRequest,
    PreVoteResponse,
    ProposeRequest,
    ProposeResponse,
    ReadIndexRequest,
    ReadIndexResponse,
    VoteRequest,
    VoteResponse,
)
from raft.core.model import Configuration, Entry, EntryKind, NodeId
from raft.core.node import RaftNode
from raft.core.ready import ConfigurationChanged, LeaderChanged, Observation, PeerContact, RoleChanged, SnapshotMoved
from raft.core.status import PeerStatus

ENTRIES_SHOWN = 4


def message_line(message: Message) -> str:
    """Who says what to whom; the number after the message's name is its term."""
    says = _content(message)
    return f"{message.sender} -> {message.to}  {type(message).__name__} {message.term}" + (f": {says}" if says else "")


def entry_text(entry: Entry) -> str:
    """Index and term, and what the entry is for; a command that says just that needs no more words."""
    place = f"{entry.index}/{entry.term}"
    match entry.kind:
        case EntryKind.NOOP:
            what = "no-op"
        case EntryKind.CONFIGURATION:
            what = f"({configuration_text(decode_configuration(entry.data))})"
        case EntryKind.COMMAND:
            what = _command_text(entry.data)
    return place if what == place else f"{place} {what}"


def entries_text(entries: Sequence[Entry]) -> str:
    """Several entries that follow each other; many are only counted."""
    if len(entries) <= ENTRIES_SHOWN:
        return ", ".join(map(entry_text, entries))
    first, last = entries[0], entries[-1]
    return f"{first.index}/{first.term} to {last.index}/{last.term}"


def configuration_text(configuration: Configuration) -> str:
    """Its members by id; parts that are empty are left out."""
    parts = [f"voters {_ids(configuration.voter_ids)}"]
    if configuration.is_joint:
        parts.append(f"outgoing {_ids(configuration.outgoing_ids)}")
        parts.append("leaves by itself" if configuration.leaves_by_itself else "stays")
    if configuration.learners:
        parts.append(f"learners {_ids(member.id for member in configuration.learners)}")
    if configuration.learners_next:
        parts.append(f"learners next {_ids(member.id for member in configuration.learners_next)}")
    parts += [f"promotes {one.learner}" + (f" for {one.replaces}" if one.replaces else "") for one in configuration.promotions]
    return ", ".join(parts)


def observation_text(observation: Observation) -> str:
    """What a node has noticed of itself or of others; empty for what the messages show already."""
    match observation:
        case RoleChanged(role, term, reason):
            return f"{role} of term {term} ({reason})"
        case ConfigurationChanged(configuration, index):
            return f"configuration of {index}: {configuration_text(configuration)}"
        case PeerContact(peer, state):
            return {"probe": f"probes {peer}", "replicate": f"replicates to {peer}", "snapshot": f"sends a snapshot to {peer}"}[state]
        case LeaderChanged() | SnapshotMoved():
            return ""


def status_line(node: RaftNode) -> str:
    """Role, term, log and configuration of a node."""
    status = node.status()
    last = f"{status.last_index}/{node.state.log.last_term}"
    follows = f" of {status.leader}" if status.leader not in {None, status.node_id} else ""
    vote = f", voted for {status.vote}" if status.vote else ""
    place = f"log ends at {last}, commit {status.commit_index}, applied {status.applied_index}"
    return f"{status.role}{follows}, term {status.term}{vote}; {place}; {configuration_text(status.configuration)}"


def log_line(node: RaftNode) -> str:
    """The terms of a node's log; what stands before the bar is committed, ``..5`` stands for what is compacted away."""
    log = node.state.log
    words = [f"..{log.boundary.index}"] if log.boundary.index else []
    for index in range(log.first_index, log.last_index + 1):
        words.append(str(log.term_at(index)))
        if index == log.commit:
            words.append("|")
    if log.commit < log.first_index:
        words.insert(1 if log.boundary.index else 0, "|")
    return " ".join(words)


def progress_line(peer: PeerStatus) -> str:
    """How a leader serves one follower."""
    caught_up = ", has caught up" if peer.caught_up else ""
    return f"{peer.peer} {peer.state}, match {peer.match_index}, next {peer.next_index}, {peer.inflight} under way{caught_up}"


def _content(message: Message) -> str:  # noqa: PLR0911  # one answer a class
    match message:
        case AppendRequest():
            entries = entries_text(message.entries) or "nothing"
            return f"{entries}, after {message.previous_index}/{message.previous_term}; commit {message.commit}"
        case AppendAccepted(match_index=index):
            return f"up to {index}"
        case AppendRejected():
            return f"not {message.rejected_index}; may agree at {message.hint_index}/{message.hint_term}"
        case Heartbeat(commit=commit, round=round_):
            return f"round {round_}, commit {commit}"
        case HeartbeatResponse(round=round_):
            return f"round {round_}"
        case InstallSnapshot(boundary=boundary):
            return f"the state at {boundary.index}/{boundary.term}; {configuration_text(boundary.configuration)}"
        case _:
            return _content_of_others(message)


def _content_of_others(message: Message) -> str:  # noqa: PLR0911  # one answer a class
    match message:
        case PreVoteRequest(last_index=index, last_term=term):
            return f"log ends at {index}/{term}"
        case VoteRequest(last_index=index, last_term=term, transfer=transfer):
            return f"log ends at {index}/{term}" + (", asked by the leader" if transfer else "")
        case PreVoteResponse(granted=granted) | VoteResponse(granted=granted):
            return "yes" if granted else "no"
        case ProposeRequest(commands=commands):
            return ", ".join(map(_command_text, commands))
        case ProposeResponse(error=error):
            return error
        case ReadIndexRequest(context=context):
            return f"read {context}"
        case ReadIndexResponse(context=context, index=index):
            return f"read {context} at {index}" if index else f"read {context} refused"
        case _:
            return ""


def _command_text(command: bytes) -> str:
    return command.decode("ascii", "backslashreplace") or '""'


def _ids(ids: Iterable[NodeId]) -> str:
    return " ".join(ids)
