"""Every parameter of a request, parsed once into frozen objects, with Consul's rules and error texts.

The query is read as Go's url.ParseQuery reads it: ``&`` and ``;`` separate, ``+`` is a space, the first of repeated parameters counts, and
parameters without a meaning are ignored. Flags such as ``recurse`` count by their presence, whatever their value.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any
from urllib.parse import quote_plus, unquote_to_bytes

from service.api.errors import RequestRefused
from service.api.go import parse_duration, parse_uint64
from service.domain.commands import NOBODY, Origin
from service.domain.quoting import quote

WAIT_SECONDS_DEFAULT = 300.0
WAIT_SECONDS_MAX = 600.0
REQUEST_ID_CHARACTERS_MAX = 128
REASON_BYTES_MAX = 1024

_BAD, _FAILED = 400, 500
_NANOSECONDS = 10**9
_NANOSECONDS_A_MILLISECOND = 10**6
_MODES = ("default", "consistent", "stale", "available")
_NO_ENTERPRISE = "Namespaces are a Consul Enterprise feature"

Query = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Params:
    """What the query of any request may say.

    :ivar index: a blocking query waits for a result newer than this; 0 for none.
    :ivar wait_seconds: how long it waits.
    :ivar available: old rather than none, while there is no leader; see :mod:`service.api.consistency`.
    :ivar max_stale_ms: how old an answer may be that this node gives alone; 0 for any age, and where it never does.
    :ivar separator: cuts the keys of a listing; empty for none.
    :ivar query: all parameters, for those that only some requests know.
    """

    query: Query
    stale: bool = False
    consistent: bool = False
    cached: bool = False
    index: int = 0
    wait_seconds: float = WAIT_SECONDS_DEFAULT
    datacenter: str = ""
    namespace: str = ""
    pretty: bool = False
    raw: bool = False
    recurse: bool = False
    keys: bool = False
    separator: bytes = b""
    available: bool = False
    max_stale_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class PutParams:
    """What a PUT of a key may say besides. ``acquire`` and ``release`` are ids of sessions."""

    flags: int = 0
    cas: int | None = None
    acquire: str | None = None
    release: str | None = None


NO_PARAMS = Params(MappingProxyType({}))
NO_PUT_PARAMS = PutParams()


def parse(query: str) -> Params:
    """Read the query of a request.

    :param query: as it came, decoded as Latin-1.
    :raises RequestRefused: with Consul's status and text.
    """
    return _parse(query) if query else NO_PARAMS


@lru_cache(maxsize=1024)
def _parse(text: str) -> Params:
    query = _parse_query(text)
    stale, consistent, cached = "stale" in query, "consistent" in query, "cached" in query
    mode = _mode(query)
    max_stale_ms = 0.0
    if max_stale := _first(query, "max_stale"):
        max_stale_ms = max(_duration(max_stale, f"Invalid max_stale value {quote(max_stale)}"), 0) / _NANOSECONDS_A_MILLISECOND
    # A bound allows a stale answer.
    if (stale or max_stale_ms) and consistent:
        raise RequestRefused(_BAD, "Cannot specify ?stale with ?consistent, conflicting semantics.")
    if mode and (conflicting := next((name for name in ("stale", "consistent", "cached") if name in query and name != mode), "")):
        raise RequestRefused(_BAD, f"Cannot specify ?consistency={mode} with ?{conflicting}, conflicting semantics.")
    stale, consistent = stale or mode == "stale", consistent or mode == "consistent"
    if cached and consistent:
        raise RequestRefused(_BAD, "Cannot specify ?cached with ?consistent, conflicting semantics.")
    wait_seconds = _wait_seconds(_first(query, "wait"))
    separator = _first(query, "separator") if "separator" in query else _first(query, "seperator")
    return Params(
        query,
        stale,
        consistent,
        cached,
        _index(_first(query, "index")),
        wait_seconds,
        _first(query, "dc"),
        _first(query, "ns"),
        "pretty" in query,
        "raw" in query,
        "recurse" in query,
        "keys" in query,
        separator.encode("utf-8", "surrogateescape"),
        mode == "available",
        max_stale_ms if stale or mode == "available" else 0.0,
    )


def check_escapes(query: str) -> None:
    """Refuse a query with an escape that can't be read, whatever it is for.

    :raises RequestRefused: with Consul's status.
    """
    if "%" in query:
        _parse_query(query)


def parse_for_write(query: str) -> Params:
    """Read only what those requests look at that change something other than single keys: the datacenter, the namespace and ``?pretty``.

    :raises RequestRefused: an escape that can't be read.
    """
    if not query:
        return NO_PARAMS
    found = _parse_query(query)
    return Params(found, datacenter=_first(found, "dc"), namespace=_first(found, "ns"), pretty="pretty" in found)


def parse_watch(query: str) -> Params:
    """Read what requests look at that are answered from this node alone, and may wait: ``index``, ``wait`` and ``?pretty``.

    :raises RequestRefused: with Consul's status and text.
    """
    found = _parse_query(query)
    index, wait_seconds = _index(_first(found, "index")), _wait_seconds(_first(found, "wait"))
    return Params(found, stale=True, index=index, wait_seconds=wait_seconds, pretty="pretty" in found)


def parse_put(params: Params) -> PutParams:
    """Read what is special to a PUT of a key.

    :raises RequestRefused: with Consul's status and text.
    """
    query = params.query
    if not query:
        return NO_PUT_PARAMS
    refuse_conflicts(query, "cas", "acquire", "release")
    return PutParams(
        _number(query, "flags") if "flags" in query else 0,
        _number(query, "cas") if "cas" in query else None,
        _first(query, "acquire") if "acquire" in query else None,
        _first(query, "release") if "release" in query else None,
    )


def parse_delete_cas(params: Params) -> int | None:
    """The index that a DELETE is conditional on, if any.

    :raises RequestRefused: with Consul's status and text.
    """
    return _number(params.query, "cas") if "cas" in params.query else None


def refuse_conflicts(query: Query, *names: str) -> None:
    """Refuse a request that has more than one of the parameters.

    :raises RequestRefused: naming the whole query, its keys sorted.
    """
    if sum(name in query for name in names) > 1:
        pairs = [f"{_escape(name)}={_escape(value)}" for name in sorted(query) for value in query[name]]
        raise RequestRefused(_BAD, "Conflicting flags: " + "&".join(pairs))


def check_headers(environ: Mapping[str, Any], params: Params) -> None:
    """Refuse what Consul refuses in headers of whatever takes the options of a read, and the namespaces of the query.

    :raises RequestRefused: with Consul's status and text.
    """
    check_cache_control(environ)
    check_namespace(environ, params)


def check_namespace(environ: Mapping[str, Any], params: Params) -> None:
    """Refuse a namespace.

    :raises RequestRefused: with Consul's status and text.
    """
    if environ.get("HTTP_X_CONSUL_NAMESPACE"):
        raise RequestRefused(_BAD, f'Bad request: Invalid header: "X-Consul-Namespace" - {_NO_ENTERPRISE}')
    if params.namespace:
        raise RequestRefused(_BAD, f'Bad request: Invalid query parameter: "ns" - {_NO_ENTERPRISE}')


def check_cache_control(environ: Mapping[str, Any]) -> None:
    """Refuse a Cache-Control that can't be read.

    :raises RequestRefused: with Consul's status and text.
    """
    if "HTTP_CACHE_CONTROL" in environ:
        max_age_seconds(environ)


def max_age_seconds(environ: Mapping[str, Any]) -> float | None:
    """How old a cached answer may be, by the request's Cache-Control; None for any age.

    :raises RequestRefused: when it gives no whole number.
    """
    age = None
    for directive in str(environ.get("HTTP_CACHE_CONTROL", "")).lower().split(","):
        name, sign, value = directive.strip().partition("=")
        if name in ("max-age", "stale-if-error") and sign:
            if not value.removeprefix("-").removeprefix("+").isdecimal() or len(value) > 18:
                raise RequestRefused(_BAD, "Invalid Cache-Control header.")
            if name == "max-age":
                age = float(value)
        elif name in ("must-revalidate", "no-cache"):
            age = 0.0
    return age


def origin(environ: Mapping[str, Any], actor: str = "") -> Origin:
    """Who asks, under which id, and why.

    :param actor: the accessor of the request's token, if it was asked for one.

    :raises RequestRefused: when the reason is too long.
    """
    named = request_id(environ)
    reason = environ.get("HTTP_X_CHANGE_REASON", "")
    if not (named or reason or actor):
        return NOBODY
    raw = reason.encode("latin-1")
    if len(raw) > REASON_BYTES_MAX:
        raise RequestRefused(_BAD, f"X-Change-Reason is {len(raw)} bytes long; at most {REASON_BYTES_MAX} are allowed.")
    return Origin(actor, request_id=named, reason=raw.decode("utf-8", "replace"))


def request_id(environ: Mapping[str, Any]) -> str:
    """The client's X-Request-Id, or an empty text if there is none that can be passed on."""
    text: str = environ.get("HTTP_X_REQUEST_ID", "")
    return text if text and len(text) <= REQUEST_ID_CHARACTERS_MAX and text.isascii() and text.isprintable() else ""


