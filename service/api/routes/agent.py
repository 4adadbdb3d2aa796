"""What Consul's agents are asked beside ``/v1/agent/self``: the members; and what can't be had here, refused by name.

No service or check is registered at a node, no node is joined or left by a request: those answers say what to do instead.
"""

from collections.abc import Mapping
from typing import Any

from service.api import catalog
from service.api.errors import TEXT, Answer, RequestRefused
from service.api.kv import KeyValue
from service.api.params import Params, parse_for_write
from service.api.reads import Kind, Query
from service.api.responses import JSON, json, json_answer
from service.api.routes.node import Node
from service.api.routing import READ_ONLY, WRITE_ONLY, Route
from service.domain.acl.rules import READ
from service.domain.servers import Server

Environ = Mapping[str, Any]

NOT_HERE = 501
_NO_CATALOG = "This server keeps configuration, not a catalog: services, checks and nodes can't be registered here."
_NO_LEAVE = "A node is a member until it is removed: `consul operator raft remove-peer` or `kvorum member remove`. To stop it, send it SIGTERM."
_NO_JOIN = "A node joins when it is started: `kvorum server --join ADDRESS`, or `kvorum member add`."
_REFUSED = {
    "/v1/agent/service/register": _NO_CATALOG,
    "/v1/agent/service/deregister/<path:name>": _NO_CATALOG,
    "/v1/agent/service/maintenance/<path:name>": _NO_CATALOG,
    "/v1/agent/check/register": _NO_CATALOG,
    "/v1/agent/check/deregister/<path:name>": _NO_CATALOG,
    "/v1/agent/check/pass/<path:name>": _NO_CATALOG,
    "/v1/agent/check/warn/<path:name>": _NO_CATALOG,
    "/v1/agent/check/fail/<path:name>": _NO_CATALOG,
    "/v1/agent/check/update/<path:name>": _NO_CATALOG,
    "/v1/agent/maintenance": _NO_CATALOG,
    "/v1/catalog/register": _NO_CATALOG,
    "/v1/catalog/deregister": _NO_CATALOG,
    "/v1/coordinate/update": "Nobody measures how far nodes are apart: coordinates can't be set.",
    "/v1/agent/leave": _NO_LEAVE,
    "/v1/agent/force-leave/<path:name>": _NO_LEAVE,
    "/v1/agent/join/<path:name>": _NO_JOIN,
}


def routes(node: Node, kv: KeyValue) -> list[Route]:
    """The routes of this module."""

    def members(environ: Environ) -> Answer:
        params = parse_for_write(environ["QUERY_STRING"])
        if params.query.get("segment", ("",))[0] not in ("", "_all"):
            raise RequestRefused(500, "Network segments are not supported in this version of Consul")
        who = kv.permissions.local(environ)
        listed = [catalog.member(one, node.settings) for one in _servers(node, kv) if who.may(READ, "node", one.name)]
        if params.query.get("wan", ("",))[0]:
            listed = [one | {"Name": f"{one['Name']}.{node.settings.datacenter}"} for one in listed]
        return json_answer(json(listed), indent=params.pretty)

    def nothing(environ: Environ) -> Answer:
        return json_answer(b"{}", indent=parse_for_write(environ["QUERY_STRING"]).pretty)

    def no_service(environ: Environ) -> Answer:
        name = environ["PATH_INFO"].encode("latin-1").removeprefix(b"/v1/agent/service/")
        return 404, [TEXT], b"unknown service ID: " + name

    def no_health(environ: Environ) -> Answer:
        name = environ["PATH_INFO"].removeprefix("/v1/agent/health/service/name/")
        return 404, [JSON, ("X-Consul-Reason", f"ServiceName {name} Not Found")], b"[]"

    return [
        Route("/v1/agent/members", READ_ONLY, members),
        Route("/v1/agent/services", READ_ONLY, nothing),
        Route("/v1/agent/checks", READ_ONLY, nothing),
        Route("/v1/agent/service/<path:name>", READ_ONLY, no_service),
        Route("/v1/agent/health/service/name/<path:name>", READ_ONLY, no_health),
        *(_refusal(path, text) for path, text in _REFUSED.items()),
    ]


def _servers(node: Node, kv: KeyValue) -> list[Server]:
    """Those that the leader has recorded, as far as this node knows; before that, those of the configuration."""
    recorded: list[Server] = kv.read(Query(Kind.NODES), Params({}, stale=True)).found
    return recorded or [Server(one.id, one.name, one.peer, one.voter, alive=True) for one in node.report().members]


def _refusal(path: str, text: str) -> Route:
    def refuse(_: Environ) -> Answer:
        raise RequestRefused(NOT_HERE, text)

    return Route(path, WRITE_ONLY, refuse)
