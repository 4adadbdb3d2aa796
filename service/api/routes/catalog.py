"""``/v1/catalog``, ``/v1/health`` and ``/v1/coordinate``: views of the servers that the leader has recorded (:mod:`service.api.catalog`).

They read as keys are read: at any node, after a barrier unless ``?stale``, and ``index`` waits for a change. Nothing can be registered.
"""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from service.api import catalog
from service.api.acl.permissions import NO_INDEX
from service.api.acl.resolver import DENIED, FORBIDDEN
from service.api.errors import TEXT, Answer, Headers, RequestRefused
from service.api.kv import KeyValue
from service.api.params import Params, check_cache_control, parse
from service.api.reads import Kind, Query
from service.api.responses import JSON, json, json_answer, pretty
from service.api.routes.node import Node
from service.api.routing import READ_ONLY, Route
from service.domain.acl.authorizer import Authorizer
from service.domain.acl.rules import READ
from service.domain.servers import Server

Environ = Mapping[str, Any]
View = Callable[[list[Server], str, Params], Any]
"""From the servers, the name in the path and the parameters to what is told; :data:`MISSING` for an empty 404."""

MISSING = object()
_ABOUT_SERVICES = ("/v1/catalog/service", "/v1/health/service/")
_COORDINATE = "/v1/coordinate/node/"
_MISSING_NODE, _MISSING_SERVICE, _MISSING_STATE = "Missing node name", "Missing service name", "Missing check state"


def routes(node: Node, kv: KeyValue) -> list[Route]:
    """The routes of this module."""
    about = _Catalog(node, kv)
    datacenter = node.settings.datacenter
    where = {"Datacenter": datacenter, "AreaID": "wan"}
    return [
        about.fixed("/v1/catalog/datacenters", lambda _: [datacenter]),
        about.fixed("/v1/coordinate/datacenters", lambda servers: [where | {"Coordinates": list(map(catalog.coordinate, servers))}]),
        about.plain(
            "/v1/catalog/nodes", Kind.NODES, lambda servers, _, params: [catalog.node(one, datacenter) for one in _with_meta(servers, params)]
        ),
        about.plain("/v1/catalog/services", Kind.NODES, lambda servers, _, params: {catalog.SERVICE: []} if _with_meta(servers, params) else {}),
        about.plain("/v1/coordinate/nodes", Kind.NODES, lambda servers, _, __: list(map(catalog.coordinate, servers)), tells_consistency=False),
        *about.named("/v1/catalog/node/", Kind.NODES, about.node_with_services, _MISSING_NODE),
        *about.named("/v1/catalog/node-services/", Kind.NODES, about.node_with_service_list, _MISSING_NODE),
        *about.named("/v1/catalog/service/", Kind.NODES, about.service_nodes, _MISSING_SERVICE),
        *about.named("/v1/health/node/", Kind.CHECKS, lambda servers, name, _: list(map(catalog.check, _of(servers, name))), _MISSING_NODE),
        *about.named("/v1/health/service/", Kind.HEALTH, about.healthy_service, _MISSING_SERVICE),
        *about.named("/v1/health/checks/", Kind.CHECKS, lambda _, __, ___: [], _MISSING_SERVICE),
        *about.named("/v1/health/connect/", Kind.NODES, lambda _, __, ___: [], _MISSING_SERVICE),
        *about.named("/v1/health/state/", Kind.CHECKS, _in_state, _MISSING_STATE),
        *about.named("/v1/coordinate/node/", Kind.NODES, _coordinates, _MISSING_NODE, tells_consistency=False),
    ]


