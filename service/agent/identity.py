"""Who a node is: its name, its incarnation, and the cluster it belongs to. Kept in ``log.db``, before the first vote.

The incarnation is random and made with the data directory; it is the node's id in the Raft configuration. So a node that comes back empty is
not its old self: it has another id, which no configuration contains, and neither votes nor counts.
"""

from uuid import uuid4

import msgspec

from raft.core.model import Boundary, Configuration, HardState, Member
from raft.storage.sqlite import SqliteLog
from service.errors import ForeignDirectory

FORMAT = 1
IDENTITY_RECORD = "identity"
CLUSTER_RECORD = "cluster"
ADDRESSES_RECORD = "addresses"
REMOVED_RECORD = "removed"


class Identity(msgspec.Struct, frozen=True):
    """The node itself."""

    format: int
    name: str
    incarnation: str


class FormedMember(msgspec.Struct, frozen=True):
    """One of the members a cluster was formed of."""

    name: str
    incarnation: str
    address: str


class Cluster(msgspec.Struct, frozen=True):
    """The record of a formation; the same on all members that it was formed of. A node that was added later keeps it without any."""

    cluster_id: str
    members: list[FormedMember]

    def member(self, incarnation: str) -> FormedMember | None:
        """The member of that incarnation, if any."""
        return next((member for member in self.members if member.incarnation == incarnation), None)

    def configuration(self) -> Configuration:
        """The first configuration of the cluster."""
        return Configuration(voters=tuple(Member(member.incarnation, member.name, member.address) for member in self.members))


def load_identity(log: SqliteLog, name: str) -> Identity:
    """The identity kept in the data directory; a fresh one when there is none.

    :raises ForeignDirectory: when the directory belongs to a node of another name, or to a newer version.
    """
    kept = log.get(IDENTITY_RECORD)
    if kept is None:
        identity = Identity(FORMAT, name, str(uuid4()))
        log.put(IDENTITY_RECORD, msgspec.json.encode(identity))
        return identity
    identity = msgspec.json.decode(kept, type=Identity)
    if identity.format > FORMAT:
        raise ForeignDirectory(f"the data directory has format {identity.format}; this version knows formats up to {FORMAT}")
    if identity.name != name:
        raise ForeignDirectory(f"the data directory belongs to node {identity.name!r}; this node is {name!r}")
    return identity


def load_cluster(log: SqliteLog) -> Cluster | None:
    """The cluster this node belongs to; None before it was formed."""
    kept = log.get(CLUSTER_RECORD)
    return None if kept is None else msgspec.json.decode(kept, type=Cluster)


def join(log: SqliteLog, cluster: Cluster) -> None:
    """Keep the record of the formation. The log begins with the first configuration; a crash in between leaves a node that is not formed yet."""
    log.reset(Boundary(0, 0, cluster.configuration()), HardState())
    log.put(CLUSTER_RECORD, msgspec.json.encode(cluster))


def join_later(log: SqliteLog, cluster_id: str, addresses: dict[str, str]) -> None:
    """Keep that this node was added to a cluster. It begins with an empty log and no configuration.

    :param addresses: of the members by their ids: their leader needs an answer before it has sent the configuration.
    """
    log.put(ADDRESSES_RECORD, msgspec.json.encode(addresses))
    join(log, Cluster(cluster_id, []))


def load_addresses(log: SqliteLog) -> dict[str, str]:
    """The members that this node was told of when it was added."""
    kept = log.get(ADDRESSES_RECORD)
    return {} if kept is None else msgspec.json.decode(kept, type=dict[str, str])


def keep_removal(log: SqliteLog) -> None:
    """Keep that the cluster has removed this node: it takes part no more, whatever its log says."""
    log.put(REMOVED_RECORD, b"true")


def was_removed(log: SqliteLog) -> bool:
    """Whether the cluster has removed this node."""
    return log.get(REMOVED_RECORD) is not None
