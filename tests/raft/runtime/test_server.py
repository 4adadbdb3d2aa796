"""Running servers over memory: what callers get, whoever they ask, and whatever happens to the leader."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from raft import (
    LeaderChanged,
    NodeStopped,
    NotLeader,
    Outcome,
    OutcomeUnknown,
    ProposalTooLarge,
    RaftError,
    RaftServer,
    ReadRefused,
    Rejected,
    TransferRefused,
)
from raft.core.membership import Demote
from raft.core.messages import AppendRequest, ProposeRequest, ProposeResponse
from raft.core.model import ENTRY_OVERHEAD_BYTES
from raft.testing.servers import BRISK, Servers, until

Run = Callable[[Coroutine[Any, Any, None]], None]
IMPATIENT = replace(BRISK, proposal_timeout_ms=150)


async def outcome(action: Coroutine[Any, Any, object]) -> RaftError | None:
    """What an operation failed with, or None."""
    try:
        await action
    except RaftError as error:
        return error
    return None


def test_propose_and_read_at_any_node(run: Run) -> None:
    """Every node takes proposals and reads; results come back in order, and reads see them."""

    async def scenario() -> None:
        async with Servers("abc") as servers:
            await servers.led()
            done: list[bytes] = []
            for number, name in enumerate("abcabc"):
                results = await servers[name].propose([b"%d" % number, b"%d'" % number])
                assert [result.split(b":")[1] for result in results] == [b"%d" % number, b"%d'" % number]
                done += [b"%d" % number, b"%d'" % number]
                for reader in "abc":
                    assert await servers[reader].barrier() >= int(results[-1].split(b":")[0])
                    assert servers.machines[reader].commands == done

    run(scenario())


def test_many_at_once_keep_their_results(run: Run) -> None:
    """Hundreds of proposals under way at all nodes each get their own answer, and take effect once."""

    async def scenario() -> None:
        async with Servers("abc") as servers:
            await servers.led()
            commands = [b"%s%d" % (name.encode(), number) for name in "abc" for number in range(150)]
            results = await asyncio.gather(*(servers[chr(command[0])].propose([command]) for command in commands))
            assert [result[0].split(b":")[1] for result in results] == commands
            await servers.applied(servers.machines["a"].commands)
            assert sorted(servers.machines["a"].commands) == sorted(commands)

    run(scenario())


def test_a_cluster_of_one(run: Run) -> None:
    """A single server elects itself, commits alone, and finds everything again after a restart."""

    async def scenario() -> None:
        async with Servers("a") as servers:
            assert (await servers["a"].propose([b"x"]))[0].endswith(b":x")
            await servers.stop("a")
            await servers.start("a")
            await servers["a"].barrier()
            assert servers.machines["a"].commands == [b"x"]

    run(scenario())


def test_a_stopped_leader_is_replaced(run: Run) -> None:
    """When the leader stops another one takes over, and nothing that was acknowledged is lost."""

    async def scenario() -> None:
        async with Servers("abc") as servers:
            first = await servers.led()
            await servers[first].propose([b"before"])
            await servers.stop(first)
            second = await servers.led()
            assert second != first
            await servers[second].propose([b"after"])
            await servers.start(first)
            await servers.applied([b"before", b"after"])

    run(scenario())


def test_proposals_survive_a_change_of_leader_or_are_told(run: Run) -> None:
    """While leaders stop one after the other every caller gets one answer: a result that is there once, or an honest error."""

    async def scenario() -> None:
        async with Servers("abc") as servers:
            await servers.led()
            results: dict[bytes, RaftError | None] = {}

            async def client(name: str) -> None:
                for number in range(40):
                    command = b"%s-%d" % (name.encode(), number)
                    if name in servers.running:
                        results[command] = await outcome(servers[name].propose([command]))
                    await asyncio.sleep(0.005)

            clients = [asyncio.create_task(client(name)) for name in "abc"]
            for _ in range(2):
                leader = await servers.led()
                await servers.stop(leader)
                await servers.led()
                await servers.start(leader)
            await asyncio.gather(*clients)
            await servers.led()
            await servers["a"].barrier()
            held = servers.machines["a"].commands
            assert len(held) == len(set(held))
            for command, error in results.items():
                if error is None:
                    assert command in held
                elif error.outcome is Outcome.REJECTED:
                    assert command not in held, (command, error)

    run(scenario())


@pytest.mark.parametrize("operation", ["propose", "barrier"])
def test_without_a_leader_operations_are_held_and_then_rejected(run: Run, operation: str) -> None:
    """With no quorum nothing leaves the node; at its deadline the operation is rejected as having had no effect."""

    async def scenario() -> None:
        async with Servers("abc", config=IMPATIENT) as servers:
            leader = await servers.led()
            (left, gone) = [name for name in "abc" if name != leader]
            await servers.stop(leader)
            await servers.stop(gone)
            await until(lambda: servers[left].leader is None, "the leader is missed")
            action = servers[left].propose([b"x"]) if operation == "propose" else servers[left].barrier()
            error = await outcome(action)
            assert isinstance(error, NotLeader)
            assert error.outcome is Outcome.REJECTED
            assert servers[left].status().last_index == 1

    run(scenario())


def test_held_operations_are_carried_out_when_a_leader_appears(run: Run) -> None:
    """What was asked while nobody led succeeds once somebody does."""

    async def scenario() -> None:
        servers = Servers("abc")
        await servers.start("a")
        proposal, read = asyncio.create_task(servers["a"].propose([b"x"])), asyncio.create_task(servers["a"].barrier())
        await servers.ticks("a", 5)
        assert not proposal.done()
        await servers.start("b")
        assert (await proposal)[0].endswith(b":x")
        await read
        for name in tuple(servers.running):
            await servers.stop(name)

    run(scenario())


def test_a_short_deadline_behind_a_long_one_is_kept(run: Run) -> None:
    """Held operations end at their own deadlines, whatever waits before them."""

    async def scenario() -> None:
        servers = Servers("abc")
        await servers.start("a")
        patient = asyncio.create_task(servers["a"].propose([b"long"], within=1_000))
        error = await outcome(servers["a"].propose([b"short"], within=0.01))
        assert isinstance(error, NotLeader)
        assert not patient.done()
        await servers.stop("a")
        assert isinstance(await outcome(patient), NodeStopped)  # type: ignore[arg-type]  # a task is awaitable too

    run(scenario())


def test_an_isolated_leader_says_unknown(run: Run) -> None:
    """A proposal that a leader took and could not commit is unknown, whether it took it from its own caller or from a follower."""

    async def scenario() -> None:
        async with Servers("abc", config=IMPATIENT) as servers:
            leader = await servers.led()
            follower, other = [name for name in "abc" if name != leader]
            servers.network.drop = lambda message: isinstance(message, AppendRequest)
            own = asyncio.create_task(outcome(servers[leader].propose([b"own"])))
            forwarded = asyncio.create_task(outcome(servers[follower].propose([b"forwarded"])))
            for error in (await own, await forwarded):
                assert isinstance(error, OutcomeUnknown), error
            assert other

    run(scenario())


def test_a_lost_forwarded_proposal_is_unknown_and_not_sent_again(run: Run) -> None:
    """When the request, or its answer, is lost the follower's caller learns that nobody knows; it takes effect at most once."""

    async def scenario() -> None:
        async with Servers("abc", config=IMPATIENT) as servers:
            leader = await servers.led()
            follower = next(name for name in "abc" if name != leader)
            for lost, effect in ((ProposeRequest, []), (ProposeResponse, [b"ProposeResponse"])):
                seen: list[str] = []

                def drop(message: object, lost: type = lost, seen: list[str] = seen) -> bool:
                    if isinstance(message, ProposeRequest):
                        seen.append("request")
                    return isinstance(message, lost)

                servers.network.drop = drop
                error = await outcome(servers[follower].propose([lost.__name__.encode()]))
                assert isinstance(error, OutcomeUnknown)
                assert seen == ["request"]
                assert servers.machines[leader].commands == effect
            servers.network.drop = lambda _message: False

    run(scenario())


