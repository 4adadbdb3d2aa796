"""Forgets deletions after a while: the leader proposes it, so every node forgets the same ones.

A deletion leaves a tombstone so that the index of its prefix does not go back. Consul keeps tombstones for about 15 minutes; so does this.
"""

import asyncio
import contextlib
from collections import deque

from raft.errors import RaftError
from raft.runtime.server import RaftServer
from service.domain.commands import ReapTombstones, encode

INTERVAL_SECONDS = 60.0
KEEP_INTERVALS = 15


async def run(server: RaftServer) -> None:
    """Note the applied index every minute, and propose to forget what was deleted before the oldest note. Runs until cancelled."""
    notes: deque[int] = deque()
    while True:
        await asyncio.sleep(INTERVAL_SECONDS)
        notes.append(server.status().applied_index)
        if len(notes) <= KEEP_INTERVALS:
            continue
        up_to = notes.popleft()
        if server.leads:
            with contextlib.suppress(RaftError):  # the next one forgets more
                await server.propose([encode(ReapTombstones(up_to))])