def _parse_query(text: str) -> Query:
    query: dict[str, tuple[str, ...]] = {}
    for pair in text.replace(";", "&").split("&"):
        if pair:
            name, _, value = pair.partition("=")
            key = _unescape(name)
            query[key] = (*query.get(key, ()), _unescape(value))
    return MappingProxyType(query)


def _unescape(text: str) -> str:
    if "%" in text:
        for part in text.split("%")[1:]:
            if len(part) < 2 or not all(character in "0123456789abcdefABCDEF" for character in part[:2]):
                # So does Consul, with an empty body.
                raise RequestRefused(_FAILED, "")
    return unquote_to_bytes(text.replace("+", " ").encode("latin-1")).decode("utf-8", "surrogateescape")


def _escape(text: str) -> str:
    return quote_plus(text, errors="surrogateescape")


def _first(query: Query, name: str) -> str:
    values = query.get(name)
    return values[0] if values else ""


def _number(query: Query, name: str) -> int:
    try:
        return parse_uint64(query[name][0])
    except ValueError as error:
        raise RequestRefused(_FAILED, str(error)) from None


def _mode(query: Query) -> str:
    """What ``?consistency`` says; empty when it is not given."""
    if "consistency" not in query:
        return ""
    mode = _first(query, "consistency")
    if mode not in _MODES:
        raise RequestRefused(_BAD, f"Invalid consistency {quote(mode)}, one of {', '.join(_MODES)} was expected")
    return mode


def _index(text: str) -> int:
    try:
        return parse_uint64(text) if text else 0
    except ValueError:
        raise RequestRefused(_BAD, "Invalid index") from None


def _wait_seconds(text: str) -> float:
    seconds = _duration(text, "Invalid wait time") / _NANOSECONDS if text else 0.0
    return min(seconds, WAIT_SECONDS_MAX) if seconds > 0 else WAIT_SECONDS_DEFAULT


def _duration(text: str, refusal: str) -> int:
    try:
        return parse_duration(text)
    except ValueError:
        raise RequestRefused(_BAD, refusal) from None