def test_what_the_leader_refuses_is_rejected_at_a_follower(run: Run) -> None:
    """Limits are checked where the caller is, and at the leader; both say that nothing happened."""

    async def scenario() -> None:
        async with Servers("abc", config=replace(BRISK, proposal_bytes_max=100, uncommitted_bytes_max=100)) as servers:
            leader = await servers.led()
            follower = next(name for name in "abc" if name != leader)
            for name in (leader, follower):
                assert isinstance(await outcome(servers[name].propose([b"x" * 101])), ProposalTooLarge)
            servers.network.drop = lambda message: isinstance(message, AppendRequest)
            first = asyncio.create_task(outcome(servers[leader].propose([b"x" * 90])))
            await until(lambda: servers[leader].status().uncommitted_bytes, "the first is in the log")
            error = await outcome(servers[follower].propose([b"y" * 20]))
            assert type(error) is Rejected
            assert f"{110 + 2 * ENTRY_OVERHEAD_BYTES} uncommitted bytes would be over the limit of 100 bytes" in str(error)
            servers.network.drop = lambda _message: False
            assert await first is None

    run(scenario())


def test_stop_settles_everybody(run: Run) -> None:
    """Whoever waits when a node stops is told: unknown for what was in the log, rejected for reads; later calls are refused."""

    async def scenario() -> None:
        async with Servers("abc") as servers:
            leader = await servers.led()
            server = servers[leader]
            servers.network.drop = lambda message: message.to == leader or isinstance(message, AppendRequest)
            proposals = [asyncio.create_task(outcome(server.propose([b"%d" % number]))) for number in range(3)]
            read = asyncio.create_task(outcome(server.barrier()))
            await until(lambda: server.status().last_index > 3, "the proposals are in the log")
            await servers.stop(leader)
            for task in proposals:
                assert isinstance(await task, OutcomeUnknown)
            assert isinstance(await read, ReadRefused)
            for action in (server.propose([b"late"]), server.barrier()):
                assert isinstance(await outcome(action), NodeStopped)
            with pytest.raises(NodeStopped):
                server.status()
            await server.stop()  # a second time: nothing happens
            servers.network.drop = lambda _message: False

    run(scenario())


