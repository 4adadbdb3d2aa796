"""Does the simulator notice? Deliberate faults of the core, patched in at run time, each of which it must find.

``python -m raft.testing.mutants`` runs schedules against every mutant until one fails and prints which rule found it, and after how many. The core
itself has no switch for any of this. Numbers such as M01 are those of the catalogue of scenarios; the others are our own.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from raft.config import RaftConfig
from raft.core import elections, follower, leader, quorum, replication, state
from raft.core.log import RaftLog
from raft.core.membership import Change, ConfigurationTrail, LeaveJoint, changed, encode_configuration
from raft.core.messages import AppendAccepted, AppendRequest, Heartbeat, HeartbeatResponse, InstallSnapshot, Message, VoteResponse
from raft.core.model import Boundary, Configuration, Entry, EntryKind, HardState, NodeId
from raft.core.node import RaftNode
from raft.core.progress import Progress
from raft.core.reads import ReadQueue, ReadRound
from raft.core.roles import Role
from raft.core.state import State
from raft.runtime.lease import Lease
from raft.testing import disk_faults, lease_faults
from raft.testing.disk import Disk
from raft.testing.node import SimulatedNode
from raft.testing.world import ScheduleFailed, World

Patch = tuple[object, str, object]


@dataclass(frozen=True, slots=True)
class Mutant:
    """A fault to plant.

    :param name: short, for the table.
    :param fault: what is wrong with it.
    :param patches: (owner, attribute, replacement) of each function to replace while it lives.
    :param prepare: a fault of the surroundings instead: done to each world before it starts.
    """

    name: str
    fault: str
    patches: tuple[Patch, ...] = ()
    prepare: Callable[[World], None] | None = None

    @contextmanager
    def planted(self) -> Iterator[None]:
        """The core, with the fault in it."""
        with ExitStack() as stack:
            for owner, attribute, replacement in self.patches:
                stack.enter_context(patch.object(owner, attribute, replacement))
            yield


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a mutant: ``rule`` is empty when it survived."""

    name: str
    rule: str
    seed: int
    schedules: int
    elapsed_s: float


def hunt(mutant: Mutant, *, limit: int, start: int = 1) -> Verdict:
    """Run at most ``limit`` schedules, from seed ``start`` on, until one fails."""
    began = time.monotonic()
    with mutant.planted():
        for seed in range(start, start + limit):
            try:
                World(seed, prepare=mutant.prepare).run()
            except ScheduleFailed as failure:
                return Verdict(mutant.name, failure.rule, seed, seed - start + 1, time.monotonic() - began)
    return Verdict(mutant.name, "", 0, limit, time.monotonic() - began)


def hunt_by_name(name: str, limit: int, start: int) -> Verdict:
    """The same for another process."""
    return hunt(next(mutant for mutant in MUTANTS if mutant.name == name), limit=limit, start=start)


# -- commitment ---------------------------------------------------------------------------------------------------------------------------


def _commit(state: State, *, own: Callable[[RaftLog], int], any_term: bool) -> bool:
    def held(peer: NodeId) -> int:
        return own(state.log) if peer == state.node_id else state.progress[peer].match

    index = min(state.agreed(held), state.log.last_index)
    if index <= state.log.commit or not (any_term or state.log.term_at(index) == state.term):
        return False
    state.uncommitted_bytes = 0
    return state.log.commit_to(index)


def _commit_earlier_terms(state: State) -> bool:
    return _commit(state, own=lambda log: log.durable, any_term=True)


def _commit_before_own_sync(state: State) -> bool:
    return _commit(state, own=lambda log: log.last_index, any_term=False)


def _commit_anywhere(log: RaftLog, index: int) -> bool:
    log.commit = min(index, log.last_index)
    return True


_broadcast = replication.broadcast_heartbeat


def _announce_the_whole_commit(state: State) -> None:
    before = len(state.outbox.messages)
    _broadcast(state)
    for position, message in enumerate(state.outbox.messages[before:], before):
        if isinstance(message, Heartbeat):
            state.outbox.messages[position] = replace(message, commit=state.log.commit)


def _commit_unverified(state: State, message: Heartbeat) -> None:
    state.log.commit_to(min(message.commit, state.log.last_index))
    state.send(HeartbeatResponse(state.node_id, message.sender, state.term, message.round))


_sent = Progress.sent


def _count_what_was_sent(progress: Progress, last_index: int, size: int) -> None:
    _sent(progress, last_index, size)
    progress.match = max(progress.match, last_index)
    progress.next = max(progress.next, last_index + 1)


