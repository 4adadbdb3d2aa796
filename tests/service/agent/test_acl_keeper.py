"""What the leader does for the ACL by itself, on a clock of the test's: builtin records, the token of the settings, and the end of tokens."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from raft.errors import NotLeader
from service.agent import acl_keeper
from service.agent.acl_keeper import AclKeeper
from service.domain.acl.records import ANONYMOUS_ID, MANAGEMENT_ID, TOKENS, Token, made, row_id, secret_hash
from service.domain.commands import AclChange, ReapTokens, decode, encode, stamp
from service.settings import load
from service.store import acl_rows
from service.store.machine import KvMachine
from service.store.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from service.domain.commands import Command

SECOND_NS = 10**9
INITIAL = "11111111-2222-3333-4444-555555555555"
ACCESSOR = "22222222-bbbb-4bbb-8bbb-222222222222"


class Node:
    """A Raft server that applies what is proposed to a state of its own, with a keeper beside it and a clock that is moved by hand.

    :ivar failing: how many proposals fail before one is taken.
    :ivar told: why the node is not ready, each time that changed.
    """

    def __init__(self, directory: Path, **given: str) -> None:
        self.machine = KvMachine(directory)
        self.machine.apply([(1, 1, None)])
        self.reader = Reader(directory)
        environment = {"KVORUM_NAME": "n1", "KVORUM_DATA_DIR": str(directory)}
        self._settings = load(environment | {f"KVORUM_ACL_{name.upper()}": value for name, value in given.items()})
        self._directory = directory
        self.restart()
        self.now_ns = 1_000 * SECOND_NS
        self.leads = True
        self.leader = "n1"
        self.failing = 0
        self.proposed: list[Command] = []

    def restart(self) -> None:
        """Have a new keeper over the same state."""
        self.told: list[str] = []
        self.keeper = AclKeeper(self, self._directory, self._settings, self.told.append)  # type: ignore[arg-type]  # stands in for the server

    async def propose(self, data: list[bytes]) -> list[bytes]:
        """See :class:`raft.runtime.server.RaftServer`."""
        if self.failing:
            self.failing -= 1
            raise NotLeader
        return [self.apply(decode(stamp(one, 0))[1]) for one in data]

    def apply(self, command: Command) -> bytes:
        """One command as an entry of its own, stamped by the clock."""
        self.proposed.append(command)
        return self.machine.apply([(self.machine.applied_index + 1, 1, stamp(encode(command), self.now_ns // 10**6))])[0]

    def acl(self) -> acl_rows.Everything:
        """The whole ACL."""
        return self.reader.tables(acl_rows.everything)[0]

    def put(self, token: Token) -> None:
        """Have a token."""
        self.apply(AclChange(self.acl().last_index, [token]))

    def close(self) -> None:
        """Release the files."""
        self.reader.close()
        self.machine.close()


@pytest.fixture
def make_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Node]]:
    """Makes one node."""
    made_: list[Node] = []

    def make(**given: str) -> Node:
        made_.append(Node(tmp_path, **given))
        monkeypatch.setattr(acl_keeper, "time", SimpleNamespace(time_ns=lambda: made_[0].now_ns))
        return made_[0]

    monkeypatch.setattr(acl_keeper, "PASS_SECONDS", 0)
    monkeypatch.setattr(acl_keeper, "FIRST_PASS_SECONDS", 0)
    yield make
    for one in made_:
        one.close()


def run(node: Node, until: Callable[[], bool]) -> None:
    """Let the keeper go on until something holds."""

    async def main() -> None:
        task = asyncio.create_task(node.keeper.run())
        while not until():
            assert not task.done(), "the keeper has ended"
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(asyncio.wait_for(main(), 60))


def settle(node: Node) -> None:
    """Do everything that is due."""
    run(node, lambda: node.keeper.due() is None)


def token(**fields: Any) -> Token:
    """A token."""
    return made(Token(ACCESSOR, secret_hash("s"), "s", **fields))


def test_nothing_without_an_acl(make_node: Callable[..., Node]) -> None:
    """Where the ACL is off the keeper ends at once and writes nothing, builtin records neither."""
    node = make_node()
    asyncio.run(asyncio.wait_for(node.keeper.run(), 60))
    assert (node.proposed, node.acl().last_index, node.told) == ([], 0, [])


def test_what_is_builtin(make_node: Callable[..., Node]) -> None:
    """The first leader writes the policy of management and nobody's token, once; that is no bootstrap."""
    node = make_node(enabled="true")
    settle(node)
    found = node.acl()
    assert (list(found.policies), list(found.tokens)) == ([MANAGEMENT_ID], [ANONYMOUS_ID])
    assert acl_rows.BOOTSTRAP not in found.indexes
    assert len(node.proposed) == 1


