"""What the core wants done, as one value.

The duties of whoever drives the core, for each :class:`Ready` it takes, in the order in which they were taken:

1. Send :attr:`Ready.messages` at once: they depend on nothing that is not yet durable.
2. Persist ``snapshot``, ``hard_state`` and ``entries`` in one step. Then send :attr:`Ready.messages_after_persist` and call
   ``advance(number)``. Several of them may be persisted in one transaction; ``advance`` is then called with the last number.
3. Apply ``committed`` to the state machine, in order, and report with ``applied_to``. They are durable here already.
4. Tell the waiting ones: ``appended``, ``refused``, ``reads``, ``observations``.

The durability rule (paper, figure 2: respond only after updating stable storage) is thus in the type, not in a comment.
"""

from dataclasses import dataclass

from raft.core.messages import Message
from raft.core.model import Boundary, Configuration, Entry, HardState, NodeId
from raft.core.roles import Role


@dataclass(frozen=True, slots=True)
class Appended:
    """Proposals that became entries of this leader's log.

    :param origin: who proposed them: this node, or the follower that forwarded them.
    :param context: the origin's name for the batch.
    :param first_index: index of the first; the others follow.
    """

    origin: NodeId
    context: int
    first_index: int
    count: int
    term: int


@dataclass(frozen=True, slots=True)
class ReadState:
    """A read that may be served once ``index`` has been applied here; 0 means that it was refused."""

    context: int
    index: int


@dataclass(frozen=True, slots=True)
class LeaderChanged:
    """This node learned of a leader, or lost it (None)."""

    leader: NodeId | None
    term: int


@dataclass(frozen=True, slots=True)
class RoleChanged:
    """This node changed its role. ``reason`` is for people."""

    role: Role
    term: int
    reason: str


@dataclass(frozen=True, slots=True)
class ConfigurationChanged:
    """Another configuration is in force here, committed or not."""

    configuration: Configuration
    index: int


@dataclass(frozen=True, slots=True)
class PeerContact:
    """Replication to a peer changed its state: ``probe``, ``replicate`` or ``snapshot``."""

    peer: NodeId
    state: str


@dataclass(frozen=True, slots=True)
class SnapshotMoved:
    """A snapshot was ``sent`` to a peer or ``lost`` on its way there, or ``installed`` here; or the log was ``compacted`` up to the index."""

    event: str
    index: int
    peer: NodeId | None = None


Observation = LeaderChanged | RoleChanged | ConfigurationChanged | PeerContact | SnapshotMoved


@dataclass(frozen=True, slots=True)
class Ready:
    """See the module's text for the duties.

    Invariants: ``entries`` are contiguous, and writing them removes whatever the log store holds from ``entries[0].index`` on;
    every entry of ``committed`` is durable on this node; ``number`` grows by one each time.
    """

    number: int
    hard_state: HardState | None = None
    entries: tuple[Entry, ...] = ()
    snapshot: Boundary | None = None
    messages: tuple[Message, ...] = ()
    messages_after_persist: tuple[Message, ...] = ()
    committed: tuple[Entry, ...] = ()
    appended: tuple[Appended, ...] = ()
    reads: tuple[ReadState, ...] = ()
    observations: tuple[Observation, ...] = ()

    @property
    def must_persist(self) -> bool:
        """Whether there is anything to write."""
        return self.hard_state is not None or bool(self.entries) or self.snapshot is not None