# -- elections ----------------------------------------------------------------------------------------------------------------------------


def _any_log_will_do(log: RaftLog, index: int, term: int) -> bool:
    del log, index, term
    return True


def _longest_log_wins(log: RaftLog, index: int, term: int) -> bool:
    return (index, term) >= (log.last_index, log.last_term)


def _vote_again(state: State, message: Any) -> None:
    granted = state.log.is_up_to_date(message.last_index, message.last_term)
    if granted and state.role is Role.FOLLOWER:
        state.vote = message.sender
    state.send_after_persist(VoteResponse(state.node_id, message.sender, state.term, granted and state.role is Role.FOLLOWER))


_init = State.__init__


def _forget_the_vote(state: State, **arguments: Any) -> None:
    saved: HardState = arguments.pop("hard_state")
    _init(state, hard_state=saved._replace(vote=None), **arguments)


_step = RaftNode.step


def _take_old_votes(node: RaftNode, message: Message) -> None:
    if isinstance(message, VoteResponse) and message.granted and message.term < node.term and node.role is Role.CANDIDATE:
        elections.count(node.state, message.sender, granted=True)
    else:
        _step(node, message)


def _take_old_acknowledgements(node: RaftNode, message: Message) -> None:
    if isinstance(message, AppendAccepted) and message.term < node.term and node.role is Role.LEADER:
        leader.on_accepted(node.state, message)
    else:
        _step(node, message)


# -- the log ------------------------------------------------------------------------------------------------------------------------------


