"""The space that the explorer searches: its states, and the steps that lead from one to the next.

A state is three nodes, what is under way between them, what has happened (:class:`~raft.testing.explore_rules.History`) and what may still happen
(:class:`Bounds`). All of these are interned: a state is a tuple of small numbers, and its fingerprint the exclusive or of those of its parts.

The core is deterministic, so a step of one node depends on nothing but that node and the input. Each is therefore carried out once, on a thawed copy
of the node, by the real core, and remembered. Most steps of a search are thus two look-ups, for the same few thousand nodes meet in ever new company.

**The network** is a set: whatever is under way may arrive next, or never. So loss and reordering need no step of their own. ``drop`` is a loss that
the transport notices and reports to the sender; ``duplicate`` delivers a message and leaves it under way. A message that is sent again while its like
is under way counts once. No symmetry between the nodes is used.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from raft.core.membership import AddLearner, AddVoter, Change, Demote, JointChange, Remove
from raft.core.model import Boundary, Configuration, NodeId
from raft.core.roles import Role
from raft.core.state import State as CoreState
from raft.errors import InvariantViolation
from raft.testing.cluster import member
from raft.testing.explore_freeze import Freezer, fingerprint
from raft.testing.explore_rules import Facts, History, check_durable_quorum, check_history, check_pair, check_step, recorded
from raft.testing.explore_site import CONFIG, Input, Packet, Site, facts, fresh, jitter
from raft.testing.trace import Violation

NODES: tuple[NodeId, ...] = ("a", "b", "c")


class Bounds(NamedTuple):
    """What may happen at most, in one run from a start.

    :param terms: the last term that somebody campaigns for.
    :param commands: proposals.
    :param drops: losses that the transport reports.
    :param slow: nodes whose disk becomes slow.
    :param heartbeats: heartbeats of leaders, counted together.
    """

    terms: int = 3
    commands: int = 3
    crashes: int = 1
    drops: int = 1
    duplicates: int = 1
    slow: int = 1
    heartbeats: int = 2
    compactions: int = 0
    changes: int = 0


TO_A_START = Bounds(commands=1, crashes=0, drops=0, duplicates=0, slow=0, heartbeats=1, compactions=1)


class Step(NamedTuple):
    """What became of an input at one node.

    :param site: the node afterwards.
    :param sent: what left it.
    :param led: whether it became leader.
    :param commit: its commit index.
    :param violation: the rule that it broke, if it did; the rest says nothing then.
    """

    site: int
    sent: tuple[int, ...] = ()
    led: bool = False
    commit: int = 0
    violation: Violation | None = None


class State(NamedTuple):
    """One state, by the numbers under which its parts are known.

    :param left: what the bounds still allow.
    :param net: what is under way, in ascending order.
    """

    left: int
    history: int
    sites: tuple[int, ...]
    net: tuple[int, ...]


class Move(NamedTuple):
    """Something that may happen in a state.

    :param name: ``deliver``, ``drop`` and ``duplicate`` for what is under way; otherwise the kind of the input.
    :param input: the number of what is under way, or of the input.
    :param position: the node that takes it.
    :param taken: the number of the input that this node takes.
    :param net: what is under way afterwards, before the node answers.
    :param left: what the bounds still allow afterwards.
    """

    name: str
    input: int
    position: int
    taken: int
    net: tuple[int, ...]
    left: int


class Broken(Exception):
    """A move that breaks a rule.

    :param move: the move.
    :param violation: the rule.
    """

    def __init__(self, move: Move, violation: Violation) -> None:
        super().__init__(str(violation))
        self.move = move
        self.violation = violation


COSTS = {
    "propose": "commands",
    "crash": "crashes",
    "drop": "drops",
    "duplicate": "duplicates",
    "slacken": "slow",
    "heartbeat": "heartbeats",
    "compact": "compactions",
    "change": "changes",
}
"""Which bound a move uses up; what is not listed may always happen."""


class Space:
    """See the module's text.

    :param bounds: what may happen from a start on.
    :param genesis: the members before the first entry.
    """

    def __init__(self, bounds: Bounds, genesis: Configuration) -> None:
        self.bounds = bounds
        self.genesis = genesis
        self._freezer = Freezer({CoreState: {"config": CONFIG, "_jitter": jitter}})
        self._inputs: dict[Input, int] = {}
        self.inputs: list[Input] = []
        self._packet_prints: list[int] = []
        self._senders: list[int] = []
        self._targets: list[int] = []
        self._lost: list[int] = []
        self._sites: dict[int, int] = {}
        self._frozen: list[object] = []
        self._site_prints: list[int] = []
        self._site_facts: list[Facts] = []
        self._views: dict[Facts, int] = {}
        self._site_views: list[int] = []
        self._disks: dict[object, int] = {}
        self._site_disks: list[int] = []
        self._own_moves: list[tuple[tuple[str, int], ...]] = []
        self._steps: dict[int, Step] = {}
        self._histories: dict[History, int] = {}
        self._history_list: list[History] = []
        self._history_prints: list[int] = []
        self._committed: list[int] = []
        self._lefts: dict[tuple[int, ...], int] = {}
        self._left_prints: list[int] = []
        self._spent: list[dict[str, int]] = []
        self._fine: set[tuple[int, ...]] = set()
        self.tried: Counter[str] = Counter()
        """How many moves of each kind were tried."""

    # -- interning ------------------------------------------------------------------------------------------------------------------------

    def initial(self) -> State:
        """Three nodes that have never run, with what the way to a start needs, whatever the bounds."""
        sites = tuple(self._site(fresh(node, self.initial_boundary())) for node in NODES)
        return State(self._left(TO_A_START), self._history(History()), sites, ())

    def initial_boundary(self) -> Boundary:
        """What precedes the first entry."""
        return Boundary(configuration=self.genesis)

    def refreshed(self, state: State) -> State:
        """The same state with nothing under way and all bounds unused: a start."""
        return State(self._left(tuple(self.bounds)), state.history, state.sites, ())

    def site(self, state: State, position: int) -> Facts:
        """One node of a state."""
        return self._site_facts[state.sites[position]]

    def _site(self, site: Site) -> int:
        frozen = self._freezer.freeze(site)
        print_ = self._freezer.fingerprint(frozen)
        number = self._sites.get(print_)
        if number is None:
            number = self._sites[print_] = len(self._frozen)
            self._frozen.append(frozen)
            self._site_prints.append(print_)
            seen = facts(site)
            self._site_facts.append(seen)
            self._site_views.append(self._views.setdefault(seen, len(self._views)))
            self._site_disks.append(self._disks.setdefault((seen.node, seen.disk_boundary, seen.disk_entries), len(self._disks)))
            self._own_moves.append(tuple((what.kind, self._input(what)) for what in own_inputs(site, self.bounds)))
        return number

    def _input(self, what: Input) -> int:
        number = self._inputs.get(what)
        if number is None:
            number = self._inputs[what] = len(self.inputs)
            self.inputs.append(what)
            self._packet_prints.append(fingerprint(what))
            self._targets.append(NODES.index(what.node))
            self._senders.append(-1)
            self._lost.append(-1)
            if isinstance(what.detail, Packet) and what.kind == "deliver":
                self._senders[number] = NODES.index(what.detail.sender)
                self._lost[number] = self._input(Input("lose", what.detail.sender, what.detail))
        return number

    def _history(self, history: History) -> int:
        number = self._histories.get(history)
        if number is None:
            number = self._histories[history] = len(self._history_list)
            self._history_list.append(history)
            self._committed.append(len(history.committed))
            self._history_prints.append(fingerprint(history))
        return number

    def _left(self, left: tuple[int, ...]) -> int:
        number = self._lefts.get(left)
        if number is None:
            number = self._lefts[left] = len(self._left_prints)
            self._left_prints.append(fingerprint(("left", left)))
            self._spent.append({})
            for move, bound in COSTS.items():
                position = Bounds._fields.index(bound)
                if left[position]:
                    self._spent[number][move] = self._left((*left[:position], left[position] - 1, *left[position + 1 :]))
        return number

    # -- moving ---------------------------------------------------------------------------------------------------------------------------

    def moves(self, state: State) -> Iterator[Move]:
        """Everything that may happen."""
        left, _, sites, net = state
        spent = self._spent[left]
        dropped, doubled = spent.get("drop"), spent.get("duplicate")
        for index, packet in enumerate(net):
            rest = net[:index] + net[index + 1 :]
            target = self._targets[packet]
            yield Move("deliver", packet, target, packet, rest, left)
            if dropped is not None:
                yield Move("drop", packet, self._senders[packet], self._lost[packet], rest, dropped)
            if doubled is not None:
                yield Move("duplicate", packet, target, packet, net, doubled)
        for position, site in enumerate(sites):
            for name, what in self._own_moves[site]:
                if name not in COSTS:
                    yield Move(name, what, position, what, net, left)
                elif name in spent:
                    yield Move(name, what, position, what, net, spent[name])

    def follow(self, state: State, print_: int, move: Move, is_new: Callable[[int], bool]) -> tuple[int, State] | None:
        """Make a move.

        :param print_: the fingerprint of the state.
        :param is_new: told the fingerprint of the next state; says whether it is worth a look.
        :returns: the next state and its fingerprint; None when it is no news.
        :raises Broken: when it breaks a rule.
        """
        left, history, sites, net = state
        name, what, position, taken, rest, left_after = move
        self.tried[name] += 1
        before = sites[position]
        step = self._steps.get(before << 32 | taken) or self._carry_out(before, taken)
        if step.violation is not None:
            raise Broken(move, step.violation)
        prints = self._packet_prints
        after, history_after = step.site, history
        print_ ^= self._site_prints[before] ^ self._site_prints[after]
        if left_after != left:
            print_ ^= self._left_prints[left] ^ self._left_prints[left_after]
        if len(rest) < len(net):
            print_ ^= prints[what]
        sent = [packet for packet in step.sent if packet not in rest]
        for packet in sent:
            print_ ^= prints[packet]
        try:
            if step.led or step.commit > self._committed[history]:
                history_after = self._history(recorded(self._history_list[history], self._site_facts[after], led=step.led))
                print_ ^= self._history_prints[history] ^ self._history_prints[history_after]
            if not is_new(print_):
                return None
            next_ = State(
                left_after, history_after, (*sites[:position], after, *sites[position + 1 :]), tuple(sorted((*rest, *sent))) if sent else rest
            )
            self._check(next_)
        except Violation as violation:
            raise Broken(move, violation) from violation
        return print_, next_

    def fingerprint(self, state: State) -> int:
        """Eight bytes that name a state, in this process and in any other."""
        print_ = self._left_prints[state.left] ^ self._history_prints[state.history]
        for site in state.sites:
            print_ ^= self._site_prints[site]
        for packet in state.net:
            print_ ^= self._packet_prints[packet]
        return print_

    def ends(self, packet: int) -> frozenset[NodeId]:
        """Who has sent what is under way, and to whom."""
        return frozenset((NODES[self._senders[packet]], NODES[self._targets[packet]]))

    def text(self, move: Move) -> str:
        """A move for people; no two moves of a state have the same text."""
        what = self.inputs[move.input]
        return f"{NODES[move.position]} {move.name}" + ("" if what.detail is None else f" {what.detail}")

    def _carry_out(self, before: int, taken: int) -> Step:
        site: Site = self._freezer.thaw(self._frozen[before])
        what, known = self.inputs[taken], self._site_facts[before]
        try:
            sent = site.take(what)
            after = self._site(site)
            check_step(known, self._site_facts[after], restarted=what.kind == "crash")
        except (Violation, InvariantViolation) as error:
            violation = error if isinstance(error, Violation) else Violation("invariant", str(error))
            step = Step(before, violation=violation)
        else:
            seen = self._site_facts[after]
            led = seen.leads and not (known.leads and known.term == seen.term)
            packets = tuple(dict.fromkeys(self._input(Input("deliver", packet.to, packet)) for packet in sent))
            step = Step(after, packets, led, seen.commit)
        self._steps[before << 32 | taken] = step
        return step

    def _check(self, state: State) -> None:
        """Check what holds between nodes and over all time, as far as the like was not checked before."""
        fine, views, history = self._fine, self._site_views, state.history
        first, second, third = state.sites
        for one, other in ((first, second), (first, third), (second, third)):
            if (pair := (views[one], views[other])) not in fine:
                check_pair(self._site_facts[one], self._site_facts[other])
                fine.add(pair)
        for site in state.sites:
            if (past := (views[site], history, -1)) not in fine:
                check_history(self._site_facts[site], self._history_list[history], self.genesis)
                fine.add(past)
        disks = (self._site_disks[first], self._site_disks[second], self._site_disks[third], history)
        if disks not in fine:
            check_durable_quorum([self._site_facts[site] for site in state.sites], self._history_list[history])
            fine.add(disks)


def own_inputs(site: Site, bounds: Bounds) -> Iterator[Input]:
    """What may happen to a node of its own accord, or by its clients and operators."""
    state, node = site.node.state, site.node.node_id
    if state.role is not Role.LEADER and state.may_campaign and state.term < bounds.terms:
        yield Input("timeout", node)
    if state.role is not Role.LEADER and state.is_silent:
        yield Input("release", node)
    yield Input("crash", node)
    if site.slow:
        yield from (Input(kind, node) for kind in ("turn", "persist", "apply"))
    else:
        yield Input("slacken", node)
    if state.log.applied > state.log.boundary.index and not site.unwritten and state.installing is None:
        yield Input("compact", node)
    if state.role is Role.LEADER:
        yield from (Input(kind, node) for kind in ("heartbeat", "isolate", "propose"))
        if bounds.changes:
            yield from (Input("change", node, change) for change in changes(state.configuration))


def changes(configuration: Configuration) -> Iterator[Change]:
    """Every single step, and the joint changes that replace, swap or remove two members."""
    voters, learners = configuration.voters, configuration.learners
    for node in NODES:
        if node not in configuration:
            yield AddLearner(member(node))
            yield AddLearner(member(node), promote=True)
        else:
            yield Remove(node)
    for one in learners:
        yield AddVoter(one)
        for voter in voters:
            yield JointChange((AddVoter(one), Remove(voter.id)))
            yield JointChange((AddVoter(one), Demote(voter.id)))
    for voter in voters:
        yield Demote(voter.id)
    if len(voters) == len(NODES):
        yield from (JointChange(tuple(Remove(voter.id) for voter in voters if voter is not kept)) for kept in voters)
