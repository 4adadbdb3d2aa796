"""Properties of the core under arbitrary input."""

import copy
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from raft.core import messages as kinds
from raft.core.membership import AddLearner, AddVoter, Demote, Remove, encode_configuration
from raft.core.messages import Message
from raft.core.model import Boundary, Entry, EntryKind
from raft.core.node import RaftNode
from raft.core.progress import Progress
from raft.errors import InvariantViolation, MalformedMessage, RaftError
from raft.testing.cluster import QUICK, Cluster, configuration, member

T = QUICK.election_ticks
IDS = some.sampled_from("abcdx")
NUMBERS = some.integers(0, 6)
DATA = some.one_of(some.binary(max_size=3), some.just(encode_configuration(configuration("abc", "d"))))
LOG_ENTRIES = some.lists(some.builds(Entry, NUMBERS, NUMBERS, some.sampled_from(EntryKind), DATA), max_size=3).map(tuple)
BOUNDARIES = some.builds(Boundary, NUMBERS, NUMBERS, some.just(configuration("abc")))


def dump(value: Any) -> Any:
    """Everything a node knows, as plain values that can be compared."""
    if isinstance(value, Progress):
        return {name: dump(getattr(value, name)) for name in Progress.__slots__}
    if hasattr(value, "__dict__") and type(value).__module__.startswith("raft.core"):
        return {name: dump(item) for name, item in vars(value).items() if not callable(item)}
    if isinstance(value, dict):
        return {key: dump(item) for key, item in value.items()}
    return copy.copy(list(value)) if type(value).__name__ in {"list", "deque"} else value


def build(kind: type[Message], sender: str, to: str, term: int, rest: list[Any]) -> Message | None:
    """A message of these fields, or None when it can't be built."""
    try:
        return kind(sender, to, term, *rest)
    except MalformedMessage:
        return None


FIELDS: dict[str, some.SearchStrategy[Any]] = {
    "entries": LOG_ENTRIES,
    "boundary": BOUNDARIES,
    "commands": some.lists(some.binary(max_size=20), max_size=2).map(tuple),
    "results": some.just(()),
    "granted": some.booleans(),
    "transfer": some.booleans(),
    "error": some.just(""),
    "unknown": some.booleans(),
    "retry": some.booleans(),
}


def messages() -> some.SearchStrategy[Message | None]:
    """Messages of every kind, sensible and not."""
    choices = []
    for kind in Message.__args__:
        names = [name for name in kind.__dataclass_fields__ if name not in {"sender", "to", "term"}]
        rest = some.tuples(*(FIELDS.get(name, NUMBERS) for name in names)).map(list)
        choices.append(some.builds(build, some.just(kind), IDS, some.sampled_from("aaaaaab"), NUMBERS, rest))
    return some.one_of(choices)


CHANGES = some.one_of(
    some.builds(AddLearner, IDS.map(member)), some.builds(AddVoter, IDS.map(member)), some.builds(Demote, IDS), some.builds(Remove, IDS)
)
ACTIONS = some.one_of(
    messages().map(lambda message: ("step", message)),
    some.lists(some.binary(max_size=20), max_size=2).map(lambda commands: ("propose", commands)),
    some.integers(1, 9).map(lambda context: ("read", context)),
    CHANGES.map(lambda change: ("change", change)),
    IDS.map(lambda target: ("transfer", target)),
    some.integers(1, T).map(lambda count: ("tick", count)),
    some.just(("turn", None)),
)


def act(cluster: Cluster, node: RaftNode, action: tuple[str, Any]) -> None:
    """Do one thing to the node."""
    name, argument = action
    calls: dict[str, Callable[[], object]] = {
        "step": lambda: node.step(argument),
        "propose": lambda: node.propose(argument, 1),
        "read": lambda: node.read(argument),
        "change": lambda: node.change(argument, 1),
        "transfer": lambda: node.transfer(argument),
        "tick": lambda: [node.tick() for _ in range(argument)],
        "turn": lambda: cluster.pump("a"),
    }
    calls[name]()


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(leads=some.booleans(), actions=some.lists(ACTIONS, min_size=1, max_size=25))
def test_whatever_raises_has_changed_nothing(leads: bool, actions: list[tuple[str, Any]]) -> None:
    """Any refusal of a message, a proposal, a read, a change or a transfer leaves the whole state equal; and nothing else is ever raised.

    A conflict with committed entries, two leaders of a term and the like can't come from correct peers; the node stops then, loudly.
    """
    cluster = Cluster("abcd", voters="abc", learners="d", config=QUICK)
    cluster.snapshots = _AnySnapshot()
    if leads:
        cluster.elect("a")
    node = cluster["a"]
    for action in actions:
        if action == ("step", None):
            continue
        before = dump(node.state)
        try:
            act(cluster, node, action)
        except InvariantViolation:
            return
        except RaftError:
            assert dump(node.state) == before, action
        node.check_invariants()


class _AnySnapshot(dict[tuple[int, int], list[Entry]]):
    """Whatever snapshot is asked for is there."""

    def __missing__(self, key: tuple[int, int]) -> list[Entry]:
        return []


def test_every_kind_of_message_is_tried() -> None:
    """The property above draws from all messages of the module."""
    assert {kind.__name__ for kind in Message.__args__} == {
        name for name, value in vars(kinds).items() if isinstance(value, type) and value.__module__ == kinds.__name__ and not name.startswith("_")
    }


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=some.data())
def test_any_order_of_delivery_is_safe(data: some.DataObject) -> None:
    """Whatever arrives, in whatever order, doubled or lost: one leader a term, one entry an index, every node sound."""
    cluster = Cluster("abc")
    for number in range(data.draw(some.integers(10, 60))):
        choice = data.draw(some.integers(0, 9))
        node = data.draw(some.sampled_from("abc"))
        if choice <= 2:
            cluster.tick(node, data.draw(some.integers(1, 2 * T)))
        elif choice == 3 and cluster.leaders:
            cluster.propose(cluster.leaders[0], b"%d" % number)
        elif choice == 4 and cluster.wire:
            del cluster.wire[data.draw(some.integers(0, len(cluster.wire) - 1))]
        elif choice == 5 and cluster.wire:
            cluster.wire.append(cluster.wire[data.draw(some.integers(0, len(cluster.wire) - 1))])
        elif choice == 6:
            cluster.restart(node)
        elif choice == 7:
            cluster.settle()
        else:
            for server in "abc":
                cluster.pump(server)
            if cluster.wire:
                cluster.deliver(data.draw(some.integers(0, len(cluster.wire) - 1)))
        cluster.check()
