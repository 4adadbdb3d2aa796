"""Changes of the membership, asked of any node and carried out by the leader.

A request comes from a worker, from another node that passes it on, or from a server that wants to join. The leader confirms that it leads,
asks the server at the given address who it is, and has the change committed before it answers. Nothing that may have been done is
tried again; whoever asked learns that its outcome is unknown.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import msgspec

from raft.core.membership import AddLearner, AddVoter, Change, Demote, JointChange, Remove
from raft.core.model import Configuration, Member, NodeId
from raft.core.status import Status
from raft.errors import ChangePending, InsideJointChange, LearnerBehind, NotLeader, Outcome, OutcomeUnknown, RaftError, Rejected
from raft.runtime.server import RaftServer
from service.agent.formation import Call, Hello, ask_hello
from service.errors import REJECTED, UNKNOWN, FormationFailed
from service.ipc import membership as ask
from service.ipc.membership import Reply, problem

PATH = "/kvorum/v1/members"
PATIENCE_SECONDS = 7.0
"""How long a request waits for a leader, and a change for those before it."""
FORWARD_SECONDS = 12.0
PAUSE_SECONDS = 0.05


class Envelope(msgspec.Struct, frozen=True):
    """A request between nodes.

    :param operation: as :func:`service.ipc.membership.encode` made it.
    :param forwarded: whether it was passed on already; it is not passed on twice.
    """

    operation: msgspec.Raw
    forwarded: bool = False


class Refused(Exception):
    """Nothing was changed.

    :param kind: see :mod:`service.ipc.membership`.
    """

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.reply = problem(kind, detail)


class Membership:
    """The membership as one node serves it.

    :param call: makes one request to a peer: (address, path, body, seconds) to (status, body); raises OSError.
    :param election_ticks: ticks after which a member that was not heard of does not count as alive.
    :param tick_ms: their length.
    :ivar health: how the servers are, while this node leads.
    """

    def __init__(self, cluster_id: str, server: RaftServer, call: Call, election_ticks: int, tick_ms: int) -> None:
        self._cluster_id = cluster_id
        self._server = server
        self._call = call
        self._election_ticks = election_ticks
        self._tick_ms = tick_ms
        self.health: Callable[[], dict[str, Any]] = dict

    async def answer_peer(self, body: bytes) -> tuple[int, bytes]:
        """The route for other nodes and for servers that want to join."""
        try:
            envelope = msgspec.json.decode(body, type=Envelope)
        except msgspec.MsgspecError as error:
            status, answer = problem(ask.MALFORMED, str(error))
        else:
            status, answer = await self.answer(bytes(envelope.operation), forwarded=envelope.forwarded)
        return status, ask.encode(answer)

    async def answer(self, body: bytes, *, forwarded: bool = False) -> Reply:
        """Carry out what is asked, here or at the leader."""
        try:
            operation = ask.decode(body)
        except ValueError as error:
            return problem(ask.MALFORMED, str(error))
        if isinstance(operation, ask.Members) and operation.stale:
            return 200, document(self._server.status(), self._cluster_id, self._tick_ms)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE_SECONDS
        while True:
            reply = await self._lead(operation) if self._server.leads else await self._pass_on(operation, body, forwarded=forwarded)
            if ask.kind_of(reply[1]) != ask.NO_LEADER or forwarded or loop.time() >= deadline:
                return reply
            await asyncio.sleep(PAUSE_SECONDS)

    async def _pass_on(self, operation: ask.Operation, body: bytes, *, forwarded: bool) -> Reply:
        """Let the leader do it. Only what certainly never reached it counts as not done."""
        leader = next((member for member in self._server.status().configuration.members if member.id == self._server.leader), None)
        if leader is None or forwarded:
            return problem(ask.NO_LEADER, "no leader is known")
        envelope = msgspec.json.encode(Envelope(msgspec.Raw(body), forwarded=True))
        try:
            status, data = await self._call(leader.address, PATH, envelope, FORWARD_SECONDS)
            return status, msgspec.json.decode(data, type=dict[str, Any])
        except (OSError, msgspec.MsgspecError) as error:
            detail = f"the leader {leader.name} at {leader.address} did not answer: {error}"
            certain = isinstance(error, ConnectionRefusedError) or isinstance(operation, ask.Members | ask.Health)
            return problem(ask.NO_LEADER, detail) if certain else problem(ask.OUTCOME_UNKNOWN, detail, UNKNOWN)

    async def _lead(self, operation: ask.Operation) -> Reply:
        try:
            await self._server.barrier(within=PATIENCE_SECONDS)
        except RaftError as error:
            return problem(ask.NO_LEADER, str(error))
        if isinstance(operation, ask.Health):
            return 200, self.health()
        try:
            changed = await self._carry_out(operation)
        except Refused as refused:
            return refused.reply
        except NotLeader as error:
            return problem(ask.NO_LEADER, str(error))
        except RaftError as error:
            unknown = error.outcome is Outcome.UNKNOWN
            return problem(ask.OUTCOME_UNKNOWN if unknown else ask.REFUSED, str(error), UNKNOWN if unknown else REJECTED)
        return 200, document(self._server.status(), self._cluster_id, self._tick_ms) | ({"id": changed} if changed else {})

    async def _carry_out(self, operation: ask.Operation) -> NodeId:
        """Make the change.

        :returns: the id of the member that it was about, of the one that leads after a transfer; empty when nothing was to be changed.
        """
        match operation:
            case ask.Add():
                return await self._add(operation)
            case ask.Promote(name):
                return await self._change(name, AddVoter)
            case ask.Demote(name):
                await self._step_aside(name)
                return await self._change(name, lambda member: Demote(member.id))
            case ask.Remove(name):
                await self._step_aside(name)
                return await self._change(name, lambda member: Remove(member.id))
            case ask.Transfer(name):
                return await self._transfer(name)
            case _:
                return ""

    async def _change(self, name: str, make: Callable[[Member], Change]) -> NodeId:
        member = find(self._server.status().configuration, name)
        await self._submit(lambda _: make(member))
        return member.id

    async def _step_aside(self, name: str) -> None:
        """Hand leadership over before this node loses its vote: the others go on at once, where they would wait for an election otherwise.

        When nobody takes it, this node makes the change itself and leads until that is committed.

        :raises NotLeader: when somebody else leads now, who is to make the change.
        """
        own = self._server.node_id
        if find(self._server.status().configuration, name).id != own:
            return
        for successor in self._live_successors():
            with contextlib.suppress(Rejected, OutcomeUnknown):
                await self._server.transfer(successor)
            if not self._server.leads:
                raise NotLeader(self._server.leader)

    async def _add(self, wanted: ask.Add) -> NodeId:
        """Add the server that answers at the address, unless it is a member already. A leader whose place it is to take hands over first."""
        hello = await self._ask_server(wanted)
        member = Member(hello.incarnation, wanted.name, wanted.address)
        if member.id in self._server.status().configuration:
            return member.id
        self._check_empty(hello, wanted)
        for old in _predecessors(self._server.status().configuration, wanted):
            if old.name == wanted.name:
                await self._check_gone(old, wanted)
        change = addition(self._server.status().configuration, member, wanted)  # one that is refused moves nobody
        if isinstance(change, AddLearner) and change.replaces:
            await self._step_aside(change.replaces)
        await self._submit(lambda status: addition(status.configuration, member, wanted))
        return member.id

    async def _transfer(self, name: str) -> NodeId:
        """Hand leadership over.

        :returns: who leads now: whoever was meant, unless an election came in between.
        :raises OutcomeUnknown: saying who leads.
        """
        target = self._successor(name)
        try:
            return await self._server.transfer(target.id)
        except OutcomeUnknown as error:
            raise OutcomeUnknown(f"{target.name} has not taken over in time and still may; {self._who_leads()}") from error

    def _successor(self, name: str) -> Member:
        """The voter that is to lead: the one of that name or id, or without one the first of the successors that is not silent."""
        status = self._server.status()
        configuration, own = status.configuration, status.node_id
        peers = {peer.peer: peer for peer in status.peers}
        if not name:
            up = self._live_successors()
            if not up:
                raise Refused(ask.MEMBER_SILENT, "no other voter was heard of within an election timeout: nobody could take over")
            return find(configuration, up[0])
        member = find(configuration, name)
        if member.id == own:
            raise Refused(ask.LEADS_ALREADY, f"{member.name} ({member.id}) leads already")
        if member.id not in configuration.voter_ids:
            raise Refused(ask.REFUSED, f"{member.name} is a member without a vote ({_suffrage(configuration, member)}): only a voter can lead")
        ticks = peers[member.id].contact_ticks
        if ticks >= self._election_ticks:
            raise Refused(ask.MEMBER_SILENT, f"{member.name} at {member.address} was not heard of for {ticks * self._tick_ms} ms: it can't take over")
        return member

    def _live_successors(self) -> list[NodeId]:
        """Who could lead in place of this node, the best one first: voters that were heard of within an election timeout."""
        return [peer.peer for peer in self._server.successors() if peer.contact_ticks < self._election_ticks]

    def _who_leads(self) -> str:
        status = self._server.status()
        leader = next((member.name for member in status.configuration.members if member.id == status.leader), None)
        if self._server.leads:
            return f"{leader} leads as before, in term {status.term}"
        return f"{leader} leads now, in term {status.term}" if leader else f"nobody is known to lead term {status.term}"

    async def _submit(self, make: Callable[[Status], Change]) -> None:
        """Have a change committed, after those that are under way."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE_SECONDS
        while True:
            try:
                await self._server.change(make(self._server.status()))
            except (ChangePending, InsideJointChange):
                if loop.time() >= deadline:
                    raise
                await asyncio.sleep(PAUSE_SECONDS)
            except LearnerBehind as error:
                raise Refused(ask.REFUSED, f"{error}; ask again once it has caught up") from error
            else:
                return

    async def _ask_server(self, wanted: ask.Add) -> Hello:
        try:
            hello = await ask_hello(self._call, wanted.address)
        except (OSError, FormationFailed) as error:
            raise Refused(ask.UNREACHABLE, f"{wanted.address} can't be asked who it is: {error}") from error
        if hello.name != wanted.name or wanted.id not in {"", hello.incarnation}:
            meant = f"{wanted.name} ({wanted.id})" if wanted.id else wanted.name
            raise Refused(ask.REFUSED, f"{wanted.address} should be {meant}, but is {hello.name} ({hello.incarnation})")
        return hello

    def _check_empty(self, hello: Hello, wanted: ask.Add) -> None:
        """Refuse a server that belongs to a cluster, or is about to form one."""
        if hello.cluster is not None and hello.cluster.cluster_id != self._cluster_id:
            theirs = hello.cluster.cluster_id
            raise Refused(ask.WRONG_CLUSTER, f"{wanted.name} at {wanted.address} belongs to cluster {theirs}; this is {self._cluster_id}")
        if hello.cluster is not None:
            raise Refused(ask.NOT_EMPTY, f"{wanted.name} ({hello.incarnation}) was a member before; it comes back with an empty data directory only")
        ours = {f"{member.name}={member.address}" for member in self._server.status().configuration.members}
        if hello.initial and ours.isdisjoint(hello.initial):
            raise Refused(ask.WRONG_CLUSTER, f"{wanted.name} at {wanted.address} waits to form a cluster of {', '.join(hello.initial)}")

    async def _check_gone(self, old: Member, wanted: ask.Add) -> None:
        """Refuse to replace a member by another server of its name while it lives."""
        if old.address != wanted.address:
            found: Hello | None = None
            with contextlib.suppress(OSError, FormationFailed):
                found = await ask_hello(self._call, old.address)
            if found is not None and found.incarnation == old.id:
                raise Refused(ask.SECOND_NODE, f"{old.name} runs at {old.address} as {old.id}; {wanted.address} needs a name of its own")
        status = self._server.status()
        ticks = next((peer.contact_ticks for peer in status.peers if peer.peer == old.id), 0 if old.id == status.node_id else self._election_ticks)
        if ticks < self._election_ticks:
            detail = f"{old.name} was heard of {ticks * self._tick_ms} ms ago as {old.id} at {old.address}; it is replaced once it is silent"
            raise Refused(ask.MEMBER_ALIVE, detail)


