"""Membership changes at running servers: who waits is told, and whoever joins or leaves can still be answered."""

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from raft import NotLeader, OutcomeUnknown, RaftServer
from raft.core.membership import AddLearner, Demote, Remove
from raft.core.model import Boundary, HardState, Member
from raft.errors import ChangeRefused
from raft.storage.memory import MemorySnapshots
from raft.testing.servers import ListMachine, Servers, SlowLog, until

Run = Callable[[Coroutine[Any, Any, None]], None]


async def start_empty(servers: Servers, name: str) -> RaftServer:
    """Start a server that has no configuration, and knows where the others are."""
    servers.names += (name,)
    servers.logs[name] = SlowLog()
    servers.logs[name].reset(Boundary(), HardState())
    servers.snapshots[name] = MemorySnapshots()
    servers.machines[name] = ListMachine()
    servers.observations[name] = []
    server = await servers.start(name)
    server.know({other: other for other in servers.names})
    return server


def test_a_server_joins_and_becomes_a_voter(run: Run) -> None:
    """A server without any configuration answers whom it was told of, receives the log, and is promoted; later it goes on by itself."""

    async def scenario() -> None:
        async with Servers("abc") as servers:
            leader = await servers.led()
            await servers[leader].propose([b"x"])
            joined = await start_empty(servers, "d")
            await servers[leader].change(AddLearner(Member("d", "d", "d"), promote=True))
            await until(lambda: "d" in joined.status().configuration.voter_ids, "the server votes")
            await servers.applied([b"x"])
            await joined.propose([b"y"])
            await servers.applied([b"x", b"y"])

    run(scenario())


def test_a_leader_that_leaves_is_told(run: Run) -> None:
    """The leader's own removal is acknowledged to whoever asked for it, though its followers count it as a stranger already; the others go on."""

    async def scenario() -> None:
        async with Servers("abc") as servers:
            leader = await servers.led()
            rest = [name for name in "abc" if name != leader]
            await servers[leader].barrier()
            term = servers[leader].status().term
            await servers[leader].change(Remove(leader))
            assert not servers[leader].leads
            other = await servers.led(*rest)
            await servers[other].propose([b"after"])
            assert servers[other].status().configuration.voter_ids == tuple(rest)
            assert servers[other].status().term > term

    run(scenario())


def test_refusals_change_nothing(run: Run) -> None:
    """A follower refuses, as does a leader what makes no sense; both say that nothing happened."""

    async def scenario() -> None:
        async with Servers("ab") as servers:
            leader = await servers.led()
            follower = "b" if leader == "a" else "a"
            with pytest.raises(NotLeader, match=leader):
                await servers[follower].change(Remove(leader))
            await servers[leader].barrier()
            with pytest.raises(ChangeRefused, match="z is no member"):
                await servers[leader].change(Remove("z"))
            assert servers[leader].status().configuration_index == 1

    run(scenario())


def test_a_learner_forgets_a_silent_leader(run: Run) -> None:
    """A learner that hears nothing of its leader for an election timeout does not go on calling it that."""

    async def scenario() -> None:
        async with Servers("abc") as servers:
            leader = await servers.led()
            learner = next(name for name in "abc" if name != leader)
            await servers[leader].propose([b"x"])
            await servers[leader].change(Demote(learner))
            await servers[leader].propose([b"y"])
            await servers.applied([b"x", b"y"])  # so the learner knows that its demotion is committed
            other = next(name for name in "abc" if name not in {leader, learner})
            await servers.stop(other)  # first, so that nobody campaigns
            await servers.stop(leader)
            await until(lambda: servers[learner].leader is None, "the learner knows no leader")

    run(scenario())


def test_stopping_leaves_a_change_unknown(run: Run) -> None:
    """A change that was appended when the server stops has an unknown outcome."""

    async def scenario() -> None:
        async with Servers("ab") as servers:
            leader = await servers.led()
            await servers[leader].barrier()
            await servers.stop("b" if leader == "a" else "a")
            outcomes: list[object] = []
            servers[leader].driver.change(Remove(leader), outcomes.append)
            await servers.stop(leader)
            assert [type(outcome) for outcome in outcomes] != []
            assert all(isinstance(outcome, OutcomeUnknown) for outcome in outcomes)

    run(scenario())
