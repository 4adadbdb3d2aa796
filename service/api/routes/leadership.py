"""Handing leadership over: ``POST /v1/cluster/transfer[?to=MEMBER]``, and the path that newer Consuls have for it.

Any node takes the request; the leader carries it out and answers once somebody else leads. Without a member it picks the voter that
keeps up and, of those, has come back last: in a rolling restart that one was restarted already.
The native path answers with the members and the ``id`` of the one that leads now; errors are problem+json (RFC 9457). Consul's own,
``PUT`` or ``POST /v1/operator/raft/transfer-leader[?id=]``, answers ``{"Success": true}``; errors are plain text there.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec

from service.api.errors import OUTCOME, TEXT, Answer
from service.api.params import parse
from service.api.responses import json, json_answer
from service.api.routes.cluster import problem_answer
from service.api.routes.node import Node, parse_local
from service.api.routing import Route
from service.errors import UNKNOWN, BackendError, NoLeader
from service.ipc import membership

PATH = "/v1/cluster/transfer"
CONSUL_PATH = "/v1/operator/raft/transfer-leader"

Environ = Mapping[str, Any]


def routes(node: Node) -> list[Route]:
    """The routes of this module."""

    def transfer(environ: Environ) -> Answer:
        params = parse(environ["QUERY_STRING"])
        status, told = _transfer(node, params.query.get("to", ("",))[0])
        if status != HTTPStatus.OK:
            return problem_answer(environ, status, told)
        return json_answer(json(told), indent=params.pretty)

    def transfer_like_consul(environ: Environ) -> Answer:
        params = parse_local(environ, node)
        wanted = params.query.get("id", ("",))[0]
        status, told = _transfer(node, wanted)
        if status != HTTPStatus.OK:
            return _plain(status, told)
        return json_answer(json({"Success": _leads(told, wanted)}), indent=params.pretty)

    return [
        Route(PATH, ("OPTIONS", "POST"), transfer),
        Route(CONSUL_PATH, ("OPTIONS", "PUT", "POST"), transfer_like_consul),
    ]


def _transfer(node: Node, member: str) -> membership.Reply:
    """Let the agent carry it out.

    :param member: name or id; empty for any voter.
    """
    if not member.isprintable():
        return membership.problem(membership.MALFORMED, f"{member!r} is neither a name nor an id of a member")
    try:
        status, body = node.backend.members(membership.encode(membership.Transfer(member)))
    except BackendError as error:
        kind = membership.OUTCOME_UNKNOWN if error.outcome == UNKNOWN else membership.NO_LEADER
        return membership.problem(kind, str(error), error.outcome)
    return status, msgspec.json.decode(body, type=dict[str, Any])


def _leads(told: dict[str, Any], wanted: str) -> bool:
    """Whether the member that was asked for leads now."""
    leader: dict[str, Any] = next((member for member in told["members"] if member["id"] == told["id"]), {})
    return wanted in {"", told["id"], leader.get("name")}


def _plain(status: int, told: dict[str, Any]) -> Answer:
    """A problem in the form of Consul's routes, which know no cluster without a leader by another name."""
    text = str(told["detail"])
    if membership.kind_of(told) == membership.NO_LEADER:
        status, text = HTTPStatus.INTERNAL_SERVER_ERROR, str(NoLeader())
    return status, [TEXT, (OUTCOME, str(told["outcome"]))], text.encode()
