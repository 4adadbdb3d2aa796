"""``/v1/acl/`` and ``/v1/internal/acl/authorize``: the routes of :mod:`service.api.acl`. With the ACL off each says so."""

from collections.abc import Callable, Mapping
from typing import Any

from service.api.acl import body
from service.api.acl.changes import Changes
from service.api.acl.endpoints import BODY_BYTES_MAX, Endpoints
from service.api.acl.permissions import NO_INDEX
from service.api.acl.resolver import DENIED, FORBIDDEN, NOT_FOUND
from service.api.errors import TEXT, Answer, RequestRefused
from service.api.kv import KeyValue, read_body
from service.api.params import parse, parse_for_write
from service.api.responses import json, json_answer
from service.api.routing import READ_ONLY, WRITE_ONLY, Route
from service.domain.acl.authorizer import Authorizer
from service.domain.acl.rules import LIST, READ, WRITE
from service.domain.quoting import quote
from service.ipc.client import AgentClient
from service.settings import Settings

Environ = Mapping[str, Any]
View = Callable[[Environ], Answer]
Named = Callable[[Environ, str], Answer]

ANY = ("OPTIONS", "GET", "PUT", "DELETE")
POST_ONLY = ("OPTIONS", "POST")
_ROOT = "/v1/acl/"
_NOT_HERE = 501
_OLDER = "This server has Consul's ACL of version 1.4 and later only: use /v1/acl/token and /v1/acl/policy."
_NO_METHODS = "This server has no auth methods: make tokens by PUT /v1/acl/token."
_NEVER = "0001-01-01T00:00:00Z"
_SCALARS = ("acl", "keyring", "operator")
_SEGMENTED = ("agent", "event", "intention", "key", "node", "query", "service", "session")


def routes(backend: AgentClient, kv: KeyValue, settings: Settings) -> list[Route]:
    """The routes of this module."""
    endpoints = Endpoints(Changes(backend, kv.reads), kv, settings)
    found = [
        Route(_ROOT + "bootstrap", WRITE_ONLY, endpoints.bootstrap),
        Route(_ROOT + "replication", READ_ONLY, _replication),
        Route(_ROOT + "tokens", READ_ONLY, endpoints.tokens),
        Route(_ROOT + "token", WRITE_ONLY, endpoints.new_token),
        Route(_ROOT + "token/self", READ_ONLY, endpoints.own_token),
        *_named("token", ANY, lambda environ, name: _token(endpoints, environ, name)),
        Route(_ROOT + "policies", READ_ONLY, endpoints.policies),
        Route(_ROOT + "policy", WRITE_ONLY, endpoints.new_policy),
        *_named("policy/name", READ_ONLY, endpoints.policy_by_name),
        *_named("policy", ANY, endpoints.policy),
        Route(_ROOT + "roles", READ_ONLY, endpoints.roles),
        Route(_ROOT + "role", WRITE_ONLY, endpoints.new_role),
        *_named("role/name", READ_ONLY, endpoints.role_by_name),
        *_named("role", ANY, endpoints.role),
        *_without_methods(kv),
        *_older(),
        Route("/v1/internal/acl/authorize", POST_ONLY, lambda environ: _authorize(kv, environ)),
    ]
    return found if kv.permissions.enabled else [route._replace(view=_disabled) for route in found]


def _disabled(_: Environ) -> Answer:
    return 401, [TEXT], b"ACL support disabled"


