"""What the leader does for the cluster by itself: it records who the members are and which are alive, and removes dead ones where that is wanted.

The record is replicated, so that every node answers alike about nodes and checks, and those who wait for a change are woken. It is written when
something has changed, never otherwise.
"""

import asyncio
import logging
import time
from pathlib import Path
from typing import Any

from raft.core.membership import Remove
from raft.core.model import Member
from raft.core.status import PeerStatus, Status
from raft.errors import RaftError
from raft.runtime.server import RaftServer
from service.domain.autopilot import DEFAULT, removable
from service.domain.commands import AutopilotConfiguration, Command, RecordServers, ServerRecord, SetAutopilot, encode
from service.domain.servers import Server
from service.errors import StateUnreadable
from service.store import autopilot_rows, server_rows
from service.store.reader import Reader

log = logging.getLogger(__name__)

PASS_SECONDS = 1.0
FAILED_MS = 5_000
"""A member that was silent for so long counts as failed."""
DEAD_MS = 30_000
"""One that was silent for so long may be removed."""


class Caretaker:
    """One node's; it acts while the node leads.

    :param tick_ms: the length of a tick.
    :param election_ms: a shorter silence is no sign of anything, however short a threshold is configured.
    """

    def __init__(self, server: RaftServer, data_dir: Path, tick_ms: int, election_ms: int) -> None:
        self._server = server
        self._state = Reader(data_dir)
        self._tick_ms = tick_ms
        self._election_ms = election_ms
        self._stable_since: dict[str, tuple[bool, int]] = {}

    async def run(self) -> None:
        """Look after the cluster until cancelled."""
        try:
            while True:
                try:
                    if self._server.leads:
                        await self.look()
                except (RaftError, StateUnreadable, TimeoutError) as error:
                    log.debug("the next pass tries again: %s", error)
                except Exception:
                    log.exception("looking after the cluster failed; the next pass tries again")
                await asyncio.sleep(PASS_SECONDS)
        finally:
            self._state.close()

    async def look(self) -> None:
        """One pass.

        :raises RaftError: something could not be replicated.
        """
        configuration, recorded = self._stored()
        if configuration is None:
            await self._propose(SetAutopilot(DEFAULT, cas=0))
        status = self._server.status()
        records = self.records(status, recorded)
        if records != [ServerRecord(*one[:5]) for one in recorded]:
            await self._propose(RecordServers(records))
        self.health()
        if configuration is not None and configuration.cleanup_dead_servers:
            await self._clean_up(status, configuration)

    def records(self, status: Status, recorded: list[Server]) -> list[ServerRecord]:
        """What is to be recorded, in the order in which it is kept. A member that a new leader has not heard of yet stays what it was for a while."""
        known = {one.id: one.alive for one in recorded}
        found = []
        for member in status.configuration.members:
            peer = next((one for one in status.peers if one.peer == member.id), None)
            alive = True
            if peer is not None:
                alive = self._silent_ms(peer) < FAILED_MS and (peer.match_index > 0 or known.get(member.id, True))
            found.append(ServerRecord(member.id, member.name, member.address, status.configuration.is_voter(member.id), alive))
        return sorted(found, key=lambda one: (one.name, one.id))

    def health(self) -> dict[str, Any]:
        """How the servers are, as the leader sees them. Times are in milliseconds: ``last_contact_ms`` is None for one that has failed,
        ``stable_since_ms`` is since 1970.
        """
        configuration, _ = self._stored()
        status = self._server.status()
        servers = [self._server_health(member, status, configuration or DEFAULT) for member in status.configuration.members]
        voters = [one for one in servers if one["voter"]]
        tolerance = max(0, sum(one["healthy"] for one in voters) - (len(voters) // 2 + 1))
        return {"healthy": all(one["healthy"] for one in servers), "failure_tolerance": tolerance, "servers": servers}

    def _server_health(self, member: Member, status: Status, configuration: AutopilotConfiguration) -> dict[str, Any]:
        peer = next((one for one in status.peers if one.peer == member.id), None)
        silent_ms = self._silent_ms(peer) if peer else 0
        last_index = peer.match_index if peer else status.last_index
        threshold_ms = max(configuration.last_contact_threshold_ns / 1_000_000, self._election_ms)
        alive = silent_ms < FAILED_MS
        healthy = silent_ms <= threshold_ms and last_index + configuration.max_trailing_logs >= status.commit_index
        before, since_ms = self._stable_since.get(member.id, (None, 0))
        if before is not healthy:
            since_ms = time.time_ns() // 1_000_000
            self._stable_since[member.id] = (healthy, since_ms)
        return {
            "id": member.id,
            "name": member.name,
            "address": member.address,
            "alive": alive,
            "leader": member.id == status.leader,
            "last_contact_ms": silent_ms if alive else None,
            "last_term": status.term if alive else 0,
            "last_index": last_index,
            "healthy": healthy,
            "voter": status.configuration.is_voter(member.id),
            "stable_since_ms": since_ms,
        }

    async def _clean_up(self, status: Status, configuration: AutopilotConfiguration) -> None:
        """Remove one dead member, if that can't cost the others their quorum."""
        voters = status.configuration.voter_ids
        dead = [peer for peer in status.peers if self._silent_ms(peer) >= DEAD_MS]
        dead_voters = [peer for peer in dead if peer.peer in voters]
        learners = [peer for peer in dead if not status.configuration.is_voter(peer.peer)]
        allowed = 0 if status.configuration.is_joint else removable(len(voters), len(dead_voters), configuration.min_quorum)
        chosen = learners + dead_voters[:allowed]
        if dead and not chosen:
            log.warning("%d of %d servers are dead; none is removed, that is no minority", len(dead), len(voters))
        if chosen:
            log.warning("removing %s: it was silent for %d ms", chosen[0].peer, self._silent_ms(chosen[0]))
            await self._server.change(Remove(chosen[0].peer))

    def _stored(self) -> tuple[AutopilotConfiguration | None, list[Server]]:
        (stored, recorded), _ = self._state.tables(lambda connection: (autopilot_rows.find(connection), server_rows.every(connection).servers))
        return stored and stored.configuration, recorded

    def _silent_ms(self, peer: PeerStatus) -> int:
        return peer.contact_ticks * self._tick_ms

    async def _propose(self, command: Command) -> None:
        await self._server.propose([encode(command)])
