"""The node described for workers: what fills :class:`service.ipc.report.NodeReport`."""

import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import msgspec

from raft.core.status import Status
from raft.runtime.server import RaftServer
from service.agent.formation import Formation
from service.agent.identity import Identity
from service.agent.machine import ObservedMachine
from service.ipc.report import MemberReport, NodeReport, PeerReport


class Reporter:
    """Knows where to look.

    :param tick_ms: length of a tick, for times that the core counts in ticks.
    :ivar numbers: more of them for ``/metrics``.
    """

    def __init__(self, identity: Identity, machine: ObservedMachine, formation: Formation, tick_ms: int) -> None:
        self.identity = identity
        self.machine = machine
        self.server: RaftServer | None = None
        self.numbers: Callable[[], dict[str, float]] = dict
        self.formation = formation
        self._tick_ms = tick_ms
        self._started = time.monotonic()

    @property
    def cluster_id(self) -> str:
        """The cluster the node belongs to; empty before it was formed."""
        return self.formation.cluster.cluster_id if self.formation.cluster else ""

    def describe(self) -> dict[str, Any]:
        """The fields of a report."""
        store = self.machine.store
        base = NodeReport(
            name=self.identity.name,
            id=self.identity.incarnation,
            cluster_id=self.cluster_id,
            version=version("kvorum"),
            applied=store.applied_index,
            generation=store.generation,
            uptime_seconds=round(time.monotonic() - self._started, 3),
        )
        fields: dict[str, Any] = msgspec.to_builtins(base)
        if self.server is not None:
            fields |= msgspec.to_builtins(self._of_cluster(self.server.status(), self.server))
        fields["numbers"] = fields.get("numbers", {}) | {"data_free_bytes": float(self.machine.free_bytes())} | self.numbers()
        return fields

    def _of_cluster(self, status: Status, server: RaftServer) -> dict[str, Any]:
        log = server.driver.node.state.log
        disk = server.disk_statistics
        lease = server.holds_lease
        names = {member.id: member for member in status.configuration.members}
        return {
            "role": status.role.value,
            "term": status.term,
            "lease": lease,
            "vote": status.vote or "",
            "commit": status.commit_index,
            "first_index": status.first_index,
            "last_index": status.last_index,
            "last_term": log.last_term,
            "snapshot_index": status.boundary_index,
            "snapshot_term": log.boundary.term,
            "members": [
                MemberReport(member.name, member.id, member.address, "", status.configuration.is_voter(member.id), member.id == status.leader)
                for member in status.configuration.members
            ],
            "peers": [
                PeerReport(
                    id=peer.peer,
                    name=names[peer.peer].name,
                    address=names[peer.peer].address,
                    voter=status.configuration.is_voter(peer.peer),
                    match_index=peer.match_index,
                    next_index=peer.next_index,
                    state=peer.state,
                    inflight=peer.inflight,
                    last_contact_ms=peer.contact_ticks * self._tick_ms,
                )
                for peer in status.peers
            ],
            "numbers": {
                "raft_log_bytes": float(status.log_bytes),
                "raft_uncommitted_bytes": float(status.uncommitted_bytes),
                "raft_durable_index": float(status.durable_index),
                "raft_disk_writes_total": float(disk.writes),
                "raft_disk_entries_total": float(disk.entries),
                "raft_disk_seconds_total": disk.seconds,
                "raft_disk_slowest_seconds": disk.slowest,
                "raft_put_off_total": float(server.put_off),
                "raft_lease_held": float(lease),
                "raft_lease_reads_total": float(server.driver.lease_reads),
                "waiting_proposals": float(server.driver.proposals.waiting),
                "waiting_reads": float(server.driver.reads.waiting),
            },
        }
