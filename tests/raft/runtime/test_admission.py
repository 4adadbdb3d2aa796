"""What callers may not ask: each is refused by an error that says so, before anything has changed or left."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from raft import (
    AddLearner,
    AddVoter,
    BatchTooLarge,
    ChangeRefused,
    DeadlinePassed,
    Demote,
    EmptyProposal,
    JointChange,
    LeaveJoint,
    Member,
    Outcome,
    ProposalInvalid,
    ProposalTooLarge,
    RaftError,
    RaftServer,
    Rejected,
    Remove,
)
from raft.core.messages import ProposeRequest
from raft.core.progress import Progress
from raft.runtime.driver import Driver
from raft.testing.servers import BRISK, Servers

Run = Callable[[Coroutine[Any, Any, None]], None]
SMALL = replace(BRISK, proposal_bytes_max=50, uncommitted_bytes_max=130)


async def outcome(action: Coroutine[Any, Any, object]) -> RaftError | None:
    """What an operation failed with, or None."""
    try:
        await action
    except RaftError as error:
        return error
    return None


def dump(value: Any) -> Any:
    """Everything that a node knows, as plain values that can be compared."""
    if isinstance(value, Progress):
        return {name: dump(getattr(value, name)) for name in Progress.__slots__}
    if hasattr(value, "__dict__") and type(value).__module__.startswith("raft.core"):
        return {name: dump(item) for name, item in vars(value).items() if not callable(item)}
    if isinstance(value, dict):
        return {key: dump(item) for key, item in value.items()}
    return list(value) if type(value).__name__ in {"list", "deque"} else value


def everything(driver: Driver) -> Any:
    """What a refused call must leave as it was."""
    return dump(driver.node.state), driver.waiting, driver._links.addresses.book("")


TEXTS: Any = some.sampled_from(["a", "b", "x", "", None, 7, b"a"])
MEMBERS = some.one_of(TEXTS, some.builds(Member, TEXTS, TEXTS, TEXTS))
STEPS = some.one_of(
    some.builds(AddLearner, MEMBERS, some.sampled_from([True, False, None, "yes"]), TEXTS),
    some.builds(AddVoter, MEMBERS),
    some.builds(Demote, TEXTS),
    some.builds(Remove, TEXTS),
)
CHANGES: Any = some.one_of(
    STEPS,
    some.builds(LeaveJoint),
    some.builds(JointChange, some.lists(STEPS, max_size=3).map(tuple), some.sampled_from([True, False, "no"])),
    some.sampled_from([JointChange([Remove("a")]), JointChange((LeaveJoint(),)), "remove a", None, 7]),  # type: ignore[arg-type,list-item]  # nonsense
)
COMMANDS = some.lists(some.one_of(some.binary(max_size=60), some.sampled_from(["text", 7, None, bytearray(b"x")])), max_size=4)
DEADLINES = some.sampled_from([None, None, None, 0, -1, -inf, inf, 5.0, nan, "5", True])
CALLS = some.one_of(
    some.tuples(some.just("propose"), COMMANDS, DEADLINES),
    some.tuples(some.just("change"), CHANGES, DEADLINES),
    some.tuples(some.just("transfer"), TEXTS, DEADLINES),
    some.tuples(some.just("read"), some.none(), DEADLINES),
    some.tuples(some.just("know"), some.dictionaries(TEXTS, TEXTS, max_size=2), some.none()),
)


def do(driver: Driver, call: tuple[str, Any, Any], settle: Callable[[Any], None]) -> None:
    """Make one call."""
    name, argument, timeout = call
    if name == "know":
        driver.know(argument)
    elif name == "read":
        driver.read(settle, timeout)
    else:
        getattr(driver, name)(argument, settle, timeout)


@pytest.mark.parametrize("who", ["leader", "follower"])
def test_whatever_is_refused_has_changed_nothing(run: Run, who: str) -> None:
    """Any proposal, change, transfer, read or address that is refused leaves the node equal, and is refused as rejected or as a wrong argument."""

    async def scenario() -> None:
        async with Servers("abc", config=SMALL) as servers:
            leader = await servers.led()
            await servers[leader].propose([b"x"])
            driver = servers[leader if who == "leader" else next(name for name in "abc" if name != leader)].driver
            refused: set[str] = set()

            @settings(max_examples=400, deadline=None, derandomize=True, database=None)
            @given(call=CALLS)
            def whatever(call: tuple[str, Any, Any]) -> None:
                before, told = everything(driver), []
                try:
                    do(driver, call, told.append)
                except (TypeError, ValueError) as error:
                    told.append(error)
                if told and isinstance(told[0], Exception):
                    assert not isinstance(told[0], RaftError) or told[0].outcome is Outcome.REJECTED
                    assert everything(driver) == before, call
                    refused.add(call[0])

            whatever()
            assert refused == {"propose", "change", "transfer", "read", "know"}

    run(scenario())


def test_every_answer_is_of_one_type(run: Run) -> None:
    """The results of a batch are a tuple of bytes, whoever was asked."""

    async def scenario() -> None:
        async with Servers("abc") as servers:
            await servers.led()
            for name in "abc":
                results = await servers[name].propose([b"", b"x"])
                assert type(results) is tuple
                assert [type(result) for result in results] == [bytes, bytes]

    run(scenario())


@pytest.mark.parametrize(
    ("commands", "error", "words"),
    [
        ([], EmptyProposal, "at least one"),
        ([b"x", "text"], ProposalInvalid, "proposal 1 of the batch is of type str"),
        ([bytearray(b"x")], ProposalInvalid, "proposal 0 of the batch is of type bytearray"),
        (b"ab", ProposalInvalid, "proposal 0 of the batch is of type int"),
        ([b"x" * 51], ProposalTooLarge, "51 bytes is over the limit of 50"),
        ([b"x", b"", b"", b"", b""], BatchTooLarge, r"a batch of 5 proposals and 161 bytes is over the limit of 130 bytes \(uncommitted_bytes_max; "),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_bad_batches_are_refused_alike_everywhere(run: Run, commands: Any, error: type[Rejected], words: str) -> None:
    """Leader and followers refuse the same batches with the same error, and take what is at the limit."""

    async def scenario() -> None:
        async with Servers("abc", config=SMALL) as servers:
            await servers.led()
            for name in "abc":
                with pytest.raises(error, match=words) as caught:
                    await servers[name].propose(commands)
                assert caught.value.outcome is Outcome.REJECTED
                await servers[name].propose([b"x" * 50, b"y" * 16])
                await servers[name].propose([b"", b"", b"", b""])
            await servers.applied([b"x" * 50, b"y" * 16, b"", b"", b"", b""] * 3)

    run(scenario())


def test_what_no_message_carries_is_refused_before_it_leaves(run: Run) -> None:
    """A batch over the transport's limit is refused at once, names size and limit, and no request is sent; one within it passes."""

    async def scenario() -> None:
        async with Servers("abc") as servers:
            leader = await servers.led()
            follower = next(name for name in "abc" if name != leader)
            sent: list[int] = []

            def watch(message: object) -> bool:
                if isinstance(message, ProposeRequest):
                    sent.append(len(message.commands))
                return False

            servers.network.drop = watch
            for name in (leader, follower):
                servers[name]._ports.transport.message_bytes_max = 1_000  # type: ignore[misc]  # the one in memory lets it be set
                error = await outcome(servers[name].propose([b"x" * 100] * 10))
                assert isinstance(error, BatchTooLarge)
                assert (error.size > 1_000, error.limit, error.count) == (True, 1_000, 10)
            assert sent == []
            await servers[follower].propose([b"x" * 100] * 8)
            assert sent == [8]

    run(scenario())


