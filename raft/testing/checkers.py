"""The properties of Raft, checked after every step of every node, at a cost that depends only on what the step changed.

The checkers keep a copy of each node's log, fed by what the node's Ready values say; facts that hold for the whole cluster and for all time (who led
a term, who voted for whom, what was committed where) are kept apart from any node and survive its crashes.

The rules, by the names that a :class:`~raft.testing.trace.Violation` carries (paper, figure 3, and dissertation where no other source is named):

====================== ==========================================================================================================
election safety        at most one leader a term; a quorum has voted for it in that term, and its own vote is durable
vote                   a voter grants at most one candidate a term, over all its lives
monotonic              a node's term, and in one life its commit and applied index, never go back; within a term its vote stays
log matching           an entry's index and term determine its content and the term before it
match                  what a leader believes that a follower holds, that one has told it in this term and has on disk; it never becomes less
append-only            a leader never removes from its own log
truncation             nothing is removed at or below the commit index
leader completeness    a leader's log holds everything that was committed in earlier terms
commit                 what two nodes commit at one index is the same, and commit never lies beyond the log
commit rule            a leader commits by counting only up to an entry of its own term (paper, section 5.4.2)
durable quorum         a committed entry is durable on a quorum of a configuration that was in force since it was appended
durability             a message that promises something leaves only when the promise is durable
state machine safety   two nodes never apply different entries at one index; equal index means equal state
apply                  entries are applied in order, once, and never beyond what is committed and durable here
linearizability        a read's index is at least every index that was acknowledged or read before the read began
outcome                an acknowledged command is committed where it was said to be, once; a rejected one never is
pre-vote               asking whether one would be elected changes no term (dissertation, section 9.6)
check-quorum           nobody leads on without having heard of a quorum for an election timeout (dissertation, section 6.2)
configuration          the last one in the log, or of the boundary, is in force: appended ones at once, truncated ones no more
one change             a leader's log holds at most one change that is not committed, and none before a commit of its term
snapshot               a snapshot stands for committed entries; the log begins no later than the durable state allows
====================== ==========================================================================================================
"""

from typing import TYPE_CHECKING, NoReturn

from raft.core.membership import decode_configuration
from raft.core.messages import AppendAccepted, Message, VoteResponse
from raft.core.model import Boundary, Configuration, Entry, EntryKind, HardState
from raft.core.quorum import is_quorum
from raft.core.ready import Ready
from raft.core.roles import Role
from raft.testing import markers
from raft.testing.machine import State
from raft.testing.trace import Violation

if TYPE_CHECKING:
    from raft.testing.node import SimulatedNode
    from raft.testing.world import World


class Shadow:
    """What the checkers know of one node's present life."""

    __slots__ = ("applied", "boundary", "commit", "commits", "entries", "hard_state", "led", "matches", "term")

    def __init__(self) -> None:
        self.boundary = Boundary()
        self.entries: list[Entry] = []
        self.hard_state = HardState()
        self.term = 0
        self.commit = 0
        self.commits: list[tuple[int, tuple[Configuration, ...]]] = []
        """Since the last Ready: each commit index, and the configurations that its entries may be counted by."""
        self.applied = 0
        self.led = 0
        """The term it leads, as of its last Ready; 0 when it does not."""
        self.matches: dict[str, int] = {}
        """While it leads: what it believes of each follower."""

    @property
    def last_index(self) -> int:
        """Index of the last entry."""
        return self.boundary.index + len(self.entries)

    def term_at(self, index: int) -> int | None:
        """Term of an entry; None when it is not held."""
        offset = index - self.boundary.index
        if offset <= 0:
            return self.boundary.term if offset == 0 else None
        return self.entries[offset - 1].term if offset <= len(self.entries) else None