class _Catalog:
    """Makes the routes of one worker."""

    def __init__(self, node: Node, kv: KeyValue) -> None:
        self._datacenter = node.settings.datacenter
        self._kv = kv

    def fixed(self, path: str, view: Callable[[list[Server]], Any]) -> Route:
        """A path that is answered from this node alone, without headers of an index."""

        def answer(environ: Environ) -> Answer:
            servers = self._kv.read(Query(Kind.NODES), Params({}, stale=True)).found
            return json_answer(json(view(servers)), indent=parse(environ["QUERY_STRING"]).pretty)

        return Route(path, READ_ONLY, answer)

    def plain(self, path: str, kind: Kind, view: View, *, tells_consistency: bool = True) -> Route:
        """A path without a name in it.

        :param kind: what the index is about.
        :param tells_consistency: whether a header says whose data these are.
        """
        return Route(path, READ_ONLY, lambda environ: self._answer(environ, kind, view, "", tells_consistency))

    def named(self, prefix: str, kind: Kind, view: View, missing: str, *, tells_consistency: bool = True) -> list[Route]:
        """A path that ends with a name, and what is said when it does not."""

        def answer(environ: Environ) -> Answer:
            name = environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace").removeprefix(prefix)
            if not name:
                raise RequestRefused(400, missing)
            return self._answer(environ, kind, view, name, tells_consistency)

        return [Route(prefix, READ_ONLY, answer), Route(prefix + "<path:name>", READ_ONLY, answer)]

    def _answer(self, environ: Environ, kind: Kind, view: View, name: str, tells_consistency: bool) -> Answer:
        params = parse(environ["QUERY_STRING"])
        check_cache_control(environ)
        if params.datacenter and params.datacenter != self._datacenter:
            return _nowhere("No path to datacenter")
        if params.query.get("filter", ("",))[0]:
            return _nowhere("Failed to create boolean expression evaluator: this server has none; leave ?filter out")
        result = self._kv.read(Query(kind), params)
        who = self._kv.permissions.for_read(environ)
        told = view(_visible(who, environ["PATH_INFO"], result.found), name, params)
        if told is MISSING:
            return HTTPStatus.NOT_FOUND, [], b""
        if isinstance(told, dict) and told.get("Services") and not who.may(READ, "service", catalog.SERVICE):
            told["Services"] = type(told["Services"])()
        headers: Headers = [JSON, *self._kv.headers(result, params)]
        if tells_consistency:
            local = params.stale if result.local is None else result.local
            headers.append(("X-Consul-Effective-Consistency", "stale" if local else "leader"))
        body = json(told)
        return 200, headers, pretty(body) if params.pretty else body

    # -- views --

    def node_with_services(self, servers: list[Server], name: str, _: Params) -> Any:
        """One node, its services by their ids."""
        found = _of(servers, name)
        return {"Node": catalog.node(found[-1], self._datacenter), "Services": {catalog.SERVICE: catalog.service(found[-1])}} if found else None

    def node_with_service_list(self, servers: list[Server], name: str, _: Params) -> Any:
        """One node, its services as a list."""
        found = _of(servers, name)
        if not found:
            return {"Node": None, "Services": None}
        return {"Node": catalog.node(found[-1], self._datacenter), "Services": [catalog.service(found[-1])]}

    def service_nodes(self, servers: list[Server], name: str, params: Params) -> Any:
        """The nodes of a service. No service has a tag."""
        if name != catalog.SERVICE or "tag" in params.query:
            return []
        return [catalog.service_node(one, self._datacenter) for one in _with_meta(servers, params)]

    def healthy_service(self, servers: list[Server], name: str, params: Params) -> Any:
        """The nodes of a service with their checks; with ``?passing`` only those that pass."""
        if name != catalog.SERVICE or "tag" in params.query:
            return []
        return [catalog.health(one, self._datacenter) for one in _with_meta(servers, params) if one.alive or "passing" not in params.query]


def _visible(who: Authorizer, path: str, servers: list[Server]) -> list[Server]:
    """The servers that may be seen there.

    :raises RequestRefused: a coordinate is asked for that may not be seen.
    """
    if path.startswith(_ABOUT_SERVICES) and not who.may(READ, "service", catalog.SERVICE):
        return []
    if path == "/v1/catalog/services":
        return servers
    if path.startswith(_COORDINATE) and not who.may(READ, "node", path.removeprefix(_COORDINATE)):
        raise RequestRefused(FORBIDDEN, DENIED, NO_INDEX)
    return [one for one in servers if who.may(READ, "node", one.name)]


def _of(servers: list[Server], name: str) -> list[Server]:
    return [one for one in servers if one.name == name]


def _with_meta(servers: list[Server], params: Params) -> list[Server]:
    """The servers that have the metadata that ``?node-meta=name:value`` asks for."""
    wanted = dict(one.partition(":")[::2] for one in params.query.get("node-meta", ()))
    return servers if catalog.has_meta(wanted) else []


def _in_state(servers: list[Server], state: str, _: Params) -> Any:
    return [catalog.check(one) for one in servers if state in ("any", catalog.status(one))]


def _coordinates(servers: list[Server], name: str, _: Params) -> Any:
    return list(map(catalog.coordinate, _of(servers, name))) or MISSING


def _nowhere(text: str) -> Answer:
    """A refusal as the catalog gives it: with the headers of an index that nobody has."""
    headers = [("X-Consul-Index", "1"), ("X-Consul-Knownleader", "false"), ("X-Consul-Lastcontact", "0")]
    return 500, [TEXT, *headers], text.encode()
