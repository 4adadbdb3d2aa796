"""What an agent tells about its node and the cluster: the fields of :class:`service.ipc.protocol.Status`.

The agent fills it with ``msgspec.to_builtins(report)``; whoever reads it uses :func:`read`. Fields that an older agent does not send have
their defaults; those of a newer one are ignored.
"""

from typing import Any

import msgspec


class MemberReport(msgspec.Struct, frozen=True):
    """One member of the cluster.

    :param id: of its incarnation.
    :param peer: ``host:port`` for the other nodes.
    :param api: ``host:port`` for clients; empty when it is not known.
    """

    name: str = ""
    id: str = ""
    peer: str = ""
    api: str = ""
    voter: bool = True
    leader: bool = False


class PeerReport(msgspec.Struct, frozen=True):
    """One follower as its leader sees it; only a leader has any.

    :param match_index: up to where its log is known to agree.
    :param next_index: what it is sent next.
    :param state: ``probe``, ``replicate`` or ``snapshot``.
    :param inflight: appends sent and not answered.
    """

    id: str = ""
    name: str = ""
    address: str = ""
    voter: bool = True
    match_index: int = 0
    next_index: int = 0
    state: str = ""
    inflight: int = 0
    last_contact_ms: int = 0


class NodeReport(msgspec.Struct, frozen=True):
    """A node's view.

    :param id: of the node's incarnation.
    :param role: ``leader``, ``follower``, ``candidate`` or ``learner``.
    :param lease: whether it leads and holds the lease at this moment.
    :param members: as this node knows the configuration.
    :param numbers: what ``/metrics`` shows besides, each as ``kvorum_agent_<name>``.
    """

    name: str = ""
    id: str = ""
    cluster_id: str = ""
    version: str = ""
    role: str = ""
    term: int = 0
    commit: int = 0
    applied: int = 0
    last_index: int = 0
    last_term: int = 0
    snapshot_index: int = 0
    snapshot_term: int = 0
    members: list[MemberReport] = []
    numbers: dict[str, float] = {}
    vote: str = ""
    first_index: int = 0
    generation: int = 0
    uptime_seconds: float = 0.0
    lease: bool = False
    peers: list[PeerReport] = []

    @property
    def leader(self) -> MemberReport | None:
        """The leader this node knows, if any."""
        return next((member for member in self.members if member.leader), None)


def read(fields: dict[str, Any]) -> NodeReport:
    """The report in an agent's answer."""
    return msgspec.convert(fields, NodeReport, strict=False)