def find(configuration: Configuration, name: str) -> Member:
    """The member of that id, or the only one of that name.

    :raises Refused: when there is none, or more than one.
    """
    found = [member for member in configuration.members if member.id == name] or [one for one in configuration.members if one.name == name]
    if not found:
        known = ", ".join(member.name for member in configuration.members)
        raise Refused(ask.NO_SUCH_MEMBER, f"no member has the name or id {name!r}; the members are {known}")
    if len(found) > 1:
        ids = ", ".join(f"{member.id} ({_suffrage(configuration, member)})" for member in found)
        raise Refused(ask.REFUSED, f"{name!r} is the name of {ids}: give an id")
    return found[0]


def addition(configuration: Configuration, member: Member, wanted: ask.Add) -> Change:
    """The change that adds a member. One that replaces a voter waits until it has caught up; one that replaces a learner takes its place at once.

    :raises Refused: when its name or the one it replaces does not allow it.
    """
    old = _predecessors(configuration, wanted)
    if taken := next((one for one in configuration.members if one.name == member.name and one not in old), None):
        raise Refused(ask.NAME_IN_USE, f"{taken.name} is the name of {taken.id} at {taken.address}; a server can take its place: replaces")
    voters = [one for one in old if configuration.is_voter(one.id)]
    learners = [one for one in old if one not in voters]
    wants_vote = wanted.voter or any(one.name == member.name for one in old)  # who comes back becomes what it was
    if not learners:
        return AddLearner(member, promote=wants_vote, replaces=voters[0].id if voters else None)
    promotion = next((one for one in configuration.promotions if one.learner == learners[-1].id), None)
    replaces = voters[0].id if voters else promotion and promotion.replaces
    added = AddLearner(member, promote=wants_vote and bool(voters or promotion), replaces=replaces)
    return JointChange((*(Remove(one.id) for one in learners), added))


