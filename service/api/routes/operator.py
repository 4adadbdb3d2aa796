"""``/v1/operator``: members are removed, the autopilot is configured, and the health of the servers is told.

Each is carried out by the leader, whichever node is asked.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import msgspec

from service.api import autopilot_body
from service.api import params as parameters
from service.api.catalog import CONSUL_VERSION
from service.api.errors import OUTCOME, TEXT, Answer, RequestRefused
from service.api.go import format_duration, parse_uint64
from service.api.kv import KeyValue, read_body, written
from service.api.params import Params
from service.api.reads import Kind, Query
from service.api.responses import JSON, json, json_answer, pretty
from service.api.routes.node import Node, parse_local
from service.api.routing import READ_ONLY, Route
from service.domain.acl.rules import READ, WRITE
from service.domain.autopilot import DEFAULT, Stored
from service.domain.commands import SetAutopilot, encode
from service.domain.quoting import quote
from service.domain.results import decode
from service.errors import NoLeader
from service.ipc import membership

Environ = Mapping[str, Any]

BODY_BYTES_MAX = 64 * 1024
_NEVER = "0001-01-01T00:00:00Z"
_FAILED_CONTACT = "-1ns"
_NANOSECONDS = 1_000_000


def routes(node: Node, kv: KeyValue) -> list[Route]:
    """The routes of this module."""

    def peer(environ: Environ) -> Answer:
        return _remove(node, kv, environ)

    def configuration(environ: Environ) -> Answer:
        if environ["REQUEST_METHOD"] == "PUT":
            return _configure(node, kv, environ)
        kv.permissions.require_local(environ, READ, "operator")
        params = parse_local(environ, node)
        stored = kv.read(Query(Kind.AUTOPILOT), Params({}, stale=params.stale)).found or Stored(DEFAULT, 0, 0)
        return json_answer(json(autopilot_body.document(stored)), indent=params.pretty)

    def health(environ: Environ) -> Answer:
        params = parse_local(environ, node)
        status, told = _ask(node, membership.Health())
        if status != HTTPStatus.OK:
            return _plain(told)
        body = json(_health(told))
        code = HTTPStatus.OK if told["healthy"] else HTTPStatus.TOO_MANY_REQUESTS
        return code, [JSON], pretty(body) if params.pretty else body

    return [
        Route("/v1/operator/raft/peer", ("OPTIONS", "DELETE"), peer),
        Route("/v1/operator/autopilot/configuration", ("OPTIONS", "GET", "PUT"), configuration),
        Route("/v1/operator/autopilot/health", READ_ONLY, health),
    ]


def _configure(node: Node, kv: KeyValue, environ: Environ) -> Answer:
    params = parameters.parse_for_write(environ["QUERY_STRING"])
    if params.datacenter and params.datacenter != node.settings.datacenter:
        raise RequestRefused(500, "No path to datacenter")
    wanted = autopilot_body.parse(read_body(environ, BODY_BYTES_MAX))
    cas = None
    if "cas" in params.query:
        try:
            cas = parse_uint64(params.query["cas"][0])
        except ValueError as error:
            raise RequestRefused(400, f"Bad request: Error parsing cas value: {error}") from None
    actor = kv.permissions.require(environ, WRITE, "operator").accessor
    result = decode(node.backend.propose(encode(SetAutopilot(wanted, cas, parameters.origin(environ, actor)))))
    return written(result, parameters.NO_PARAMS, [])


def _remove(node: Node, kv: KeyValue, environ: Environ) -> Answer:
    params = parse_local(environ, node)
    given = [name for name in ("id", "address") if name in params.query]
    if not given:
        raise RequestRefused(400, "Bad request: Must specify either ?id with the server's ID or ?address with IP:port of peer to remove")
    if len(given) > 1:
        raise RequestRefused(400, "Bad request: Must specify only one of ?id or ?address")
    kv.permissions.require(environ, WRITE, "operator")
    wanted = params.query[given[0]][0]
    unknown = RequestRefused(500, f"{given[0]} {quote(wanted)} was not found in the Raft configuration")
    members = [one for one in node.report().members if wanted == (one.id if given[0] == "id" else one.peer)]
    if not members:
        raise unknown
    status, told = _ask(node, membership.Remove(members[0].id))
    if status == HTTPStatus.OK:
        return HTTPStatus.OK, [], b""
    if membership.kind_of(told) == membership.NO_SUCH_MEMBER:
        raise unknown
    return _plain(told, (OUTCOME, str(told["outcome"])))


def _ask(node: Node, operation: membership.Operation) -> membership.Reply:
    status, body = node.backend.members(membership.encode(operation))
    return status, msgspec.json.decode(body, type=dict[str, Any])


def _plain(told: dict[str, Any], *headers: tuple[str, str]) -> Answer:
    """A problem in the form of Consul's routes."""
    known = str(NoLeader()) if membership.kind_of(told) == membership.NO_LEADER else str(told["detail"])
    return HTTPStatus.INTERNAL_SERVER_ERROR, [TEXT, *headers], known.encode()


def _health(told: dict[str, Any]) -> dict[str, Any]:
    return {
        "Healthy": told["healthy"],
        "FailureTolerance": told["failure_tolerance"],
        "Servers": [
            {
                "ID": one["id"],
                "Name": one["name"],
                "Address": one["address"],
                "SerfStatus": "alive" if one["alive"] else "failed",
                "Version": CONSUL_VERSION,
                "Leader": one["leader"],
                "LastContact": _FAILED_CONTACT if one["last_contact_ms"] is None else format_duration(one["last_contact_ms"] * _NANOSECONDS),
                "LastTerm": one["last_term"],
                "LastIndex": one["last_index"],
                "Healthy": one["healthy"],
                "Voter": one["voter"],
                "StableSince": _time(one["stable_since_ms"]) if one["alive"] else _NEVER,
            }
            for one in told["servers"]
        ],
    }


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
