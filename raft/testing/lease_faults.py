"""What can be wrong with a lease: the replacements that the mutants of :mod:`raft.testing.mutants` plant."""

from typing import Any

from raft.config import RaftConfig
from raft.core.messages import VoteRequest, VoteResponse
from raft.core.node import RaftNode
from raft.core.roles import Role
from raft.core.state import State
from raft.runtime.lease import Lease
from raft.testing.node import MS, SimulatedNode


def count_from_the_answers(lease: Lease, term: int, round_: int) -> bool:
    """The lease begins when the leader looks at the answers."""
    if term != lease._term or not round_:  # noqa: SLF001  # a mutant does what nobody may
        return False
    while lease._sent and lease._sent[0][0] <= round_:  # noqa: SLF001  # a mutant does what nobody may
        lease._sent.popleft()  # noqa: SLF001  # a mutant does what nobody may
        lease._end_ns = lease._clock() + lease._length_ns  # noqa: SLF001  # a mutant does what nobody may
    return lease._clock() < lease._end_ns  # noqa: SLF001  # a mutant does what nobody may


_init = State.__init__


def vote_after_the_start(state: State, **arguments: Any) -> None:
    """A node that has just started has promised nothing."""
    _init(state, **arguments)
    state.silent_until = 0


def silent_while_a_leader_is_known(state: State) -> bool:
    """The promise ends with the term it was made in; who has just started keeps silent as it should."""
    held = state.leader is not None or state.tick_count < state.config.election_ticks
    return state.role is Role.LEADER or (held and state.tick_count < state.silent_until)


def vote_in_the_present_term(state: State, message: VoteRequest) -> None:
    """Silence holds for later terms only."""
    free = state.vote == message.sender or (state.vote is None and state.leader is None)
    granted = free and state.log.is_up_to_date(message.last_index, message.last_term)
    if granted:
        state.vote = message.sender
        state.restart_election_timer()
    state.send_after_persist(VoteResponse(state.node_id, message.sender, state.term, granted))


def whole_timeout(config: RaftConfig) -> int:
    """No margin for clocks, and none for the first and the last tick."""
    return config.election_timeout_ms * MS


def no_margin(config: RaftConfig) -> int:
    """No margin for clocks."""
    return (config.election_ticks - 2) * config.tick_ms * MS


def any_round(node: RaftNode) -> int:
    """A round carries a lease before anybody has answered it."""
    state = node.state
    return state.reads.round if state.has_committed_in_term and not state.successor_called else 0


def from_the_election_on(node: RaftNode) -> int:
    """The lease does not wait for a commit of the term."""
    state = node.state
    return state.reads.confirmed if state.role is Role.LEADER and not state.successor_called else 0


def through_a_transfer(node: RaftNode) -> int:
    """The lease lasts although a successor was called."""
    state = node.state
    return state.reads.confirmed if state.has_committed_in_term else 0


def after_a_transfer(node: RaftNode) -> int:
    """The lease comes back when a transfer is given up."""
    state = node.state
    return state.reads.confirmed if state.has_committed_in_term and not (state.successor_called and state.transfer_target) else 0


_pause, _resume = SimulatedNode.pause, SimulatedNode.resume
_frozen_at: dict[SimulatedNode, int] = {}


def remember_the_pause(node: SimulatedNode, duration_ms: int) -> None:
    """With the next: when it began."""
    _frozen_at[node] = node._world.now  # noqa: SLF001  # a mutant does what nobody may
    _pause(node, duration_ms)


def catch_up(node: SimulatedNode) -> None:
    """The ticks that a pause has cost come in a burst."""
    _resume(node)
    late_ms = node._world.now - _frozen_at.pop(node, node._world.now)  # noqa: SLF001  # a mutant does what nobody may
    for _ in range(int(late_ms / node._tick_ms)):  # noqa: SLF001  # a mutant does what nobody may
        if node.core is not None:
            node.core.tick()
            node._step_done()  # noqa: SLF001  # a mutant does what nobody may