def _predecessors(configuration: Configuration, wanted: ask.Add) -> list[Member]:
    """Whose place a new member takes: one voter at most, and learners that were to take it before."""
    if not wanted.replaces:
        return []
    old = [member for member in configuration.members if wanted.replaces in {member.id, member.name}]
    if not old or sum(configuration.is_voter(member.id) for member in old) > 1:
        return [find(configuration, wanted.replaces)]
    return old


def _suffrage(configuration: Configuration, member: Member) -> str:
    if member.id in configuration.voter_ids:
        return "voter"
    return "outgoing" if member.id in configuration.outgoing_ids else "learner"


def document(status: Status, cluster_id: str, tick_ms: int) -> dict[str, Any]:
    """The members as JSON. How far each of them is only the leader knows: elsewhere those fields are null.

    ``committed`` tells whether the configuration can still be undone; ``promotion`` what is to become of a learner.
    """
    configuration = status.configuration
    peers = {peer.peer: peer for peer in status.peers}
    promotions = {promotion.learner: {"replaces": promotion.replaces} for promotion in configuration.promotions}
    members = []
    for member in configuration.members:
        peer = peers.get(member.id)
        members.append(
            {
                "id": member.id,
                "name": member.name,
                "address": member.address,
                "suffrage": _suffrage(configuration, member),
                "leader": member.id == status.leader,
                "promotion": promotions.get(member.id),
                "caught_up": peer.caught_up if peer else None,
                "match_index": peer.match_index if peer else None,
                "next_index": peer.next_index if peer else None,
                "state": peer.state if peer else None,
                "last_contact_ms": peer.contact_ticks * tick_ms if peer else None,
            }
        )
    return {
        "cluster_id": cluster_id,
        "index": status.configuration_index,
        "committed": status.configuration_index <= status.commit_index,
        "joint": configuration.is_joint,
        "members": members,
    }
