"""Where the other servers are reached, and whether they are.

Three sources tell addresses, and the newest of them counts:

* The configuration in force here, from the moment its entry is appended; when it is undone, the one before it.
* What the application tells (:meth:`Addresses.tell`). It wins over the configuration of a node that is behind: one that joins gets old entries
  first, whose addresses may be no longer true, and answers that go there are lost. Once the node holds everything that its leader has
  committed, its configuration is the newer one and wins again.
* Who was a member while this node runs stays reachable where it was last: a leader that leaves must still hear that its going is durable here.
"""

from collections.abc import Mapping

from raft.core.messages import AppendRequest
from raft.core.model import Configuration, NodeId
from raft.core.node import RaftNode
from raft.core.roles import Role
from raft.core.state import State
from raft.ports.transport import Transport


class Addresses:
    """The address book of one node; see the module's text."""

    def __init__(self) -> None:
        self._seen: dict[NodeId, str] = {}
        self._configured: dict[NodeId, str] = {}
        self._told: dict[NodeId, str] = {}

    def configure(self, configuration: Configuration) -> None:
        """Another configuration is in force."""
        self._configured = {member.id: member.address for member in configuration.members}
        self._seen |= self._configured

    def tell(self, addresses: Mapping[NodeId, str], newest: Configuration | None = None) -> None:
        """Take what the application knows.

        :param newest: the configuration, where this node leads, so that nothing is newer.
        :raises ValueError: for what is no id or no address; nothing has changed then.
        """
        for node, address in addresses.items():
            if not (isinstance(node, str) and node and isinstance(address, str) and address):
                raise ValueError(f"the address {address!r} of the server {node!r}; both must be text, and not empty")
        self._told |= addresses
        if newest is not None:
            self.caught_up(newest)

    def caught_up(self, newest: Configuration) -> bool:
        """The configuration is as new as can be: what was told of its members counts no more.

        :param newest: the configuration in force here, which may not have been passed to :meth:`configure` yet.
        :returns: whether an address has changed by that.
        """
        if not self._told:
            return False
        self.configure(newest)
        changed = any(self._configured.get(node, address) != address for node, address in self._told.items())
        self._told = {node: address for node, address in self._told.items() if node not in self._configured}
        return changed

    def book(self, me: NodeId) -> dict[NodeId, str]:
        """Everybody's address but this node's own."""
        addresses = {**self._seen, **self._configured, **self._told}
        addresses.pop(me, None)
        return addresses


def holds_all_of(message: AppendRequest, state: State) -> bool:
    """Whether a node's log has everything that was committed when its leader sent a message.

    :param state: the node's, after the message was taken in. A leader's commit index is current from the first commit of its own term on.
    """
    return message.term == state.term == state.log.term_at(state.log.commit) and message.commit <= state.log.commit


class Links:
    """Keeps the transport connected to where the others are, whatever happens to the node.

    :ivar addresses: the book that it goes by.
    """

    def __init__(self, node: RaftNode, transport: Transport) -> None:
        self.addresses = Addresses()
        self._node = node
        self._transport = transport

    def know(self, addresses: Mapping[NodeId, str]) -> None:
        """The application tells addresses; see :meth:`Addresses.tell`."""
        self.addresses.tell(addresses, self._node.state.configuration if self._node.role is Role.LEADER else None)
        self._connect()

    def configured(self) -> None:
        """Another configuration is in force."""
        self.addresses.configure(self._node.state.configuration)
        self._connect()

    def elected(self) -> None:
        """The node leads: no configuration is newer than its own."""
        if self.addresses.caught_up(self._node.state.configuration):
            self._connect()

    def appended(self, message: AppendRequest) -> None:
        """The node has taken in what its leader sent; perhaps it holds everything now."""
        state = self._node.state
        if holds_all_of(message, state) and self.addresses.caught_up(state.configuration):
            self._connect()

    def _connect(self) -> None:
        self._transport.connect(self.addresses.book(self._node.node_id))


class Contact:
    """Whom messages do not reach at the moment, and who has come back when."""

    def __init__(self) -> None:
        self._lost: set[NodeId] = set()
        self._returned: dict[NodeId, float] = {}

    def lose(self, peer: NodeId) -> None:
        """Messages to the peer were lost."""
        self._lost.add(peer)

    def hear(self, peer: NodeId, now: float) -> None:
        """The peer has sent something.

        :param now: the loop's seconds.
        """
        if peer in self._lost:
            self._lost.discard(peer)
            self._returned[peer] = now

    def is_lost(self, peer: NodeId | None) -> bool:
        """Whether what is sent to the peer now would probably be lost."""
        return peer in self._lost

    def returned_at(self, peer: NodeId) -> float:
        """When the peer was heard again after it had been lost, in the loop's seconds; 0 when it never was lost."""
        return self._returned.get(peer, 0.0)