@pytest.mark.parametrize(("secrets", "kept"), [("shown", INITIAL), ("hashed", "")])
def test_the_token_of_the_settings(make_node: Callable[..., Node], secrets: str, kept: str) -> None:
    """It may do everything, counts for the bootstrap, comes back when it is deleted, and its secret is kept only where secrets are."""
    node = make_node(enabled="true", initial_management=INITIAL, secrets=secrets)
    for _ in range(2):
        settle(node)
        found = node.acl()
        (initial,) = (one for one in found.tokens.values() if one.accessor != ANONYMOUS_ID)
        assert (initial.policies, initial.secret_hash, initial.secret) == ([MANAGEMENT_ID], secret_hash(INITIAL), kept)
        assert found.indexes[acl_rows.BOOTSTRAP] == initial.create_index
        node.apply(AclChange(found.last_index, deletes=[row_id(TOKENS, initial.accessor)]))


@pytest.mark.parametrize("expiry", [{"lifetime_ns": 90 * SECOND_NS}, {"expires_ns": 1_090 * SECOND_NS}])
def test_a_token_ends_in_its_time(make_node: Callable[..., Node], expiry: dict[str, int]) -> None:
    """Not a nanosecond before; then the leader proposes that it is forgotten, once, and the others stay."""
    node = make_node(enabled="true")
    settle(node)
    node.put(token(**expiry))
    node.put(msgspec.structs.replace(token(), accessor="1" * 36, secret_hash=secret_hash("other")))
    node.now_ns += 90 * SECOND_NS - 1
    assert node.keeper.due() is None
    node.now_ns += 1
    assert node.keeper.due() == ReapTokens()
    before = len(node.proposed)
    settle(node)
    assert node.proposed[before:] == [ReapTokens()]
    assert set(node.acl().tokens) == {ANONYMOUS_ID, "1" * 36}


def test_followers_propose_nothing(make_node: Callable[..., Node]) -> None:
    """What is due waits for the leader; a node that comes to lead does it then."""
    node = make_node(enabled="true")
    node.leads = False
    looks = 0

    def looked() -> bool:
        nonlocal looks
        looks += 1
        return looks > 100

    run(node, looked)
    assert node.proposed == []
    node.leads = True
    settle(node)
    assert MANAGEMENT_ID in node.acl().policies


def test_a_failed_proposal_ends_nothing(make_node: Callable[..., Node]) -> None:
    """It is tried again with the next pass."""
    node = make_node(enabled="true")
    node.failing = 3
    settle(node)
    assert (node.failing, len(node.proposed)) == (0, 1)


@pytest.mark.parametrize("leads", [True, False])
def test_not_ready_before_the_acl_is_there(make_node: Callable[..., Node], leads: bool) -> None:
    """A node says that it waits until its own state holds what is builtin and the token of the settings: before, every client is refused."""
    node = make_node(enabled="true", initial_management=INITIAL)
    node.leads = leads
    assert node.told == [acl_keeper.WAITING]
    if not leads:
        passes = iter(range(5))
        run(node, lambda: next(passes, None) is None)
        assert (node.told, node.proposed) == ([acl_keeper.WAITING], [])
        node.apply(node.keeper.due())  # by the leader
    run(node, lambda: len(node.told) > 1)
    assert node.told == [acl_keeper.WAITING, ""]
    found, _ = node.reader.tables(lambda connection: acl_rows.find_token(connection, secret_hash(INITIAL)))
    assert found is not None


def test_no_follower_waits_for_a_leader_with_other_settings(make_node: Callable[..., Node]) -> None:
    """In a rolling restart that switches the ACL on the leader comes last: those before it must become ready without what it does not write."""
    node = make_node(enabled="true")
    node.leads = False
    run(node, lambda: len(node.told) > 1)
    assert (node.told, node.proposed) == ([acl_keeper.WAITING, ""], [])


def test_ready_at_once_with_an_acl_from_before(make_node: Callable[..., Node]) -> None:
    """At a start over a state that has all of it nobody waits, not even where tokens are to be forgotten."""
    node = make_node(enabled="true")
    settle(node)
    node.put(token(lifetime_ns=SECOND_NS))
    node.now_ns += 2 * SECOND_NS
    node.leads = False
    node.restart()
    run(node, lambda: len(node.told) > 1)
    assert node.told == [acl_keeper.WAITING, ""]
