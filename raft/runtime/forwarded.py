"""The leader's side of forwarded proposals: commands of a follower's callers, and the way of their results back."""

import asyncio
from collections.abc import Callable, Sequence

from raft.core.messages import ProposeRequest, ProposeResponse
from raft.core.model import NodeId
from raft.core.node import RaftNode
from raft.errors import Outcome, ProposalInvalid, RaftError
from raft.ports.transport import Transport
from raft.runtime.admission import carried_bytes, stamped
from raft.runtime.proposals import Batch


class Forwarded:
    """Takes batches that followers passed on."""

    def __init__(self, node: RaftNode, transport: Transport) -> None:
        self._node = node
        self._transport = transport
        self._loop = asyncio.get_running_loop()

    def take(self, message: ProposeRequest, stamp: Callable[[bytes], bytes] | None) -> None:
        """Give a batch to the core, which leads; it refuses by itself what it does not take.

        :param stamp: applied to each command before it is appended; None when this leader is stopping, and somebody else may take the batch.
        """
        if stamp is None:
            self._answer(message.sender, message.context, error="the leader is stopping", retry=True)
            return
        try:
            commands = tuple(stamped(message.commands, stamp))
        except ProposalInvalid as error:
            self._answer(message.sender, message.context, error=str(error))
            return
        self._node.step(ProposeRequest(message.sender, message.to, message.term, message.context, commands))

    def answering(self, origin: NodeId, context: int, seconds: float) -> Batch:
        """A batch was appended: what waits for its results and sends them back."""

        def settle(outcome: Sequence[bytes] | RaftError) -> None:
            if isinstance(outcome, RaftError):
                self._answer(origin, context, error=str(outcome), unknown=outcome.outcome is Outcome.UNKNOWN)
            elif (size := carried_bytes(outcome)) > (limit := self._transport.message_bytes_max):
                text = (
                    f"it took effect, but its results of {size} bytes are over the limit of {limit} bytes that the transport carries in one message"
                )
                self._answer(origin, context, error=text, unknown=True)
            else:
                self._answer(origin, context, tuple(outcome))

        now = self._loop.time()
        return Batch(context, (), settle, now + seconds, now)

    def _answer(
        self, to: NodeId, context: int, results: tuple[bytes, ...] = (), *, error: str = "", unknown: bool = False, retry: bool = False
    ) -> None:
        node = self._node
        self._transport.send((ProposeResponse(node.node_id, to, node.term, context, results, error, unknown, retry),))
