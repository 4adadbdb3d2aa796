"""What nodes say to each other: one frozen class a message.

Each is one-way; an answer is a message of its own. All carry the sender, the recipient and the sender's term. A message
that makes no sense can't be built: the constructors raise :class:`~raft.errors.MalformedMessage`.

Each class says which roles send it and act on it, and after what it leaves; any other role passes it over. The two kinds of traffic differ
in what may delay them: :data:`CONTROL` messages are small and decide who leads, so a transport gives them a path that bulk data can't block.
"""

from dataclasses import dataclass

from raft.core.model import Boundary, Entry, NodeId
from raft.errors import MalformedMessage


@dataclass(frozen=True, slots=True)
class _Base:
    sender: NodeId
    to: NodeId
    term: int

    def __post_init__(self) -> None:
        if not self.sender or not self.to:
            raise MalformedMessage(f"{type(self).__name__} without sender or recipient")
        if self.sender == self.to:
            raise MalformedMessage(f"{type(self).__name__} from {self.sender} to itself")
        if self.term < 0:
            raise MalformedMessage(f"{type(self).__name__} of term {self.term}")


@dataclass(frozen=True, slots=True)
class PreVoteRequest(_Base):
    """Asks "would you vote for me in ``term``?" (dissertation, 9.6). ``term`` is the one after the sender's own.

    :sent by: pre-candidate
    :acted on by: every role
    :after: nothing
    """

    last_index: int
    last_term: int


@dataclass(frozen=True, slots=True)
class PreVoteResponse(_Base):
    """The answer; binds nobody. ``term`` is the asked one when granted, the voter's own when not.

    :sent by: every role
    :acted on by: pre-candidate
    :after: nothing
    """

    granted: bool


@dataclass(frozen=True, slots=True)
class VoteRequest(_Base):
    """RequestVote (paper, figure 2). ``transfer`` marks a candidacy that the leader asked for: voters then don't wait for silence.

    :sent by: candidate
    :acted on by: every role
    :after: the candidate's term and its vote for itself are durable
    """

    last_index: int
    last_term: int
    transfer: bool = False


@dataclass(frozen=True, slots=True)
class VoteResponse(_Base):
    """The answer: a vote, or a refusal.

    :sent by: every role
    :acted on by: candidate
    :after: term and vote are durable; a refusal of an earlier term leaves at once
    """

    granted: bool


@dataclass(frozen=True, slots=True)
class AppendRequest(_Base):
    """AppendEntries with entries, or an empty one that probes or announces a commit index (paper, figure 2).

    :sent by: leader
    :acted on by: follower, pre-candidate, candidate
    :after: nothing: the leader's own disk works in parallel
    """

    previous_index: int
    previous_term: int
    entries: tuple[Entry, ...]
    commit: int

    def __post_init__(self) -> None:
        _Base.__post_init__(self)
        if self.previous_index < 0 or self.previous_term < 0 or self.commit < 0:
            raise MalformedMessage("AppendRequest with a negative index or term")
        if self.previous_term > self.term:
            raise MalformedMessage(f"AppendRequest of term {self.term} after an entry of term {self.previous_term}")
        expected, term = self.previous_index, self.previous_term
        for entry in self.entries:
            expected += 1
            if entry.index != expected or not term <= entry.term <= self.term:
                raise MalformedMessage(f"AppendRequest with entry {entry.index}/{entry.term} where {expected}/{term} or a later term was due")
            term = entry.term


@dataclass(frozen=True, slots=True)
class AppendAccepted(_Base):
    """The sender's log agrees with the leader's up to ``match_index`` and is durable there. Also answers a snapshot.

    :sent by: follower
    :acted on by: leader
    :after: the log up to `match_index`, or the state in its place, and the term are durable
    """

    match_index: int


