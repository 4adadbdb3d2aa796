"""The leader's side of the log: what is appended, sent and committed (paper, sections 5.3 and 5.4).

Nothing is sent when something happens; everything is sent when the next Ready is taken (:func:`flush`). So whatever gathered in one
turn of the driver travels in one message a follower.
"""

from collections.abc import Sequence

from raft.core.messages import AppendRequest, Heartbeat, InstallSnapshot, TimeoutNow
from raft.core.model import ENTRY_OVERHEAD_BYTES, Entry, EntryKind, NodeId, weight_of
from raft.core.progress import Progress, ProgressState
from raft.core.quorum import INFINITY
from raft.core.ready import Appended
from raft.core.state import State
from raft.errors import EmptyProposal, ProposalTooLarge, TransferInProgress, UncommittedLimit


def append_commands(state: State, commands: Sequence[bytes], origin: NodeId, context: int) -> None:
    """Turn a batch of commands into entries, all or none.

    :raises Rejected: an empty batch, a command over the limit, too many uncommitted bytes, or a transfer under way.
    """
    check_commands(state, commands)
    if state.transfer_target is not None:
        raise TransferInProgress(state.transfer_target)
    size = sum(len(command) + ENTRY_OVERHEAD_BYTES for command in commands)
    if state.uncommitted_bytes and state.uncommitted_bytes + size > state.config.uncommitted_bytes_max:
        raise UncommittedLimit(state.uncommitted_bytes + size, state.config.uncommitted_bytes_max)
    first, term = state.log.last_index + 1, state.term
    state.append(tuple(Entry(first + offset, term, EntryKind.COMMAND, command) for offset, command in enumerate(commands)))
    state.uncommitted_bytes += size
    state.outbox.appended.append(Appended(origin, context, first, len(commands), term))


def check_commands(state: State, commands: Sequence[bytes]) -> None:
    """Refuse a batch that no leader would take.

    :raises EmptyProposal: for a batch without commands.
    :raises ProposalTooLarge: for a command over the limit.
    """
    if not commands:
        raise EmptyProposal
    largest = max(len(command) for command in commands)
    if largest > state.config.proposal_bytes_max:
        raise ProposalTooLarge(largest, state.config.proposal_bytes_max)


def maybe_commit(state: State) -> bool:
    """Commit what a quorum holds, but only up to an entry of the leader's own term (paper, section 5.4.2, figure 8).

    :returns: whether the commit index moved.
    """

    def held(peer: NodeId) -> int:
        return state.log.durable if peer == state.node_id else state.progress[peer].match

    index = min(state.agreed(held), state.log.last_index)
    if index <= state.log.commit or state.log.term_at(index) != state.term:
        return False
    if state.uncommitted_bytes:
        newly = state.log.entries_from(state.log.commit + 1, INFINITY, index)
        # Only its own term's commands were counted: an earlier term's tail frees no room.
        state.uncommitted_bytes -= weight_of(entry for entry in newly if entry.kind is EntryKind.COMMAND and entry.term == state.term)
    state.log.commit_to(index)
    return True


def flush(state: State) -> None:
    """Send each follower what it can take now, and begin a round of heartbeats when reads wait for one."""
    for progress in state.progress.values():
        _send_appends(state, progress)
    if state.has_committed_in_term and state.reads.wants_round:
        broadcast_heartbeat(state)


def broadcast_heartbeat(state: State) -> None:
    """Begin a round: tell everybody that the leader lives, and let the waiting reads ride along."""
    round_ = state.reads.begin_round(state.log.commit, take_reads=state.has_committed_in_term)
    for progress in state.progress.values():
        commit = min(progress.match, state.log.commit)
        state.send(Heartbeat(state.node_id, progress.peer, state.term, commit, round_))
    confirm_reads(state)


def confirm_reads(state: State) -> None:
    """Answer the reads whose round a quorum has answered."""

    def reached(peer: NodeId) -> int:
        return state.reads.round if peer == state.node_id else state.progress[peer].read_round

    for round_ in state.reads.confirm(min(state.agreed(reached), state.reads.round)):
        for read in round_.reads:
            state.answer_read(read, round_.index)


def hand_over_when_ready(state: State, progress: Progress) -> None:
    """Tell the target of a transfer to campaign, once it holds the whole log (dissertation, section 3.10)."""
    if progress.peer == state.transfer_target and progress.match == state.log.last_index:
        state.successor_called = True
        state.send(TimeoutNow(state.node_id, progress.peer, state.term))


def _send_appends(state: State, progress: Progress) -> None:
    config, log = state.config, state.log
    while True:
        room = progress.may_send(config.inflight_appends_max, config.inflight_bytes_max)
        if not room and not progress.nudge:
            return
        if progress.next < log.first_index:
            _send_snapshot(state, progress)
            return
        entries = log.entries_from(progress.next, config.append_bytes_max) if room else ()
        if not entries and not progress.nudge and (progress.state is ProgressState.REPLICATE or progress.match == log.last_index):
            return
        previous = progress.next - 1
        state.send(AppendRequest(state.node_id, progress.peer, state.term, previous, _term_at(state, previous), entries, log.commit))
        progress.sent(previous + len(entries), weight_of(entries))


def _send_snapshot(state: State, progress: Progress) -> None:
    """Ask the driver to send the state. Not to somebody who was not heard of lately: it would be for nothing."""
    if state.tick_count - progress.contact_tick >= state.config.election_ticks:
        return
    state.serve(progress, ProgressState.SNAPSHOT)
    state.send(InstallSnapshot(state.node_id, progress.peer, state.term, state.log.boundary))


def _term_at(state: State, index: int) -> int:
    term = state.log.term_at(index)
    return 0 if term is None else term
