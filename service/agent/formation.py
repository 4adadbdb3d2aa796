"""How a cluster forms: once, out of empty nodes that all name the same members.

Every node asks every other initial member for a :class:`Hello` until it belongs to a cluster. The member whose name sorts first writes the
record of the formation, and only when all of them answer, are empty and name the same members. Whatever answers nonsense counts as
missing, with a warning that names its address. Everybody else takes the record over
from whoever has it, if it lists them with their incarnation. A node whose incarnation the record does not know came too late, or came back
empty: it is :class:`Outside` and can only ask to be added (:mod:`service.agent.joining`). Nothing here needs a quorum, and nothing can form
a second cluster beside a first one as long as one of its members answers.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple
from uuid import uuid4

import msgspec

from service.addresses import Member
from service.agent.identity import Cluster, FormedMember, Identity
from service.errors import FormationFailed

log = logging.getLogger(__name__)

PATH = "/kvorum/v1/hello"
VERSION = 1
ASK_SECONDS = 1.0
PAUSE_SECONDS = 0.1
SAY_EVERY = 100  # rounds between two log lines of the same text

Call = Callable[[str, str, bytes, float], Awaitable[tuple[int, bytes]]]


class Hello(msgspec.Struct, frozen=True):
    """What a node tells about itself.

    :param initial: the initial members it was given, ``name=host:port``, sorted.
    :param cluster: the cluster it belongs to, if any.
    """

    version: int
    name: str
    incarnation: str
    initial: list[str]
    cluster: Cluster | None


class Outside(NamedTuple):
    """A cluster was formed that does not count on this incarnation.

    :param addresses: of initial members that belong to it.
    """

    cluster_id: str
    addresses: tuple[str, ...]


class Formation:
    """The formation as one node sees it.

    :param members: the initial members, this node among them.
    :param cluster: the cluster it belongs to already, if any.
    :param call: makes one request to a peer: (address, path, body, seconds) to (status, body); raises OSError.
    """

    def __init__(self, identity: Identity, members: Sequence[Member], cluster: Cluster | None, call: Call) -> None:
        self.cluster = cluster
        self.waiting_for = "" if cluster else "the cluster is not formed yet"
        self._identity = identity
        self._members = {member.name: str(member.address) for member in members}
        self._initial = sorted(f"{name}={address}" for name, address in self._members.items())
        self._call = call
        self._warned: dict[str, str] = {}  # what was said of an address that answers nonsense

    def hello(self) -> Hello:
        """What this node tells."""
        return Hello(VERSION, self._identity.name, self._identity.incarnation, self._initial, self.cluster)

    async def answer(self, _body: bytes) -> tuple[int, bytes]:
        """The route for peers that ask."""
        return 200, msgspec.json.encode(self.hello())

    async def find(self) -> Cluster | Outside:
        """Wait until this node belongs to a cluster that is to be kept by the caller, or turns out to stand outside of one.

        :raises FormationFailed: when the members name different clusters to form.
        """
        said, rounds = "", 0
        while True:
            hellos = await self._ask_all()
            found = self._take_over(hellos) or self._form(hellos)
            if found is not None:
                return found
            if self.waiting_for != said or rounds % SAY_EVERY == 0:
                log.info("%s", self.waiting_for)
                said = self.waiting_for
            rounds += 1
            await asyncio.sleep(PAUSE_SECONDS)

    async def _ask_all(self) -> dict[str, Hello]:
        others = [(name, address) for name, address in self._members.items() if name != self._identity.name]
        answers = await asyncio.gather(*(self._ask(address) for _, address in others))
        return {name: answer for (name, _), answer in zip(others, answers, strict=True) if answer is not None}

    async def _ask(self, address: str) -> Hello | None:
        try:
            hello = await ask_hello(self._call, address)
        except OSError:
            return None
        except FormationFailed as error:
            self._warn(address, str(error))
            return None
        self._warned.pop(address, None)
        return hello

    def _warn(self, address: str, text: str) -> None:
        """Say it once: whatever answers there may still give way to the member that is meant."""
        if self._warned.get(address) != text:
            self._warned[address] = text
            log.warning("%s; it is asked again", text)

    def _take_over(self, hellos: dict[str, Hello]) -> Cluster | Outside | None:
        """The record of a cluster that counts on this node, from whoever has it; or whom to ask when there is one that does not."""
        formed = {name: hello.cluster for name, hello in hellos.items() if hello.cluster is not None}
        for cluster in formed.values():
            if cluster.member(self._identity.incarnation) is not None:
                return cluster
        if not formed:
            return None
        cluster_id = next(iter(formed.values())).cluster_id
        me = self._identity
        log.warning("cluster %s does not count on %s as %s: it came back empty, or too late", cluster_id, me.name, me.incarnation)
        return Outside(cluster_id, tuple(self._members[name] for name in formed))

    def _form(self, hellos: dict[str, Hello]) -> Cluster | None:
        """Write the record, if it is this node's turn and everybody is there, empty and of one mind."""
        for name, hello in hellos.items():
            if hello.name != name:
                raise FormationFailed(f"{self._members[name]} should be {name!r}, but is node {hello.name!r}")
            if hello.initial != self._initial:
                raise FormationFailed(f"{name} was given the initial members {', '.join(hello.initial)}; this node {', '.join(self._initial)}")
        if any(hello.cluster is not None for hello in hellos.values()):
            return None
        missing = sorted(set(self._members) - set(hellos) - {self._identity.name})
        if missing:
            self.waiting_for = f"waiting for {', '.join(missing)} to form the cluster"
            return None
        if self._identity.name != min(self._members):
            self.waiting_for = f"waiting for {min(self._members)} to form the cluster"
            return None
        incarnations = {hello.name: hello.incarnation for hello in hellos.values()} | {self._identity.name: self._identity.incarnation}
        members = [FormedMember(name, incarnations[name], address) for name, address in sorted(self._members.items())]
        return Cluster(str(uuid4()), members)


async def ask_hello(call: Call, address: str) -> Hello:
    """Ask the node at an address who it is.

    :raises OSError: when it does not tell.
    :raises FormationFailed: when its answer is nonsense.
    """
    status, body = await call(address, PATH, b"", ASK_SECONDS)
    if status != 200:
        raise ConnectionError(f"it answered with status {status}")
    try:
        hello = msgspec.json.decode(body, type=Hello)
    except msgspec.MsgspecError as error:
        raise FormationFailed(f"{address} answers like another program or version: {error}") from error
    if hello.version != VERSION:
        raise FormationFailed(f"{address} speaks version {hello.version}; this node version {VERSION}")
    return hello