@dataclass(frozen=True, slots=True)
class AppendRejected(_Base):
    """The sender has no entry ``rejected_index`` of the leader's term.

    :param hint_index: the largest index at which the two logs may still agree.
    :param hint_term: the sender's term there; lets the leader skip a whole term a round trip (paper, section 5.3, end).
    :sent by: every role
    :acted on by: leader
    :after: nothing
    """

    rejected_index: int
    hint_index: int
    hint_term: int


@dataclass(frozen=True, slots=True)
class Heartbeat(_Base):
    """The leader lives. ``commit`` is never beyond what the recipient is known to hold; ``round`` confirms reads (dissertation, 6.4).

    :sent by: leader
    :acted on by: follower, pre-candidate, candidate
    :after: nothing
    """

    commit: int
    round: int


@dataclass(frozen=True, slots=True)
class HeartbeatResponse(_Base):
    """The sender follows the leader of ``term``, as of round ``round``.

    :sent by: every role
    :acted on by: leader
    :after: nothing
    """

    round: int


@dataclass(frozen=True, slots=True)
class InstallSnapshot(_Base):
    """The recipient needs entries that the leader no longer has. The state itself travels beside the message.

    :sent by: leader
    :acted on by: follower, pre-candidate, candidate
    :after: nothing here; the driver streams a stored state first
    """

    boundary: Boundary

    def __post_init__(self) -> None:
        _Base.__post_init__(self)
        if self.boundary.index < 1 or not 0 <= self.boundary.term <= self.term:
            raise MalformedMessage(f"InstallSnapshot of term {self.term} with a state at {self.boundary.index}/{self.boundary.term}")


@dataclass(frozen=True, slots=True)
class TimeoutNow(_Base):
    """The leader hands over: campaign at once (dissertation, section 3.10).

    :sent by: leader
    :acted on by: follower, pre-candidate, candidate
    :after: nothing
    """


@dataclass(frozen=True, slots=True)
class ProposeRequest(_Base):
    """Commands forwarded to the leader. Never sent twice. ``context`` names the batch to its origin.

    :sent by: follower
    :acted on by: every role
    :after: nothing
    """

    context: int
    commands: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ProposeResponse(_Base):
    """What became of a forwarded batch.

    :param results: the state machine's answers, one a command; empty when ``error`` is set.
    :param error: empty, or why there are no results.
    :param unknown: whether the batch may have taken effect in spite of the error.
    :param retry: the batch had no effect and the asked node does not lead (any more): it may be proposed anew.
    :sent by: every role
    :acted on by: the driver of who proposed
    :after: nothing; one with results is the driver's, once they are committed and applied
    """

    context: int
    results: tuple[bytes, ...]
    error: str = ""
    unknown: bool = False
    retry: bool = False


@dataclass(frozen=True, slots=True)
class ReadIndexRequest(_Base):
    """A follower asks the leader for an index at which a linearizable read may be served (dissertation, section 6.4).

    :sent by: follower
    :acted on by: every role
    :after: nothing
    """

    context: int


@dataclass(frozen=True, slots=True)
class ReadIndexResponse(_Base):
    """The answer; ``index`` is 0 when the leader could not confirm that it leads.

    :sent by: every role
    :acted on by: follower
    :after: nothing on disk; a quorum has answered a round of heartbeats that began after the request
    """

    context: int
    index: int


Message = (
    PreVoteRequest
    | PreVoteResponse
    | VoteRequest
    | VoteResponse
    | AppendRequest
    | AppendAccepted
    | AppendRejected
    | Heartbeat
    | HeartbeatResponse
    | InstallSnapshot
    | TimeoutNow
    | ProposeRequest
    | ProposeResponse
    | ReadIndexRequest
    | ReadIndexResponse
)

CONTROL: tuple[type, ...] = (
    PreVoteRequest,
    PreVoteResponse,
    VoteRequest,
    VoteResponse,
    Heartbeat,
    HeartbeatResponse,
    TimeoutNow,
    ReadIndexRequest,
    ReadIndexResponse,
)
"""Messages that must not wait behind bulk data."""
