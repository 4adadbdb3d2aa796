"""Where servers are reached: members that move are followed, and of what was told and what is configured the newer counts."""

from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from raft import AddLearner, Boundary, Configuration, Entry, EntryKind, HardState, Member, RaftServer, Remove
from raft.core.membership import encode_configuration
from raft.core.messages import AppendRequest
from raft.runtime.reach import Addresses, Contact
from raft.storage.memory import MemorySnapshots
from raft.testing.servers import BRISK, ListMachine, Servers, SlowLog, until

Run = Callable[[Coroutine[Any, Any, None]], None]
ENTRY_BY_ENTRY = replace(BRISK, append_bytes_max=1)


def configuration(**addresses: str) -> Configuration:
    """Voters at addresses."""
    return Configuration(voters=tuple(Member(name, name, address) for name, address in addresses.items()))


def test_the_newer_counts() -> None:
    """What is told wins over the configuration until the node has caught up; a configuration that is undone gives way to the one before it."""
    addresses = Addresses()
    addresses.tell({"a": "told", "x": "apart"})
    addresses.configure(configuration(a="old", b="b"))
    assert addresses.book("b") == {"a": "told", "x": "apart"}
    assert addresses.caught_up(configuration(a="old", b="b"))
    assert addresses.book("b") == {"a": "old", "x": "apart"}
    addresses.configure(configuration(a="new", b="b"))
    assert addresses.book("b")["a"] == "new"
    addresses.configure(configuration(a="old", b="b"))
    assert addresses.book("b")["a"] == "old"
    addresses.tell({"a": "moved", "x": "elsewhere"})
    assert addresses.book("b") == {"a": "moved", "x": "elsewhere"}
    assert not addresses.caught_up(configuration(b="b"))
    assert addresses.book("b") == {"a": "moved", "x": "elsewhere"}


def test_a_leader_follows_its_configuration() -> None:
    """What a leader is told of its members counts for nothing: it has the newest configuration. Of others it counts."""
    addresses = Addresses()
    addresses.tell({"b": "moved", "x": "apart"}, newest=configuration(a="a", b="b"))
    assert addresses.book("a") == {"b": "b", "x": "apart"}


def test_who_has_left_stays_reachable() -> None:
    """A former member keeps its last address while the node runs."""
    addresses = Addresses()
    addresses.configure(configuration(a="1", b="2"))
    addresses.configure(configuration(a="3", b="2"))
    addresses.configure(configuration(b="2"))
    assert addresses.book("b") == {"a": "3"}
    assert not addresses.caught_up(configuration(b="2"))


@pytest.mark.parametrize("bad", [{"": "a"}, {"a": ""}, {"a": None}, {7: "a"}], ids=repr)
def test_what_is_no_address_is_refused(bad: Any) -> None:
    """An empty id or address is named, and nothing of the same call is taken."""
    addresses = Addresses()
    with pytest.raises(ValueError, match="both must be text"):
        addresses.tell({"b": "b", **bad})
    assert addresses.book("") == {}


def test_who_comes_back_is_noted() -> None:
    """A peer counts as back from the first that is heard of it after messages to it were lost."""
    contact = Contact()
    contact.hear("a", 1.0)
    assert contact.returned_at("a") == 0
    contact.lose("a")
    assert contact.is_lost("a")
    contact.hear("a", 2.0)
    contact.hear("a", 3.0)
    assert (contact.is_lost("a"), contact.returned_at("a")) == (False, 2.0)


async def start_at(servers: Servers, name: str, address: str) -> RaftServer:
    """Start a server at an address of its own; a new one has an empty disk."""
    if name not in servers.logs:
        servers.names += (name,)
        servers.logs[name], servers.snapshots[name], servers.observations[name] = SlowLog(), MemorySnapshots(), []
        servers.logs[name].reset(Boundary(), HardState())
    servers.machines[name] = ListMachine()
    ports = replace(servers.ports(name), transport=servers.network.transport(name, address))
    servers.running[name] = server = RaftServer(node_id=name, config=servers.config, ports=ports)
    await server.start()
    return server


async def vote(servers: Servers, leader: str, name: str) -> None:
    """Wait until the leader has applied that a member votes: until then it refuses another change."""

    def applied() -> bool:
        status = servers[leader].status()
        return name in status.configuration.voter_ids and status.configuration_index <= status.applied_index

    await until(applied, f"{name} votes")


async def move(servers: Servers, name: str, address: str) -> None:
    """Take a member out, and in again at another address, with its disk."""
    await servers.stop(name)
    leader = await servers.led()
    await servers[leader].barrier()
    await servers[leader].change(Remove(name))
    await start_at(servers, name, address)
    await servers[leader].change(AddLearner(Member(name, name, address), promote=True))
    await vote(servers, leader, name)


