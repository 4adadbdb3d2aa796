"""The façade of the core: everything that can be done to a node, and what it wants done.

A driver calls ``tick`` at a steady pace, ``step`` for each message, ``propose``, ``read``, ``change`` and ``transfer`` for its callers; then it
takes :meth:`RaftNode.ready` and fulfils the duties that :mod:`raft.core.ready` lists. Nothing here waits, sleeps, logs, draws a random
number or looks at a clock. Whatever raises has changed nothing, save an InvariantViolation: the node must stop then.
"""

from collections.abc import Callable, Sequence

from raft.config import RaftConfig
from raft.core import candidate, elections, follower, invariants, leader, replication
from raft.core.membership import Change
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
    ProposeRequest,
    ProposeResponse,
    ReadIndexRequest,
    ReadIndexResponse,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from raft.core.model import Boundary, Entry, HardState, NodeId
from raft.core.reads import PendingRead
from raft.core.ready import Ready
from raft.core.roles import Role
from raft.core.state import Outbox, State
from raft.core.status import Status, describe
from raft.errors import InvariantViolation, MalformedMessage, NotLeader, WrongRecipient

_FROM_LEADER = (AppendRequest, Heartbeat, InstallSnapshot)
_ANY_TERM = (ProposeRequest, ReadIndexRequest, ReadIndexResponse)


