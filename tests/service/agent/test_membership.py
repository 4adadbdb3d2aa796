"""Changes of the membership at servers over memory, asked of any of them; and how a server joins, comes back, and learns that it was removed."""

import asyncio
import sys
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from membership_world import OURS, World, be_impatient, kind, others, run, wanted

from raft.core.membership import AddLearner, JointChange, Remove
from raft.core.model import Configuration, Member, Promotion
from raft.testing.servers import until
from service.agent import formation, membership
from service.agent.formation import VERSION, Hello
from service.agent.identity import FORMAT, Cluster, Identity
from service.agent.joining import Joined, Joining
from service.agent.membership import Envelope, Refused, addition, find
from service.agent.removal import until_removed
from service.errors import FormationFailed
from service.ipc import membership as ask

A, B, C = Member("a", "a", "a:1"), Member("b", "b", "b:1"), Member("c", "c", "c:1")
NEW = Member("new", "b", "b:1")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    be_impatient(monkeypatch)


def test_additions() -> None:
    """Whom a new member replaces: nobody, a voter in its turn, a learner at once, or both of its name. Who comes back is as before."""
    voters = Configuration(voters=(A, B))
    assert addition(Configuration(voters=(A,)), NEW, wanted()) == AddLearner(NEW, promote=True)
    assert addition(Configuration(voters=(A,)), NEW, wanted(voter=False)) == AddLearner(NEW)
    assert addition(voters, NEW, wanted(replaces="b")) == AddLearner(NEW, promote=True, replaces="b")
    assert addition(voters, NEW, wanted(replaces="b", voter=False)) == AddLearner(NEW, promote=True, replaces="b")
    other = Member("x", "x", "x:1")
    assert addition(voters, other, wanted(name="x", replaces="b")) == AddLearner(other, promote=True, replaces="b")
    learner = Member("l", "b", "b:1")
    plain = Configuration(voters=(A,), learners=(learner,))
    assert addition(plain, NEW, wanted(replaces="b")) == JointChange((Remove("l"), AddLearner(NEW)))
    promoted = Configuration(voters=(A,), learners=(learner,), promotions=(Promotion("l"),))
    assert addition(promoted, NEW, wanted(replaces="l")) == JointChange((Remove("l"), AddLearner(NEW, promote=True)))
    both = Configuration(voters=(A, B), learners=(learner,), promotions=(Promotion("l", "b"),))
    assert addition(both, NEW, wanted(replaces="b")) == JointChange((Remove("l"), AddLearner(NEW, promote=True, replaces="b")))
    inherited = Configuration(voters=(A, C), learners=(learner,), promotions=(Promotion("l", "c"),))
    assert addition(inherited, NEW, wanted(replaces="b")) == JointChange((Remove("l"), AddLearner(NEW, promote=True, replaces="c")))


@pytest.mark.parametrize(
    ("replaces", "text"), [("", "b is the name of b at b:1"), ("a", "b is the name of b at b:1"), ("z", "no member has the name or id 'z'")]
)
def test_additions_that_make_no_sense(replaces: str, text: str) -> None:
    """A name that another member keeps, and a predecessor that nobody knows."""
    with pytest.raises(Refused, match=text):
        addition(Configuration(voters=(A, B)), NEW, wanted(replaces=replaces))


def test_a_name_of_two() -> None:
    """Where two members have a name, an id is asked for; an id always finds its member."""
    twins = Configuration(voters=(A, Member("old", "b", "b:1")), learners=(NEW,))
    with pytest.raises(Refused, match=r"'b' is the name of old \(voter\), new \(learner\): give an id"):
        find(twins, "b")
    assert find(twins, "new") is NEW


def test_a_server_is_added_at_any_node() -> None:
    """Asked of a follower, the leader adds the server as a learner, which becomes a voter by itself; asked again, nothing changes."""

    async def scenario(world: World) -> None:
        await world.empty("d", "d:8300")
        for name in [*others(world), *"abc"]:
            status, answer = await world.ask(name, ask.Add("d", "d"))
            assert (status, answer["id"], answer["cluster_id"]) == (200, "d:8300", OURS)
        [leader] = world.servers.leaders()
        await until(lambda: "d:8300" in world.servers[leader].status().configuration.voter_ids, "it votes")
        _, answer = await world.ask(others(world)[0], ask.Members())
        told = {member["name"]: member for member in answer["members"]}
        assert (told["d"]["suffrage"], told["d"]["address"], told["d"]["promotion"]) == ("voter", "d:8300", None)
        assert told["d"]["match_index"] > 0
        assert [name for name, member in told.items() if member["leader"]] == [leader]
        for operation in (ask.Demote("d"), ask.Promote("d"), ask.Remove("d")):
            await until(lambda: all(peer.caught_up for peer in world.servers[leader].status().peers), "all have caught up")
            status, answer = await world.ask(others(world)[0], operation)
            assert status == 200, answer
        assert sorted(member["name"] for member in answer["members"]) == ["a", "b", "c"]

    run(scenario)


