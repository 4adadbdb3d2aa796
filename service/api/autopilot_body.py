"""The autopilot's configuration in Consul's JSON, read as Go reads it and written as Go writes it."""

from typing import Any

from service.api import gojson
from service.api.errors import RequestRefused
from service.api.go import format_duration, parse_duration
from service.api.gojson import JsonRefused, Number, Pairs
from service.domain.autopilot import Stored
from service.domain.commands import AutopilotConfiguration
from service.domain.quoting import quote

_STRUCT = "Go struct field AutopilotConfiguration"
_FIELDS = {
    "CleanupDeadServers": "cleanup_dead_servers",
    "LastContactThreshold": "last_contact_threshold_ns",
    "MaxTrailingLogs": "max_trailing_logs",
    "MinQuorum": "min_quorum",
    "ServerStabilizationTime": "server_stabilization_time_ns",
    "RedundancyZoneTag": "redundancy_zone_tag",
    "DisableUpgradeMigration": "disable_upgrade_migration",
    "UpgradeVersionTag": "upgrade_version_tag",
}
_READ_ONLY = ("CreateIndex", "ModifyIndex")
_DURATIONS = ("LastContactThreshold", "ServerStabilizationTime")
_FLAGS = ("CleanupDeadServers", "DisableUpgradeMigration")
_TEXTS = ("RedundancyZoneTag", "UpgradeVersionTag")
_INT64_MAX = 2**63 - 1


def parse(body: bytes) -> AutopilotConfiguration:
    """Read a configuration. What is left out is zero: the whole record is replaced.

    :raises RequestRefused: with Consul's text.
    """
    try:
        return _read(gojson.decode(body))
    except (JsonRefused, ValueError) as refused:
        raise RequestRefused(400, f"Bad request: Error parsing autopilot config: {refused}") from None


def document(stored: Stored) -> dict[str, Any]:
    """The record with its indexes."""
    found: dict[str, Any] = {}
    for name, attribute in _FIELDS.items():
        value = getattr(stored.configuration, attribute)
        found[name] = format_duration(value) if name in _DURATIONS else value
    return found | {"CreateIndex": stored.create_index, "ModifyIndex": stored.modify_index}


def _read(value: Any) -> AutopilotConfiguration:
    if value is None:
        return AutopilotConfiguration()
    if not isinstance(value, Pairs):
        raise gojson.misfit(value, "Go value", "api.AutopilotConfiguration")
    found: dict[str, Any] = {}
    for field, name, given in gojson.fields(value, (*_FIELDS, *_READ_ONLY)):
        if not field:
            raise JsonRefused(f"json: unknown field {quote(name)}")
        if given is not None and field in _FIELDS:
            found[_FIELDS[field]] = _value(field, given)
        elif given is not None:
            gojson.unsigned(given, f"{_STRUCT}.{field}")
    return AutopilotConfiguration(**found)


def _value(field: str, given: Any) -> Any:
    place = f"{_STRUCT}.{field}"
    if field in _DURATIONS:
        return _duration(given, place)
    if field in _FLAGS:
        if not isinstance(given, bool):
            raise gojson.misfit(given, place, "bool")
        return given
    return gojson.text(given, place) if field in _TEXTS else gojson.unsigned(given, place)


def _duration(given: Any, place: str) -> int:
    """A text such as ``200ms``, or a number of nanoseconds."""
    if isinstance(given, Number):
        nanoseconds = float(given)
        if not abs(nanoseconds) <= _INT64_MAX:
            raise JsonRefused(f"json: cannot unmarshal number {given} into {place} of type api.ReadableDuration")
        return int(nanoseconds)
    return parse_duration(gojson.text(given, place, "api.ReadableDuration"))