def test_results_that_no_message_carries_are_told_as_unknown(run: Run) -> None:
    """A follower's caller whose results can't travel learns at once that nobody tells it what came of it, and why; the commands took effect."""

    async def scenario() -> None:
        async with Servers("abc") as servers:
            leader = await servers.led()
            follower = next(name for name in "abc" if name != leader)
            servers[leader]._ports.transport.message_bytes_max = 1_000  # type: ignore[misc]  # the one in memory lets it be set
            error = await outcome(servers[follower].propose([b"x" * 100] * 12, within=inf))
            assert error is not None
            assert error.outcome is Outcome.UNKNOWN
            assert "over the limit of 1000 bytes" in str(error)
            await servers.applied([b"x" * 100] * 12)

    run(scenario())


def operations(server: RaftServer, target: str) -> dict[str, Callable[[Any], Coroutine[Any, Any, Any]]]:
    """Everything that takes a deadline."""
    return {
        "propose": lambda within: server.propose([b"late"], within),
        "barrier": server.barrier,
        "lease": lambda within: server.barrier(within, lease=True),
        "change": lambda within: server.change(AddLearner(Member("d", "d", "d")), within),
        "transfer": lambda within: server.transfer(target, within),
    }


@pytest.mark.parametrize(
    ("within", "expected"), [(0, DeadlinePassed), (-1.5, DeadlinePassed), (-inf, DeadlinePassed), (nan, ValueError), ("5", TypeError)]
)
def test_a_deadline_that_has_passed_begins_nothing(run: Run, within: Any, expected: type[Exception]) -> None:
    """With a deadline of 0 or less, or one that is no time, every operation is refused and leaves the node as it was."""

    async def scenario() -> None:
        async with Servers("abc") as servers:
            leader = await servers.led()
            await servers[leader].propose([b"x"])
            for name in "abc":
                driver = servers[name].driver
                for operation in operations(servers[name], next(other for other in "abc" if other != name)).values():
                    before = everything(driver)
                    with pytest.raises(expected):
                        await operation(within)
                    assert everything(driver) == before

    run(scenario())