def test_servers_that_are_not_added() -> None:
    """Nobody there, another name or incarnation, another cluster's, a former member, one about to form a cluster: refused, nothing is changed."""

    async def scenario(world: World) -> None:
        empty = Hello(VERSION, "d", "d1", [], None)
        for hello, expected, more in (
            (None, ask.UNREACHABLE, {}),
            (msgspec.structs.replace(empty, version=99), ask.UNREACHABLE, {}),
            (msgspec.structs.replace(empty, name="e"), ask.REFUSED, {}),
            (empty, ask.REFUSED, {"id": "d2"}),
            (msgspec.structs.replace(empty, cluster=Cluster("c2", [])), ask.WRONG_CLUSTER, {}),
            (msgspec.structs.replace(empty, cluster=Cluster(OURS, [])), ask.NOT_EMPTY, {}),
            (msgspec.structs.replace(empty, initial=["d=d:1", "e=e:1"]), ask.WRONG_CLUSTER, {}),
            (empty, ask.NO_SUCH_MEMBER, {"replaces": "z"}),
            (empty, ask.REFUSED, {"replaces": "a", "voter": False}),
        ):
            if hello is not None:
                world.tell(hello, "d")
            assert kind(await world.ask(others(world)[0], ask.Add("d", "d:8300", **more))) == expected
        assert kind(await world.ask("a", ask.Remove("z"))) == ask.NO_SUCH_MEMBER
        assert kind(await world.ask("a", ask.Promote("b"))) == ask.REFUSED
        [leader] = world.servers.leaders()
        assert world.servers[leader].status().configuration_index == 1

    run(scenario)


def test_a_name_is_not_taken_from_the_living() -> None:
    """A server of a member's name is refused while the member answers elsewhere, or was heard of lately; once it is silent, it is replaced."""

    async def scenario(world: World) -> None:
        old = others(world)[0]
        await world.empty(old, "again:8300")
        assert kind(await world.ask(others(world)[1], ask.Add(old, "again", replaces=old))) == ask.SECOND_NODE
        del world.at[old, formation.PATH]
        assert kind(await world.ask(others(world)[1], ask.Add(old, "again", replaces=old))) == ask.MEMBER_ALIVE
        [leader] = world.servers.leaders()
        await world.servers.stop(old)
        replies = []

        async def replaced() -> bool:
            replies.append(await world.ask(leader, ask.Add(old, "again", replaces=old)))
            return replies[-1][0] == 200

        while not await replaced():
            assert kind(replies[-1]) == ask.MEMBER_ALIVE
        await until(lambda: "again:8300" in world.servers[leader].status().configuration.voter_ids, "the new one votes")
        await until(lambda: old not in world.servers[leader].status().configuration, "the old one is out")

    run(scenario)


@pytest.mark.parametrize(
    ("failure", "operation", "expected"),
    [
        (TimeoutError("late"), ask.Remove("a"), ask.OUTCOME_UNKNOWN),
        (ConnectionResetError("broke"), ask.Remove("a"), ask.OUTCOME_UNKNOWN),
        (ConnectionRefusedError("nobody"), ask.Remove("a"), ask.NO_LEADER),
        (TimeoutError("late"), ask.Members(), ask.NO_LEADER),
    ],
)
def test_a_leader_that_does_not_answer(failure: OSError, operation: ask.Operation, expected: str) -> None:
    """A change that may have reached the leader has an unknown outcome and is sent once; what certainly did not is rejected."""

    async def scenario(world: World) -> None:
        [leader] = world.servers.leaders()
        asked = []

        async def broken(body: bytes) -> tuple[int, bytes]:
            asked.append(body)
            raise failure

        world.at[leader, membership.PATH] = broken
        assert kind(await world.ask(others(world)[0], operation)) == expected
        assert (len(asked) == 1) is (expected == ask.OUTCOME_UNKNOWN)

    run(scenario)


def test_nonsense_between_nodes() -> None:
    """A body that can't be read is refused by name; a request that was passed on already is not passed on again."""

    async def scenario(world: World) -> None:
        follower = others(world)[0]
        for body in (b"", b"[]", b'{"operation":{"type":"add","name":"a/b","address":"x"}}', b'{"operation":{"type":"explode"}}'):
            status, answer = await world.members[follower].answer_peer(body)
            assert (status, ask.kind_of(msgspec.json.decode(answer))) == (400, ask.MALFORMED)
        envelope = msgspec.json.encode(Envelope(msgspec.Raw(ask.encode(ask.Members())), forwarded=True))
        status, answer = await world.members[follower].answer_peer(envelope)
        assert (status, ask.kind_of(msgspec.json.decode(answer))) == (503, ask.NO_LEADER)
        status, local = await world.ask(follower, ask.Members(stale=True))
        assert (status, {member["match_index"] for member in local["members"]}) == (200, {None})

    run(scenario)


def joins(world: World, name: str, id_: str, role: str = "voter", *, targets: tuple[str, ...] = ("nobody", "a"), returning: bool = False) -> Joining:
    """A server that asks to be added."""
    return Joining(Identity(FORMAT, name, id_), id_, targets, role, world.call, returning=returning)


