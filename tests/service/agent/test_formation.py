"""How a cluster forms, over a network that is a function."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec
import pytest

from service.addresses import Address, Member
from service.agent import formation
from service.agent.formation import PATH, VERSION, Formation, Hello, Outside
from service.agent.identity import FORMAT, Cluster, FormedMember, Identity
from service.errors import FormationFailed

NAMES = ("n1", "n2", "n3")
MEMBERS = [Member(name, Address(name, 8300)) for name in NAMES]
INITIAL = [f"{name}={name}:8300" for name in NAMES]
EMPTY = dict.fromkeys(NAMES)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formation, "PAUSE_SECONDS", 0)


class Network:
    """Who answers at which address, and what."""

    def __init__(self) -> None:
        self.at: dict[str, Callable[[], Awaitable[tuple[int, bytes]]]] = {}
        self.asked: list[str] = []

    async def call(self, address: str, path: str, body: bytes, seconds: float) -> tuple[int, bytes]:
        """The ``call`` of a :class:`Formation`."""
        assert (path, body, seconds) == (PATH, b"", formation.ASK_SECONDS)
        self.asked.append(address)
        await asyncio.sleep(0)
        if address not in self.at:
            raise ConnectionRefusedError(address)
        return await self.at[address]()

    def start(self, name: str, *, incarnation: str = "", members: list[Member] | None = None, cluster: Cluster | None = None) -> Formation:
        """A node with this name listens at its address."""
        identity = Identity(FORMAT, name, incarnation or f"{name}-a")
        made = Formation(identity, members or MEMBERS, cluster, self.call)
        self.at[f"{name}:8300"] = lambda: made.answer(b"")
        return made

    def say(self, name: str, status: int, body: bytes) -> None:
        """Something answers there."""

        async def answer() -> tuple[int, bytes]:
            return status, body

        self.at[f"{name}:8300"] = answer


def hello(name: str, **changes: Any) -> bytes:
    """What an empty node of that name tells."""
    return msgspec.json.encode(msgspec.structs.replace(Hello(VERSION, name, f"{name}-a", INITIAL, None), **changes))


def run(scenario: Coroutine[Any, Any, Any], seconds: float = 10.0) -> Any:
    """Run a scenario to its end."""
    return asyncio.run(asyncio.wait_for(scenario, seconds))


async def join(node: Formation) -> Cluster:
    """Find the cluster and tell others of it, as the agent does."""
    cluster = await node.find()
    assert isinstance(cluster, Cluster)
    node.cluster, node.waiting_for = cluster, ""
    return cluster


async def rounds(count: int = 50) -> None:
    """Let everybody ask a few times."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("order", [("n1", "n2", "n3"), ("n3", "n2", "n1"), ("n2", "n3", "n1"), ("n3", "n1", "n2")])
def test_any_order_of_start(order: tuple[str, ...]) -> None:
    """In whatever order the members start: nobody forms before the last is there, and all end with the same record."""

    async def scenario() -> list[Cluster]:
        network = Network()
        tasks = []
        for name in order:
            await rounds()
            assert not any(task.done() for task in tasks)
            tasks.append(asyncio.create_task(join(network.start(name))))
        return list(await asyncio.gather(*tasks))

    clusters = run(scenario())
    assert clusters[0] == clusters[1] == clusters[2]
    assert clusters[0].members == [FormedMember(name, f"{name}-a", f"{name}:8300") for name in NAMES]


def test_a_cluster_of_one_forms_at_once() -> None:
    """A node that is its only initial member asks nobody."""
    network = Network()
    cluster = run(join(network.start("n1", members=MEMBERS[:1])))
    assert [member.name for member in cluster.members] == ["n1"]
    assert network.asked == []


def test_every_formation_has_an_id_of_its_own() -> None:
    """Ids are random: two clusters of the same names are not mistaken for one another."""
    ids = {run(join(Network().start("n1", members=MEMBERS[:1]))).cluster_id for _ in range(5)}
    assert len(ids) == 5


