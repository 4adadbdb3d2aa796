"""Linearizable reads at the leader (ReadIndex: dissertation, section 6.4), in batches.

A read joins the next round of heartbeats; a round is confirmed when a quorum has answered it or a later one. So an answer can only ever
confirm reads that had arrived before the round was sent. At most one round is under way on account of reads: what arrives
meanwhile waits and shares the next one. The regular heartbeats are rounds too, so a lost one delays a read by one heartbeat at most.
"""

from collections import deque
from dataclasses import dataclass

from raft.core.model import NodeId


@dataclass(frozen=True, slots=True)
class PendingRead:
    """Who asked, and what they call it."""

    origin: NodeId
    context: int


@dataclass(frozen=True, slots=True)
class ReadRound:
    """Reads that wait for the same round. ``index`` was the commit index when it began."""

    round: int
    index: int
    reads: tuple[PendingRead, ...]


class ReadQueue:
    """The reads of one leadership. ``round`` is the number of the last round that was begun, ``confirmed`` of the last one that was confirmed."""

    def __init__(self) -> None:
        self.round = 0
        self.confirmed = 0
        self._waiting: list[PendingRead] = []
        self._rounds: deque[ReadRound] = deque()

    @property
    def wants_round(self) -> bool:
        """Whether a round should begin on account of reads."""
        return bool(self._waiting) and not self._rounds

    def add(self, read: PendingRead) -> None:
        """A read arrived."""
        self._waiting.append(read)

    def begin_round(self, commit: int, *, take_reads: bool) -> int:
        """Begin a round.

        :param commit: the commit index now.
        :param take_reads: False while nothing of the leader's term is committed: its commit index may be behind then.
        :returns: the number of the round.
        """
        self.round += 1
        if take_reads and self._waiting:
            self._rounds.append(ReadRound(self.round, commit, tuple(self._waiting)))
            self._waiting.clear()
        return self.round

    def confirm(self, round_: int) -> list[ReadRound]:
        """A quorum has answered ``round_`` or later ones: the reads that may now be served."""
        self.confirmed = max(self.confirmed, round_)
        confirmed = []
        while self._rounds and self._rounds[0].round <= round_:
            confirmed.append(self._rounds.popleft())
        return confirmed

    def drain(self) -> list[PendingRead]:
        """Give every read back, unconfirmed: the leader steps down."""
        reads = [read for round_ in self._rounds for read in round_.reads] + self._waiting
        self._rounds.clear()
        self._waiting = []
        return reads