class Checkers:
    """See the module's text. The world tells it of every step; it raises :class:`Violation`."""

    def __init__(self, world: "World", genesis: Configuration) -> None:
        self._world = world
        self._shadows: dict[str, Shadow] = {}
        self._contents: dict[tuple[int, int], tuple[int, EntryKind, bytes]] = {}
        self._leaders: dict[int, str] = {}
        self._votes: dict[tuple[str, int], str] = {}
        self._promised: dict[tuple[str, int], int] = {}
        """By follower and term: up to where it has told the leader that it holds the log."""
        self._committed_until: dict[int, int] = {}
        self.committed: list[Entry] = [Entry(0, 0, EntryKind.NOOP, b"")]
        """By index: what the cluster has committed; index 0 stands for nothing."""
        self.states: list[State] = [State(0, 0)]
        """By index: the state that is right there."""
        self._configurations: list[tuple[int, Configuration]] = [(0, genesis)]
        self._placed: dict[bytes, int] = {}
        self._rejected: set[bytes] = set()
        self.floor = 0
        """The highest index that any client has seen the effects of."""

    # -- a node's life --------------------------------------------------------------------------------------------------------------------

    def started(self, node: "SimulatedNode") -> None:
        """A life begins with what the disk held."""
        shadow = Shadow()
        shadow.boundary, shadow.entries = node.disk.boundary, list(node.disk.entries)
        shadow.hard_state = node.disk.hard_state
        shadow.term = node.disk.hard_state.term
        shadow.applied = node.machine.state.applied
        self._shadows[node.id] = shadow
        if not shadow.boundary.index <= shadow.applied <= shadow.last_index:
            self._fail("snapshot", node, f"starts with state {shadow.applied}, log from {shadow.boundary.index} to {shadow.last_index}")

    def stepped(self, node: "SimulatedNode") -> None:
        """The core was called; its Ready may not have been taken yet."""
        core = node.core
        if core is None:
            return
        state, shadow = core.state, self._shadows[node.id]
        if state.term != shadow.term:
            if state.term < shadow.term:
                self._fail("monotonic", node, f"term {state.term} after {shadow.term}")
            if state.role is Role.PRE_CANDIDATE:
                self._fail("pre-vote", node, f"asks around and goes from term {shadow.term} to {state.term}")
            shadow.term = state.term
        if state.log.commit < shadow.commit:
            self._fail("monotonic", node, f"commit {state.log.commit} after {shadow.commit}")
        before = shadow.commits[-1][0] if shadow.commits else shadow.commit
        if state.log.commit > before:
            shadow.commits.append((state.log.commit, state.trail.since(max(before + 1, state.log.boundary.index))))
        if state.role is Role.LEADER and self._leaders.get(state.term) != node.id:
            self._new_leader(node)

    def ticked(self, node: "SimulatedNode") -> None:
        """Time has passed at a node."""
        state = node.core.state if node.core is not None else None
        if state is None or state.role is not Role.LEADER:
            return
        since = state.tick_count - state.config.election_ticks
        heard = {node.id, *(peer for peer, progress in state.progress.items() if progress.contact_tick >= since)}
        halves = [set(half) for half in (state.configuration.voter_ids, state.configuration.outgoing_ids) if half]
        if any(2 * len(half & heard) <= len(half) for half in halves):
            self._fail("check-quorum", node, f"leads term {state.term} and has heard of {sorted(heard)} only for an election timeout")

    def taken(self, node: "SimulatedNode", ready: Ready) -> None:
        """A Ready was taken and nothing has been done with it yet."""
        shadow = self._shadows[node.id]
        if node.core is not None:
            node.core.check_invariants()
        if ready.hard_state is not None:
            self._check_hard_state(node, shadow, ready.hard_state)
        if ready.snapshot is not None:
            self._check_boundary(node, ready.snapshot)
            shadow.boundary, shadow.entries = ready.snapshot, []
        last = shadow.last_index
        if ready.entries:
            self._check_entries(node, shadow, ready.entries)
            if ready.entries[0].index <= last:
                self._check_configuration(node, shadow)
        led = shadow.led
        self._check_role(node, shadow)
        self._check_commit(node, shadow, led)
        if any(entry.kind is EntryKind.CONFIGURATION for entry in ready.entries):
            self._check_changes(node, shadow)
        for entry in ready.committed:
            if entry.index > shadow.commit or node.disk.term_at(entry.index) != entry.term:
                self._fail("apply", node, f"entry {entry.index}/{entry.term} to be applied; commit {shadow.commit}, durable {node.disk.last_index}")

    # -- elections ------------------------------------------------------------------------------------------------------------------------

    def _new_leader(self, node: "SimulatedNode") -> None:
        if node.core is None:
            return
        term = node.core.state.term
        other = self._leaders.setdefault(term, node.id)
        if other != node.id:
            self._fail("election safety", node, f"leads term {term}, and so does {other}")
        durable = node.disk.hard_state
        if durable.term != term or durable.vote != node.id:
            self._fail("election safety", node, f"leads term {term}; on its disk are term {durable.term} and a vote for {durable.vote}")
        voters = [node.id, *(voter for voter in self._world.nodes if self._votes.get((voter, term)) == node.id)]
        configuration = node.core.state.configuration
        if not is_quorum(configuration.voter_ids, configuration.outgoing_ids, voters):
            self._fail("election safety", node, f"leads term {term}; only {voters} have voted for it")

    def _check_role(self, node: "SimulatedNode", shadow: Shadow) -> None:
        state = node.core.state if node.core is not None else None
        if state is None or state.role is not Role.LEADER:
            shadow.led = 0
        elif shadow.led == state.term:
            self._check_matches(node, shadow)
        else:
            shadow.led, shadow.matches = state.term, {}
            for term, index in self._committed_until.items():
                if term < state.term and not self._complete(shadow, index):
                    self._fail("leader completeness", node, f"leads term {state.term} without entry {index}, which term {term} committed")

    def _check_matches(self, node: "SimulatedNode", shadow: Shadow) -> None:
        """What a leader believes of a follower must be on that follower's disk, unless a later term has overwritten it."""
        tracked = node.core.state.progress if node.core is not None else {}
        for removed in shadow.matches.keys() - tracked.keys():
            del shadow.matches[removed]
        for peer, progress in tracked.items():
            match, disk = progress.match, self._world.nodes[peer].disk
            if match == shadow.matches.get(peer, 0):
                continue
            if match < shadow.matches.get(peer, 0):
                self._fail("match", node, f"match of {peer} goes back from {shadow.matches[peer]} to {match}")
            shadow.matches[peer] = match
            if match > self._promised.get((peer, shadow.led), 0):
                self._fail("match", node, f"leads term {shadow.led} and believes that {peer} holds {match}, which it has not said in this term")
            comparable = match > max(shadow.boundary.index, disk.boundary.index)
            held = not comparable or disk.term_at(match) == shadow.term_at(match)
            if disk.hard_state.term < shadow.led or (disk.hard_state.term == shadow.led and not held):
                self._fail("match", node, f"leads term {shadow.led} and believes that {peer} holds {match}, which is not on its disk")

    def _complete(self, shadow: Shadow, index: int) -> bool:
        return index < shadow.boundary.index or shadow.term_at(index) == self.committed[index].term

    def _check_hard_state(self, node: "SimulatedNode", shadow: Shadow, new: HardState) -> None:
        old = shadow.hard_state
        if new.term < old.term or (new.term == old.term and old.vote is not None and new.vote != old.vote):
            self._fail("monotonic", node, f"{new} after {old}")
        shadow.hard_state = new

    # -- the log --------------------------------------------------------------------------------------------------------------------------

    def _check_entries(self, node: "SimulatedNode", shadow: Shadow, entries: tuple[Entry, ...]) -> None:
        first = entries[0].index
        if first > shadow.last_index + 1 or first <= shadow.boundary.index:
            self._fail("log matching", node, f"entries from {first} do not fit a log from {shadow.boundary.index} to {shadow.last_index}")
        if first <= shadow.last_index:
            if first <= shadow.commit:
                self._fail("truncation", node, f"replaces entries from {first} on; commit is {shadow.commit}")
            if shadow.led and node.core is not None and node.core.state.role is Role.LEADER and node.core.state.term == shadow.led:
                self._fail("append-only", node, f"leads term {shadow.led} and replaces its entries from {first} on")
            markers.truncated(self._world.counts, shadow.entries[first - shadow.boundary.index - 1 :])
        del shadow.entries[first - shadow.boundary.index - 1 :]
        before = shadow.entries[-1].term if shadow.entries else shadow.boundary.term
        for entry in entries:
            content = (before, entry.kind, entry.data)
            known = self._contents.setdefault((entry.index, entry.term), content)
            if known != content or entry.term < before:
                self._fail("log matching", node, f"entry {entry.index}/{entry.term} is {content}; elsewhere it is {known}")
            before = entry.term
        shadow.entries.extend(entries)

    def _check_configuration(self, node: "SimulatedNode", shadow: Shadow) -> None:
        """A log was truncated: the configurations that went with its tail must be in force no more."""
        index = next((entry.index for entry in reversed(shadow.entries) if entry.kind is EntryKind.CONFIGURATION), shadow.boundary.index)
        if node.core is not None and node.core.state.trail.current_index != index:
            self._fail("configuration", node, f"goes by the one at {node.core.state.trail.current_index}; the last in its log is at {index}")

    def _check_changes(self, node: "SimulatedNode", shadow: Shadow) -> None:
        """A configuration was appended."""
        offset = max(len(self.committed) - shadow.boundary.index - 1, 0)
        pending = [entry for entry in shadow.entries[offset:] if entry.kind is EntryKind.CONFIGURATION]
        if len(pending) > 1:
            self._fail("one change", node, f"appends a change at {pending[-1].index}; the one at {pending[0].index} is committed nowhere")
        first_of_term = bool(pending) and shadow.term_at(pending[-1].index - 1) != pending[-1].term
        if shadow.led and pending and pending[-1].term == shadow.led and shadow.led not in self._committed_until and not first_of_term:
            self._fail("one change", node, f"appends a change at {pending[-1].index} before anything of term {shadow.led} is committed")

    def _check_commit(self, node: "SimulatedNode", shadow: Shadow, led: int) -> None:
        state = node.core.state if node.core is not None else None
        if state is None or state.log.commit == shadow.commit:
            return
        commit = state.log.commit
        if commit > shadow.last_index:
            self._fail("commit", node, f"commit {commit} beyond the last index {shadow.last_index}")
        if led == shadow.led != 0 and shadow.term_at(commit) != led:
            self._fail("commit rule", node, f"leads term {led} and commits up to {commit}, an entry of term {shadow.term_at(commit)}")
        for index in range(max(shadow.commit, shadow.boundary.index) + 1, commit + 1):
            entry = shadow.entries[index - shadow.boundary.index - 1]
            if index >= len(self.committed):
                self._newly_committed(node, entry, state.term)
            elif self.committed[index].term != entry.term:
                self._fail("commit", node, f"commits {index}/{entry.term}; committed before was {index}/{self.committed[index].term}")
        shadow.commit = commit
        shadow.commits.clear()

    def _newly_committed(self, node: "SimulatedNode", entry: Entry, term: int) -> None:
        self._check_quorum(node, entry)
        if entry.kind is EntryKind.COMMAND:
            if entry.data in self._rejected:
                self._fail("outcome", node, f"commits {entry.data!r} at {entry.index}, which had been rejected")
            if self._placed.setdefault(entry.data, entry.index) != entry.index:
                self._fail("outcome", node, f"commits {entry.data!r} at {entry.index} and at {self._placed[entry.data]}")
        if entry.term < term:
            self._world.counts["earlier term's entries committed with a later one"] += 1
        self.committed.append(entry)
        self.states.append(self.states[-1].after(entry))
        self._committed_until[term] = entry.index
        for shadow in self._shadows.values():
            if shadow.led > term and not self._complete(shadow, entry.index):
                self._fail("leader completeness", node, f"commits {entry.index}/{entry.term} in term {term}; the leader of {shadow.led} lacks it")

    def _check_quorum(self, node: "SimulatedNode", entry: Entry) -> None:
        """A change may have followed in the same step, so any configuration since the entry was appended will do."""
        holders = [other.id for other in self._world.nodes.values() if other.disk.holds(entry.index, entry.term)]
        configurations = next(those for commit, those in self._shadows[node.id].commits if commit >= entry.index)
        if not any(is_quorum(one.voter_ids, one.outgoing_ids, holders) for one in configurations):
            self._fail("durable quorum", node, f"commits {entry.index}/{entry.term}, which only {holders} hold durably")
        if entry.kind is EntryKind.CONFIGURATION:
            configuration = decode_configuration(entry.data)
            self._configurations.append((entry.index, configuration))
            self._world.counts["joint changes committed" if configuration.is_joint else "changes committed"] += 1

    # -- durability -----------------------------------------------------------------------------------------------------------------------

    def sent(self, node: "SimulatedNode", message: Message) -> None:
        """A message leaves a node; whatever it promises must survive a crash now."""
        disk = node.disk
        if type(message) is VoteResponse and message.granted:
            if self._votes.setdefault((node.id, message.term), message.to) != message.to:
                self._fail("vote", node, f"votes for {message.to} in term {message.term}, and did for {self._votes[node.id, message.term]}")
            durable = disk.hard_state
            if durable.term < message.term or (durable.term == message.term and durable.vote != message.to):
                self._fail("durability", node, f"{message} leaves; on disk is {durable}")
        elif type(message) is AppendAccepted:
            if disk.hard_state.term < message.term and message.match_index > 0:
                self._fail("durability", node, f"{message} leaves; on disk is {disk.hard_state}")
            if disk.hard_state.term == message.term:
                self._check_promise(node, message)
            promise = (node.id, message.term)
            if message.match_index > self._promised.get(promise, 0):
                self._promised[promise] = message.match_index

    def _check_promise(self, node: "SimulatedNode", message: AppendAccepted) -> None:
        index, disk = message.match_index, node.disk
        if index > disk.last_index:
            self._fail("durability", node, f"{message} leaves; the log on disk ends at {disk.last_index}")
        leader = self._shadows.get(message.to)
        if leader is not None and leader.led == message.term and index > max(leader.boundary.index, disk.boundary.index):
            wanted, held = leader.term_at(index), disk.term_at(index)
            if wanted != held:
                self._fail("durability", node, f"{message} leaves; the entry on disk is of term {held}, the leader's of {wanted}")

    # -- applying and snapshots -----------------------------------------------------------------------------------------------------------

    def applying(self, node: "SimulatedNode", entry: Entry) -> None:
        """An entry is about to be applied."""
        shadow = self._shadows[node.id]
        if entry.index != shadow.applied + 1:
            self._fail("apply", node, f"applies {entry.index} after {shadow.applied}")
        if entry != self.committed[entry.index]:
            self._fail("state machine safety", node, f"applies {entry}; committed is {self.committed[entry.index]}")
        shadow.applied = entry.index

    def applied(self, node: "SimulatedNode") -> None:
        """An entry has been applied."""
        state = node.machine.state
        if state != self.states[state.applied]:
            self._fail("state machine safety", node, f"is in {state}; right is {self.states[state.applied]}")

    def restored(self, node: "SimulatedNode") -> None:
        """A snapshot was installed."""
        shadow, state = self._shadows[node.id], node.machine.state
        if state.applied < shadow.applied or state.applied != shadow.boundary.index:
            self._fail("snapshot", node, f"installs state {state.applied} over {shadow.applied} for the boundary {shadow.boundary.index}")
        shadow.applied = state.applied
        self.applied(node)

    def compacted(self, node: "SimulatedNode", boundary: Boundary) -> None:
        """A log was cut."""
        shadow = self._shadows[node.id]
        if boundary.index > node.disk.state.applied:
            self._fail("snapshot", node, f"cuts its log at {boundary.index}; its durable state is of {node.disk.state.applied}")
        self._check_boundary(node, boundary)
        del shadow.entries[: boundary.index - shadow.boundary.index]
        shadow.boundary = boundary

    def _check_boundary(self, node: "SimulatedNode", boundary: Boundary) -> None:
        if boundary.index >= len(self.committed) or self.committed[boundary.index].term != boundary.term:
            self._fail("snapshot", node, f"a log that begins after {boundary.index}/{boundary.term}, which was not committed")
        right = next(configuration for index, configuration in reversed(self._configurations) if index <= boundary.index)
        if boundary.configuration != right:
            self._fail("snapshot", node, f"a label for {boundary.index} with {boundary.configuration}; committed there is {right}")

    # -- clients --------------------------------------------------------------------------------------------------------------------------

    def acknowledged(self, command: bytes, index: int) -> None:
        """A client was told that its command took effect at ``index``."""
        if index >= len(self.committed) or self.committed[index].data != command:
            raise Violation("outcome", f"{command!r} was acknowledged at {index}, where it was not committed")
        self.floor = max(self.floor, index)

    def rejected(self, command: bytes) -> None:
        """A client was told that its command will never take effect."""
        if command in self._placed:
            raise Violation("outcome", f"{command!r} was rejected, but it is committed at {self._placed[command]}")
        self._rejected.add(command)

    def read_confirmed(self, node: "SimulatedNode", context: int, index: int) -> None:
        """The core says that a read may be served at ``index``."""
        floor = self._world.clients.read_floor(context)
        if floor is not None and index < floor:
            self._fail("linearizability", node, f"read {context} is confirmed at {index}; {floor} had been seen before it began")

    # -- the end --------------------------------------------------------------------------------------------------------------------------

    def finish(self, node: "SimulatedNode") -> None:
        """The whole log, once: what the core holds is what it said and what the disk has."""
        shadow, core = self._shadows[node.id], node.core
        if core is None:
            return
        log = core.state.log
        held = log.entries_from(log.first_index, 1 << 62)
        if list(held) != shadow.entries or log.boundary != shadow.boundary:
            self._fail("log matching", node, "the core's log is not what its Ready values said")
        if node.disk.idle and (node.disk.entries != shadow.entries or node.disk.boundary != shadow.boundary):
            self._fail("durability", node, "the log on disk is not what the Ready values said")

    def _fail(self, rule: str, node: "SimulatedNode", detail: str) -> NoReturn:
        raise Violation(rule, f"{node.id} {detail}")
