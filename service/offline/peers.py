"""Who of a cluster still answers: asked before anybody is left behind."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from raft.core.model import Configuration, NodeId
from raft.core.quorum import is_quorum
from raft.transport.http_client import call
from service.agent.formation import PATH, Hello
from service.offline.directory import DataUnusable

ASK_SECONDS = 3.0


class Answer(NamedTuple):
    """What one address said.

    :param text: in words.
    :param cluster_id: empty when nobody answered, or the node belongs to no cluster.
    :param node: the id of the incarnation that answered; empty when none did.
    """

    address: str
    text: str
    cluster_id: str = ""
    node: NodeId = ""


def ask(addresses: Sequence[str]) -> list[Answer]:
    """Ask every address once, all at the same time."""

    async def everybody() -> list[Answer]:
        return await asyncio.gather(*map(_ask, addresses))

    return asyncio.run(everybody())


def check_lost(configuration: Configuration, me: NodeId, cluster_id: str, answers: Sequence[Answer]) -> None:
    """Whether the quorum is lost as far as can be seen from here.

    This node counts as one that could answer: with it, those that do may be a quorum again.

    :raises DataUnusable: when it is not, or when the configuration here is certainly out of date; the text says who answered.
    """
    present = [answer for answer in answers if answer.cluster_id == cluster_id]
    told = "; ".join(f"{answer.address} {answer.text}" for answer in present)
    if any(answer.node == me for answer in present):
        raise DataUnusable(f"this node runs already, on another copy of its data: {told}")
    if strangers := [answer for answer in present if answer.node not in configuration]:
        raise DataUnusable(
            f"the membership has changed since this directory was last used: {strangers[0].address} {strangers[0].text}, but is no member"
        )
    outgoing = tuple(member.id for member in configuration.outgoing)
    if is_quorum(configuration.voter_ids, outgoing, [me, *(answer.node for answer in present)]):
        who = f"with this node they are a quorum ({told})" if present else "this node is a quorum by itself"
        raise DataUnusable(f"the quorum is not lost: {who}; start this node as it is")


async def _ask(address: str) -> Answer:
    try:
        status, body = await call(address, PATH, b"", ASK_SECONDS)
        if status != 200:
            return Answer(address, f"answers {status}")
        hello = msgspec.json.decode(body, type=Hello)
    except OSError as error:
        return Answer(address, f"does not answer ({error})")
    except msgspec.MsgspecError:
        return Answer(address, "answers like another program or version")
    if hello.cluster is None:
        return Answer(address, f"answers as {hello.name}, empty and without a cluster", "", hello.incarnation)
    return Answer(address, f"answers as {hello.name} of cluster {hello.cluster.cluster_id}", hello.cluster.cluster_id, hello.incarnation)
