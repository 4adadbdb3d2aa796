"""What a follower does with a leader's messages (paper, figure 2, receiver's side).

Candidates come here too, after they gave way.
"""

from raft.core import elections
from raft.core.membership import decode_configuration
from raft.core.messages import (
    AppendAccepted,
    AppendRejected,
    AppendRequest,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    ReadIndexRequest,
    ReadIndexResponse,
    TimeoutNow,
)
from raft.core.model import Entry, EntryKind
from raft.core.ready import ReadState
from raft.core.state import State
from raft.errors import NotLeader


def tick(state: State) -> None:
    """Campaign when nothing was heard for the drawn time."""
    state.election_elapsed += 1
    if state.election_elapsed >= state.election_deadline:
        elections.campaign(state, reason="nothing heard of a leader")


def check_append(message: AppendRequest) -> None:
    """Read the configurations among the entries, before anything has changed.

    :raises MalformedMessage: for bytes that are none.
    """
    for entry in message.entries:
        if entry.kind is EntryKind.CONFIGURATION:
            decode_configuration(entry.data)


def on_append(state: State, message: AppendRequest) -> None:
    """Take entries whose predecessor matches; answer once they are durable."""
    if state.installing is not None:
        return  # nothing can become durable before the snapshot has; the leader tries again
    log = state.log
    last_sent = message.previous_index + len(message.entries)
    if last_sent <= log.commit:  # nothing new, and perhaps compacted away here: all of it is agreed on
        state.send_after_persist(AppendAccepted(state.node_id, message.sender, state.term, log.commit))
        return
    known = message.previous_index <= log.boundary.index or log.matches(message.previous_index, message.previous_term)
    if not known:
        hint_index, hint_term = log.conflict_hint(message.previous_index, message.previous_term)
        state.send(AppendRejected(state.node_id, message.sender, state.term, message.previous_index, hint_index, hint_term))
        return
    _take(state, message.entries)
    state.verified = max(state.verified, last_sent)
    log.commit_to(min(message.commit, last_sent))
    state.send_after_persist(AppendAccepted(state.node_id, message.sender, state.term, last_sent))


def _take(state: State, entries: tuple[Entry, ...]) -> None:
    last_before = state.log.last_index
    added = state.log.merge(entries)
    undone = bool(added) and added[0].index <= last_before and state.trail.undo_from(added[0].index)
    if state.trail.note(added) or undone:
        state.configuration_changed()


def on_heartbeat(state: State, message: Heartbeat) -> None:
    """Answer at once, whatever the disk is doing. Commit no further than the log is known to agree (scenario RE-07)."""
    state.log.commit_to(min(message.commit, max(state.verified, state.log.commit)))
    state.send(HeartbeatResponse(state.node_id, message.sender, state.term, message.round))


def on_snapshot(state: State, message: InstallSnapshot) -> None:
    """Replace the log by a state that has arrived, unless the log already holds what it stands for (paper, section 7)."""
    boundary, log = message.boundary, state.log
    if boundary.index <= log.commit or state.installing is not None:
        state.send_after_persist(AppendAccepted(state.node_id, message.sender, state.term, log.commit))
        return
    if log.matches(boundary.index, boundary.term):
        log.commit_to(boundary.index)
        state.verified = max(state.verified, boundary.index)
        state.send_after_persist(AppendAccepted(state.node_id, message.sender, state.term, boundary.index))
        return
    log.reset(boundary)
    state.trail = type(state.trail)(boundary, ())
    state.installing = boundary
    state.verified = boundary.index
    state.configuration_changed()
    state.send_after_persist(AppendAccepted(state.node_id, message.sender, state.term, boundary.index))


def on_timeout_now(state: State, message: TimeoutNow) -> None:
    """The leader hands over: campaign at once."""
    elections.campaign(state, reason=f"{message.sender} hands over", transfer=True)


def read(state: State, context: int) -> None:
    """Ask the leader for a read index.

    :raises NotLeader: when no leader is known.
    """
    if state.leader is None:
        raise NotLeader
    state.forwarded_reads[context] = None
    state.send(ReadIndexRequest(state.node_id, state.leader, state.term, context))


def on_read_index(state: State, message: ReadIndexResponse) -> None:
    """The leader's answer; one that nobody waits for any more is dropped."""
    if state.forwarded_reads.pop(message.context, 0) is None:
        state.outbox.reads.append(ReadState(message.context, message.index))
