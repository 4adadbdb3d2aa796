"""More faults to plant in the core, beside those that the simulator hunts: so that each scenario is seen to fail once."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from raft.core import elections, follower, leader, quorum, replication
from raft.core.log import RaftLog
from raft.core.membership import ConfigurationTrail
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
    TimeoutNow,
    VoteRequest,
)
from raft.core.model import Boundary, Entry, HardState, NodeId
from raft.core.node import RaftNode
from raft.core.progress import Progress, ProgressState
from raft.core.quorum import VoteResult
from raft.core.ready import LeaderChanged
from raft.core.roles import Role
from raft.core.state import State
from raft.storage.memory import MemoryLog
from raft.testing.mutants import Mutant


def _nothing(*_arguments: Any) -> None:
    """Take anything and do nothing."""


def _yes(*_arguments: Any) -> bool:
    return True


# -- elections ----------------------------------------------------------------------------------------------------------------------------

_stand = elections._stand
_hear_leader = RaftNode._hear_leader
_step = RaftNode.step
_admit = RaftNode._admit_later_term
_answer_pre_vote = elections.answer_pre_vote
_answer_vote = elections.answer_vote
_joint_vote = quorum.joint_vote


def _wait_as_long_as_before(state: State) -> None:
    state.election_elapsed = 0


def _count_the_own_vote(state: State, reason: str, *, transfer: bool) -> None:
    _stand(state, reason, transfer=transfer)
    elections.count(state, state.node_id, granted=True)


def _go_on_as_candidate(node: RaftNode, sender: NodeId) -> None:
    if node.role in {Role.PRE_CANDIDATE, Role.CANDIDATE}:
        node.state.follow(sender)
    else:
        _hear_leader(node, sender)


def _never_lost(*arguments: Any) -> VoteResult:
    found = _joint_vote(*arguments)
    return VoteResult.PENDING if found is VoteResult.LOST else found


def _help_in_spite_of_a_leader(node: RaftNode, message: Message) -> None:
    _step(node, replace(message, transfer=True) if isinstance(message, VoteRequest) else message)


def _grant_in_spite_of_a_leader(state: State, message: PreVoteRequest) -> None:
    state.send(PreVoteResponse(state.node_id, message.sender, message.term, granted=message.term > state.term))


def _never_doubt(state: State, message: PreVoteRequest) -> None:
    if state.leader is None:
        _answer_pre_vote(state, message)


def _overlook_refusals(node: RaftNode, message: Message) -> bool:
    refusal = isinstance(message, AppendRejected | HeartbeatResponse) or (isinstance(message, PreVoteResponse) and not message.granted)
    return not refusal and _admit(node, message)


def _vote_for_acquaintances(state: State, message: VoteRequest) -> None:
    if message.sender in state.configuration:
        _answer_vote(state, message)


def _take_what_is_for_others(node: RaftNode, message: Message) -> None:
    _step(node, replace(message, to=node.node_id))


def _take_what_is_old(node: RaftNode, message: Message) -> None:
    late = isinstance(message, AppendRequest | Heartbeat | InstallSnapshot) and message.term < node.term
    _step(node, replace(message, term=node.term) if late else message)


_init = State.__init__


def _forget_the_term(state: State, **arguments: Any) -> None:
    _init(state, **(arguments | {"hard_state": HardState()}))


# -- replication --------------------------------------------------------------------------------------------------------------------------

_propose = RaftNode.propose
_on_heartbeat_response = leader.on_heartbeat_response
_leader_tick = leader.tick
_flush = replication.flush
_append_commands = replication.append_commands
_take_committed = RaftLog.take_committed
_confirm_reads = replication.confirm_reads
_broadcast = replication.broadcast_heartbeat


def _propose_twice(node: RaftNode, commands: tuple[bytes, ...], context: int) -> None:
    for _ in range(2):
        _propose(node, commands, context)


def _take_contact_for_agreement(state: State, message: HeartbeatResponse) -> None:
    leader.on_accepted(state, AppendAccepted(message.sender, message.to, message.term, state.log.last_index))
    _on_heartbeat_response(state, message)


def _beat_every_tick(state: State) -> None:
    state.heartbeat_elapsed = state.config.heartbeat_ticks
    _leader_tick(state)


def _announce_no_commit(state: State) -> None:
    commit, state.log.commit = state.log.commit, 0
    _broadcast(state)
    state.log.commit = commit


def _wait_for_the_slowest(state: State) -> None:
    if all(progress.inflight < state.config.inflight_appends_max for progress in state.progress.values()):
        _flush(state)


def _repeat_the_page(log: RaftLog, bytes_max: int) -> tuple[Entry, ...]:
    entries = _take_committed(log, bytes_max)
    log.applying -= len(entries) > 1
    return entries


def _count_nothing(state: State, *arguments: Any) -> None:
    state.uncommitted_bytes = 0
    _append_commands(state, *arguments)


def _confirm_only_in_company(state: State) -> None:
    if state.progress:
        _confirm_reads(state)


# -- the log and snapshots ----------------------------------------------------------------------------------------------------------------

_merge = RaftLog.merge
_on_snapshot = follower.on_snapshot


def _one_step_back(log: RaftLog, index: int, _term: int) -> tuple[int, int]:
    index = max(min(index, log.last_index), log.boundary.index)
    return index, log.term_at(index) or 0


def _keep_the_tail(log: RaftLog, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
    conflict = any(entry.index <= log.last_index and not log.matches(entry.index, entry.term) for entry in entries)
    return () if conflict else _merge(log, entries)


def _rewind_always(progress: Progress, rejected_index: int, retry_index: int) -> bool:
    progress.become_probe()
    progress.next = max(1, min(rejected_index, retry_index + 1))
    progress.match = min(progress.match, progress.next - 1)
    return True


def _rewind_for_each(progress: Progress, rejected_index: int, _retry_index: int) -> bool:
    progress.become_probe()
    return bool(rejected_index)


def _never_match(state: State, message: InstallSnapshot) -> None:
    with patch.object(RaftLog, "matches", lambda *_arguments: False):
        _on_snapshot(state, message)


def _take_the_term_too(state: State, message: InstallSnapshot) -> None:
    _on_snapshot(state, message)
    state.term = message.boundary.term


def _stay_in_snapshot(state: State, message: Any) -> None:
    progress = state.progress[message.sender]
    before = progress.state
    leader_on_accepted(state, message)
    if before is ProgressState.SNAPSHOT:
        progress.become_snapshot()


leader_on_accepted: Callable[[State, Any], None] = leader.on_accepted


# -- reads, transfers, membership ---------------------------------------------------------------------------------------------------------

_transfer = leader.transfer
_track_members = State.track_members
_trail = ConfigurationTrail.__init__


def _follow_quietly(state: State, whom: NodeId | None) -> None:
    if whom != state.leader:
        state.leader = whom
        state.observe(LeaderChanged(whom, state.term))


def _hand_over_at_once(state: State, progress: Progress) -> None:
    if progress.peer == state.transfer_target:
        state.send(TimeoutNow(state.node_id, progress.peer, state.term))


def _hand_over_to_anybody(state: State, target: NodeId) -> None:
    state.transfer_target, state.transfer_elapsed = target, 0
    if target in state.progress:
        replication.hand_over_when_ready(state, state.progress[target])


def _wait_for_ever(state: State) -> None:
    state.transfer_elapsed = 0
    _leader_tick(state)


def _append_during_a_transfer(state: State, *arguments: Any) -> None:
    with patch.object(state, "transfer_target", None):
        _append_commands(state, *arguments)


def _begin_with_one_half(trail: ConfigurationTrail, boundary: Boundary, entries: tuple[Entry, ...]) -> None:
    _trail(trail, replace(boundary, configuration=replace(boundary.configuration, outgoing=(), learners_next=())), entries)


def _lead_on(state: State) -> None:
    replication.maybe_commit(state)


def _keep_all_members(state: State) -> None:
    before = dict(state.progress)
    _track_members(state)
    state.progress = before | state.progress


FAULTS: tuple[Mutant, ...] = (
    Mutant("silent leader", "sends no heartbeats", ((replication, "broadcast_heartbeat", _nothing),)),
    Mutant("one timeout", "draws one election timeout for all campaigns", ((State, "restart_election_timer", _wait_as_long_as_before),)),
    Mutant("own vote early", "counts its own vote before that is durable", ((elections, "_stand", _count_the_own_vote),)),
    Mutant("stubborn candidate", "does not give way to the leader of its term", ((RaftNode, "_hear_leader", _go_on_as_candidate),)),
    Mutant("patient candidate", "waits for its timeout when it has lost", ((elections, "joint_vote", _never_lost),)),
    Mutant("anybody campaigns", "campaigns without being a voter", ((State, "may_campaign", property(_yes)),)),
    Mutant(
        "disloyal",
        "votes and pre-votes in spite of a living leader",
        ((RaftNode, "step", _help_in_spite_of_a_leader), (elections, "answer_pre_vote", _grant_in_spite_of_a_leader)),
    ),
    Mutant("loyal for ever", "grants no pre-vote while it has not given up its leader", ((elections, "answer_pre_vote", _never_doubt),)),
    Mutant("deaf to refusals", "learns no later term from a refusal", ((RaftNode, "_admit_later_term", _overlook_refusals),)),
    Mutant("acquaintances", "votes only for members of its own configuration", ((elections, "answer_vote", _vote_for_acquaintances),)),
    Mutant("takes what is old", "follows leaders of earlier terms", ((RaftNode, "step", _take_what_is_old),)),
    Mutant("term forgotten", "forgets term and vote in a restart", ((State, "__init__", _forget_the_term),)),
    Mutant("M26 lost writes", "believes a disk that keeps nothing", ((MemoryLog, "write", _nothing),)),
    Mutant("any recipient", "takes messages that are for another server", ((RaftNode, "step", _take_what_is_for_others),)),
    Mutant("everybody", "commits only what all voters hold", ((quorum, "majority", lambda voters: voters),)),
    Mutant("a minority", "commits what half of the voters hold, or fewer", ((quorum, "majority", lambda voters: max(1, voters // 2)),)),
    Mutant("forwards twice", "sends a proposal to the leader twice", ((RaftNode, "propose", _propose_twice),)),
    Mutant("contact is agreement", "counts whoever answers a heartbeat", ((leader, "on_heartbeat_response", _take_contact_for_agreement),)),
    Mutant("chatty", "sends heartbeats at every tick", ((leader, "tick", _beat_every_tick),)),
    Mutant("commit kept secret", "announces no commit index when idle", ((replication, "broadcast_heartbeat", _announce_no_commit),)),
    Mutant("slowest first", "sends nothing while one window is full", ((replication, "flush", _wait_for_the_slowest),)),
    Mutant("page twice", "hands out the last entry of a page again", ((RaftLog, "take_committed", _repeat_the_page),)),
    Mutant("no window", "sends without limit", ((Progress, "may_send", lambda progress, *_limits: progress.state is ProgressState.REPLICATE),)),
    Mutant("no count", "does not count what is uncommitted", ((replication, "append_commands", _count_nothing),)),
    Mutant("no read alone", "confirms reads only with others", ((replication, "confirm_reads", _confirm_only_in_company),)),
    Mutant("one step back", "searches for agreement entry by entry", ((RaftLog, "conflict_hint", _one_step_back),)),
    Mutant("keeps its tail", "does not remove what conflicts", ((RaftLog, "merge", _keep_the_tail),)),
    Mutant("rewinds always", "believes refusals that are out of date", ((Progress, "refused", _rewind_always),)),
    Mutant("rewinds for each", "goes back for each refusal of a window", ((Progress, "refused", _rewind_for_each),)),
    Mutant("no snapshots", "sends no snapshots", ((replication, "_send_snapshot", _nothing),)),
    Mutant("always replaced", "replaces a log that agrees with a snapshot", ((follower, "on_snapshot", _never_match),)),
    Mutant("term of a snapshot", "takes over the term of a snapshot", ((follower, "on_snapshot", _take_the_term_too),)),
    Mutant("stays in snapshot", "leaves no snapshot on an acknowledgement", ((leader, "on_accepted", _stay_in_snapshot),)),
    Mutant("quiet follower", "leaves reads waiting when the leader changes", ((State, "follow", _follow_quietly),)),
    Mutant("reads kept", "refuses no reads when it steps down", ((State, "_refuse_reads", _nothing),)),
    Mutant("no end of a transfer", "waits for the target of a transfer for ever", ((leader, "tick", _wait_for_ever),)),
    Mutant("no hand-over", "never tells the target to campaign", ((replication, "hand_over_when_ready", _nothing),)),
    Mutant("hand-over at once", "does not wait until the target is up to date", ((replication, "hand_over_when_ready", _hand_over_at_once),)),
    Mutant("any target", "hands over to whoever is named", ((leader, "transfer", _hand_over_to_anybody),)),
    Mutant("takes on", "takes proposals during a transfer", ((replication, "append_commands", _append_during_a_transfer),)),
    Mutant("one half", "begins with one half of a joint configuration", ((ConfigurationTrail, "__init__", _begin_with_one_half),)),
    Mutant("leads on", "leads on after its own removal", ((leader, "committed", _lead_on),)),
    Mutant("old members", "goes on sending to removed servers", ((State, "track_members", _keep_all_members),)),
    Mutant("votes for the slow", "takes every learner for caught up", ((Progress, "has_caught_up", _yes),)),
    Mutant(
        "change at commit",
        "uses a configuration once it is committed",
        ((State, "configuration", property(lambda one: one.trail.at(one.log.commit))),),
    ),
)
