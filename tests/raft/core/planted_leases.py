"""Faults of the promises that a lease rests on. The simulator finds them too seldom to hunt them; the tests of the lease must notice each."""

from raft.core import elections
from raft.core.messages import VoteRequest, VoteResponse
from raft.core.roles import Role
from raft.core.state import State
from raft.testing.mutants import Mutant


def _silent_while_a_leader_is_known(state: State) -> bool:
    """The promise ends with the term it was made in; who has just started keeps silent as it should."""
    held = state.leader is not None or state.tick_count < state.config.election_ticks
    return state.role is Role.LEADER or (held and state.tick_count < state.silent_until)


def _vote_in_the_present_term(state: State, message: VoteRequest) -> None:
    """Silence holds for later terms only."""
    free = state.vote == message.sender or (state.vote is None and state.leader is None)
    granted = free and state.log.is_up_to_date(message.last_index, message.last_term)
    if granted:
        state.vote = message.sender
        state.restart_election_timer()
    state.send_after_persist(VoteResponse(state.node_id, message.sender, state.term, granted))


LEASE_FAULTS: tuple[Mutant, ...] = (
    Mutant("forgets its promise", "votes once it knows no leader", ((State, "is_silent", property(_silent_while_a_leader_is_known)),)),
    Mutant("promise by term", "is silent in later terms only", ((elections, "answer_vote", _vote_in_the_present_term),)),
)
