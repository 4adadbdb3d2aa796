"""Leadership handed over on request, and before the leader loses its vote, at servers over memory."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from membership_world import World, be_impatient, kind, others, others_than, run

from raft.core.messages import TimeoutNow
from raft.testing.servers import BRISK, until
from service.agent.membership import Refused
from service.ipc import membership as ask


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    be_impatient(monkeypatch)


def test_leadership_is_handed_over_at_any_node() -> None:
    """Asked of a follower, the leader hands over to the member that was named by name or id, or to any voter; the answer says who leads then."""

    async def scenario(world: World) -> None:
        for wanted_one in ("named", "any", "named", "any"):
            [leader] = world.servers.leaders()
            target, asked = others(world)
            status, answer = await world.ask(asked, ask.Transfer(target if wanted_one == "named" else ""))
            assert status == 200, answer
            assert answer["id"] != leader
            assert answer["id"] == target or wanted_one == "any"
            assert [member["id"] for member in answer["members"] if member["leader"]] == [answer["id"]]
            assert await world.servers.led() == answer["id"]

    run(scenario)


def test_leadership_is_not_handed_over_to_just_anybody() -> None:
    """Nobody's name, the leader itself, a learner, a silent voter: rejected, and the leader of before leads on in its term."""

    async def scenario(world: World) -> None:
        [leader] = world.servers.leaders()
        term = world.servers[leader].status().term
        silent, asked = others(world)
        await world.empty("d", "d:8300")
        assert (await world.ask(asked, ask.Add("d", "d:8300", voter=False)))[0] == 200
        await world.servers.stop(silent)
        await until(
            lambda: any(peer.contact_ticks >= BRISK.election_ticks for peer in world.servers[leader].status().peers), f"{silent} counts as silent"
        )
        for name, expected, text in (
            ("z", ask.NO_SUCH_MEMBER, "no member has the name or id 'z'; the members are a, b, c, d"),
            (leader, ask.LEADS_ALREADY, f"{leader} ({leader}) leads already"),
            ("d", ask.REFUSED, "d is a member without a vote (learner): only a voter can lead"),
            (silent, ask.MEMBER_SILENT, f"{silent} at {silent} was not heard of for"),
        ):
            reply = await world.ask(asked, ask.Transfer(name))
            assert kind(reply) == expected
            assert text in reply[1]["detail"]
        assert world.servers[leader].status().term == term
        assert (await world.ask(asked, ask.Transfer()))[1]["id"] == asked, "the silent one is not chosen"

    run(scenario)


def test_nobody_could_take_over() -> None:
    """A leader whose followers are all silent hands over to nobody."""

    async def scenario(world: World) -> None:
        [leader] = world.servers.leaders()
        mine = world.members[leader]
        peers = tuple(replace(peer, contact_ticks=BRISK.election_ticks) for peer in world.servers[leader].status().peers)
        frozen = replace(world.servers[leader].status(), peers=peers)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(world.servers[leader], "status", lambda: frozen)
            with pytest.raises(Refused, match="no other voter was heard of within an election timeout"):
                mine._successor("")

    run(scenario)


def test_the_successor_is_that_of_a_stop() -> None:
    """Without a name leadership goes to the first of the server's own ranking that is not silent, not to the longest log."""

    async def scenario(world: World) -> None:
        [leader] = world.servers.leaders()
        behind, ahead = others(world)
        status = world.servers[leader].status()
        found = {peer.peer: peer for peer in status.peers}
        ranked = (replace(found[behind], match_index=1, contact_ticks=0), replace(found[ahead], match_index=9, contact_ticks=0))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(world.servers[leader], "successors", lambda: ranked)
            assert world.members[leader]._successor("").id == behind
            patch.setattr(world.servers[leader], "successors", lambda: (replace(ranked[0], contact_ticks=BRISK.election_ticks), ranked[1]))
            assert world.members[leader]._successor("").id == ahead

    run(scenario)


