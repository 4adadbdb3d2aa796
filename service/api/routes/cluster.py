"""The native view of the cluster: ``/v1/cluster/status``, for ``kvorum status`` and dashboards, and ``/v1/cluster/members``.

Members are listed and changed at any node; the leader does it. A change is answered once it is committed. Errors are problem+json (RFC 9457).
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from service.api.errors import OUTCOME, READ_METHODS, Answer, RequestRefused
from service.api.kv import read_body
from service.api.params import parse
from service.api.responses import json, json_answer, pretty
from service.api.routes.node import Node
from service.api.routing import READ_ONLY, Route
from service.errors import UNKNOWN, BackendError
from service.ipc import membership

Environ = Mapping[str, Any]

MEMBERS = "/v1/cluster/members"
PROBLEM = ("Content-Type", "application/problem+json")
BODY_BYTES_MAX = 16 * 1024


def routes(node: Node) -> list[Route]:
    """The routes of this module."""

    def status(environ: Environ) -> Answer:
        params = parse(environ["QUERY_STRING"])
        return json_answer(json(_status(node)), indent=params.pretty)

    def members(environ: Environ) -> Answer:
        if environ["REQUEST_METHOD"] == "GET":
            return _ask(node, environ, membership.Members("stale" in parse(environ["QUERY_STRING"]).query))
        try:
            wanted = membership.decode_addition(read_body(environ, BODY_BYTES_MAX))
        except ValueError as error:
            return problem_answer(environ, *membership.problem(membership.MALFORMED, f"the body can't be used: {error}"))
        except RequestRefused as refused:
            return problem_answer(environ, *membership.problem(membership.MALFORMED, refused.text))
        return _ask(node, environ, wanted)

    def member(environ: Environ) -> Answer:
        return _ask(node, environ, membership.Remove(_name(environ)))

    def promote(environ: Environ) -> Answer:
        return _ask(node, environ, membership.Promote(_name(environ)))

    def demote(environ: Environ) -> Answer:
        return _ask(node, environ, membership.Demote(_name(environ)))

    return [
        Route("/v1/cluster/status", READ_ONLY, status),
        Route(MEMBERS, (*READ_ONLY, "POST"), members),
        Route(f"{MEMBERS}/<member>", ("OPTIONS", "DELETE"), member),
        Route(f"{MEMBERS}/<member>/promote", ("OPTIONS", "POST"), promote),
        Route(f"{MEMBERS}/<member>/demote", ("OPTIONS", "POST"), demote),
    ]


def _name(environ: Environ) -> str:
    """The member's name or id in the path."""
    name: str = environ["PATH_INFO"].removeprefix(MEMBERS + "/").partition("/")[0]
    return name


def _ask(node: Node, environ: Environ, operation: membership.Operation) -> Answer:
    """Let the agent carry it out, and pass its answer on."""
    try:
        status, body = node.backend.members(membership.encode(operation))
    except BackendError as error:
        unknown = error.outcome == UNKNOWN and environ["REQUEST_METHOD"] not in READ_METHODS
        kind = membership.OUTCOME_UNKNOWN if unknown else membership.NO_LEADER
        return problem_answer(environ, *membership.problem(kind, str(error), error.outcome))
    if status != 200:
        return problem_answer(environ, status, msgspec.json.decode(body))
    return json_answer(body, indent=parse(environ["QUERY_STRING"]).pretty)


def problem_answer(environ: Environ, status: int, problem: dict[str, Any]) -> Answer:
    """A problem (RFC 9457) as the answer to a request; that to a write also says its outcome."""
    body = json(problem)
    outcome = [] if environ["REQUEST_METHOD"] in READ_METHODS else [(OUTCOME, str(problem.get("outcome", UNKNOWN)))]
    return status, [PROBLEM, *outcome], pretty(body) if parse(environ["QUERY_STRING"]).pretty else body


def _status(node: Node) -> dict[str, Any]:
    report = node.report()
    leader = report.leader
    return {
        "node": {
            "name": report.name,
            "id": report.id,
            "cluster_id": report.cluster_id,
            "version": report.version,
            "role": report.role,
            "term": report.term,
            "lease": report.lease,
            "vote": report.vote,
            "leader": leader.id if leader else "",
            "leader_name": leader.name if leader else "",
            "first_index": report.first_index,
            "last_index": report.last_index,
            "commit_index": report.commit,
            "applied_index": report.applied,
            "snapshot_index": report.snapshot_index,
            "generation": report.generation,
            "uptime_seconds": report.uptime_seconds,
        },
        "peers": [
            {
                "id": peer.id,
                "name": peer.name,
                "address": peer.address,
                "voter": peer.voter,
                "match_index": peer.match_index,
                "next_index": peer.next_index,
                "state": peer.state,
                "inflight": peer.inflight,
                "last_contact_ms": peer.last_contact_ms,
            }
            for peer in report.peers
        ],
    }