def _replace_always(log: RaftLog, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
    entries = tuple(entry for entry in entries if entry.index > log.boundary.index)
    if entries and entries[0].index <= log.last_index:
        log._truncate(entries[0].index)  # noqa: SLF001  # a mutant does what nobody may
    log.append(entries)
    return entries


_on_append = follower.on_append


def _append_blindly(state: State, message: AppendRequest) -> None:
    here = state.log.term_at(message.previous_index)
    first = message.entries[0].term if message.entries else message.term
    if here is not None and here <= first:
        message = AppendRequest(message.sender, message.to, message.term, message.previous_index, here, message.entries, message.commit)
    _on_append(state, message)


def _install_old_snapshots(state: State, message: InstallSnapshot) -> None:
    state.log.reset(message.boundary)
    state.trail = type(state.trail)(message.boundary, ())
    state.installing, state.installing_number = message.boundary, 0
    state.send_after_persist(AppendAccepted(state.node_id, message.sender, state.term, message.boundary.index))


_reset = RaftLog.reset


def _applied_on_arrival(log: RaftLog, boundary: Boundary) -> None:
    _reset(log, boundary)
    log.applied = boundary.index


# -- durability ---------------------------------------------------------------------------------------------------------------------------


def _send_at_once(state: State, message: Message) -> None:
    state.send(message)


def _write_the_term_only(state: State) -> bool:
    return state.term != state.saved.term


def _apply_before_durable(log: RaftLog, bytes_max: int) -> tuple[Entry, ...]:
    entries = log.entries_from(log.applying + 1, bytes_max, log.commit) if log.applying < log.commit else ()
    log.applying = entries[-1].index if entries else log.applying
    return entries


# -- reads --------------------------------------------------------------------------------------------------------------------------------


def _confirm_at_once(queue: ReadQueue, round_: int) -> list[ReadRound]:
    del round_
    rounds = list(queue._rounds)  # noqa: SLF001  # a mutant does what nobody may
    queue._rounds.clear()  # noqa: SLF001  # a mutant does what nobody may
    return rounds


def _leads(state: State) -> bool:
    return state.role is Role.LEADER


# -- membership ---------------------------------------------------------------------------------------------------------------------------


_change = leader.change


def _change_before_a_commit(state: State, wanted: Change, context: int) -> None:
    with patch.object(State, "has_committed_in_term", property(_leads)):
        _change(state, wanted, context)


def _change_before_the_last_is_applied(state: State, wanted: Change, context: int) -> None:
    with patch.object(ConfigurationTrail, "current_index", property(lambda _trail: 0)):
        _change(state, wanted, context)


def _keep_what_is_undone(trail: ConfigurationTrail, index: int) -> bool:
    del trail, index
    return False


def _union(incoming: Sequence[NodeId], outgoing: Sequence[NodeId]) -> tuple[NodeId, ...]:
    return tuple(dict.fromkeys((*incoming, *outgoing)))


def _union_agreed(incoming: Sequence[NodeId], outgoing: Sequence[NodeId], value: Callable[[NodeId], int]) -> int:
    return quorum.agreed(_union(incoming, outgoing), value)


def _union_vote(incoming: Sequence[NodeId], outgoing: Sequence[NodeId], votes: Mapping[NodeId, bool]) -> quorum.VoteResult:
    return quorum.vote(_union(incoming, outgoing), votes)


def _union_is_quorum(incoming: Sequence[NodeId], outgoing: Sequence[NodeId], present: Iterable[NodeId]) -> bool:
    return _union_vote(incoming, outgoing, dict.fromkeys(present, True)) is quorum.VoteResult.WON


def _voters_and_learners(configuration: Configuration) -> tuple[NodeId, ...]:
    return tuple(member.id for member in (*configuration.voters, *configuration.learners))


def _leave_at_once(state: State) -> None:
    if state.configuration.is_joint and state.configuration.leaves_by_itself:
        left = changed(state.configuration, LeaveJoint())
        state.append((Entry(state.log.last_index + 1, state.term, EntryKind.CONFIGURATION, encode_configuration(left)),))


_boundary_at = RaftNode.boundary_at


def _label_with_what_is_in_force(node: RaftNode, index: int) -> Boundary:
    return replace(_boundary_at(node, index), configuration=node.state.configuration)


_ask_around = elections._ask_around  # noqa: SLF001  # a mutant does what nobody may


def _ask_in_a_new_term(state: State, reason: str) -> None:
    state.adopt_term(state.term + 1)
    _ask_around(state, reason)


MUTANTS: tuple[Mutant, ...] = (
    Mutant("M01 figure 8", "counts entries of earlier terms toward commitment", ((replication, "maybe_commit", _commit_earlier_terms),)),
    Mutant(
        "M02 follower commit",
        "heartbeats announce the whole commit index, and followers take it up to their last index, unverified",
        ((replication, "broadcast_heartbeat", _announce_the_whole_commit), (follower, "on_heartbeat", _commit_unverified)),
    ),
    Mutant("M03 any log", "grants votes without comparing logs", ((RaftLog, "is_up_to_date", _any_log_will_do),)),
    Mutant("M04 longest log", "compares the length of logs before the term", ((RaftLog, "is_up_to_date", _longest_log_wins),)),
    Mutant("M05 early replies", "answers before its disk has", ((State, "send_after_persist", _send_at_once),)),
    Mutant(
        "M06 vote unwritten", "writes the term, and the vote only along with something else", ((State, "must_save", property(_write_the_term_only)),)
    ),
    Mutant("M13 own sync", "the leader counts itself before its own disk has answered", ((replication, "maybe_commit", _commit_before_own_sync),)),
    Mutant("M14 no round", "serves reads without asking a quorum", ((ReadQueue, "confirm", _confirm_at_once),)),
    Mutant("M15 early reads", "serves reads before the first commit of the term", ((State, "has_committed_in_term", property(_leads)),)),
    Mutant("M18 early change", "changes the membership before a commit of its term", ((leader, "change", _change_before_a_commit),)),
    Mutant("M19 change stays", "keeps a configuration whose entry was truncated", ((ConfigurationTrail, "undo_from", _keep_what_is_undone),)),
    Mutant(
        "M20 union",
        "takes a majority of all who vote in a joint change for one of each half",
        ((state, "jointly_agreed", _union_agreed), (elections, "joint_vote", _union_vote), (leader, "is_quorum", _union_is_quorum)),
    ),
    Mutant("M21 learners count", "counts learners in every quorum", ((Configuration, "voter_ids", property(_voters_and_learners)),)),
    Mutant("M37 pre-vote's term", "enters a new term to ask around", ((elections, "_ask_around", _ask_in_a_new_term),)),
    Mutant("M38 no check-quorum", "leads on without a quorum", ((leader, "_has_quorum", lambda _state: True),)),
    Mutant("two changes", "begins a change before the last is committed", ((leader, "change", _change_before_the_last_is_applied),)),
    Mutant("leaves early", "leaves a joint change before it is committed", ((leader, "_go_on_with_changes", _leave_at_once),)),
    Mutant("label too new", "labels a state with a configuration that is not committed", ((RaftNode, "boundary_at", _label_with_what_is_in_force),)),
    Mutant("M24 install in two", "puts a snapshot in place by two transactions", ((Disk, "crash", disk_faults.install_in_two),)),
    Mutant("M25 apply in two", "moves effects and the applied index by two transactions", ((SimulatedNode, "crash", disk_faults.apply_in_two),)),
    Mutant("M26 lost sync", "a disk that says it has synced and has not", prepare=disk_faults.lie_about_syncs),
    Mutant("M27 sync tried again", "takes a sync that failed once for done", ((Disk, "_end", disk_faults.forget_failed_syncs),)),
    Mutant("commit goes back", "takes over a lower commit index", ((RaftLog, "commit_to", _commit_anywhere),)),
    Mutant("truncates always", "replaces its log from an append's first entry on, conflict or not", ((RaftLog, "merge", _replace_always),)),
    Mutant("votes twice", "votes for everybody who asks", ((elections, "answer_vote", _vote_again),)),
    Mutant("vote forgotten", "loses its vote in a restart", ((State, "__init__", _forget_the_vote),)),
    Mutant("old votes", "counts votes of an earlier candidacy", ((RaftNode, "step", _take_old_votes),)),
    Mutant("old acknowledgements", "counts acknowledgements of an earlier leadership", ((RaftNode, "step", _take_old_acknowledgements),)),
    Mutant("applies early", "applies what its own disk does not hold yet", ((RaftLog, "take_committed", _apply_before_durable),)),
    Mutant("appends blindly", "does not compare the term of the entry before", ((follower, "on_append", _append_blindly),)),
    Mutant("counts what it sent", "takes an append for acknowledged when it is sent", ((Progress, "sent", _count_what_was_sent),)),
    Mutant("old snapshots", "installs snapshots older than its own state", ((follower, "on_snapshot", _install_old_snapshots),)),
    Mutant("applied on arrival", "takes a snapshot for applied when it arrives", ((RaftLog, "reset", _applied_on_arrival),)),
    Mutant(
        "lease from the answers",
        "counts the lease from the answers instead of the sending",
        ((Lease, "is_held", lease_faults.count_from_the_answers),),
    ),
    Mutant("lease without answers", "relies on rounds that nobody has answered", ((RaftNode, "round_for_lease", property(lease_faults.any_round)),)),
    Mutant("lease too long", "takes the election timeout for the lease", ((RaftConfig, "lease_ns", property(lease_faults.whole_timeout)),)),
    Mutant(
        "lease before a commit",
        "relies on the lease before an entry of the term is committed",
        ((RaftNode, "round_for_lease", property(lease_faults.from_the_election_on)),),
    ),
    Mutant("lease without margin", "allows for no difference of clocks", ((RaftConfig, "lease_ns", property(lease_faults.no_margin)),)),
    Mutant("votes after a start", "grants votes when it has just started", ((State, "__init__", lease_faults.vote_after_the_start),)),
    Mutant(
        "late ticks caught up",
        "makes up for the ticks that a pause has cost, in one burst",
        ((SimulatedNode, "resume", lease_faults.catch_up_late_ticks),),
    ),
    Mutant("lease in a transfer", "keeps the lease in a transfer", ((RaftNode, "round_for_lease", property(lease_faults.through_a_transfer)),)),
    Mutant(
        "lease after a transfer",
        "takes the lease up again when a transfer is given up",
        ((RaftNode, "round_for_lease", property(lease_faults.after_a_transfer)),),
    ),
    Mutant("half a quorum", "takes half of an even number for a majority", ((quorum, "majority", lambda voters: (voters + 1) // 2),)),
)


def main(arguments: list[str] | None = None) -> int:
    """Hunt every mutant and print the table; the exit status is 0 when all were found."""
    parser = argparse.ArgumentParser(prog="python -m raft.testing.mutants", description="Check that the simulator finds planted faults.")
    parser.add_argument("--limit", type=int, default=1_000, help="schedules for each mutant (default 1000)")
    parser.add_argument("--start", type=int, default=1, help="the first seed (default 1)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
    options = parser.parse_args(arguments)
    width = max(len(mutant.name) for mutant in MUTANTS)
    survivors = 0
    with ProcessPoolExecutor(max_workers=options.jobs) as pool:
        verdicts = [pool.submit(hunt_by_name, mutant.name, options.limit, options.start) for mutant in MUTANTS]
        for mutant, future in zip(MUTANTS, verdicts, strict=True):
            verdict = future.result()
            survivors += not verdict.rule
            found = (
                f"{verdict.rule}, schedule {verdict.schedules} (seed {verdict.seed})" if verdict.rule else f"SURVIVED {verdict.schedules} schedules"
            )
            sys.stdout.write(f"{mutant.name:<{width}}  {found:<52} {mutant.fault}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{len(MUTANTS) - survivors} of {len(MUTANTS)} mutants found\n")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
