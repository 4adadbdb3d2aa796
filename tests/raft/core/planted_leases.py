"""Faults of the promises that a lease rests on. The simulator finds them too seldom to hunt them; the tests of the lease must notice each."""

from typing import Any

from raft.config import RaftConfig
from raft.core import elections
from raft.core.messages import VoteRequest, VoteResponse
from raft.core.node import RaftNode
from raft.core.roles import Role
from raft.core.state import State
from raft.testing.mutants import Mutant

_init = State.__init__


def _vote_after_the_start(state: State, **arguments: Any) -> None:
    """A node that has just started has promised nothing."""
    _init(state, **arguments)
    state.silent_until = 0


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


def _no_margin(config: RaftConfig) -> int:
    """No margin for clocks."""
    return (config.election_ticks - 2) * config.tick_ms * 1_000_000


def _after_a_transfer(node: RaftNode) -> int:
    """The lease comes back when a transfer is given up."""
    state = node.state
    return state.reads.confirmed if state.has_committed_in_term and not (state.successor_called and state.transfer_target) else 0


LEASE_FAULTS: tuple[Mutant, ...] = (
    Mutant("lease without margin", "allows for no difference of clocks", ((RaftConfig, "lease_ns", property(_no_margin)),)),
    Mutant("lease after a transfer", "takes it up when one is given up", ((RaftNode, "round_for_lease", property(_after_a_transfer)),)),
    Mutant("votes after a start", "grants votes when it has just started", ((State, "__init__", _vote_after_the_start),)),
    Mutant("forgets its promise", "votes once it knows no leader", ((State, "is_silent", property(_silent_while_a_leader_is_known)),)),
    Mutant("promise by term", "is silent in later terms only", ((elections, "answer_vote", _vote_in_the_present_term),)),
)
