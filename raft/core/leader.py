"""What a leader does: proposals, answers of followers, reads, changes, handing over."""

from raft.core import elections, replication
from raft.core.membership import Change, LeaveJoint, changed, encode_configuration, new_voters, promotion_of
from raft.core.messages import AppendAccepted, AppendRejected, HeartbeatResponse, ProposeRequest, ProposeResponse, ReadIndexRequest
from raft.core.model import Configuration, Entry, EntryKind, Member, NodeId
from raft.core.progress import Progress, ProgressState
from raft.core.quorum import is_quorum
from raft.core.reads import PendingRead
from raft.core.ready import Appended, PeerContact
from raft.core.state import State
from raft.errors import (
    ChangePending,
    ChangeRefused,
    InsideJointChange,
    LearnerBehind,
    OutsideJointChange,
    Rejected,
    TransferInProgress,
    TransferRefused,
)


def tick(state: State) -> None:
    """Heartbeats, check-quorum (dissertation, section 6.2), and the end of a transfer that takes too long."""
    state.heartbeat_elapsed += 1
    if not _has_quorum(state):
        elections.become_follower(state, state.term, None, "no contact with a quorum for an election timeout")
        return
    if state.transfer_target is not None:
        state.transfer_elapsed += 1
        if state.transfer_elapsed >= state.config.election_ticks:
            state.transfer_target = None
    for progress in state.progress.values():
        progress.time_round(state.log.last_index, state.tick_count, state.config.election_ticks)
    _go_on_with_changes(state)
    if state.heartbeat_elapsed >= state.config.heartbeat_ticks:
        state.heartbeat_elapsed = 0
        for progress in state.progress.values():
            if progress.match < state.log.last_index:
                progress.retry()
        replication.broadcast_heartbeat(state)


def on_accepted(state: State, message: AppendAccepted) -> None:
    """A follower holds more: count it, and let it have the next."""
    progress = _contact(state, message.sender)
    if progress is None or message.match_index > state.log.last_index:
        return
    news = progress.accepted(message.match_index)
    if progress.state is ProgressState.PROBE or (progress.state is ProgressState.SNAPSHOT and progress.match + 1 >= state.log.first_index):
        state.serve(progress, ProgressState.REPLICATE)
    if news:
        committed(state)
        replication.hand_over_when_ready(state, progress)


def on_rejected(state: State, message: AppendRejected) -> None:
    """A follower's log differs: go back to where the two may agree, a term at a time (paper, section 5.3)."""
    progress = _contact(state, message.sender)
    if progress is None:
        return
    retry, _ = state.log.conflict_hint(message.hint_index, message.hint_term)
    before = progress.state
    if progress.refused(message.rejected_index, retry) and before is not progress.state:
        state.observe(PeerContact(progress.peer, progress.state.value))


def on_heartbeat_response(state: State, message: HeartbeatResponse) -> None:
    """A follower still follows: that confirms the reads of its round."""
    progress = _contact(state, message.sender)
    if progress is not None and message.round > progress.read_round:
        progress.read_round = min(message.round, state.reads.round)
        replication.confirm_reads(state)


def on_propose(state: State, message: ProposeRequest) -> None:
    """A follower passes commands on. They are refused, or appended exactly once; what became of them is told by whoever applies them."""
    try:
        replication.append_commands(state, message.commands, message.sender, message.context)
    except Rejected as error:
        retry = isinstance(error, TransferInProgress)
        state.send(ProposeResponse(state.node_id, message.sender, state.term, message.context, (), str(error), retry=retry))


def on_read_index(state: State, message: ReadIndexRequest) -> None:
    """A follower asks for a read index."""
    state.reads.add(PendingRead(message.sender, message.context))


def committed(state: State) -> None:
    """Commit what can be; a leader that has just committed its own removal steps down (dissertation, section 4.2.2)."""
    if not replication.maybe_commit(state):
        return
    if state.log.commit >= state.trail.current_index and not state.may_campaign:
        elections.become_follower(state, state.term, None, "removed from the configuration")
    else:
        _go_on_with_changes(state)


