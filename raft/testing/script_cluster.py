"""A :class:`~raft.testing.cluster.Cluster` that tells what happens in it, line by line, and takes its orders as text.

Each public method of :class:`Commands` is a command of the scripts; its docstring is what ``python -m raft.testing.scripts --help`` prints.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from inspect import cleandoc, signature

from raft.config import SETTINGS, RaftConfig
from raft.core import messages
from raft.core.membership import AddLearner, AddVoter, Change, Demote, JointChange, LeaveJoint, Remove, Step
from raft.core.messages import Message
from raft.core.model import Entry, HardState, NodeId
from raft.errors import Rejected
from raft.testing.cluster import QUICK, Cluster, entries, member
from raft.testing.wording import entries_text, log_line, message_line, observation_text, progress_line, status_line


class ScriptError(Exception):
    """A command that can't be understood, or that does not fit the present state; the text says why."""


class ToldCluster(Cluster):
    """See the module's text.

    :ivar tell: gets each line.
    :ivar hidden: names of messages that are not told.
    """

    def __init__(
        self,
        ids: Iterable[NodeId],
        *,
        learners: Iterable[NodeId],
        config: RaftConfig,
        logs: dict[NodeId, tuple[Sequence[Entry], HardState]],
        tell: Callable[[str], object],
    ) -> None:
        self.tell = tell
        self._observed: dict[NodeId, int] = {}
        self._told: dict[NodeId, int] = {}
        self._answered: set[int] = set()
        self.hidden: set[str] = set()
        voters, learners = tuple(ids), tuple(learners)
        super().__init__((*voters, *learners), voters=voters, learners=learners, config=config, logs=logs)

    def restart(self, node: NodeId) -> None:
        """Start a server from its disk."""
        super().restart(node)
        self._told[node] = self.servers[node].applied[-1].index if self.servers[node].applied else 0

    def persist(self, node: NodeId) -> None:
        """Write the oldest waiting Ready; tell of a snapshot that takes its place."""
        snapshot = self.servers[node].unwritten[0].snapshot
        if snapshot is not None:
            self.tell(f"{node}: takes over the state at {snapshot.index}/{snapshot.term}")
            self._told[node] = snapshot.index
        super().persist(node)

    def hand_over(self, message: Message) -> None:
        """Hand a message over, and tell it; one that does not arrive is told as lost."""
        target = self.servers.get(message.to)
        lost = target is None or target.node is None or (message.sender, message.to) in self._cut
        if type(message).__name__ not in self.hidden:
            self.tell(message_line(message) + (" (lost)" if lost else ""))
        super().hand_over(message)

    def request_change(self, node: NodeId, change: Change) -> None:
        """Ask for a change of the membership; unlike :meth:`change` it lets nothing happen yet."""
        self._context += 1
        self[node].change(change, self._context)

    def check(self) -> None:
        """Check the invariants, and tell what is new."""
        super().check()
        self.tell_news()

    def tell_news(self) -> None:
        """Tell what the nodes have noticed, applied and answered since."""
        for node, server in self.servers.items():
            for observation in server.observations[self._observed.get(node, 0) :]:
                text = observation_text(observation)
                if text:
                    self.tell(f"{node}: {text}")
            self._observed[node] = len(server.observations)
            applied = [item for item in server.applied if item.index > self._told.get(node, 0)]
            if applied:
                self._told[node] = applied[-1].index
                self.tell(f"{node}: applies {entries_text(applied)}")
            for context, index in server.reads.items():
                if context not in self._answered:
                    self._answered.add(context)
                    self.tell(f"{node}: read {context} may be served at {index}" if index else f"{node}: read {context} is refused")