def test_stopping_twice_and_before_the_start(run: Run) -> None:
    """A server that never started stops without effect, and refuses everything."""

    async def scenario() -> None:
        servers = Servers("a")
        server = await servers.start("a")
        await servers.stop("a")
        fresh = type(server)(node_id="z", config=BRISK, ports=servers.ports("a"))
        assert (fresh.leads, fresh.leader) == (False, None)
        with pytest.raises(NodeStopped):
            fresh.status()
        with pytest.raises(NodeStopped):
            await fresh.failure()
        await fresh.stop()

    run(scenario())


def test_a_port_that_is_taken_fails_the_start(run: Run) -> None:
    """When the transport can't listen the start raises, and stopping afterwards leaves nothing behind."""

    async def scenario() -> None:
        async with Servers("abc") as servers:
            second = type(servers["a"])(node_id="z", config=BRISK, ports=replace(servers.ports("b"), transport=servers.network.transport("z", "a")))
            with pytest.raises(OSError, match="a is taken"):
                await second.start()
            await second.stop()

    run(scenario())


def test_leadership_is_handed_over(run: Run) -> None:
    """A leader gives its place to a follower; one that follows already has nothing to do; bad targets are refused."""

    async def scenario() -> None:
        async with Servers("abc") as servers:
            leader = await servers.led()
            await servers[leader].propose([b"x"])
            with pytest.raises(TransferRefused):
                await servers[leader].transfer("nobody")
            assert await servers[leader].hand_over(5)
            second = await servers.led()
            assert second != leader
            assert await servers[leader].hand_over(5)
            assert await servers.led() == second
            with pytest.raises(NotLeader):
                await servers[leader].transfer(second)
            assert any(isinstance(seen, LeaderChanged) and seen.leader == second for seen in servers.observations[leader])

    run(scenario())


