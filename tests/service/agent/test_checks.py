"""Checks: every node's digest is of exactly the check's place in the log, it holds up nothing, and the comparison says what it knows and no more."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from raft.core.model import Configuration, Member
from raft.errors import NotLeader
from service.agent.checks import PATH, Checks, Question, verdict
from service.agent.digests import KEPT, Digests, Stage, StateDigest
from service.agent.machine import ObservedMachine
from service.agent.report import Reporter
from service.domain.commands import CheckState, Command, KvDeleteTree, KvPut, decode, encode, is_check, stamp
from service.errors import StateUnreadable
from service.store.digest import Held
from service.store.machine import KvMachine

PATIENCE_SECONDS = 20.0
CLUSTER = "c1"


class Node:
    """A state machine under the agent's own observation, fed by hand."""

    def __init__(self, directory: Path, name: str = "n1") -> None:
        directory.mkdir()
        self.name = name
        self.machine = ObservedMachine(KvMachine(directory), directory)

    def apply(self, *commands: Command) -> int:
        """Apply a batch; the index of its last entry."""
        index = self.machine.store.applied_index
        entries = [(index + offset, 1, stamp(encode(command), 1)) for offset, command in enumerate(commands, 1)]
        results = self.machine.apply(entries)
        assert len(results) == len(commands)
        return index + len(commands)

    def digest(self, index: int) -> StateDigest:
        """What is known about an index once nothing is under way."""
        while thread := self.machine.digests._thread:
            thread.join(PATIENCE_SECONDS)
            if thread is self.machine.digests._thread:
                break
        return self.machine.digests.look(index, self.machine.store.applied_index)

    def close(self) -> None:
        """Release the files."""
        self.machine.digests.stop()
        self.machine.store.close()


@pytest.fixture
def make_node(tmp_path: Path) -> Iterator[Callable[[str], Node]]:
    """Makes nodes, each in a directory of its own."""
    made: list[Node] = []

    def make(name: str) -> Node:
        made.append(Node(tmp_path / name, name))
        return made[-1]

    yield make
    for node in made:
        node.close()


@pytest.fixture
def node(make_node: Callable[[str], Node]) -> Node:
    """One node."""
    return make_node("n1")


def test_command() -> None:
    """A check survives encoding, and is told from every other command by its bytes alone."""
    check = stamp(encode(CheckState()), 7)
    assert decode(check) == (7, CheckState())
    assert is_check(check)
    others = (KvPut(b"", b""), KvDeleteTree(b""), KvPut(b"key", stamp(encode(CheckState()), 7)))
    assert not any(is_check(stamp(encode(other), 7)) for other in others)


def test_digest_is_of_its_own_index(make_node: Callable[[str], Node]) -> None:
    """A check in the middle of a batch holds what stands before it and nothing behind it, however the batches were cut."""
    commands = [KvPut(b"a", b"1"), KvPut(b"b", b"2"), CheckState(), KvPut(b"a", b"3"), KvDeleteTree(b"b")]
    whole, pieces = make_node("whole"), make_node("pieces")
    assert whole.apply(*commands) == 5
    for command in commands:
        pieces.apply(command)
    assert (whole.digest(3).stage, whole.digest(3).keys) == (Stage.DONE, 2)
    assert whole.digest(3).sha256 == pieces.digest(3).sha256
    assert whole.machine.store.digest() == pieces.machine.store.digest()


def test_results_stay_in_order(node: Node) -> None:
    """Checks at the ends of a batch and side by side change no results; what changed is still announced."""
    assert node.apply(CheckState(), CheckState(), KvPut(b"a", b"1"), CheckState()) == 4
    assert [key for changed in node.machine.changes for key in changed.keys] == [b"a"]
    assert node.digest(4).stage is Stage.DONE
    assert node.digest(4).keys == 1


def test_states_that_differ(make_node: Callable[[str], Node]) -> None:
    """One byte of one value tells two nodes apart."""
    left, right = make_node("left"), make_node("right")
    left.apply(KvPut(b"a", b"1"), CheckState())
    right.apply(KvPut(b"a", b"2"), CheckState())
    assert left.digest(2).sha256 != right.digest(2).sha256
    assert verdict([left.digest(2), right.digest(2)]) == "different"


def test_what_is_known_of_an_index(node: Node) -> None:
    """An index not reached is behind, one passed without a check is missed; only the latest digests are kept."""
    node.apply(KvPut(b"a", b"1"))
    assert node.digest(1).stage is Stage.MISSED
    assert node.digest(2).stage is Stage.BEHIND
    for _ in range(KEPT + 1):
        node.apply(CheckState())
        node.digest(2)
    assert node.digest(2).stage is Stage.MISSED
    assert node.digest(3).stage is Stage.DONE


class SlowState:
    """A state whose digest goes on until it is told to stop, or let go."""

    def __init__(self) -> None:
        self.index = 0
        self.reading = threading.Event()
        self.closed = threading.Event()

    def digest(self, go_on: Callable[[], bool]) -> None:
        """Read on until nobody wants it any more."""
        self.reading.set()
        while go_on():
            self.closed.wait(0.001)

    def close(self) -> None:
        """Note it."""
        self.closed.set()


