"""Callers that wait for a transfer of leadership: until somebody else leads, or until it has failed.

The core gives a transfer up after an election timeout. Its last message may still be on its way then, so a transfer that was begun and has
not succeeded is never called refused.
"""

from collections.abc import Callable
from dataclasses import dataclass

from raft.core.model import NodeId
from raft.errors import OutcomeUnknown, RaftError

Settle = Callable[[NodeId | RaftError], None]


@dataclass(slots=True)
class Transfer:
    """One caller. ``deadline`` is in the loop's seconds."""

    target: NodeId
    settle: Settle
    deadline: float


class Transfers:
    """Where they wait. All on the loop's thread."""

    def __init__(self) -> None:
        self._under_way: list[Transfer] = []

    @property
    def waiting(self) -> int:
        """Callers that wait."""
        return len(self._under_way)

    def add(self, transfer: Transfer) -> None:
        """The core has begun one."""
        self._under_way.append(transfer)

    def succeeded(self, leader: NodeId) -> None:
        """Somebody else leads."""
        ended, self._under_way = self._under_way, []
        for transfer in ended:
            transfer.settle(leader)

    def expire(self, now: float, given_up: Callable[[NodeId], bool]) -> None:
        """Settle what has waited too long, and what the core has given up."""
        ended = [transfer for transfer in self._under_way if transfer.deadline <= now or given_up(transfer.target)]
        if ended:
            self._under_way = [transfer for transfer in self._under_way if transfer not in ended]
            for transfer in ended:
                transfer.settle(OutcomeUnknown(f"{transfer.target} has not taken over in time"))

    def stop(self) -> None:
        """Settle everything: whoever was asked may still take over."""
        ended, self._under_way = self._under_way, []
        for transfer in ended:
            transfer.settle(OutcomeUnknown(f"the node is stopping; {transfer.target} may still take over"))