def test_one_is_missing(caplog: pytest.LogCaptureFixture) -> None:
    """While a member is missing nobody forms, and everybody says whom they wait for, in the log not with every round."""
    caplog.set_level(logging.INFO)

    async def scenario() -> list[str]:
        network = Network()
        nodes = [network.start(name) for name in NAMES[:2]]
        tasks = [asyncio.create_task(join(node)) for node in nodes]
        await rounds(300)
        assert not any(task.done() for task in tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return [node.waiting_for for node in nodes]

    assert run(scenario()) == ["waiting for n3 to form the cluster"] * 2
    assert 2 <= caplog.text.count("waiting for n3") <= 10


def test_a_late_member_takes_the_record_over() -> None:
    """A member that was formed with, but had not learned of it, learns it from anybody who knows, whoever wrote it."""
    cluster = Cluster("c1", [FormedMember(name, f"{name}-a", f"{name}:8300") for name in NAMES])
    network = Network()
    network.start("n2", cluster=cluster)
    assert run(join(network.start("n3"))) == cluster
    del network.at["n2:8300"]
    network.start("n3", cluster=cluster)
    assert run(join(network.start("n1"))) == cluster


@pytest.mark.parametrize("name", NAMES)
def test_a_wiped_member_is_outside(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """A member that came back empty neither joins as its old self nor forms another cluster; it learns whom to ask, and says so."""
    cluster = Cluster("c1", [FormedMember(known, f"{known}-a", f"{known}:8300") for known in NAMES])
    network = Network()
    for other in NAMES:
        network.start(other, cluster=cluster)
    wiped = network.start(name, incarnation="new")
    others = tuple(f"{other}:8300" for other in NAMES if other != name)
    assert run(wiped.find()) == Outside("c1", others)
    assert f"cluster c1 does not count on {name} as new: it came back empty" in caplog.text


def test_a_stranger_is_outside() -> None:
    """A node that the cluster was formed without, and one that meets only a node that was added later, stand outside."""
    for members in ([FormedMember("n2", "n2-a", "n2:8300")], []):
        network = Network()
        network.start("n2", cluster=Cluster("c1", members))
        assert run(network.start("n1").find()) == Outside("c1", ("n2:8300",))


def test_one_formed_member_forbids_another_formation() -> None:
    """While any member belongs to a cluster, the first of the names forms no second one, though the others are empty."""
    network = Network()
    network.start("n2")
    network.start("n3", cluster=Cluster("c1", [FormedMember("n3", "n3-a", "n3:8300")]))
    assert run(network.start("n1").find()) == Outside("c1", ("n3:8300",))


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (hello("n2", initial=INITIAL[:2]), r"n2 was given the initial members n1=n1:8300, n2=n2:8300; this node n1=n1:8300, n2=n2:8300, n3"),
        (hello("n3"), r"n2:8300 should be 'n2', but is node 'n3'"),
    ],
)
def test_disagreement_ends_the_start(body: bytes, text: str) -> None:
    """Another list of members, or another node at an address: a clear error that names it, and no cluster."""
    network = Network()
    network.say("n2", 200, body)
    network.say("n3", 200, hello("n3"))
    node = network.start("n1")
    with pytest.raises(FormationFailed, match=text):
        run(node.find())
    assert node.cluster is None
    assert FormationFailed.exit_code == 4


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"<html>", "n2:8300 answers like another program or version"),
        (b"", "n2:8300 answers like another program or version"),
        (b"{}", "n2:8300 answers like another program or version"),
        (b"\xff" * 1_000, "n2:8300 answers like another program or version"),
        (hello("n2").replace(b'"n2-a"', b"7"), "n2:8300 answers like another program or version"),
        (hello("n2", version=VERSION + 1), f"n2:8300 speaks version {VERSION + 1}; this node version {VERSION}"),
    ],
)
def test_garbage_is_warned_of_and_asked_again(body: bytes, text: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever answers nonsense at a member's address is named in one warning; once the member itself answers there, the cluster forms."""

    async def scenario() -> Cluster:
        network = Network()
        network.start("n3")
        network.say("n2", 200, body)
        node = network.start("n1")
        task = asyncio.create_task(node.find())
        await rounds()
        assert not task.done()
        assert node.waiting_for == "waiting for n2 to form the cluster"
        network.start("n2")
        return await task

    assert [member.name for member in run(scenario()).members] == list(NAMES)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert text in warnings[0]


def test_a_server_that_refuses_counts_as_missing() -> None:
    """A peer that answers with an error status is not there yet."""

    async def scenario() -> str:
        network = Network()
        network.say("n2", 503, hello("n2"))
        network.say("n3", 200, hello("n3"))
        node = network.start("n1")
        task = asyncio.create_task(node.find())
        await rounds()
        assert not task.done()
        task.cancel()
        return node.waiting_for

    assert run(scenario()) == "waiting for n2 to form the cluster"


def test_what_a_node_tells() -> None:
    """Before and after it belongs to a cluster a node tells who it is; the order in which its members were given does not matter."""
    network = Network()
    node = network.start("n2", members=list(reversed(MEMBERS)))
    status, body = asyncio.run(node.answer(b"whatever"))
    assert (status, msgspec.json.decode(body, type=Hello)) == (200, Hello(VERSION, "n2", "n2-a", INITIAL, None))
    assert node.waiting_for == "the cluster is not formed yet"
    formed = network.start("n2", cluster=Cluster("c1", []))
    assert (formed.hello().cluster, formed.waiting_for) == (Cluster("c1", []), "")
