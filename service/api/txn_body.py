"""The body of ``PUT /v1/txn``: a list of operations in Consul's JSON.

What is written as the documentation shows it is decoded in one go. Everything else (names in another case, bytes as a list of numbers, whatever is
wrong) goes the long way, in the order in which it was written, so that the first thing that Go would complain about is the one complained about.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from service.api import gobase64, gojson
from service.api.errors import RequestRefused
from service.api.go import UINT64_MAX
from service.api.gojson import JsonRefused, Number, Pairs
from service.domain.commands import TxnOperation
from service.domain.quoting import quote

_CATALOG = ("Node", "Service", "Check")
_IGNORED = "Namespace"


class _Operation(msgspec.Struct, forbid_unknown_fields=True):
    """The fields of an operation as documented."""

    Verb: str
    Key: str
    Value: str | None = None
    Flags: int = 0
    Index: int = 0
    Session: str = ""


class _Item(msgspec.Struct, forbid_unknown_fields=True):
    """One element of the list."""

    KV: _Operation


_decoder = msgspec.json.Decoder(list[_Item])


def parse(body: bytes, operations_max: int) -> list[TxnOperation]:
    """Read the operations of a transaction; elements that hold none are left out.

    :param operations_max: more elements are refused.
    :raises RequestRefused: with Consul's status and text.
    """
    try:
        items = _decoder.decode(body)
        found: list[TxnOperation | None] = [_operation(item.KV) for item in items]
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError):
        try:
            found = _list(gojson.decode(body))
        except (JsonRefused, gobase64.Base64Refused) as refused:
            raise RequestRefused(400, f"Failed to parse body: {refused}") from None
    if len(found) > operations_max:
        raise RequestRefused(413, f"Transaction contains too many operations ({len(found)} > {operations_max})")
    return [operation for operation in found if operation is not None]


def _operation(given: _Operation) -> TxnOperation:
    if not (0 <= given.Flags <= UINT64_MAX and 0 <= given.Index <= UINT64_MAX):
        raise ValueError("the long way says it as Go does")
    value = gobase64.decode(given.Value) if given.Value else b""
    return TxnOperation(given.Verb, given.Key.encode(), value, given.Flags, given.Index, given.Session)


# -- the long way --


def _list(value: Any) -> list[TxnOperation | None]:
    if value is None:
        return []
    if not isinstance(value, list) or isinstance(value, Pairs):
        raise gojson.misfit(value, "Go value", "api.TxnOps")
    return [_item(item) for item in value]


def _item(value: Any) -> TxnOperation | None:
    if value is None:
        return None
    if not isinstance(value, Pairs):
        raise gojson.misfit(value, "Go value", "api.TxnOp")
    operation: TxnOperation | None = None
    catalog = ""
    for field, name, given in gojson.fields(value, ("KV", *_CATALOG)):
        if not field:
            raise JsonRefused(f"json: unknown field {quote(name)}")
        if given is not None and not isinstance(given, Pairs):
            raise gojson.misfit(given, f"Go struct field TxnOp.{field}", f"api.{field}TxnOp")
        if field == "KV":
            operation = None if given is None else _from_pairs(given)
        elif given is not None:
            catalog = field
    if catalog and operation is None:
        raise JsonRefused(f"{catalog} operations are not supported: there is no catalog of nodes, services and checks here")
    return operation


class _Field(NamedTuple):
    """How a field is read and what it is called."""

    attribute: str
    read: Callable[[Any, str], Any]


def _verb(value: Any, place: str) -> str:
    return gojson.text(value, place, "api.KVOp")


def _key(value: Any, place: str) -> bytes:
    return gojson.text(value, place).encode()


def _value(value: Any, place: str) -> bytes:
    if isinstance(value, list) and not isinstance(value, Pairs):
        return bytes(gojson.unsigned(item, place, 8) for item in value)
    if not isinstance(value, str) or isinstance(value, Number):
        raise gojson.misfit(value, place, "[]uint8")
    return gobase64.decode(value)


_FIELDS = {
    "Verb": _Field("verb", _verb),
    "Key": _Field("key", _key),
    "Value": _Field("value", _value),
    "Flags": _Field("flags", gojson.unsigned),
    "Index": _Field("index", gojson.unsigned),
    "Session": _Field("session", gojson.text),
}


def _from_pairs(pairs: Pairs) -> TxnOperation:
    values: dict[str, Any] = {"verb": "", "key": b""}
    for name, written, given in gojson.fields(pairs, (*_FIELDS, _IGNORED)):
        if not name:
            raise JsonRefused(f"json: unknown field {quote(written)}")
        place = f"Go struct field KVTxnOp.KV.{name}"
        if name == _IGNORED:
            if given is not None:
                gojson.text(given, place)
        elif given is not None:
            values[_FIELDS[name].attribute] = _FIELDS[name].read(given, place)
        elif name == "Value":
            values["value"] = b""
    return TxnOperation(**values)
