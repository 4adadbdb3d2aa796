"""What can be asked about the membership of the cluster, and what is answered: alike from a worker, from another node, and over HTTP.

An answer is a status and a JSON object: the members (see :func:`service.agent.membership.document`), their health, or a problem (RFC 9457) whose
``outcome`` says whether the change certainly was not made.
"""

from typing import Any

import msgspec

from service.addresses import NAME, NAME_RULE, PEER_PORT, parse_address
from service.errors import REJECTED

Reply = tuple[int, dict[str, Any]]

TYPE_PREFIX = "urn:kvorum:problem:"
MALFORMED = "malformed"
NO_LEADER = "no-leader"
NO_SUCH_MEMBER = "no-such-member"
NAME_IN_USE = "name-in-use"
MEMBER_ALIVE = "member-alive"
SECOND_NODE = "second-node"
LEADS_ALREADY = "leads-already"
MEMBER_SILENT = "member-silent"
REFUSED = "refused"
UNREACHABLE = "unreachable"
WRONG_CLUSTER = "wrong-cluster"
NOT_EMPTY = "not-empty"
OUTCOME_UNKNOWN = "outcome-unknown"

_KINDS = {
    MALFORMED: (400, "The request makes no sense"),
    NO_LEADER: (503, "No leader is known"),
    NO_SUCH_MEMBER: (404, "There is no such member"),
    NAME_IN_USE: (409, "The name belongs to a member"),
    MEMBER_ALIVE: (409, "The member that is to be replaced is alive"),
    SECOND_NODE: (409, "Another node of that name is running"),
    LEADS_ALREADY: (409, "The member leads already"),
    MEMBER_SILENT: (409, "The member was not heard of"),
    REFUSED: (409, "The change can't be made"),
    UNREACHABLE: (502, "The server can't be reached"),
    WRONG_CLUSTER: (409, "The server belongs to another cluster"),
    NOT_EMPTY: (409, "The server is not empty"),
    OUTCOME_UNKNOWN: (500, "The outcome is unknown"),
}


class Add(msgspec.Struct, frozen=True, tag="add", forbid_unknown_fields=True):
    """Add a server, as a learner at first.

    :param address: where its peers reach it, ``host:port``.
    :param voter: whether it becomes a voter by itself once it has caught up.
    :param replaces: name or id of a member whose place it takes then.
    :param id: the incarnation that must answer there; empty for any.
    """

    name: str
    address: str
    voter: bool = True
    replaces: str = ""
    id: str = ""


class Promote(msgspec.Struct, frozen=True, tag="promote"):
    """Give a learner that has caught up a vote."""

    member: str


class Demote(msgspec.Struct, frozen=True, tag="demote"):
    """Take a voter's vote; it stays as a learner."""

    member: str


class Remove(msgspec.Struct, frozen=True, tag="remove"):
    """Take a member out."""

    member: str


class Transfer(msgspec.Struct, frozen=True, tag="transfer"):
    """Hand leadership over.

    :param member: to whom; empty for one that keeps up, and of those the one that has come back last.
    """

    member: str = ""


class Members(msgspec.Struct, frozen=True, tag="members"):
    """Tell who the members are: the leader's view, or with ``stale`` what the node that is asked knows."""

    stale: bool = False


class Health(msgspec.Struct, frozen=True, tag="health"):
    """Tell how the servers are, as the leader sees it; see :meth:`service.agent.caretaker.Caretaker.health`."""


Operation = Add | Promote | Demote | Remove | Transfer | Members | Health

_encoder = msgspec.json.Encoder()
_operations = msgspec.json.Decoder(Operation)
_additions = msgspec.json.Decoder(Add)


def encode(value: Operation | dict[str, Any]) -> bytes:
    """The bytes of an operation or of an answer's object."""
    return _encoder.encode(value)


def decode(data: bytes) -> Operation:
    """The inverse of :func:`encode` for operations.

    :raises ValueError: naming what can't be used.
    """
    operation = _operations.decode(data)
    return _checked(operation) if isinstance(operation, Add) else operation


def decode_addition(data: bytes) -> Add:
    """What a client posts in order to add a server.

    :raises ValueError: naming what can't be used.
    """
    return _checked(_additions.decode(data))


def problem(kind: str, detail: str, outcome: str = REJECTED) -> Reply:
    """The answer when something was not done.

    :param kind: one of the names above.
    """
    status, title = _KINDS[kind]
    return status, {"type": TYPE_PREFIX + kind, "title": title, "status": status, "detail": detail, "outcome": outcome}


def kind_of(answer: dict[str, Any]) -> str:
    """The kind of a problem; empty when it is none of ours."""
    return str(answer.get("type", "")).removeprefix(TYPE_PREFIX)


def _checked(wanted: Add) -> Add:
    if not NAME.fullmatch(wanted.name):
        raise ValueError(f"{wanted.name!r} is no name of a node; a name is {NAME_RULE}")
    address = parse_address(wanted.address.removeprefix("http://").rstrip("/"), PEER_PORT)
    return msgspec.structs.replace(wanted, address=str(address))
