"""JSON as Go's decoder reads it: the same inputs are accepted, and refused with the same texts.

A body is a stream of which the first value counts; whatever follows is not looked at. An object is kept as the pairs that it was written as, since
Go matches names whatever their case, the last of several counts, and the first thing that does not fit is what it complains about.
"""

import json
import re
from collections.abc import Iterable
from typing import Any

DEPTH_MAX = 200
"""Deeper values are refused; what clients send is three deep."""

_SPACE = b" \t\n\r"
_LITERALS = {ord("t"): b"true", ord("f"): b"false", ord("n"): b"null"}
_SURROGATES = re.compile("[\ud800-\udfff]")
_PLAIN_STRING = re.compile(rb'[^"\\\x00-\x1f]*')
_DIGITS = re.compile(rb"[0-9]*")
_HEX = b"0123456789abcdefABCDEF"
_OPEN, _CLOSE = b"{[", {ord("{"): ord("}"), ord("["): ord("]")}


class JsonRefused(Exception):
    """Go's text for a body that can't be decoded."""


class Number(str):
    """A number as it was written."""

    __slots__ = ()


class Pairs(list[tuple[str, Any]]):
    """An object: names and values in the order in which they were written."""


def decode(data: bytes) -> Any:
    """Decode the first value of a body.

    :returns: None, a bool, a str, a :class:`Number`, a list or :class:`Pairs`.
    :raises JsonRefused: with Go's text.
    """
    end = _Scanner(data).scan()
    text = data[:end].decode("utf-8", "surrogateescape")
    return _clean(json.loads(text, object_pairs_hook=Pairs, parse_int=Number, parse_float=Number))


