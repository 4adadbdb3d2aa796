"""Everything one node knows, and the outbox that the next Ready is made of.

The role modules (follower, candidate, leader) decide; this class keeps. It knows how to record a change so that no rule is
forgotten on the way: a new term clears the vote, a role follows the table of transitions, a lost leadership refuses its reads.
"""

from collections.abc import Callable

from raft.config import RaftConfig
from raft.core.log import RaftLog
from raft.core.membership import ConfigurationTrail
from raft.core.messages import Message, ReadIndexResponse
from raft.core.model import Boundary, Configuration, Entry, HardState, NodeId
from raft.core.progress import Progress, ProgressState
from raft.core.quorum import jointly_agreed
from raft.core.reads import PendingRead, ReadQueue
from raft.core.ready import Appended, ConfigurationChanged, LeaderChanged, Observation, PeerContact, ReadState, RoleChanged
from raft.core.roles import TRANSITIONS, Role
from raft.errors import InvariantViolation


class Outbox:
    """What has gathered since the last Ready."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.messages_after_persist: list[Message] = []
        self.appended: list[Appended] = []
        self.reads: list[ReadState] = []
        self.observations: list[Observation] = []

    @property
    def is_empty(self) -> bool:
        """Whether nothing has."""
        return not (self.messages or self.messages_after_persist or self.appended or self.reads or self.observations)


class State:
    """See the module's text. Plain attributes; the role modules are its only users."""

    def __init__(
        self,
        *,
        node_id: NodeId,
        config: RaftConfig,
        boundary: Boundary,
        entries: tuple[Entry, ...],
        hard_state: HardState,
        applied: int,
        jitter: Callable[[int], int],
    ) -> None:
        self.node_id = node_id
        self.config = config
        self.log = RaftLog(boundary, entries, hard_state.commit, applied)
        self.trail = ConfigurationTrail(boundary, entries)
        self.term = max(hard_state.term, self.log.last_term)
        self.vote = hard_state.vote if self.term == hard_state.term else None
        self.saved = hard_state  # what the disk was last told
        self.role = Role.FOLLOWER
        self.leader: NodeId | None = None
        self.tick_count = 0
        self.election_elapsed = 0
        self.silent_until = 0
        self._jitter = jitter
        self.election_deadline = self._draw_deadline()
        # Only the leader of a term creates entries of that term, so a log that ends in the present term is the leader's own, up to there.
        self.verified = self.log.last_index if self.log.last_term == self.term else 0
        self.installing: Boundary | None = None
        self.installing_number = 0
        self.votes: dict[NodeId, bool] = {}
        self.own_vote_number: int | None = None
        self.progress: dict[NodeId, Progress] = {}
        self.reads = ReadQueue()
        self.forwarded_reads: dict[int, None] = {}
        self.heartbeat_elapsed = 0
        self.term_start = 0
        self.uncommitted_bytes = 0
        self.transfer_target: NodeId | None = None
        self.transfer_elapsed = 0
        self.successor_called = False
        self.outbox = Outbox()
        self.promise_silence()  # an earlier life may have

    @property
    def configuration(self) -> Configuration:
        """The configuration in force."""
        return self.trail.current

    @property
    def hard_state(self) -> HardState:
        """What would be written now."""
        return HardState(self.term, self.vote, self.log.commit)

    @property
    def must_save(self) -> bool:
        """Whether the disk does not know the term or the vote. A new commit index alone is written when something else is."""
        return self.term != self.saved.term or self.vote != self.saved.vote

    @property
    def may_campaign(self) -> bool:
        """Whether this node is a voter, or was one before a change that is not known to be committed.

        The latter may hold the only copy of that change, so nobody else could be elected (dissertation, section 4.2.2). Without a configuration
        nobody is a voter.
        """
        return any(configuration.is_voter(self.node_id) for configuration in self.trail.since(self.log.commit))

    @property
    def is_silent(self) -> bool:
        """Whether a leader may rely on this node: its vote is for nobody who would take the place of a leader heard of within the base election
        timeout (dissertation, sections 4.2.3 and 6.4.1). A later term does not end that, whoever brings it: the lease of the leader lasts.
        """
        return self.role is Role.LEADER or self.tick_count < self.silent_until

    @property
    def has_committed_in_term(self) -> bool:
        """Leader only: whether an entry of its own term is committed, so that its commit index is current."""
        return self.role is Role.LEADER and self.log.commit >= self.term_start

    def send(self, message: Message) -> None:
        """Send as soon as possible: the message depends on nothing that is not durable."""
        self.outbox.messages.append(message)

    def send_after_persist(self, message: Message) -> None:
        """Send once everything that is known now is durable."""
        self.outbox.messages_after_persist.append(message)

    def observe(self, observation: Observation) -> None:
        """Tell the world what happened."""
        self.outbox.observations.append(observation)

    def restart_election_timer(self) -> None:
        """Begin a new wait, drawn afresh from [T, 2T)."""
        self.election_elapsed = 0
        self.election_deadline = self._draw_deadline()

    def promise_silence(self) -> None:
        """From now on for the base election timeout: see :attr:`is_silent`."""
        self.silent_until = self.tick_count + self.config.election_ticks

    def adopt_term(self, term: int) -> None:
        """Enter a higher term, with the vote unspent."""
        if term < self.term:
            raise InvariantViolation(f"term {term} after term {self.term}")
        if term > self.term:
            self.term = term
            self.vote = None
            self.verified = 0

    def enter(self, role: Role, reason: str) -> None:
        """Change the role by the table; what belonged to the old one is forgotten."""
        if role not in TRANSITIONS[self.role]:
            raise InvariantViolation(f"from {self.role} to {role}: {reason}")
        if self.role is Role.LEADER:
            self._refuse_reads()
        if role is not self.role:
            self.observe(RoleChanged(role, self.term, reason))
        self.role = role
        self.votes = {}
        self.own_vote_number = None
        self.progress = {}
        self.heartbeat_elapsed = 0
        self.uncommitted_bytes = 0
        self.transfer_target = None
        self.successor_called = False

    def follow(self, leader: NodeId | None) -> None:
        """Take note of who leads. Reads that were sent to another leader are refused: their answers may never come."""
        if leader == self.leader:
            return
        self.leader = leader
        self.observe(LeaderChanged(leader, self.term))
        if leader != self.node_id:
            for context in self.forwarded_reads:
                self.outbox.reads.append(ReadState(context, 0))
            self.forwarded_reads.clear()

    def answer_read(self, read: PendingRead, index: int) -> None:
        """Hand a read back to whoever asked; index 0 refuses it."""
        if read.origin == self.node_id:
            self.outbox.reads.append(ReadState(read.context, index))
        else:
            self.send(ReadIndexResponse(self.node_id, read.origin, self.term, read.context, index))

    def append(self, entries: tuple[Entry, ...]) -> None:
        """Leader: add entries of its own, and what follows from a configuration among them."""
        self.log.append(entries)
        if self.trail.note(entries):
            self.configuration_changed()

    def configuration_changed(self) -> None:
        """Another configuration is in force: keep track of exactly its members."""
        self.observe(ConfigurationChanged(self.configuration, self.trail.current_index))
        if self.role is Role.LEADER:
            self.track_members()

    def track_members(self) -> None:
        """Leader: one progress for each other member."""
        members = {member.id for member in self.configuration.members} - {self.node_id}
        self.progress = {peer: progress for peer, progress in self.progress.items() if peer in members}
        for peer in sorted(members - set(self.progress)):
            self.progress[peer] = Progress(peer, self.log.last_index + 1, self.tick_count)

    def serve(self, progress: Progress, state: ProgressState) -> None:
        """Leader: change how a follower is served, and say so."""
        self.observe(PeerContact(progress.peer, state.value))
        match state:
            case ProgressState.PROBE:
                progress.become_probe()
            case ProgressState.REPLICATE:
                progress.become_replicate()
            case _:
                progress.become_snapshot()

    def agreed(self, value: Callable[[NodeId], int]) -> int:
        """The highest number that a quorum of the configuration in force has reached."""
        return jointly_agreed(self.configuration.voter_ids, self.configuration.outgoing_ids, value)

    def _refuse_reads(self) -> None:
        for read in self.reads.drain():
            self.answer_read(read, 0)

    def _draw_deadline(self) -> int:
        return self.config.election_ticks + self._jitter(self.config.election_ticks)