def test_no_deadline_at_all(run: Run) -> None:
    """With an infinite deadline an operation waits as long as it takes, and ends when it can."""

    async def scenario() -> None:
        servers = Servers("abc", config=replace(BRISK, proposal_timeout_ms=100))
        await servers.start("a")
        waiting = [asyncio.create_task(servers["a"].propose([b"x"], inf)), asyncio.create_task(servers["a"].barrier(inf))]
        await servers.ticks("a", 100)
        assert not any(task.done() for task in waiting)
        await servers.start("b")
        await asyncio.gather(*waiting)
        leader = await servers.led()
        await servers[leader].change(AddLearner(Member("d", "d", "d")), inf)
        assert await servers[leader].transfer("b" if leader == "a" else "a", inf) != leader
        for name in "ab":
            await servers.stop(name)

    run(scenario())


@pytest.mark.parametrize("fault", [ValueError("no time"), "text"])
def test_a_stamp_that_fails_refuses_the_batch(run: Run, fault: object) -> None:
    """What the application's stamp does not take is rejected, at the leader and through a follower, and those beside it go on."""

    def stamp(command: bytes) -> Any:
        if command != b"bad":
            return command
        if isinstance(fault, Exception):
            raise fault
        return fault

    async def scenario() -> None:
        async with Servers("abc") as servers:
            await servers.led()
            for name in "abc":
                servers[name].driver._stamp = stamp
            for name in "abc":
                good, bad, more = await asyncio.gather(
                    outcome(servers[name].propose([b"1"])), outcome(servers[name].propose([b"x", b"bad"])), outcome(servers[name].propose([b"2"]))
                )
                assert (good, more) == (None, None)
                assert isinstance(bad, Rejected)
                assert "proposal 1 of the batch" in str(bad)
            await servers.applied([b"1", b"2"] * 3)

    run(scenario())


def test_a_change_that_is_none_is_refused(run: Run) -> None:
    """What is no change, or names a member without an id, an address or of other things than text, is refused by name; the log stays."""

    async def scenario() -> None:
        async with Servers("a") as servers:
            await servers.led()
            await servers["a"].propose([b"x"])
            last = servers["a"].status().last_index
            nonsense: Any = [None, "remove a", AddLearner(Member("d", "d", "")), AddLearner(Member("d", None, "d")), JointChange((7,))]  # type: ignore[arg-type]  # nonsense
            for wanted in nonsense:
                with pytest.raises(ChangeRefused):
                    await servers["a"].change(wanted)
            assert servers["a"].status().last_index == last
            await servers["a"].propose([b"y"])

    run(scenario())
