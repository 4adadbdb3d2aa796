"""Rare branches: which of them a schedule really reached, noted without touching the core.

A simulator that never meets a situation proves nothing about it, and nobody sees that from "no violations" (Antithesis calls such notes
"sometimes assertions"). So each message is looked at just before the core gets it, beside the state that it finds there; what the core did itself is
told by its observations. All of it goes into the counts of the world, by the names in :data:`MARKERS`.

A run that is to count as evidence must have reached every marker at least :data:`MINIMUM` times in :data:`MINIMUM_OF` schedules, and as often in
proportion when it was shorter; the common ones at least once in :data:`COMMON_FROM`.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from raft.core.messages import (
    AppendAccepted,
    AppendRejected,
    AppendRequest,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    PreVoteRequest,
    PreVoteResponse,
    ProposeRequest,
    ReadIndexRequest,
    ReadIndexResponse,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from raft.core.model import Entry, EntryKind, HardState
from raft.core.progress import ProgressState
from raft.core.ready import LeaderChanged, PeerContact, RoleChanged
from raft.core.roles import Role
from raft.core.state import State

Counts = Counter[str]
_LEADER, _PROBE, _REPLICATE = Role.LEADER, ProgressState.PROBE, ProgressState.REPLICATE  # a member of an enumeration is slow to look up
Look = Callable[[Counts, State, Any], None]

MINIMUM = 100
MINIMUM_OF = 100_000
COMMON_FROM = 100
"""Schedules after which a common marker that was never reached is an error: it comes several times in ten."""


class Marker(NamedTuple):
    """A branch that a run must reach.

    :ivar name: as it is counted.
    :ivar common: whether it comes so often that a hundred schedules without it mean a fault of the simulator.
    """

    name: str
    common: bool


def _common(*names: str) -> tuple[Marker, ...]:
    return tuple(Marker(name, common=True) for name in names)


def _rare(*names: str) -> tuple[Marker, ...]:
    return tuple(Marker(name, common=False) for name in names)


MARKERS: tuple[Marker, ...] = (
    # Elections
    *_common(
        "late vote ignored",
        "late pre-vote ignored",
        "vote refused: already given",
        "vote refused: log behind",
        "pre-vote refused: log behind",
        "pre-vote refused: a leader was heard",
        "candidate passed over: a leader was heard",
        "candidate of an earlier term refused",
        "follower: another leads",
        "follower: refused by a majority",
        "follower: no contact with a quorum for an election timeout",
    ),
    *_rare("called successor asks in silence", "crashes before term or vote were durable"),
    # The log
    *_common(
        "append of an earlier term refused",
        "append with nothing new",
        "heartbeat of an earlier term refused",
        "logs truncated",
        "old-term entry withheld",
        "earlier term's entries committed with a later one",
        "late acknowledgement ignored",
        "late refusal ignored",
        "went back several entries at once",
        "gap shown by a refusal",
        "window full when an answer came",
        "proposals replaced by another leader's",
    ),
    *_rare("acknowledgement of an earlier leadership ignored", "commit withheld: log not verified", "proposals refused: UncommittedLimit"),
    # Reads and the lease
    *_common(
        "read round retried",
        "read waited for the first commit of the term",
        "read index asked of one who does not lead",
        "late read index ignored",
        "reads under the lease",
        "reads after the lease had run out",
    ),
    *_rare("time lost noticed"),
    # Membership and transfers
    *_common("changes committed", "joint changes committed", "follower: removed from the configuration", "answer of one who was removed"),
    *_rare(
        "configuration truncated",
        "candidate outside the voter's configuration",
        "elected in a joint change",
        "elected with a change not committed",
        "elected without a vote of its own",
        "campaign: handed over",
        "late call to campaign ignored",
    ),
    # Snapshots
    *_common("snapshots installed", "snapshots lost on the way"),
    *_rare(
        "snapshot discarded as old",
        "snapshot of an earlier term refused",
        "snapshot kept the tail of the log",
        "snapshot inside a joint change",
        "snapshot passed over during an install",
        "append passed over during an install",
        "crashes in the middle of an install",
    ),
)

FAULTS: tuple[str, ...] = (
    "messages lost",
    "messages doubled",
    "messages delayed",
    "messages cut off",
    "partition: halves",
    "partition: one way",
    "partition: isolated",
    "partition: ring",
    "partition: one link",
    "partition: random",
    "crashes",
    "crashes that lost writes",
    "crashes of new leaders",
    "new leaders cut off",
    "pauses",
    "slow syncs",
    "snapshots lost on the way",
    "attacks on a lease",
    "transfers begun",
    "compactions",
)
"""What was done to the clusters, by the names that it is counted by."""


def minimum(marker: Marker, schedules: int) -> int:
    """How often a run of so many schedules must have reached a marker."""
    least = MINIMUM * schedules // MINIMUM_OF
    return max(least, 1) if marker.common and schedules >= COMMON_FROM else least


def missed(counts: Mapping[str, int], schedules: int) -> list[tuple[str, int, int]]:
    """The markers that were reached too seldom: each with how often it was, and how often it had to be."""
    wanted = [(marker.name, counts.get(marker.name, 0), minimum(marker, schedules)) for marker in MARKERS]
    return [(name, count, least) for name, count, least in wanted if count < least]


# -- what arrives -------------------------------------------------------------------------------------------------------------------------


def _pre_vote_request(counts: Counts, state: State, message: PreVoteRequest) -> None:
    if message.term <= state.term:
        return
    if state.is_silent:
        counts["pre-vote refused: a leader was heard"] += 1
    elif not state.log.is_up_to_date(message.last_index, message.last_term):
        counts["pre-vote refused: log behind"] += 1


def _pre_vote_response(counts: Counts, state: State, message: PreVoteResponse) -> None:
    if message.granted and (state.role is not Role.PRE_CANDIDATE or message.term != state.term + 1):
        counts["late pre-vote ignored"] += 1


def _vote_request(counts: Counts, state: State, message: VoteRequest) -> None:
    if message.term < state.term:
        counts["candidate of an earlier term refused"] += 1
        return
    if message.term > state.term and state.is_silent:
        counts["called successor asks in silence" if message.transfer else "candidate passed over: a leader was heard"] += 1
    elif message.term == state.term and state.vote not in {None, message.sender}:
        counts["vote refused: already given"] += 1
    elif not state.log.is_up_to_date(message.last_index, message.last_term):
        counts["vote refused: log behind"] += 1
    if state.trail.current_index and not state.configuration.is_voter(message.sender):
        counts["candidate outside the voter's configuration"] += 1


def _vote_response(counts: Counts, state: State, message: VoteResponse) -> None:
    if message.granted and message.term < state.term:
        counts["late vote ignored"] += 1


def _append_request(counts: Counts, state: State, message: AppendRequest) -> None:
    if message.term < state.term:
        counts["append of an earlier term refused"] += 1
    elif state.installing is not None:
        counts["append passed over during an install"] += 1
    elif message.entries and message.entries[-1].index <= state.log.commit:
        counts["append with nothing new"] += 1


def _append_accepted(counts: Counts, state: State, message: AppendAccepted) -> None:
    term = message.term
    if state.role is not _LEADER or term > state.term:
        return
    if term < state.term:
        counts["acknowledgement of an earlier leadership ignored"] += 1
        return
    progress = state.progress.get(message.sender)
    if progress is None:
        counts["answer of one who was removed"] += 1
        return
    news = message.match_index - progress.match
    if news < 0:
        counts["late acknowledgement ignored"] += 1
    if len(progress._inflight) >= state.config.inflight_appends_max:  # noqa: SLF001  # looked at, not touched
        counts["window full when an answer came"] += 1
    if news > 0 and state.log.commit < state.term_start:
        _withheld(counts, state, message)


def _withheld(counts: Counts, state: State, message: AppendAccepted) -> None:
    """Before its first commit a leader may see a quorum hold what an earlier leader wrote; that counts for nothing (paper, figure 8)."""

    def held(peer: str) -> int:
        if peer == state.node_id:
            return state.log.durable
        return message.match_index if peer == message.sender else state.progress[peer].match

    if state.log.commit < state.agreed(held) < state.term_start:
        counts["old-term entry withheld"] += 1


def _append_rejected(counts: Counts, state: State, message: AppendRejected) -> None:
    if state.role is not _LEADER or message.term != state.term:
        return
    progress, index = state.progress.get(message.sender), message.rejected_index
    if progress is None:
        counts["answer of one who was removed"] += 1
    elif progress.state is _REPLICATE:
        counts["gap shown by a refusal" if index > progress.match else "late refusal ignored"] += 1
    elif index != progress.next - 1 or progress.state is not _PROBE:
        counts["late refusal ignored"] += 1
    elif message.hint_index < index - 1:
        counts["went back several entries at once"] += 1


def _heartbeat(counts: Counts, state: State, message: Heartbeat) -> None:
    if message.term < state.term:
        counts["heartbeat of an earlier term refused"] += 1
    elif message.commit > state.log.commit and message.commit > (state.verified if message.term == state.term else 0):
        counts["commit withheld: log not verified"] += 1


def _heartbeat_response(counts: Counts, state: State, message: HeartbeatResponse) -> None:
    rounds = state.reads._rounds  # noqa: SLF001  # looked at, not touched
    if rounds and state.role is _LEADER and message.term == state.term:
        progress, first = state.progress.get(message.sender), rounds[0].round
        if progress is not None and progress.read_round < first < message.round:
            counts["read round retried"] += 1


def _install_snapshot(counts: Counts, state: State, message: InstallSnapshot) -> None:
    boundary, log = message.boundary, state.log
    if message.term < state.term:
        counts["snapshot of an earlier term refused"] += 1
    elif state.installing is not None:
        counts["snapshot passed over during an install"] += 1
    elif boundary.index <= log.commit:
        counts["snapshot discarded as old"] += 1
    else:
        counts["snapshot kept the tail of the log"] += log.matches(boundary.index, boundary.term)
        counts["snapshot inside a joint change"] += boundary.configuration.is_joint


def _timeout_now(counts: Counts, state: State, message: TimeoutNow) -> None:
    if message.term < state.term:
        counts["late call to campaign ignored"] += 1
    elif not state.may_campaign:
        counts["called successor may not campaign"] += 1


def _read_index_request(counts: Counts, state: State, _message: ReadIndexRequest) -> None:
    if state.role is not _LEADER:
        counts["read index asked of one who does not lead"] += 1
    elif state.log.commit < state.term_start:
        counts["read waited for the first commit of the term"] += 1


def _read_index_response(counts: Counts, state: State, message: ReadIndexResponse) -> None:
    if message.context not in state.forwarded_reads:
        counts["late read index ignored"] += 1


def _propose_request(counts: Counts, state: State, _message: ProposeRequest) -> None:
    if state.role is not _LEADER:
        counts["proposal forwarded to one who does not lead"] += 1


ARRIVING: dict[type, Look] = {
    PreVoteRequest: _pre_vote_request,
    PreVoteResponse: _pre_vote_response,
    VoteRequest: _vote_request,
    VoteResponse: _vote_response,
    AppendRequest: _append_request,
    AppendAccepted: _append_accepted,
    AppendRejected: _append_rejected,
    Heartbeat: _heartbeat,
    HeartbeatResponse: _heartbeat_response,
    InstallSnapshot: _install_snapshot,
    TimeoutNow: _timeout_now,
    ReadIndexRequest: _read_index_request,
    ReadIndexResponse: _read_index_response,
    ProposeRequest: _propose_request,
}
"""By type of message: call it with the counts, the state and the message, before the core gets that."""


# -- what happened ------------------------------------------------------------------------------------------------------------------------


def noted(counts: Counts, state: State, observation: object) -> None:
    """The core has told of something."""
    if type(observation) is RoleChanged:
        _role_changed(counts, state, observation)
    elif type(observation) is PeerContact:
        counts[f"peer: {observation.state}"] += 1
    elif type(observation) is LeaderChanged and observation.leader is None:
        counts["leader lost"] += 1


def _role_changed(counts: Counts, state: State, change: RoleChanged) -> None:
    counts[f"became {change.role.value}"] += 1
    if change.role is Role.FOLLOWER:
        counts[f"follower: {'another leads' if change.reason.endswith(' leads') else change.reason}"] += 1
    elif change.reason.endswith(" hands over"):
        counts["campaign: handed over"] += 1
    elif change.role is _LEADER and state.role is _LEADER and state.term == change.term:
        # The change that a log held at the election is looked at, not one that the leader has appended since.
        counts["elected in a joint change"] += state.trail.at(state.term_start).is_joint
        counts["elected with a change not committed"] += state.log.commit < state.trail.current_index < state.term_start
        counts["elected without a vote of its own"] += not state.trail.at(state.term_start).is_voter(state.node_id)


def truncated(counts: Counts, removed: Sequence[Entry]) -> None:
    """A log lost its tail to another leader's entries."""
    counts["logs truncated"] += 1
    counts["configuration truncated"] += any(entry.kind is EntryKind.CONFIGURATION for entry in removed)


def crashed(counts: Counts, state: State, durable: HardState) -> None:
    """A node is about to lose what is not durable."""
    counts["crashes before term or vote were durable"] += (state.term, state.vote) != (durable.term, durable.vote)