class Commands:
    """The commands of a script, each with its words. After each everything happens that can happen, unless the script moves by hand.

    :param tell: gets each line of an answer.
    """

    def __init__(self, tell: Callable[[str], object]) -> None:
        self._listener = tell
        self._quiet = False
        self._cluster: ToldCluster | None = None
        self._disks: dict[NodeId, tuple[Sequence[Entry], HardState]] = {}
        self._by_hand = False

    @property
    def _it(self) -> ToldCluster:
        if self._cluster is None:
            raise ScriptError("there is no cluster yet; begin with: cluster a b c")
        return self._cluster

    def __call__(self, line: str) -> None:
        """Carry out one command. A refusal is an answer like others; after ``quietly`` a command has none.

        :raises ScriptError: when the command is none, or can't be carried out.
        """
        words = line.split()
        self._quiet = words[:1] == ["quietly"]
        name, *words = words[self._quiet :] or [""]
        if name not in NAMES:
            raise ScriptError(f"no such command; there are {', '.join(NAMES)}")
        command = getattr(self, name.replace("-", "_"))
        try:
            signature(command).bind(*words)
        except TypeError as error:
            raise ScriptError(f"{error}; it goes like this: {cleandoc(command.__doc__)}") from error
        try:
            command(*words)
        except Rejected as error:
            self._tell(f"refused, {type(error).__name__}: {error}")
        except KeyError as error:
            raise ScriptError(f"there is no server {error.args[0]}") from error
        if self._cluster is not None:
            if not self._by_hand:
                self._cluster.settle()
            self._cluster.tell_news()

    def _tell(self, line: str) -> None:
        if not self._quiet:
            self._listener(line)

    # The beginning

    def disk(self, node: NodeId, *words: str) -> None:
        """``disk NODE TERM... [term=T] [vote=N] [commit=I]``: before the cluster starts, put entries of these terms on a disk."""
        terms, options = _options(words, "term", "vote", "commit")
        found = entries(*map(_number, terms))
        last = found[-1].term if found else 0
        hard_state = HardState(_number(options.get("term", str(last))), options.get("vote"), _number(options.get("commit", "0")))
        self._disks[node] = (found, hard_state)

    def cluster(self, *words: str) -> None:
        """``cluster NODE... [learners=N,N] [SETTING=NUMBER]``: start a cluster of these voters, with an election timeout of ten ticks."""
        ids, options = _options(words, "learners", *(setting.name for setting in SETTINGS))
        learners = _names(options.pop("learners", ""))
        config = replace(QUICK, **{name: _number(value) for name, value in options.items()})
        self._cluster = ToldCluster(ids, learners=learners, config=config, logs=self._disks, tell=self._tell)

    def start(self, node: NodeId) -> None:
        """``start NODE``: start a server that belongs to no configuration yet."""
        self._it.add_server(node)

    def hide(self, *names: str) -> None:
        """``hide MESSAGE...``: do not show messages of these kinds."""
        self._it.hidden.update(map(_message_name, names))

    def show(self, *names: str) -> None:
        """``show MESSAGE...``: show them again."""
        self._it.hidden.difference_update(map(_message_name, names))

    # Time

    def elect(self, node: NodeId, *words: str) -> None:
        """``elect NODE [frozen=N,N]``: let time pass until it leads; the clocks of the frozen ones stand still."""
        _, options = _options(words, "frozen")
        self._it.elect(node, frozen=_names(options.get("frozen", "")))

    def tick(self, node: NodeId, count: str = "1") -> None:
        """``tick NODE|all [COUNT]``: let time pass; by hand, nothing it leads to leaves the node yet."""
        nodes = () if node == "all" else (node,)
        if self._by_hand:
            for each in nodes or tuple(self._it.servers):
                self._it.tick(each, _number(count))
        else:
            self._it.run(_number(count), *nodes)

    def by_hand(self) -> None:
        """``by-hand``: from here on nothing happens by itself; see deliver and settle."""
        self._by_hand = True

    def deliver(self, count: str = "1") -> None:
        """``deliver [COUNT]``: let the nodes work and hand over messages in turn, in the order in which they were sent; 0: work only."""
        for left in range(_number(count), -1, -1):
            for node, server in self._it.servers.items():
                if server.node is not None:
                    self._it.pump(node)
            if left and not self._it.wire:
                raise ScriptError(f"there are {left} messages too few under way")
            if left:
                self._it.deliver()

    def settle(self) -> None:
        """``settle``: let everything happen, and go on so after each command."""
        self._by_hand = False

    # What callers ask for

    def propose(self, node: NodeId, *commands: str) -> None:
        """``propose NODE COMMAND...``: propose a batch."""
        self._it.propose(node, *(command.encode() for command in commands))

    def read(self, node: NodeId) -> None:
        """``read NODE``: ask for a linearizable read."""
        self._tell(f"{node}: read {self._it.read(node)} is asked for")

    def change(self, node: NodeId, *words: str) -> None:
        """``change NODE STEP, or change NODE joint STEP, STEP [stay]``: change the membership.

        A step is ``add-learner N [promote] [replaces=N]``, ``add-voter N``, ``demote N`` or ``remove N``.
        """
        self._it.request_change(node, _change(words))

    def leave(self, node: NodeId) -> None:
        """``leave NODE``: leave a joint change."""
        self._it.request_change(node, LeaveJoint())

    def transfer(self, node: NodeId, target: NodeId) -> None:
        """``transfer NODE TARGET``: hand leadership over."""
        self._it[node].transfer(target)

    # What goes wrong

    def cut(self, node: NodeId, *words: str) -> None:
        """``cut NODE [NODE...] [one-way]``: let nothing through between the first and the others (all by default); one way: nothing from it."""
        others = tuple(word for word in words if word != "one-way")
        self._it.cut(node, *others, one_way="one-way" in words)

    def heal(self) -> None:
        """``heal``: end all cuts."""
        self._it.heal()

    def lose(self, *words: str) -> None:
        """``lose MESSAGE... [from=N] [to=N]``: lose these messages as they are sent; ``lose nothing``: no more."""
        names, options = _options(words, "from", "to")
        wanted = set() if names == ["nothing"] else set(map(_message_name, names))
        sender, to = options.get("from"), options.get("to")
        self._it.drop = lambda message: (
            type(message).__name__ in wanted and message.sender == (sender or message.sender) and message.to == (to or message.to)
        )

    def crash(self, node: NodeId) -> None:
        """``crash NODE``: cut its power."""
        self._it.crash(node)

    def restart(self, node: NodeId) -> None:
        """``restart NODE``: start it from its disk."""
        self._it.restart(node)

    def hold_disk(self, node: NodeId) -> None:
        """``hold-disk NODE``: its writes take for ever."""
        self._it.hold_disk(node)

    def release_disk(self, node: NodeId) -> None:
        """``release-disk NODE``: its writes end."""
        self._it.release_disk(node)

    def compact(self, node: NodeId, index: str) -> None:
        """``compact NODE INDEX``: keep the state at that index and forget the log up to there."""
        self._it.compact(node, _number(index))

    # What can be looked at

    def status(self, *nodes: NodeId) -> None:
        """``status [NODE...]``: role, term, log and configuration."""
        self._look(nodes, lambda node: status_line(self._it[node]))

    def logs(self, *nodes: NodeId) -> None:
        """``logs [NODE...]``: the terms of the entries; those before the bar are known to be committed."""
        self._look(nodes, lambda node: log_line(self._it[node]))

    def progress(self, node: NodeId) -> None:
        """``progress NODE``: how a leader serves the others."""
        for peer in self._it[node].status().peers:
            self._tell(progress_line(peer))

    def _look(self, nodes: tuple[NodeId, ...], line: Callable[[NodeId], str]) -> None:
        for node in nodes or tuple(self._it.servers):
            self._tell(f"{node}: {line(node)}" if self._it.servers[node].node is not None else f"{node}: is down")


