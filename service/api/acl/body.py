"""The bodies of requests to ``/v1/acl/``, read as Go reads them."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from service.api import gojson
from service.api.errors import RequestRefused
from service.api.go import parse_duration
from service.api.gojson import JsonRefused, Number, Pairs
from service.domain.quoting import quote

_BAD = 400
_PLAIN_STRUCT = "struct { Hash string; *structs.Alias }"
_TOKEN_STRUCT = "struct { ExpirationTTL interface {}; Hash string; *structs.Alias }"  # noqa: S105 - a type of Go
_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(\.\d+)?(Z|([+-])(\d\d):(\d\d))")
_NANOSECONDS = 10**9
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ENTERPRISE = " - Namespaces are a Consul Enterprise feature"

Reader = Callable[[Any, str], Any]
Fields = dict[str, Any]


def policy(body: bytes) -> Fields:
    """A policy; what was not given is missing.

    :raises RequestRefused: with Consul's text.
    """
    return _read(body, "Policy", _PLAIN_STRUCT, _POLICY)


def role(body: bytes) -> Fields:
    """A role."""
    return _read(body, "Role", _PLAIN_STRUCT, _ROLE)


def token(body: bytes) -> Fields:
    """A token. ``ExpirationTTL`` and ``ExpirationTime`` in nanoseconds, the latter since 1970."""
    return _read(body, "Token", _TOKEN_STRUCT, _TOKEN)


def questions(body: bytes) -> list[dict[str, str]]:
    """What ``/v1/internal/acl/authorize`` is asked."""
    try:
        found = gojson.decode(body)
        if found is None:
            return []
        if not isinstance(found, list) or isinstance(found, Pairs):
            raise gojson.misfit(found, "Go value", "[]structs.ACLAuthorizationRequest")
        return [_question(one) for one in found]
    except JsonRefused as refused:
        raise RequestRefused(_BAD, f"Bad request: Failed to decode request body: {refused}") from None


def _question(value: Any) -> dict[str, str]:
    given = {"Resource": "", "Segment": "", "Access": ""}
    if value is not None and not isinstance(value, Pairs):
        raise gojson.misfit(value, "Go value", "structs.ACLAuthorizationRequest")
    for field, _, item in gojson.fields(value or (), given):
        if field and item is not None:
            given[field] = gojson.text(item, f"Go struct field ACLAuthorizationRequest.{field}")
    return given


def _read(body: bytes, what: str, struct: str, known: Mapping[str, Reader]) -> Fields:
    try:
        value = gojson.decode(body)
        if value is None:
            return {}
        if not isinstance(value, Pairs):
            raise gojson.misfit(value, "Go value", struct)
        return _fields(value, known, "Go struct field ")
    except (JsonRefused, ValueError) as refused:
        raise RequestRefused(_BAD, f"Bad request: {what} decoding failed: {refused}") from None


def _fields(value: Pairs, known: Mapping[str, Reader], place: str) -> Fields:
    found: Fields = {}
    for field, name, item in gojson.fields(value, known):
        if not field:
            rest = _ENTERPRISE if name.casefold() == "namespace" else ""
            raise JsonRefused(f"json: unknown field {quote(name)}{rest}")
        if item is not None:
            found[field] = known[field](item, f"{place}.{field}")
    return found


def _text(value: Any, place: str) -> str:
    return gojson.text(value, place)


def _flag(value: Any, place: str) -> bool:
    if not isinstance(value, bool):
        raise gojson.misfit(value, place, "bool")
    return value


def _number(value: Any, place: str) -> int:
    return gojson.unsigned(value, place)


def _list(value: Any, place: str, kind: str, read: Reader) -> list[Any]:
    if not isinstance(value, list) or isinstance(value, Pairs):
        raise gojson.misfit(value, place, f"[]{kind}")
    return [read(item, place) for item in value]


def _texts(value: Any, place: str) -> list[str]:
    return _list(value, place, "string", lambda item, at: "" if item is None else gojson.text(item, at))


def _structs(kind: str, known: Mapping[str, Reader]) -> Reader:
    """A reader of a list of such objects."""

    def read(value: Any, place: str) -> Fields:
        if value is None:
            return {}
        if not isinstance(value, Pairs):
            raise gojson.misfit(value, place, f"structs.{kind}")
        return _fields(value, known, f"Go struct field {kind}.{place.rpartition('.')[2]}")

    return lambda value, place: _list(value, place, f"structs.{kind}", read)


def _duration(value: Any, _place: str) -> int:
    """A text such as ``1h``, or a number of nanoseconds; anything else counts as none."""
    if isinstance(value, Number):
        nanoseconds = float(value)
        return int(nanoseconds) if abs(nanoseconds) < 2**63 else -(2**63)
    return parse_duration(value) if isinstance(value, str) else 0


def _time(value: Any, _place: str) -> int:
    """A time (RFC 3339) in nanoseconds since 1970."""
    written = f'"{value}"' if isinstance(value, str) and not isinstance(value, Number) else str(value)
    wanted = '""2006-01-02T15:04:05Z07:00""'
    if not written.startswith('"'):
        raise JsonRefused(f'parsing time "{written}" as {wanted}: cannot parse "{written}" as """')
    found = _TIME.fullmatch(written[1:-1])
    if found is None:
        raise JsonRefused(f'parsing time "{written}" as {wanted}: cannot parse "{written[1:]}" as "2006"')
    try:
        moment = datetime(*(int(part) for part in found.groups()[:6]), tzinfo=UTC)  # type: ignore[arg-type,misc]  # six numbers
    except ValueError:
        raise JsonRefused(f'parsing time "{written}": out of range') from None
    offset = (int(found[10]) * 3600 + int(found[11]) * 60) * (-1 if found[9] == "-" else 1) if found[9] else 0
    fraction = int((found[7] or ".0")[1:10].ljust(9, "0"))
    delta = moment - _EPOCH
    return (delta.days * 86_400 + delta.seconds - offset) * _NANOSECONDS + fraction


_LINK = {"ID": _text, "Name": _text}
_SERVICE = {"ServiceName": _text, "Datacenters": _texts}
_NODE = {"NodeName": _text, "Datacenter": _text}
_INDEXES = {"CreateIndex": _number, "ModifyIndex": _number}
_POLICY: dict[str, Reader] = {"ID": _text, "Name": _text, "Description": _text, "Rules": _text, "Datacenters": _texts, "Hash": _text, **_INDEXES}
_HELD: dict[str, Reader] = {
    "ServiceIdentities": _structs("ACLServiceIdentity", _SERVICE),
    "NodeIdentities": _structs("ACLNodeIdentity", _NODE),
    "Hash": _text,
    **_INDEXES,
}
_ROLE: dict[str, Reader] = {"ID": _text, "Name": _text, "Description": _text, "Policies": _structs("ACLRolePolicyLink", _LINK), **_HELD}
_TOKEN: dict[str, Reader] = {
    "AccessorID": _text,
    "SecretID": _text,
    "Description": _text,
    "Policies": _structs("ACLTokenPolicyLink", _LINK),
    "Roles": _structs("ACLTokenRoleLink", _LINK),
    "Rules": _text,
    "Local": _flag,
    "AuthMethod": _text,
    "ExpirationTTL": _duration,
    "ExpirationTime": _time,
    "CreateTime": _time,
    **_HELD,
}