def test_a_server_asks_until_it_is_a_member() -> None:
    """It asks in turn, takes its former self's place when its name is known, and starts with the addresses of all members."""

    async def scenario(world: World) -> None:
        await world.empty("d", "d:8300")
        told: list[str] = []
        joined = await joins(world, "d", "d:8300").run(told.append)
        assert joined == Joined(OURS, {name: name for name in "abc"} | {"d:8300": "d:8300"})
        assert "nobody says: it can't be reached" in told[0]
        [leader] = world.servers.leaders()
        await until(lambda: "d:8300" in world.servers[leader].status().configuration.voter_ids, "it votes")
        await world.servers.stop("d:8300")
        await world.empty("d", "d2:8300")
        world.at.pop(("d", formation.PATH))
        for returning in (False, True):
            joined = await joins(world, "d", "d2:8300", returning=returning).run(told.append)
            assert "d2:8300" in joined.addresses
        await until(lambda: "d:8300" not in world.servers[leader].status().configuration, "its former self is gone")

    run(scenario)


def test_servers_that_wait() -> None:
    """One that waits to be added by hand, and one that comes back to a cluster without its name, add nothing and say what they wait for."""

    async def scenario(world: World) -> None:
        await world.empty("d", "d:8300")
        for waiting, text in (
            (joins(world, "d", "d:8300", "by-hand"), "kvorum member add d d:8300"),
            (joins(world, "d", "d:8300", returning=True), "the cluster has no member d"),
        ):
            told: list[str] = []
            task = asyncio.create_task(waiting.run(told.append))
            await until(lambda told=told: len(told) > 3, "it has asked")  # type: ignore[misc]  # mypy knows no default here
            task.cancel()
            assert text in told[-1] + told[-2]
        assert (await world.ask("a", ask.Add("d", "d:8300", voter=False)))[0] == 200
        again: list[str] = []
        task = asyncio.create_task(joins(world, "d", "d2:8300", "by-hand").run(again.append))
        await until(lambda: "kvorum member replace d d d2:8300" in "".join(again), "it says how it comes back")
        task.cancel()
        assert "d:8300" in (await joins(world, "d", "d:8300", "by-hand").run(lambda _: None)).addresses

    run(scenario)


def test_a_second_node_gives_up() -> None:
    """A server whose name a living member has ends with an error that names both."""

    async def scenario(world: World) -> None:
        name = others(world)[0]
        await world.empty(name, "twin:8300")
        with pytest.raises(FormationFailed, match=f"{name} runs at {name} as {name}; twin:8300 needs a name of its own"):
            await joins(world, name, "twin:8300", targets=(others(world)[1],)).run(lambda _: None)

    run(scenario)


def test_a_removed_server_learns_it() -> None:
    """A server that hears no leader asks the others; it counts as removed only when their leader says so."""

    async def scenario(world: World) -> None:
        gone = others(world)[0]
        watch = asyncio.create_task(until_removed(world.servers[gone], OURS, {"nobody": "nobody"}, world.call))
        stranger = asyncio.create_task(until_removed(world.servers[gone], "c2", {}, world.call))
        kept = asyncio.create_task(until_removed(world.servers[others(world)[1]], OURS, {}, world.call))
        assert (await world.ask(gone, ask.Remove(gone)))[0] == 200
        await asyncio.wait_for(watch, 20)
        assert not stranger.done()
        assert not kept.done()
        for task in (stranger, kept):
            task.cancel()

    run(scenario)


def test_silence_is_no_removal() -> None:
    """A server that knows no leader but is a member learns where the others are; only a committed view without it counts as its removal."""

    async def scenario() -> None:
        known: dict[str, str] = {}
        status = SimpleNamespace(configuration=Configuration(voters=(A, B)))
        server = SimpleNamespace(node_id="a", leader=None, status=lambda: status, know=known.update)
        views = [
            (503, {}),
            (200, {"cluster_id": OURS, "committed": True, "members": [{"id": "a", "address": "a:1"}, {"id": "d", "address": "d:1"}]}),
            (200, {"cluster_id": OURS, "committed": False, "members": []}),
            (200, {"nonsense": True}),
        ]
        asked: list[str] = []

        async def call(address: str, _path: str, _body: bytes, _seconds: float) -> tuple[int, bytes]:
            asked.append(address)
            status, view = views[min(len(asked), len(views)) - 1]
            return status, msgspec.json.encode(view)

        watch = asyncio.create_task(until_removed(server, OURS, {}, call))  # type: ignore[arg-type]  # all that is asked of it
        await until(lambda: len(asked) > 8, "it has asked")
        assert not watch.done()
        assert known == {"a": "a:1", "d": "d:1"}
        assert set(asked) == {"b:1", "d:1"}
        views[:] = [(200, {"cluster_id": OURS, "committed": True, "members": [{"id": "d", "address": "d:1"}]})]
        await asyncio.wait_for(watch, 10)

    asyncio.run(asyncio.wait_for(scenario(), 30))
