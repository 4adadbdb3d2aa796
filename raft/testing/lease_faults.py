"""What can be wrong with a lease: the replacements that the mutants of :mod:`raft.testing.mutants` plant."""

from typing import Any

from raft.config import RaftConfig
from raft.core.node import RaftNode
from raft.core.roles import Role
from raft.core.state import State
from raft.runtime.lease import Lease
from raft.testing.node import MS, SimulatedNode

_init = State.__init__
_resume = SimulatedNode.resume


def count_from_the_answers(lease: Lease, term: int, round_: int) -> bool:
    """The lease begins when the leader looks at the answers."""
    if term != lease._term or not round_:  # noqa: SLF001  # a mutant does what nobody may
        return False
    while lease._sent and lease._sent[0][0] <= round_:  # noqa: SLF001  # a mutant does what nobody may
        lease._sent.popleft()  # noqa: SLF001  # a mutant does what nobody may
        lease._end_ns = lease._clock() + lease._length_ns  # noqa: SLF001  # a mutant does what nobody may
    return lease._clock() < lease._end_ns  # noqa: SLF001  # a mutant does what nobody may


def whole_timeout(config: RaftConfig) -> int:
    """No margin for clocks, and none for the first and the last tick."""
    return config.election_timeout_ms * MS


def no_margin(config: RaftConfig) -> int:
    """The first and the last tick are allowed for, a difference of clocks is not."""
    return (config.election_ticks - 2) * config.tick_ms * MS


def vote_after_the_start(state: State, **arguments: Any) -> None:
    """A node that has just started believes that it has promised nothing."""
    _init(state, **arguments)
    state.silent_until = 0


def catch_up_late_ticks(node: SimulatedNode) -> None:
    """Whoever was frozen handles what came meanwhile, and then has all the ticks that it missed, at once."""
    before = node._pauses._last_ns  # noqa: SLF001  # a mutant does what nobody may
    tick_ns = node._plan.config.tick_ms * MS  # noqa: SLF001  # a mutant does what nobody may
    _resume(node)
    for _ in range((node._clock_ns() - before) // tick_ns - 1):  # noqa: SLF001  # a mutant does what nobody may
        if node.core is not None:
            node.core.tick()
            node._step_done()  # noqa: SLF001  # a mutant does what nobody may


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
    """The lease comes back when a transfer is given up, although the call to campaign may still be under way."""
    state = node.state
    return state.reads.confirmed if state.has_committed_in_term and not (state.successor_called and state.transfer_target) else 0
