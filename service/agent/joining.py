"""A server that is no member yet: it asks to be added until it is told that it is one.

It asks members in turn, each by its peer address or by the URL of its HTTP API. It keeps nothing until then. A server of a name that
the cluster knows already asks to take the place of its former self; the cluster sees to it that this one is gone.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from service.addresses import PEER_PORT, parse_address
from service.agent.formation import Call
from service.agent.identity import Identity
from service.agent.membership import PATH, Envelope
from service.errors import FormationFailed
from service.ipc import membership as asking
from service.ipc.membership import Reply

log = logging.getLogger(__name__)

ASK_SECONDS = 20.0
ASK_API_SECONDS = 5.0
"""Shorter: a thread that asks can't be cancelled when the node is to stop. Whatever had been done by then is found done the next time."""
PAUSE_SECONDS = 0.25
AS_VOTER, AS_LEARNER, BY_HAND = "voter", "learner", "by-hand"

Ask = Callable[[asking.Operation], Awaitable[Reply]]


class Joined(NamedTuple):
    """What a server that was added starts with.

    :param addresses: of the members, by their ids.
    """

    cluster_id: str
    addresses: dict[str, str]


class Joining:
    """See the module's text.

    :param address: where peers reach this node.
    :param targets: whom to ask, in turn: peer addresses ``host:port``, or URLs of the HTTP API.
    :param role: ``voter``, ``learner``, or ``by-hand``: wait until somebody else adds this node.
    :param returning: whether it may only come back in the place of a member of its name.
    :param call: see :class:`service.agent.membership.Membership`.
    """

    def __init__(self, identity: Identity, address: str, targets: Sequence[str], role: str, call: Call, *, returning: bool = False) -> None:
        self.waiting_for = f"waiting to be added to the cluster of {', '.join(targets)}"
        self._identity = identity
        self._targets = [(target, way_to(target, call)) for target in targets]
        self._by_hand = role == BY_HAND
        self._returning = returning
        replaces = identity.name if returning else ""
        self._wanted = asking.Add(identity.name, address, voter=role == AS_VOTER, replaces=replaces, id=identity.incarnation)

    async def run(self, tell: Callable[[str], None]) -> Joined:
        """Wait until this node is a member.

        :param tell: told why it is not; the log tells each time that changes.
        :raises FormationFailed: when a running node has this name already.
        """
        said = ""
        while True:
            for target, ask in self._targets:
                status, answer = await ask(asking.Members() if self._by_hand else self._wanted)
                if joined := self._judge(target, status, answer):
                    return joined
                tell(self.waiting_for)
                if self.waiting_for != said:
                    said = self.waiting_for
                    log.info("%s", said)
            await asyncio.sleep(PAUSE_SECONDS)

    def _judge(self, target: str, status: int, answer: dict[str, Any]) -> Joined | None:
        """Learn from an answer how to go on."""
        me = self._identity
        if status == 200:
            addresses = {str(member["id"]): str(member["address"]) for member in answer.get("members", [])}
            if me.incarnation in addresses and answer.get("committed"):
                return Joined(str(answer["cluster_id"]), addresses)
            known = any(member["name"] == me.name for member in answer.get("members", []))
            command = f"replace {me.name}" if known else "add"
            self.waiting_for = f"waiting to be added to cluster {answer.get('cluster_id')}: kvorum member {command} {me.name} {self._wanted.address}"
            return None
        kind, detail = asking.kind_of(answer), answer.get("detail", f"status {status}")
        if kind == asking.SECOND_NODE:
            raise FormationFailed(f"{target} refuses this node: {detail}")
        if kind == asking.NAME_IN_USE:
            self._wanted = msgspec.structs.replace(self._wanted, replaces=me.name)
        elif kind == asking.NO_SUCH_MEMBER and not self._returning:
            self._wanted = msgspec.structs.replace(self._wanted, replaces="")
        elif kind == asking.NO_SUCH_MEMBER:
            detail = f"the cluster has no member {me.name}; started with --join this node is added to it"
        what = "this node came back empty, as a new incarnation; it neither votes nor counts" if self._returning else "this node is no member yet"
        self.waiting_for = f"{what}; {target} says: {detail}"
        return None


def way_to(target: str, call: Call) -> Ask:
    """How to ask a target: a peer address ``host:port``, or a URL of the HTTP API."""
    if "://" in target:
        return lambda operation: asyncio.to_thread(_ask_api, target, operation)
    address = str(parse_address(target, PEER_PORT))

    async def ask(operation: asking.Operation) -> Reply:
        envelope = msgspec.json.encode(Envelope(msgspec.Raw(asking.encode(operation))))
        try:
            status, body = await call(address, PATH, envelope, ASK_SECONDS)
            return status, msgspec.json.decode(body, type=dict[str, Any])
        except OSError as error:
            return asking.problem(asking.UNREACHABLE, f"it can't be reached: {error}")
        except msgspec.MsgspecError as error:
            return asking.problem(asking.MALFORMED, f"it answers like another program, version or port: {error}")

    return ask


def _ask_api(url: str, operation: asking.Operation) -> Reply:
    """Ask through the HTTP API. Runs in a thread."""
    from service.client import Client, ClientError  # noqa: PLC0415 - only a node that joins by a URL pays for it

    try:
        with Client(url, answer_seconds=ASK_API_SECONDS) as client:
            if isinstance(operation, asking.Add):
                one = operation
                return 200, client.add_member(one.name, one.address, voter=one.voter, replaces=one.replaces, id=one.id)
            return 200, client.members()
    except ClientError as error:
        return error.status, error.problem or {"detail": str(error)}