def test_slow_digest_holds_up_nothing(node: Node) -> None:
    """While a digest is under way entries are applied; a later check takes its place, and stopping ends it."""
    slow = SlowState()
    node.machine.digests.begin(1, lambda: cast("Held", slow))
    assert slow.reading.wait(PATIENCE_SECONDS)
    assert node.apply(KvPut(b"a", b"1")) == 1
    node.machine.digests.expect(1)
    assert node.machine.digests.look(1, 1).stage is Stage.COMPUTING
    node.apply(CheckState())
    assert slow.closed.wait(PATIENCE_SECONDS)
    assert node.digest(2).stage is Stage.DONE
    again = SlowState()
    node.machine.digests.begin(9, lambda: cast("Held", again))
    node.machine.digests.stop()
    assert again.closed.is_set()
    assert node.machine.digests.look(9, 9).stage is Stage.SUPERSEDED
    late = SlowState()
    node.machine.digests.begin(10, lambda: cast("Held", late))
    assert late.closed.is_set()


def test_state_that_cannot_be_read() -> None:
    """A state that can't be opened for a digest stops nothing: the check says why."""

    def broken() -> Held:
        raise StateUnreadable("the disk is gone")

    digests = Digests()
    digests.begin(1, broken)
    assert digests.look(1, 1) == StateDigest(Stage.FAILED, problem="the disk is gone")


@pytest.mark.parametrize(
    ("answers", "due"),
    [
        (("done a", "done a"), "equal"),
        (("done a", "done b"), "different"),
        (("done a", "done b", "computing"), "different"),
        (("done a", "computing"), "computing"),
        (("done a", "behind", "unreachable"), "computing"),
        (("done a", "unreachable"), "incomplete"),
        (("done a", "missed"), "incomplete"),
        (("done a", "superseded"), "incomplete"),
        (("failed", "failed"), "incomplete"),
    ],
)
def test_verdict(answers: tuple[str, ...], due: str) -> None:
    """Equal only when everybody is; different as soon as two differ; what is not known is never called equal."""
    assert verdict([StateDigest(Stage(one.split()[0]), sha256=one.partition(" ")[2]) for one in answers]) == due


class FakeServer:
    """What the comparison asks of a running node."""

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration

    def status(self) -> "FakeServer":
        """Itself."""
        return self


class FakeReporter:
    """What the comparison asks of the agent."""

    def __init__(self, node: Node, server: FakeServer | None, cluster_id: str = CLUSTER) -> None:
        self.identity = type("Identity", (), {"incarnation": node.name})
        self.machine = node.machine
        self.server = server
        self.cluster_id = cluster_id


def checks(node: Node, server: FakeServer | None, call: Any = None, cluster_id: str = CLUSTER) -> Checks:
    """The comparison at one node."""
    return Checks(cast("Reporter", FakeReporter(node, server, cluster_id)), call)


def test_everybody_is_asked(make_node: Callable[[str], Node]) -> None:
    """Voters and learners are asked for the same index; one that is dead, of another cluster or mad is unreachable, and the reason is told."""
    nodes = {name: make_node(name) for name in ("n1", "n2", "n3", "n4", "n5")}
    for one in nodes.values():
        one.apply(KvPut(b"a", b"1"), CheckState())
        one.digest(2)
    members = [Member(name, name, f"{name}:1") for name in nodes]
    server = FakeServer(Configuration(voters=tuple(members[:4]), learners=tuple(members[4:])))

    async def call(address: str, path: str, body: bytes, _seconds: float) -> tuple[int, bytes]:
        assert path == PATH
        name = address.partition(":")[0]
        if name == "n3":
            raise ConnectionRefusedError("refused")
        if name == "n4":
            return 200, b"nonsense"
        return await checks(nodes[name], None, cluster_id="c2" if name == "n5" else CLUSTER).answer_peer(body)

    found = asyncio.run(checks(nodes["n1"], server, call).gather(2))
    assert (found["index"], found["verdict"]) == (2, "incomplete")
    assert [(node["name"], node["stage"], node["voter"]) for node in found["nodes"]] == [
        ("n1", "done", True),
        ("n2", "done", True),
        ("n3", "unreachable", True),
        ("n4", "unreachable", True),
        ("n5", "unreachable", False),
    ]
    assert found["nodes"][0]["sha256"] == found["nodes"][1]["sha256"]
    assert found["nodes"][2]["problem"] == "refused"
    assert "of cluster c2" in found["nodes"][4]["problem"]


def test_questions_that_make_no_sense(node: Node) -> None:
    """A malformed question is answered 400, one of another cluster 409; a node outside of a cluster compares nothing."""
    alone = checks(node, None)
    assert asyncio.run(alone.answer_peer(b"{}"))[0] == 400
    assert asyncio.run(alone.answer_peer(msgspec.json.encode(Question("other", 1))))[0] == 409
    with pytest.raises(NotLeader):
        asyncio.run(alone.gather(1))