def test_successors_are_ranked(run: Run) -> None:
    """Who keeps up comes before who does not; of those who do the last to come back, however long its log; then the longer log. A learner is none."""

    async def scenario() -> None:
        async with Servers("abcd") as servers:
            leader = await servers.led()
            first, second, third = [name for name in "abcd" if name != leader]
            contact = servers[leader].driver.contact
            for returned, behind, expected in (
                ({}, {first}, (third, second, first)),
                ({first: 5.0, second: 9.0}, set(), (second, first, third)),
                ({first: 9.0, third: 5.0}, {first}, (third, second, first)),
            ):
                status = servers[leader].status()
                match = {first: 1, second: 2, third: 3}
                peers = tuple(replace(one, match_index=match[one.peer], caught_up=one.peer not in behind, contact_ticks=0) for one in status.peers)
                frozen = replace(status, peers=peers)
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(servers[leader], "status", lambda frozen=frozen: frozen)
                    patch.setattr(contact, "returned_at", lambda peer, returned=returned: returned.get(peer, 0.0))
                    assert tuple(one.peer for one in servers[leader].successors()) == expected
            await servers[leader].propose([b"x"])
            await servers[leader].change(Demote(third))
            assert {one.peer for one in servers[leader].successors()} == {first, second}
            assert servers[first].successors() == ()

    run(scenario())


def test_nobody_to_hand_over_to(run: Run) -> None:
    """A cluster of one keeps its leader, and so does one whose others are gone; it says so."""

    async def scenario() -> None:
        async with Servers("a") as servers:
            await servers.led()
            assert not await servers["a"].hand_over(5)
        async with Servers("abc") as servers:
            leader = await servers.led()
            servers.network.drop = lambda message: message.sender == leader
            assert not await servers[leader].hand_over(0.02)

    run(scenario())


def test_proposals_during_a_transfer_wait_for_the_new_leader(run: Run) -> None:
    """While leadership moves proposals are held, at the old leader and at followers, and carried out by the new one."""

    async def scenario() -> None:
        async with Servers("abc") as servers:
            leader = await servers.led()
            target, other = [name for name in "abc" if name != leader]
            transfer = asyncio.create_task(servers[leader].transfer(target))
            await asyncio.sleep(0)
            results = await asyncio.gather(*(servers[name].propose([name.encode()]) for name in (leader, target, other)))
            assert await transfer == target
            assert len(results) == 3
            assert await servers.led() == target
            await servers["a"].barrier()
            assert sorted(servers.machines["a"].commands) == [b"a", b"b", b"c"]

    run(scenario())


def test_commands_are_stamped_once_by_the_leader(run: Run) -> None:
    """The leader stamps its own commands and forwarded ones, each once; every machine sees the same bytes."""

    async def scenario() -> None:
        servers = Servers("abc")
        async with servers:
            await servers.led()
            for name in "abc":
                servers[name].driver._stamp = lambda command, name=name: command + b"@" + name.encode()
            leader = await servers.led()
            for name in "abc":
                await servers[name].propose([name.encode()])
            expected = [name.encode() + b"@" + leader.encode() for name in "abc"]
            await servers.applied(expected)

    run(scenario())


def test_applied_indexes_are_told_in_order(run: Run) -> None:
    """The callback for applied indexes sees them grow, and before a caller that waits for the result goes on."""

    async def scenario() -> None:
        servers = Servers("a")
        seen: list[int] = []
        server = RaftServer(node_id="a", config=BRISK, ports=servers.ports("a"), on_applied=seen.append)
        await server.start()
        for number in range(5):
            index = int((await server.propose([b"%d" % number]))[0].split(b":")[0])
            assert seen[-1] >= index
        assert seen == sorted(seen)
        assert server.disk_statistics.writes >= 5
        assert server.disk_statistics.entries == 6
        assert server.silence_seconds == 0
        await server.stop()

    run(scenario())