@pytest.mark.parametrize("at_the_leader", [False, True])
@pytest.mark.parametrize("operation", [ask.Remove, ask.Demote])
def test_a_leader_that_loses_its_vote_hands_over_first(operation: Callable[[str], ask.Operation], at_the_leader: bool) -> None:
    """Its successor makes the change, so nobody waits for an election; whoever asked gets one answer, wherever it asked."""

    async def scenario(world: World) -> None:
        [leader] = world.servers.leaders()
        asked = leader if at_the_leader else others(world)[0]
        term = world.servers[leader].status().term

        async def refuse(_: object) -> None:
            raise AssertionError("the leader changed its own membership")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(world.servers[leader], "change", refuse)
            status, answer = await world.ask(asked, operation(leader))
        assert status == 200, answer
        assert answer["id"] == leader
        suffrages = {member["id"]: member["suffrage"] for member in answer["members"]}
        assert suffrages.get(leader, "removed") != "voter"
        [successor] = world.servers.leaders()
        assert successor in others_than(leader)
        assert world.servers[successor].status().term == term + 1

    run(scenario)


@pytest.mark.parametrize("at_the_leader", [False, True])
def test_a_leader_that_is_replaced_hands_over_first(at_the_leader: bool) -> None:
    """Its successor adds the new member and leads on when that one has taken its place: one change of the term, and no election."""

    async def scenario(world: World) -> None:
        [leader] = world.servers.leaders()
        asked = leader if at_the_leader else others(world)[0]
        term = world.servers[leader].status().term
        await world.empty("d", "d:8300")
        status, answer = await world.ask(asked, ask.Add("d", "d:8300", replaces=leader))
        assert (status, answer["id"]) == (200, "d:8300")
        [successor] = world.servers.leaders()
        assert successor in others_than(leader)
        assert world.servers[successor].status().term == term + 1
        await until(lambda: leader not in world.servers[successor].status().configuration, "the old one is out")
        assert (world.servers[successor].leads, world.servers[successor].status().term) == (True, term + 1)

    run(scenario)


def test_a_replacement_that_is_refused_moves_nobody() -> None:
    """A name that another member has is no reason to hand over: the leader leads on in its term."""

    async def scenario(world: World) -> None:
        [leader] = world.servers.leaders()
        term = world.servers[leader].status().term
        taken = others(world)[0]
        await world.empty(taken, "d:8300")
        assert kind(await world.ask(leader, ask.Add(taken, "d:8300", replaces=leader))) == ask.NAME_IN_USE
        assert (world.servers[leader].leads, world.servers[leader].status().term) == (True, term)

    run(scenario)


def test_a_leader_that_nobody_replaces_removes_itself() -> None:
    """When no successor takes over, the leader makes the change as it did before: the removal is not refused for it."""

    async def scenario(world: World) -> None:
        [leader] = world.servers.leaders()
        world.servers.network.drop = lambda message: isinstance(message, TimeoutNow)
        status, answer = await world.ask(leader, ask.Remove(leader))
        assert status == 200, answer
        assert leader not in [member["id"] for member in answer["members"]]
        world.servers.network.drop = lambda _: False
        await world.servers.led(*others_than(leader))

    run(scenario)


def test_a_successor_that_does_not_take_over() -> None:
    """A voter that falls silent after it was chosen: the outcome is unknown, since it may still have been told, and the answer says who leads."""

    async def scenario(world: World) -> None:
        [leader] = world.servers.leaders()
        target, _asked = others(world)
        world.servers.network.cut(leader, target)
        reply = await world.ask(leader, ask.Transfer(target))
        assert kind(reply) == ask.OUTCOME_UNKNOWN
        term = world.servers[leader].status().term
        assert reply[1]["detail"] == f"{target} has not taken over in time and still may; {leader} leads as before, in term {term}"

    run(scenario)
