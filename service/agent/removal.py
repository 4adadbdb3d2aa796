"""How a node learns that it was removed: its leader stops speaking to it, often before it has sent the configuration that says so.

What a node holds of the log can't tell: a configuration without it may be older than the one that added it. So it asks, and only the
leader's confirmed view counts.
"""

import asyncio
from collections.abc import Mapping

import msgspec

from raft.runtime.server import RaftServer
from service.agent.formation import Call
from service.agent.membership import PATH, Envelope
from service.ipc import membership as asking

ASK_SECONDS = 10.0
PAUSE_SECONDS = 1.0


class MemberView(msgspec.Struct, frozen=True):
    """Where a member is."""

    id: str
    address: str


class View(msgspec.Struct, frozen=True):
    """What is needed of :func:`service.agent.membership.document`."""

    cluster_id: str
    committed: bool
    members: list[MemberView]


async def until_removed(server: RaftServer, cluster_id: str, addresses: Mapping[str, str], call: Call) -> None:
    """Return when the cluster has removed this node. On the way the node learns where the members are that it does not know yet.

    :param addresses: of further servers to ask, by their ids.
    """
    while True:
        await asyncio.sleep(PAUSE_SECONDS)
        if server.leader is not None:
            continue
        known = {**addresses, **{member.id: member.address for member in server.status().configuration.members}}
        known.pop(server.node_id, None)
        for address in known.values():
            view = await _view(address, call)
            if view is None or view.cluster_id != cluster_id or not view.committed:
                continue
            members = {member.id: member.address for member in view.members}
            if server.node_id not in members:
                return
            server.know(members)
            addresses = {**addresses, **members}
            break


async def _view(address: str, call: Call) -> View | None:
    """The leader's view by way of any node, if there is one."""
    envelope = msgspec.json.encode(Envelope(msgspec.Raw(asking.encode(asking.Members()))))
    try:
        status, body = await call(address, PATH, envelope, ASK_SECONDS)
        return msgspec.json.decode(body, type=View) if status == 200 else None
    except (OSError, msgspec.MsgspecError):
        return None