def kind(value: Any) -> str:
    """What Go calls a value that does not fit."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, Number):
        return "number"
    if isinstance(value, Pairs):
        return "object"
    return "array" if isinstance(value, list) else "string"


def misfit(value: Any, place: str, wanted: str) -> JsonRefused:
    """Go's complaint about a value of the wrong kind.

    :param place: ``Go value`` or ``Go struct field X.Y``.
    """
    return JsonRefused(f"json: cannot unmarshal {kind(value)} into {place} of type {wanted}")


def unsigned(value: Any, place: str, bits: int = 64) -> int:
    """An unsigned number.

    :raises JsonRefused: with Go's text.
    """
    wanted = f"uint{bits}"
    if not isinstance(value, Number):
        raise misfit(value, place, wanted)
    if not value.isdecimal() or len(value) > 20 or int(value) >= 1 << bits:
        raise JsonRefused(f"json: cannot unmarshal number {value} into {place} of type {wanted}")
    return int(value)


def text(value: Any, place: str, wanted: str = "string") -> str:
    """A string.

    :raises JsonRefused: with Go's text.
    """
    if not isinstance(value, str) or isinstance(value, Number):
        raise misfit(value, place, wanted)
    return value


def _clean(value: Any) -> Any:
    """Replace what is no Unicode, as Go does: each stray byte or half of a pair by U+FFFD."""
    if isinstance(value, Number):
        return value
    if isinstance(value, str):
        return _SURROGATES.sub("\ufffd", value)
    if isinstance(value, Pairs):
        return Pairs((_clean(name), _clean(item)) for name, item in value)
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return value


class _Scanner:
    """Finds the end of the first value, or the first byte that can't be there."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def scan(self) -> int:
        """The end of the first value."""
        self._skip()
        if self._at >= len(self._data):
            raise JsonRefused("EOF")
        open_: list[int] = []
        self._begin_value(open_)
        while open_:
            self._go_on(open_)
        return self._at

    def _begin_value(self, open_: list[int]) -> None:
        """A value stands here; one that holds others is only opened."""
        first = self._peek()
        if first in _OPEN:
            self._at += 1
            open_.append(first)
            if len(open_) > DEPTH_MAX:
                raise JsonRefused("exceeded max depth")
            self._begin_first(open_)
        elif first == ord('"'):
            self._string()
        elif first in _LITERALS:
            self._literal(_LITERALS[first])
        elif first == ord("-") or ord("0") <= first <= ord("9"):
            self._number()
        else:
            raise self._unexpected("looking for beginning of value")

    def _begin_first(self, open_: list[int]) -> None:
        if self._peek_past_space() == _CLOSE[open_[-1]]:
            self._at += 1
            open_.pop()
        elif open_[-1] == ord("{"):
            self._name()
            self._begin_value(open_)
        else:
            self._begin_value(open_)

    def _go_on(self, open_: list[int]) -> None:
        """Behind a value inside of another."""
        found = self._peek_past_space()
        in_object = open_[-1] == ord("{")
        if found == _CLOSE[open_[-1]]:
            self._at += 1
            open_.pop()
        elif found == ord(","):
            self._at += 1
            self._peek_past_space()
            if in_object:
                self._name()
            self._begin_value(open_)
        else:
            raise self._unexpected("after object key:value pair" if in_object else "after array element")

    def _name(self) -> None:
        if self._peek() != ord('"'):
            raise self._unexpected("looking for beginning of object key string")
        self._string()
        if self._peek_past_space() != ord(":"):
            raise self._unexpected("after object key")
        self._at += 1
        self._peek_past_space()

    def _string(self) -> None:
        self._at += 1
        while True:
            plain = _PLAIN_STRING.match(self._data, self._at)
            self._at = plain.end() if plain else self._at
            found = self._peek()
            if found == ord('"'):
                self._at += 1
                return
            if found != ord("\\"):
                raise self._unexpected("in string literal")
            self._at += 1
            escaped = self._peek()
            if escaped == ord("u"):
                self._at += 1
                for _ in range(4):
                    if self._peek() not in _HEX:
                        raise self._unexpected("in \\u hexadecimal character escape")
                    self._at += 1
            elif escaped in b'"\\/bfnrt':
                self._at += 1
            else:
                raise self._unexpected("in string escape code")

    def _literal(self, literal: bytes) -> None:
        for position, expected in enumerate(literal):
            if self._peek() != expected:
                raise self._unexpected(f"in literal {literal.decode()} (expecting {_quoted(expected)})")
            self._at += 1 if position < len(literal) else 0

    def _number(self) -> None:
        if self._peek() == ord("-"):
            self._at += 1
        if self._peek() == ord("0"):
            self._at += 1
        else:
            self._digits("in numeric literal")
        if self._here() == ord("."):
            self._at += 1
            self._digits("after decimal point in numeric literal")
        if self._here() in (ord("e"), ord("E")):
            self._at += 1
            if self._peek() in b"+-":
                self._at += 1
            self._digits("in exponent of numeric literal")

    def _digits(self, place: str) -> None:
        digits = _DIGITS.match(self._data, self._at)
        end = digits.end() if digits else self._at
        if end == self._at:
            self._peek()
            raise self._unexpected(place)
        self._at = end

    def _skip(self) -> None:
        while self._at < len(self._data) and self._data[self._at] in _SPACE:
            self._at += 1

    def _peek_past_space(self) -> int:
        self._skip()
        return self._peek()

    def _here(self) -> int:
        return self._data[self._at] if self._at < len(self._data) else -1

    def _peek(self) -> int:
        if self._at >= len(self._data):
            raise JsonRefused("unexpected EOF")
        return self._data[self._at]

    def _unexpected(self, place: str) -> JsonRefused:
        return JsonRefused(f"invalid character {_quoted(self._data[self._at])} {place}")


def _quoted(byte: int) -> str:
    """A byte as Go shows the character of that number."""
    if byte == ord("'"):
        return "'\\''"
    if byte == ord('"'):
        return "'\"'"
    shown = {7: "\\a", 8: "\\b", 12: "\\f", 10: "\\n", 13: "\\r", 9: "\\t", 11: "\\v", ord("\\"): "\\\\"}.get(byte)
    if shown is None:
        character = chr(byte)
        shown = character if character.isprintable() else f"\\x{byte:02x}" if byte < 0x20 else f"\\u{byte:04x}"
    return f"'{shown}'"


def fields(pairs: Iterable[tuple[str, Any]], known: Iterable[str]) -> Iterable[tuple[str, str, Any]]:
    """Each pair with the field that it is for (empty: none), as Go finds it: by its name, whatever the case.

    :returns: (field, name as written, value).
    """
    table = {name.casefold(): name for name in known}
    for name, value in pairs:
        yield table.get(name.casefold(), ""), name, value