def _named(kind: str, methods: tuple[str, ...], view: Named) -> list[Route]:
    """A path that ends with an id or a name, also with an empty one."""
    prefix = f"{_ROOT}{kind}/"

    def answer(environ: Environ) -> Answer:
        return view(environ, environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace").removeprefix(prefix))

    return [Route(prefix, methods, answer), Route(prefix + "<path:name>", methods, answer)]


def _token(endpoints: Endpoints, environ: Environ, name: str) -> Answer:
    if environ["REQUEST_METHOD"] == "PUT" and name.endswith("/clone"):
        return endpoints.clone(environ, name.removesuffix("/clone"))
    return endpoints.token(environ, name)


def _replication(environ: Environ) -> Answer:
    """There is one datacenter; nothing is replicated from another."""
    indexes = {"ReplicatedIndex": 0, "ReplicatedRoleIndex": 0, "ReplicatedTokenIndex": 0, "LastSuccess": _NEVER, "LastError": _NEVER}
    told = {"Enabled": False, "Running": False, "SourceDatacenter": "", "ReplicationType": ""} | indexes
    return json_answer(json(told), indent=parse_for_write(environ["QUERY_STRING"]).pretty)


def _without_methods(kv: KeyValue) -> list[Route]:
    """Auth methods and binding rules: there are none, and none can be made."""

    def listed(environ: Environ) -> Answer:
        params = parse(environ["QUERY_STRING"])
        if not kv.permissions.for_read(environ).may(READ, "acl"):
            raise RequestRefused(FORBIDDEN, DENIED, NO_INDEX)
        status, headers, data = json_answer(b"[]", indent=params.pretty)
        return status, [*headers, *kv.index_headers(1, params.stale)], data

    def single(environ: Environ, _: str) -> Answer:
        kv.permissions.require_local(environ, READ if environ["REQUEST_METHOD"] == "GET" else WRITE, "acl")
        if environ["REQUEST_METHOD"] == "PUT":
            raise RequestRefused(_NOT_HERE, _NO_METHODS)
        return (404, [], b"") if environ["REQUEST_METHOD"] == "GET" else json_answer(b"true", indent=False)

    def make(environ: Environ) -> Answer:
        kv.permissions.require_local(environ, WRITE, "acl")
        raise RequestRefused(_NOT_HERE, _NO_METHODS)

    def login(_: Environ) -> Answer:
        raise RequestRefused(FORBIDDEN, NOT_FOUND)

    def logout(environ: Environ) -> Answer:
        known = kv.permissions.token(environ)
        raise RequestRefused(FORBIDDEN, DENIED if known else NOT_FOUND)

    found = [Route(_ROOT + "login", POST_ONLY, login), Route(_ROOT + "logout", POST_ONLY, logout)]
    for one, many in (("auth-method", "auth-methods"), ("binding-rule", "binding-rules")):
        found += [Route(_ROOT + many, READ_ONLY, listed), Route(_ROOT + one, WRITE_ONLY, make), *_named(one, ANY, single)]
    return found


def _older() -> list[Route]:
    """The ACL of Consul before 1.4."""

    def refuse(*_: Any) -> Answer:
        raise RequestRefused(_NOT_HERE, _OLDER)

    found = [Route(_ROOT + name, WRITE_ONLY, refuse) for name in ("create", "update")]
    found += [Route(_ROOT + "list", READ_ONLY, refuse), Route(_ROOT + "rules/translate", POST_ONLY, refuse)]
    for name, methods in (("destroy", WRITE_ONLY), ("info", READ_ONLY), ("clone", WRITE_ONLY), ("rules/translate", READ_ONLY)):
        found += _named(name, methods, refuse)
    return found


def _authorize(kv: KeyValue, environ: Environ) -> Answer:
    """What the request's token may do, question by question."""
    asked = body.questions(read_body(environ, BODY_BYTES_MAX))
    who = kv.permissions.local(environ)
    told = []
    for one in asked:
        segment = {"Segment": one["Segment"]} if one["Segment"] else {}
        told.append({"Resource": one["Resource"]} | segment | {"Access": one["Access"], "Allow": _allows(who, one)})
    return json_answer(json(told), indent=parse_for_write(environ["QUERY_STRING"]).pretty)


def _allows(who: Authorizer, question: dict[str, str]) -> bool:
    resource, access, segment = question["Resource"], question["Access"], question["Segment"]
    if resource not in (*_SCALARS, *_SEGMENTED):
        raise RequestRefused(400, f"Bad request: Invalid ACL resource requested: {quote(resource)}")
    if resource == "key" and access == "write-prefix":
        return who.may_on_all(WRITE, segment.encode())
    if access not in (READ, WRITE) and not (resource == "key" and access == LIST):
        raise RequestRefused(400, f"Bad request: Invalid access level for {resource} resource: {access}")
    return who.may(access, "service" if resource == "intention" else resource, segment)