def change(state: State, wanted: Change, context: int) -> None:
    """Append another configuration.

    :raises ChangeRefused: before an entry of this term is committed (the case of 2015), during a transfer, or when it makes no sense.
    :raises ChangePending: while another change is not yet applied.
    :raises InsideJointChange: for anything but leaving, inside a joint change.
    :raises OutsideJointChange: for leaving, outside one.
    :raises LearnerBehind: for a vote for a server that has not caught up.
    """
    if not state.has_committed_in_term:
        raise ChangeRefused("nothing of this term is committed yet")
    if state.trail.current_index > state.log.applied:
        raise ChangePending(state.trail.current_index)
    if state.configuration.is_joint != isinstance(wanted, LeaveJoint):
        raise InsideJointChange if state.configuration.is_joint else OutsideJointChange
    if state.transfer_target is not None:
        raise ChangeRefused(f"leadership is being transferred to {state.transfer_target}")
    configuration = changed(state.configuration, wanted)
    for member in new_voters(state.configuration, wanted):
        _check_caught_up(state, member)
    _append_configuration(state, configuration)
    state.outbox.appended.append(Appended(state.node_id, context, state.log.last_index, 1, state.term))
    committed(state)


def transfer(state: State, target: NodeId) -> None:
    """Hand leadership over; the outcome shows as a change of leader, or does not within an election timeout. A second one replaces the first.

    :raises TransferRefused: when the target can't lead.
    """
    if target == state.node_id:
        raise TransferRefused(f"{target} leads already")
    if target not in state.configuration.voter_ids:
        raise TransferRefused(f"{target} is no voter")
    state.transfer_target = target
    state.transfer_elapsed = 0
    replication.hand_over_when_ready(state, state.progress[target])


def unreachable(state: State, peer: NodeId) -> None:
    """Messages to the peer were lost: search again for what it holds."""
    progress = state.progress.get(peer)
    if progress is not None and progress.state is ProgressState.REPLICATE:
        state.serve(progress, ProgressState.PROBE)


def snapshot_ended(state: State, peer: NodeId, index: int) -> None:
    """The sending of a snapshot has ended: find out by a probe after it, or, when it failed (index 0), begin again one heartbeat later."""
    progress = state.progress.get(peer)
    if progress is not None and progress.state is ProgressState.SNAPSHOT:
        state.serve(progress, ProgressState.PROBE)
        progress.next = max(progress.next, index + 1)
        progress.probe_sent = True


def _go_on_with_changes(state: State) -> None:
    """Take the next step of what was begun: leave a joint change that is committed, promote a learner that has caught up."""
    if not state.has_committed_in_term or state.trail.current_index > state.log.commit or state.transfer_target is not None:
        return
    configuration = state.configuration
    if configuration.is_joint:
        if configuration.leaves_by_itself:
            _append_configuration(state, changed(configuration, LeaveJoint()))
            committed(state)
        return
    promotion = next((one for one in configuration.promotions if _has_caught_up(state, one.learner)), None)
    if promotion is not None:
        _append_configuration(state, changed(configuration, promotion_of(configuration, promotion)))
        committed(state)


def _append_configuration(state: State, configuration: Configuration) -> None:
    state.append((Entry(state.log.last_index + 1, state.term, EntryKind.CONFIGURATION, encode_configuration(configuration)),))


def _check_caught_up(state: State, member: Member) -> None:
    if member.id not in state.configuration:
        raise LearnerBehind(member.id, "it must be added as a learner first")
    if not _has_caught_up(state, member.id):
        raise LearnerBehind(member.id, f"it holds {state.progress[member.id].match} of {state.log.last_index} entries, or is too slow")


def _has_caught_up(state: State, node: NodeId) -> bool:
    return state.progress[node].has_caught_up(state.tick_count, state.config.election_ticks)


def _contact(state: State, peer: NodeId) -> Progress | None:
    progress = state.progress.get(peer)
    if progress is not None:
        progress.contact_tick = state.tick_count
    return progress


def _has_quorum(state: State) -> bool:
    since = state.tick_count - state.config.election_ticks
    heard = [peer for peer, progress in state.progress.items() if progress.contact_tick > since]
    return is_quorum(state.configuration.voter_ids, state.configuration.outgoing_ids, [*heard, state.node_id])