async def lead(servers: Servers, name: str) -> None:
    """Make a server the leader."""
    while (leader := await servers.led()) != name:
        await servers[leader].barrier()
        await servers[leader].transfer(name)


def test_a_member_that_moved_is_followed(run: Run) -> None:
    """A member that comes in again at another address leads, answers and is answered there; the others learn it from the log."""

    async def scenario() -> None:
        async with Servers("abc") as servers:
            await servers.led()
            await move(servers, "a", "elsewhere")
            await lead(servers, "a")
            for name in "abc":
                await servers[name].propose([name.encode()])
            await servers.applied([b"a", b"b", b"c"])

    run(scenario())


def test_a_joining_server_is_not_led_astray_by_old_entries(run: Run) -> None:
    """One that was told where the leader is now goes on answering there, though the first entries that it gets have it elsewhere."""

    async def scenario() -> None:
        async with Servers("abc", config=ENTRY_BY_ENTRY) as servers:
            await servers.led()
            await move(servers, "a", "elsewhere")
            await lead(servers, "a")
            await servers["a"].propose([b"x"])
            joined = await start_at(servers, "d", "d")
            joined.know({"a": "elsewhere", "b": "b", "c": "c"})
            await servers["a"].change(AddLearner(Member("d", "d", "d"), promote=True))
            await until(lambda: "d" in joined.status().configuration.voter_ids, "d votes")
            await joined.propose([b"y"])
            await servers.applied([b"x", b"y"])

    run(scenario())


def test_a_new_leader_s_commit_index_is_not_current(run: Run) -> None:
    """A new leader may not know yet that the entry with its address is committed: what was told of it counts on until its term has one."""

    def located(index: int, address: str) -> Entry:
        return Entry(index, 1, EntryKind.CONFIGURATION, encode_configuration(configuration(a=address, b="b")))

    async def scenario() -> None:
        async with Servers("") as servers:
            joined = await start_at(servers, "d", "d")
            joined.know({"a": "new"})

            def hear(previous: int, previous_term: int, commit: int, *entries: Entry) -> tuple[int, str]:
                joined.driver.receive((AppendRequest("a", "d", 2, previous, previous_term, entries, commit),))
                return joined.status().commit_index, joined.driver._links.addresses.book("d")["a"]

            assert hear(0, 0, 1, located(1, "old")) == (1, "new")
            assert hear(1, 1, 2, located(2, "newest"), Entry(3, 2, EntryKind.NOOP, b"")) == (2, "new")
            assert hear(3, 2, 3) == (3, "newest")

    run(scenario())


def test_what_was_told_when_it_joined_does_not_last(run: Run) -> None:
    """A member that moved after a server has joined is followed by that server too, and so is one whose told address was wrong from the start."""

    async def scenario() -> None:
        async with Servers("abc") as servers:
            leader = await servers.led()
            wrong, moving = [name for name in "abc" if name != leader]
            await servers[leader].barrier()
            joined = await start_at(servers, "d", "d")
            joined.know({leader: leader, wrong: "nowhere", moving: moving})
            await servers[leader].change(AddLearner(Member("d", "d", "d"), promote=True))
            await vote(servers, leader, "d")
            await move(servers, moving, "elsewhere")
            for name in (wrong, moving):
                await lead(servers, name)
                assert await joined.propose([name.encode()])

    run(scenario())


def test_a_correction_is_taken(run: Run) -> None:
    """A server that was told a wrong address, or whose own log has an old one, joins in once it is told the right one."""

    async def scenario() -> None:
        async with Servers("abc") as servers:
            leader = await servers.led()
            await servers[leader].barrier()
            joined = await start_at(servers, "d", "d")
            joined.know(dict.fromkeys("abc", "nowhere"))
            await servers[leader].change(AddLearner(Member("d", "d", "d")))
            await servers.ticks("d", 2 * BRISK.election_ticks)
            assert joined.status().configuration.members == ()
            joined.know({name: name for name in "abc"})
            await until(lambda: "d" in joined.status().configuration, "d belongs to the cluster")
            await servers.stop("d")
            await move(servers, "a", "elsewhere")
            await lead(servers, "a")
            again = await start_at(servers, "d", "d")
            again.know({"a": "elsewhere"})  # without it no answer reaches the leader, which then sends nothing more
            await until(lambda: configuration(a="elsewhere").voters[0] in again.status().configuration.voters, "d has caught up")
            await again.propose([b"x"])

    run(scenario())