NAMES = tuple(name.replace("_", "-") for name in vars(Commands) if not name.startswith("_"))
"""The commands, in the order of the class."""


def _change(words: Sequence[str]) -> Change:
    if words[:1] != ("joint",):
        return _step(words)
    rest = [word for word in words[1:] if word != "stay"]
    steps = tuple(_step(tuple(part.split())) for part in " ".join(rest).split(","))
    return JointChange(steps, leaves_by_itself="stay" not in words)


def _step(words: Sequence[str]) -> Step:
    names, options = _options(words, "replaces")
    match names:
        case ["add-learner", node]:
            return AddLearner(member(node))
        case ["add-learner", node, "promote"]:
            return AddLearner(member(node), promote=True, replaces=options.get("replaces"))
        case ["add-voter", node]:
            return AddVoter(member(node))
        case ["demote", node]:
            return Demote(node)
        case ["remove", node]:
            return Remove(node)
    raise ScriptError(f"no such step: {' '.join(words)}; {Commands.change.__doc__}")


def _options(words: Iterable[str], *known: str) -> tuple[list[str], dict[str, str]]:
    """Tell plain words from ``name=value``."""
    plain = [word for word in words if "=" not in word]
    options = dict(word.split("=", 1) for word in words if "=" in word)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ScriptError(f"no such option: {', '.join(unknown)}; there are {', '.join(known)}")
    return plain, options


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name)


def _number(word: str) -> int:
    if not word.isdecimal():
        raise ScriptError(f"{word} is no number")
    return int(word)


def _message_name(name: str) -> str:
    if not isinstance(getattr(messages, name, None), type):
        raise ScriptError(f"no such message: {name}")
    return name