class RaftNode:
    """One member of a cluster.

    :param node_id: its identity; never one that another incarnation used.
    :param config: its settings.
    :param boundary: where its log begins, as loaded.
    :param entries: the log after it, as loaded.
    :param hard_state: term, vote and commit, as loaded.
    :param applied: the last index that the state machine holds.
    :param jitter: ``jitter(n)`` draws from [0, n); the only randomness.
    """

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
        self.state = State(node_id=node_id, config=config, boundary=boundary, entries=entries, hard_state=hard_state, applied=applied, jitter=jitter)
        self._number = 0

    @property
    def node_id(self) -> NodeId:
        """This node's identity."""
        return self.state.node_id

    @property
    def role(self) -> Role:
        """What the node is now."""
        return self.state.role

    @property
    def term(self) -> int:
        """The present term."""
        return self.state.term

    @property
    def leader(self) -> NodeId | None:
        """Who leads, as far as this node knows."""
        return self.state.leader

    @property
    def round_begun(self) -> int:
        """The leader's last round of heartbeats, counted from 1 in each term; 0 at others. Its messages leave with the next Ready, or have left."""
        return self.state.reads.round if self.state.role is Role.LEADER else 0

    @property
    def round_for_lease(self) -> int:
        """The last round that a quorum has answered; 0 when no lease may rest on any.

        None may unless this node leads and an entry of its own term is committed. None may in the rest of a term in which a successor was told to
        campaign: that message may be under way for any time, and whoever follows it is voted for without silence.
        """
        state = self.state
        return state.reads.confirmed if state.has_committed_in_term and not state.successor_called else 0

    def lose_time(self) -> None:
        """Time has passed that no ``tick`` told of: what was promised meanwhile is not known. So nobody gets a vote for an election timeout."""
        self.state.promise_silence()
        self.state.restart_election_timer()

    def tick(self) -> None:
        """One tick has passed. They must not come faster than the clock that a lease is counted on, even after a pause: drop those that are late."""
        self.state.tick_count += 1
        match self.state.role:
            case Role.FOLLOWER:
                follower.tick(self.state)
            case Role.LEADER:
                leader.tick(self.state)
            case _:
                candidate.tick(self.state)

    def step(self, message: Message) -> None:
        """Take a message.

        :raises MessageRefused: when it can't be taken; nothing has changed then.
        """
        state = self.state
        if message.to != state.node_id:
            raise WrongRecipient(f"a message for {message.to}; this is {state.node_id}")
        if isinstance(message, ProposeResponse):
            raise MalformedMessage("a ProposeResponse is for whoever waits for it, not for the core")
        if isinstance(message, AppendRequest):
            follower.check_append(message)
        if isinstance(message, _ANY_TERM):
            if message.term > state.term:
                elections.become_follower(state, message.term, None, "a later term exists")
        elif message.term > state.term:
            if not self._admit_later_term(message):
                return
        elif message.term < state.term:
            self._refuse_earlier_term(message)
            return
        self._dispatch(message)

    def propose(self, commands: Sequence[bytes], context: int) -> None:
        """Propose a batch of commands. At the leader they are appended (``Ready.appended`` tells where); a follower passes them on, once.

        :param context: this node's name for the batch, not used before.
        :raises NotLeader: when no leader is known.
        :raises Rejected: when the batch can't be taken; see :mod:`raft.errors`.
        """
        state = self.state
        if state.role is Role.LEADER:
            replication.append_commands(state, commands, state.node_id, context)
            return
        replication.check_commands(state, commands)
        if state.leader is None:
            raise NotLeader
        state.send(ProposeRequest(state.node_id, state.leader, state.term, context, tuple(commands)))

    def read(self, context: int) -> None:
        """Ask for an index at which a linearizable read may be served; ``Ready.reads`` holds the answer.

        :raises NotLeader: when no leader is known.
        """
        if self.state.role is Role.LEADER:
            self.state.reads.add(PendingRead(self.state.node_id, context))
        else:
            follower.read(self.state, context)

    def change(self, change: Change, context: int) -> None:
        """Change the membership by one step; ``Ready.appended`` tells the index of the entry.

        :raises NotLeader: when this node does not lead.
        :raises ChangeRefused: when the change can't be made now, or makes no sense.
        """
        if self.state.role is not Role.LEADER:
            raise NotLeader(self.state.leader)
        leader.change(self.state, change, context)

    def transfer(self, target: NodeId) -> None:
        """Hand leadership to ``target``.

        :raises NotLeader: when this node does not lead.
        :raises TransferRefused: when the target can't lead.
        """
        if self.state.role is not Role.LEADER:
            raise NotLeader(self.state.leader)
        leader.transfer(self.state, target)

    def step_down(self, reason: str) -> None:
        """Lead no more, for a reason that only the driver knows: its disk hangs, say. Without effect at a node that does not lead.

        :param reason: for people.
        """
        if self.state.role is Role.LEADER:
            elections.become_follower(self.state, self.state.term, None, reason)

    def ready(self) -> Ready | None:
        """Take everything that is to be done now; see :mod:`raft.core.ready` for the duties.

        :returns: None when nothing is. What is taken may be one page of several, so ask again after entries to apply.
        """
        state = self.state
        if state.role is Role.LEADER:
            replication.flush(state)
        if state.outbox.is_empty and not self._has_work():
            return None
        self._number += 1
        number, outbox = self._number, state.outbox
        state.outbox = Outbox()
        entries, committed, snapshot = self._take_work(number)
        hard_state = self._take_hard_state(bool(entries) or snapshot is not None)
        if state.role is Role.CANDIDATE and state.own_vote_number is None:
            state.own_vote_number = number
        return Ready(
            number=number,
            hard_state=hard_state,
            entries=entries,
            snapshot=snapshot,
            messages=tuple(outbox.messages),
            messages_after_persist=tuple(outbox.messages_after_persist),
            committed=committed,
            appended=tuple(outbox.appended),
            reads=tuple(outbox.reads),
            observations=tuple(outbox.observations),
        )

    def advance(self, number: int) -> None:
        """The work of every Ready up to ``number`` is durable."""
        state = self.state
        if state.installing is not None and state.installing_number and state.installing_number <= number:
            state.installing, state.installing_number = None, 0
            state.log.installed()
        state.log.written(number)
        elections.own_vote_durable(state, number)
        if state.role is Role.LEADER:
            leader.committed(state)

    def applied_to(self, index: int) -> None:
        """The state machine holds the effects of everything up to ``index``."""
        self.state.log.applied_to(index)

    def boundary_at(self, index: int) -> Boundary:
        """The label of a state that holds everything up to ``index``, which has been applied and is not compacted away."""
        term = self.state.log.term_at(index)
        if term is None or index > self.state.log.applied:
            raise InvariantViolation(
                f"no boundary at {index}: the log begins after {self.state.log.boundary.index}, {self.state.log.applied} is applied"
            )
        return Boundary(index, term, self.state.trail.at(index))

    def compact(self, boundary: Boundary) -> None:
        """The log store has been cut up to ``boundary``: forget those entries too."""
        self.state.log.compact(boundary)
        self.state.trail.compact(boundary)

    def report_unreachable(self, peer: NodeId) -> None:
        """Messages to ``peer`` were lost."""
        if self.state.role is Role.LEADER:
            leader.unreachable(self.state, peer)

    def report_snapshot(self, peer: NodeId, index: int) -> None:
        """The sending of a snapshot to ``peer`` has ended.

        :param index: the index of the state that arrived there, 0 when it did not.
        """
        if self.state.role is Role.LEADER:
            leader.snapshot_ended(self.state, peer, index)

    def status(self) -> Status:
        """The node as it is now."""
        return describe(self.state)

    def check_invariants(self) -> None:
        """Check what must hold at any moment.

        :raises InvariantViolation: naming what does not.
        """
        invariants.check(self.state)

    def _has_work(self) -> bool:
        """Whether :meth:`_take_work` or :meth:`_take_hard_state` would hand out anything."""
        state = self.state
        return state.must_save or (state.log.has_work if state.installing is None else not state.installing_number)

    def _take_work(self, number: int) -> tuple[tuple[Entry, ...], tuple[Entry, ...], Boundary | None]:
        state = self.state
        if state.installing is not None:
            if state.installing_number:
                return (), (), None  # one thing after the other
            state.installing_number = number
            return (), (), state.installing
        entries = state.log.take_unwritten(number)
        return entries, state.log.take_committed(state.config.apply_bytes_max), None

    def _take_hard_state(self, writes_anyway: bool) -> HardState | None:
        state = self.state
        if not state.must_save and not writes_anyway:
            return None
        now = state.hard_state
        if now == state.saved:
            return None
        state.saved = now
        return now

    def _admit_later_term(self, message: Message) -> bool:
        """Adopt a later term, unless nobody is meant to: pre-votes bind nobody, and who hears a leader is not disturbed.

        :returns: whether the message is to be handled.
        """
        state = self.state
        if isinstance(message, PreVoteRequest) or (isinstance(message, PreVoteResponse) and message.granted):
            return True
        if isinstance(message, VoteRequest) and state.is_silent and not message.transfer:
            return False
        sender = message.sender if isinstance(message, _FROM_LEADER) else None
        elections.become_follower(state, message.term, sender, "a later term exists")
        return True

    def _refuse_earlier_term(self, message: Message) -> None:
        """Tell who is behind; otherwise nothing changes (paper, section 5.1)."""
        state = self.state
        match message:
            case AppendRequest(previous_index=index):
                state.send(AppendRejected(state.node_id, message.sender, state.term, index, state.log.last_index, state.log.last_term))
            case InstallSnapshot() | Heartbeat():
                state.send(HeartbeatResponse(state.node_id, message.sender, state.term, 0))
            case PreVoteRequest():
                state.send(PreVoteResponse(state.node_id, message.sender, state.term, granted=False))
            case VoteRequest():
                state.send(VoteResponse(state.node_id, message.sender, state.term, granted=False))
            case _:
                pass

    def _dispatch(self, message: Message) -> None:
        state = self.state
        if isinstance(message, _FROM_LEADER):
            self._hear_leader(message.sender)
        match message:
            case AppendRequest():
                follower.on_append(state, message)
            case Heartbeat():
                follower.on_heartbeat(state, message)
            case InstallSnapshot():
                follower.on_snapshot(state, message)
            case PreVoteRequest():
                elections.answer_pre_vote(state, message)
            case VoteRequest():
                elections.answer_vote(state, message)
            case PreVoteResponse():
                candidate.on_pre_vote(state, message)
            case VoteResponse():
                candidate.on_vote(state, message)
            case TimeoutNow() if state.role is not Role.LEADER:
                follower.on_timeout_now(state, message)
            case ReadIndexResponse():
                follower.on_read_index(state, message)
            case _:
                self._dispatch_to_leader(message)

    def _dispatch_to_leader(self, message: Message) -> None:
        state = self.state
        leads = state.role is Role.LEADER
        match message:
            case AppendAccepted() if leads:
                leader.on_accepted(state, message)
            case AppendRejected() if leads:
                leader.on_rejected(state, message)
            case HeartbeatResponse() if leads:
                leader.on_heartbeat_response(state, message)
            case ProposeRequest() if leads:
                leader.on_propose(state, message)
            case ReadIndexRequest() if leads:
                leader.on_read_index(state, message)
            case ProposeRequest():
                state.send(ProposeResponse(state.node_id, message.sender, state.term, message.context, (), str(NotLeader(state.leader)), retry=True))
            case ReadIndexRequest():
                state.send(ReadIndexResponse(state.node_id, message.sender, state.term, message.context, 0))
            case _:
                pass

    def _hear_leader(self, sender: NodeId) -> None:
        """The leader of the present term speaks: whoever wanted its place gives way (scenario EL-11)."""
        state = self.state
        if state.role is Role.LEADER:
            raise InvariantViolation(f"{sender} leads in term {state.term}, and so does this node")
        if state.role is not Role.FOLLOWER:
            elections.become_follower(state, state.term, sender, f"{sender} leads")
        state.follow(sender)
        state.election_elapsed = 0
        state.promise_silence()
