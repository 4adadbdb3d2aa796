"""What can be wrong with a lease: the replacements that the mutants of :mod:`raft.testing.mutants` plant."""

from raft.config import RaftConfig
from raft.core.node import RaftNode
from raft.core.roles import Role
from raft.runtime.lease import Lease
from raft.testing.node import MS


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
