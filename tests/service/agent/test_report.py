"""What the agent tells about its node, read as workers read it."""

import asyncio
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from raft.config import RaftConfig
from raft.core.model import Boundary, Configuration, HardState, Member
from raft.core.roles import Role
from raft.core.status import PeerStatus, Status
from raft.runtime.server import Ports, RaftServer
from raft.storage.memory import MemoryLog, MemorySnapshots
from raft.transport.memory import MemoryNetwork, MemoryTransport
from service.agent.formation import Formation
from service.agent.identity import Cluster, FormedMember, Identity
from service.agent.machine import ObservedMachine
from service.agent.report import Reporter
from service.domain.commands import KvPut, encode, stamp
from service.ipc import protocol, report
from service.store.machine import KvMachine

ME = Identity(1, "n1", "i1")
CONFIGURATION = Configuration(voters=(Member("i1", "n1", "h1:8300"), Member("i2", "n2", "h2:8300")), learners=(Member("i3", "n3", "h3:8300"),))


def reporter(directory: Path, *, cluster: Cluster | None = None) -> Reporter:
    """The reporter of a node with an empty state."""

    async def call(*_: Any) -> tuple[int, bytes]:
        raise ConnectionRefusedError

    return Reporter(ME, ObservedMachine(KvMachine(directory), directory), Formation(ME, [], cluster, call), tick_ms=20)


def received(made: Reporter) -> report.NodeReport:
    """The report as it arrives behind the socket."""
    frame = protocol.frame(protocol.Status(1, made.describe()))
    message = protocol.from_agent.decode(frame[protocol.HEADER_BYTES :])
    assert isinstance(message, protocol.Status)
    made.machine.store.close()
    return report.read(message.fields)


def test_before_the_cluster_is_formed(tmp_path: Path) -> None:
    """A node that belongs to no cluster tells who it is, and nothing of a role."""
    told = received(reporter(tmp_path))
    assert (told.name, told.id, told.cluster_id, told.version) == ("n1", "i1", "", version("kvorum"))
    assert (told.role, told.members, told.peers, told.leader) == ("", [], [], None)
    assert told.generation == 1
    assert 0 <= told.uptime_seconds < 60


def test_a_leader_and_its_peers(tmp_path: Path) -> None:
    """A leader tells indexes, members with their parts, and of each peer how far it is, with times in milliseconds."""
    made = reporter(tmp_path, cluster=Cluster("c1", [FormedMember("n1", "i1", "h1:8300")]))
    status = Status(
        node_id="i1",
        role=Role.LEADER,
        term=3,
        vote="i1",
        leader="i1",
        first_index=5,
        last_index=20,
        durable_index=19,
        commit_index=18,
        applied_index=17,
        boundary_index=4,
        log_bytes=1_000,
        uncommitted_bytes=50,
        configuration=CONFIGURATION,
        configuration_index=0,
        transfer_target=None,
        peers=(PeerStatus("i2", 15, 16, "replicate", 2, 100, 7), PeerStatus("i3", 0, 1, "snapshot", 0, 0, 9)),
    )
    log = SimpleNamespace(last_term=3, boundary=Boundary(4, 2, CONFIGURATION))
    made.server = SimpleNamespace(  # type: ignore[assignment]  # all that is asked of it
        status=lambda: status,
        holds_lease=True,
        put_off=0,
        disk_statistics=SimpleNamespace(writes=6, entries=16, seconds=0.5, slowest=0.1),
        driver=SimpleNamespace(
            node=SimpleNamespace(state=SimpleNamespace(log=log)),
            lease_reads=7,
            proposals=SimpleNamespace(waiting=4),
            reads=SimpleNamespace(waiting=5),
        ),
    )
    told = received(made)
    assert (told.cluster_id, told.role, told.term, told.vote, told.commit) == ("c1", "leader", 3, "i1", 18)
    assert (told.first_index, told.last_index, told.last_term, told.snapshot_index, told.snapshot_term) == (5, 20, 3, 4, 2)
    assert told.applied == 0, "what the state holds, not what the core handed out"
    assert told.leader == told.members[0] == report.MemberReport("n1", "i1", "h1:8300", "", voter=True, leader=True)
    assert [(member.name, member.voter, member.leader) for member in told.members] == [("n1", True, True), ("n2", True, False), ("n3", False, False)]
    assert told.peers[0] == report.PeerReport("i2", "n2", "h2:8300", True, 15, 16, "replicate", 2, 140)
    assert (told.peers[1].name, told.peers[1].voter, told.peers[1].last_contact_ms) == ("n3", False, 180)
    assert told.numbers["raft_durable_index"] == 19.0
    assert (told.lease, told.numbers["raft_lease_held"], told.numbers["raft_lease_reads_total"]) == (True, 1.0, 7.0)
    assert (told.numbers["waiting_proposals"], told.numbers["waiting_reads"]) == (4.0, 5.0)


@pytest.mark.timeout(60)
def test_a_real_server(tmp_path: Path) -> None:
    """The fields exist on a real server: a cluster of one elects itself, applies a write, and tells so."""

    async def scenario() -> report.NodeReport:
        member = FormedMember("n1", "i1", "h1:8300")
        made = reporter(tmp_path, cluster=Cluster("c1", [member]))
        log = MemoryLog()
        log.reset(Boundary(0, 0, Cluster("c1", [member]).configuration()), HardState())
        transport = MemoryTransport(MemoryNetwork(), "i1", "h1:8300")
        ports = Ports(log_store=log, stable_store=log, snapshot_store=MemorySnapshots(), transport=transport, machine=made.machine)
        server = RaftServer(node_id="i1", config=RaftConfig(tick_ms=5, heartbeat_ms=10, election_timeout_ms=50), ports=ports)
        await server.start()
        made.server = server
        try:
            while not server.leads:  # noqa: ASYNC110 - nothing else tells
                await asyncio.sleep(0.005)
            await server.propose([stamp(encode(KvPut(b"a", b"1")), 1)])
            return received(made)
        finally:
            await server.stop()

    told = asyncio.run(asyncio.wait_for(scenario(), 30))
    assert (told.role, told.vote, told.leader and told.leader.name) == ("leader", "i1", "n1")
    assert told.applied == told.commit == told.last_index == 2
    assert told.numbers["raft_disk_entries_total"] >= 2


def test_older_and_newer_agents() -> None:
    """A report of an older agent has defaults where it is silent; what a newer one tells besides is passed over."""
    assert report.read({}) == report.NodeReport()
    assert report.read({"name": "n1", "surprise": [1]}).name == "n1"
    assert set(msgspec.to_builtins(report.NodeReport())) >= {"peers", "members", "numbers"}
