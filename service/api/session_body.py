"""The body of ``PUT /v1/session/create``, read as Consul reads it."""

from typing import Any

from service.api import gojson
from service.api.errors import RequestRefused
from service.api.go import parse_duration
from service.api.gojson import JsonRefused, Number, Pairs
from service.domain.entries import ServiceCheck, Session

SERF_HEALTH = "serfHealth"
"""The only check there is: that of a node."""

_LOCK_DELAY_NS = 15 * 10**9
_SECOND_NS = 10**9
_LOCK_DELAY_NS_MIN = 1000
"""A smaller number means seconds. Consul treats texts alike, once they are durations."""
_TTL_SECONDS_MIN, _TTL_SECONDS_MAX = 10, 86_400
_BEHAVIORS = ("release", "delete")
_INT64 = 1 << 64
_INT64_MIN = -(1 << 63)
_STRUCT = "struct { LockDelay interface {}; *structs.Alias }"
_FIELDS = ("ID", "Name", "Node", "NodeChecks", "ServiceChecks", "LockDelay", "Behavior", "TTL", "CreateIndex", "ModifyIndex", "Checks")


class _Body:
    """The fields as they are filled in, with Consul's defaults."""

    def __init__(self, node: str) -> None:
        self.name = ""
        self.node = node
        self.behavior = _BEHAVIORS[0]
        self.ttl = ""
        self.node_checks: list[str] | None = [SERF_HEALTH]
        self.checks: list[str] | None = [SERF_HEALTH]
        self.service_checks: list[ServiceCheck] | None = None
        self.lock_delay: Any = None

    def fill(self, pairs: Pairs) -> None:
        """Take each pair in turn."""
        for field, _, value in gojson.fields(pairs, _FIELDS):
            if field:
                self._set(field, value)

    def _set(self, field: str, value: Any) -> None:
        place = f"Go struct field .{field}"
        match field:
            case "LockDelay":
                self.lock_delay = value
            case "NodeChecks":
                self.node_checks = _names(value, place, "string")
            case "Checks":
                self.checks = _names(value, place, "types.CheckID")
            case "ServiceChecks":
                self.service_checks = _service_checks(value, place)
            case "CreateIndex" | "ModifyIndex" if value is not None:
                gojson.unsigned(value, place)
            case "Behavior" if value is not None:
                self.behavior = gojson.text(value, place, "structs.SessionBehavior")
            case _ if value is not None:
                setattr(self, field.lower(), gojson.text(value, place))  # of these fields, that of the id is never read again
            case _:
                pass


def parse(body: bytes, node: str) -> tuple[_Body, int]:
    """Read the body.

    :param node: the name of this node.
    :returns: the fields, and the lock-delay in nanoseconds.
    :raises RequestRefused: with Consul's status and text.
    """
    found = _Body(node)
    try:
        if body:
            value = gojson.decode(body)
            if isinstance(value, Pairs):
                found.fill(value)
            elif value is not None:
                raise gojson.misfit(value, "Go value", _STRUCT)
        return found, _lock_delay_ns(found.lock_delay)
    except (JsonRefused, ValueError) as refused:
        raise RequestRefused(400, f"Request decode failed: {refused}") from None


def check(found: _Body, lock_delay_ns: int, id_: str, nodes: Any) -> Session:
    """Make a session of the fields, if they can be meant so.

    :param nodes: gives the names of all nodes, when asked.
    :raises RequestRefused: with Consul's status and text.
    """
    if not found.node:
        raise RequestRefused(500, "Must provide Node")
    behavior = found.behavior or _BEHAVIORS[0]
    if behavior not in _BEHAVIORS:
        raise RequestRefused(500, f"Invalid Behavior setting '{behavior}'")
    ttl_ns = _ttl_ns(found.ttl)
    if not nodes(found.node):
        raise RequestRefused(500, "Missing node registration")
    node_checks = found.node_checks if found.checks else []
    checks = found.checks if node_checks else []
    for name in [*(checks or []), *(node_checks or []), *(item.id for item in found.service_checks or [])]:
        if name != SERF_HEALTH:
            raise RequestRefused(500, f"Missing check '{name}' registration")
    return Session(id_, found.name, found.node, lock_delay_ns, behavior, found.ttl, ttl_ns, node_checks, found.service_checks)


def _names(value: Any, place: str, kind: str) -> list[str] | None:
    if value is None:
        return None
    if not isinstance(value, list) or isinstance(value, Pairs):
        raise gojson.misfit(value, place, f"[]{kind}")
    # A null leaves what stands at its place: the default of the first.
    return [gojson.text(item, place, kind) if item is not None else "" if position else SERF_HEALTH for position, item in enumerate(value)]


def _service_checks(value: Any, place: str) -> list[ServiceCheck] | None:
    if value is None:
        return None
    if not isinstance(value, list) or isinstance(value, Pairs):
        raise gojson.misfit(value, place, "[]structs.ServiceCheck")
    return [_service_check(item, place) for item in value]


def _service_check(value: Any, place: str) -> ServiceCheck:
    if value is not None and not isinstance(value, Pairs):
        raise gojson.misfit(value, place, "structs.ServiceCheck")
    given = {"ID": "", "Namespace": ""}
    for field, _, item in gojson.fields(value or (), given):
        if field and item is not None:
            given[field] = gojson.text(item, f"Go struct field ServiceCheck.ServiceChecks.{field}")
    return ServiceCheck(given["ID"], given["Namespace"])


def _lock_delay_ns(value: Any) -> int:
    if value is None:
        return _LOCK_DELAY_NS
    if isinstance(value, Number):
        whole = float(value)
        nanoseconds = int(whole) if abs(whole) < -_INT64_MIN else _INT64_MIN
    elif isinstance(value, str):
        nanoseconds = parse_duration(value)
    else:
        return 0
    if nanoseconds < _LOCK_DELAY_NS_MIN:
        nanoseconds *= _SECOND_NS
    return (nanoseconds - _INT64_MIN) % _INT64 + _INT64_MIN


def _ttl_ns(text: str) -> int:
    if not text:
        return 0
    try:
        ttl_ns = parse_duration(text)
    except ValueError as error:
        raise RequestRefused(500, f"Session TTL '{text}' invalid: {error}") from None
    if ttl_ns and not _TTL_SECONDS_MIN * _SECOND_NS <= ttl_ns <= _TTL_SECONDS_MAX * _SECOND_NS:
        raise RequestRefused(500, f"Invalid Session TTL '{ttl_ns}', must be between [10s=24h0m0s]")
    return ttl_ns
