"""Who leads: campaigns, votes, and stepping down (paper, section 5.2; pre-vote: dissertation, section 9.6)."""

from raft.core.membership import encode_configuration
from raft.core.messages import PreVoteRequest, PreVoteResponse, VoteRequest, VoteResponse
from raft.core.model import Entry, EntryKind, NodeId
from raft.core.quorum import VoteResult, joint_vote
from raft.core.reads import ReadQueue
from raft.core.roles import Role
from raft.core.state import State


def become_follower(state: State, term: int, leader: NodeId | None, reason: str) -> None:
    """Follow ``leader``, or nobody known, in ``term``."""
    led = state.role is Role.LEADER
    state.adopt_term(term)
    state.enter(Role.FOLLOWER, reason)
    state.follow(leader)
    if led:
        state.restart_election_timer()


def campaign(state: State, *, reason: str, transfer: bool = False) -> None:
    """Try to become leader; the pre-vote comes first unless the leader itself asked for it. Who may not still forgets a leader that is silent."""
    if not state.may_campaign:
        state.follow(None)
        state.restart_election_timer()
    elif transfer:
        _stand(state, reason, transfer=True)
    else:
        _ask_around(state, reason)


def count(state: State, voter: NodeId, *, granted: bool) -> None:
    """Record an answer to a pre-vote or a vote and act on the result. A voter's first answer stands."""
    state.votes.setdefault(voter, granted)
    match joint_vote(state.configuration.voter_ids, state.configuration.outgoing_ids, state.votes):
        case VoteResult.LOST:
            become_follower(state, state.term, None, "refused by a majority")
        case VoteResult.WON if state.role is Role.PRE_CANDIDATE:
            _stand(state, "the pre-vote was won", transfer=False)
        case VoteResult.WON:
            _win(state)
        case _:
            pass


def answer_pre_vote(state: State, message: PreVoteRequest) -> None:
    """Say whether this node would vote so. Changes nothing (scenario PV-02)."""
    granted = message.term > state.term and not state.is_silent and state.log.is_up_to_date(message.last_index, message.last_term)
    term = message.term if granted else state.term
    state.send(PreVoteResponse(state.node_id, message.sender, term, granted))


def answer_vote(state: State, message: VoteRequest) -> None:
    """Vote, once a term, for a candidate whose log is at least as good. ``message.term`` is the present term here."""
    free = state.vote == message.sender or (state.vote is None and state.leader is None and (message.transfer or not state.is_silent))
    granted = free and state.log.is_up_to_date(message.last_index, message.last_term)
    if granted:
        state.vote = message.sender
        state.restart_election_timer()
    state.send_after_persist(VoteResponse(state.node_id, message.sender, state.term, granted))


def own_vote_durable(state: State, number: int) -> None:
    """The work of Ready ``number`` is durable; a candidate's vote for itself may count from now on (scenario EL-09)."""
    if state.role is Role.CANDIDATE and state.own_vote_number is not None and state.own_vote_number <= number:
        count(state, state.node_id, granted=True)


def _ask_around(state: State, reason: str) -> None:
    state.enter(Role.PRE_CANDIDATE, reason)
    state.follow(None)
    state.restart_election_timer()
    for peer in _other_voters(state):
        state.send(PreVoteRequest(state.node_id, peer, state.term + 1, state.log.last_index, state.log.last_term))
    count(state, state.node_id, granted=True)


def _stand(state: State, reason: str, *, transfer: bool) -> None:
    state.adopt_term(state.term + 1)
    state.enter(Role.CANDIDATE, reason)
    state.follow(None)
    state.vote = state.node_id
    state.restart_election_timer()
    for peer in _other_voters(state):
        state.send_after_persist(VoteRequest(state.node_id, peer, state.term, state.log.last_index, state.log.last_term, transfer))


def _win(state: State) -> None:
    state.enter(Role.LEADER, "elected")
    state.follow(state.node_id)
    state.election_elapsed = 0  # it hears itself from now on, however long the vote took
    state.reads = ReadQueue()
    state.heartbeat_elapsed = state.config.heartbeat_ticks  # say so at the next tick, or with the no-op if that comes first
    state.track_members()
    state.term_start = state.log.last_index + 1
    state.append((_first_entry(state),))


def _first_entry(state: State) -> Entry:
    """A no-op, so that the term has something to commit; or the configuration, when the log does not hold it yet.

    So a server that joins later and is sent the log from its beginning knows who belonged to the cluster at every index.
    """
    if state.trail.current_index == 0:
        return Entry(state.term_start, state.term, EntryKind.CONFIGURATION, encode_configuration(state.configuration))
    return Entry(state.term_start, state.term, EntryKind.NOOP, b"")


def _other_voters(state: State) -> tuple[NodeId, ...]:
    return tuple(member.id for member in state.configuration.members if state.configuration.is_voter(member.id) and member.id != state.node_id)
