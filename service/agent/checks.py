"""Whether all nodes hold the same state: every member is asked for its digest at one index, the place of a check in the log.

The replicated log gives all nodes that index, and each takes its digest exactly there, so the comparison is right under any load and costs no pause.
Two different digests at one index mean that a node has diverged; nothing that clients or crashes do can cause that.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

import msgspec

from raft.core.model import Member
from raft.errors import NotLeader
from service.agent.digests import Stage, StateDigest
from service.agent.formation import Call
from service.agent.report import Reporter

PATH = "/kvorum/v1/digest"
ASK_SECONDS = 2.0


class Question(msgspec.Struct, frozen=True):
    """What a node asks another one."""

    cluster_id: str
    index: int


class NodeDigest(msgspec.Struct, frozen=True):
    """What one member said."""

    name: str
    id: str
    address: str
    voter: bool
    digest: StateDigest


class Checks:
    """See the module's text. On the loop's thread.

    :param call: makes one request to a peer; see :class:`service.agent.formation.Formation`.
    """

    def __init__(self, reporter: Reporter, call: Call) -> None:
        self._reporter = reporter
        self._call = call

    async def answer_peer(self, body: bytes) -> tuple[int, bytes]:
        """The route for peers that ask."""
        try:
            question = msgspec.json.decode(body, type=Question)
        except msgspec.MsgspecError as error:
            return 400, str(error).encode()
        if question.cluster_id != self._reporter.cluster_id:
            return 409, f"this node is of cluster {self._reporter.cluster_id}".encode()
        return 200, msgspec.json.encode(self._look(question.index))

    async def gather(self, index: int) -> dict[str, Any]:
        """Ask everybody.

        :returns: ``index``, ``verdict`` and ``nodes``, as ``/v1/cluster/check`` shows them.
        :raises NotLeader: when this node takes no part in a cluster.
        """
        server = self._reporter.server
        if server is None:
            raise NotLeader
        configuration = server.status().configuration
        answers = await asyncio.gather(*(self._ask(member, index) for member in configuration.members))
        nodes = [
            NodeDigest(member.name, member.id, member.address, configuration.is_voter(member.id), answer)
            for member, answer in zip(configuration.members, answers, strict=True)
        ]
        return {"index": index, "verdict": verdict(answers), "nodes": [_flat(node) for node in nodes]}

    def _look(self, index: int) -> StateDigest:
        machine = self._reporter.machine
        return machine.digests.look(index, machine.store.applied_index)

    async def _ask(self, member: Member, index: int) -> StateDigest:
        if member.id == self._reporter.identity.incarnation:
            return self._look(index)
        question = msgspec.json.encode(Question(self._reporter.cluster_id, index))
        try:
            status, body = await self._call(member.address, PATH, question, ASK_SECONDS)
            if status == 200:
                return msgspec.json.decode(body, type=StateDigest)
            return StateDigest(Stage.UNREACHABLE, problem=f"it answers {status}: {body[:200].decode(errors='replace')}")
        except (OSError, msgspec.MsgspecError) as error:
            return StateDigest(Stage.UNREACHABLE, problem=str(error))


def verdict(answers: Iterable[StateDigest]) -> str:
    """``different`` as soon as two digests differ; ``equal`` when all are there and alike; ``computing`` while some are still to come, else
    ``incomplete``: some never will.
    """
    found = list(answers)
    stages = {answer.stage for answer in found}
    if len({answer.sha256 for answer in found if answer.stage is Stage.DONE}) > 1:
        return "different"
    if stages == {Stage.DONE}:
        return "equal"
    return "computing" if stages & {Stage.BEHIND, Stage.COMPUTING} else "incomplete"


def _flat(node: NodeDigest) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(node)
    digest: dict[str, Any] = fields.pop("digest")
    return fields | digest
