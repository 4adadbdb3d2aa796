"""The grammar of HCL, version 1, and of the JSON that may stand in its place: a text becomes items, each with keys and a value.

No library reads this language: python-hcl2 reads its successor, which refuses rules that Consul takes (``"key" "a" {…}``, ``"policy" = "read"``)
and takes others that Consul refuses. Positions and texts of errors are those of Consul.
"""

import json
from typing import Any, NamedTuple, Self

from service.domain.acl.scanner import BOOL, EOF, FLOAT, HEREDOC, IDENT, NUMBER, STRING, Scanner, Token

DEPTH_MAX = 32
NOWHERE = "-"
_LITERALS = (NUMBER, FLOAT, BOOL, STRING, HEREDOC)


class HclRefused(Exception):
    """A text that can't be read; what is wrong, and where."""


class Literal(NamedTuple):
    """A number, a text or a truth value."""

    kind: str
    value: str
    place: str


class Items(NamedTuple):
    """An object."""

    items: list["Item"]
    place: str


class Values(NamedTuple):
    """A list."""

    values: list["Value"]
    place: str


Value = Literal | Items | Values


class Item(NamedTuple):
    """One pair of an object; more than one key stands for objects inside of each other."""

    keys: list[str]
    value: Value


class _End(Exception):
    """The text ended where another item could have begun."""


def parse(text: str) -> list[Item]:
    """Read a text: HCL, or JSON when it begins with a brace.

    :raises HclRefused: naming the place.
    """
    if text.lstrip().startswith("{"):
        return _parse_json(text)
    parser = _Parser(text)
    try:
        items = parser.items(inside=False)
    except HclRefused as refused:
        raise HclRefused(parser.mistake or str(refused)) from None
    if parser.mistake:
        raise HclRefused(parser.mistake)
    return items


class _Parser:
    def __init__(self, text: str) -> None:
        self._scanner = Scanner(text)
        self._token = Token(EOF, "", "", "")
        self._again = False
        self._depth = 0

    @property
    def mistake(self) -> str:
        return self._scanner.mistake

    def items(self, *, inside: bool) -> list[Item]:
        """Items up to the end, or up to a closing brace (which is left)."""
        found: list[Item] = []
        while not (inside and self._peek().kind == "RBRACE"):
            try:
                found.append(self._item())
            except _End:
                break
            if self._peek().kind == "COMMA":
                self._next()
        return found

    def _item(self) -> Item:
        keys = self._keys()
        token = self._token
        if token.kind == "ASSIGN":
            return Item([key.value for key in keys], self._value())
        if token.kind == "LBRACE":
            return Item([key.value for key in keys], self._object())
        written = " ".join(key.text for key in keys)
        raise _refusal(token, f"key '{written}' expected start of object ('{{') or assignment ('=')")

    def _keys(self) -> list[Token]:
        """The keys of an item; the token behind them is the present one then."""
        keys: list[Token] = []
        while True:
            token = self._next()
            if token.kind in (IDENT, STRING):
                keys.append(token)
            elif token.kind == "ASSIGN":
                if len(keys) > 1:
                    raise _refusal(token, "nested object expected: LBRACE got: ASSIGN")
                if not keys:
                    raise _refusal(token, "no object keys found!")
                return keys
            elif token.kind == "LBRACE" and not keys:
                raise _refusal(token, "expected: IDENT | STRING got: LBRACE")
            elif token.kind == EOF and not keys:
                raise _End
            elif token.kind in {"LBRACE", EOF} or (token.kind == "RBRACE" and keys):
                return keys
            else:
                raise _refusal(token, f"expected: IDENT | STRING | ASSIGN | LBRACE got: {token.kind}")

    def _value(self) -> Value:
        token = self._next()
        if token.kind in _LITERALS:
            return Literal(token.kind, token.value, token.place)
        if token.kind == "LBRACE":
            return self._object()
        if token.kind == "LBRACK":
            return self._list(token)
        if token.kind == EOF:
            raise _End
        raise _refusal(token, f"Unknown token: {token.place} {token.kind} {token.text}")

    def _object(self) -> Items:
        opened = self._token
        self._deeper(opened)
        found = self.items(inside=True)
        token = self._next()
        if token.kind != "RBRACE":
            raise _refusal(token, f"object expected closing RBRACE got: {token.kind}")
        self._depth -= 1
        return Items(found, opened.place)

    def _list(self, opened: Token) -> Values:
        self._deeper(opened)
        values: list[Value] = []
        needs_comma = False
        while (token := self._next()).kind != "RBRACK":
            if token.kind == "COMMA" and needs_comma:
                needs_comma = False
            elif needs_comma:
                raise _refusal(token, f"error parsing list, expected comma or list end, got: {token.kind}")
            elif token.kind in (*_LITERALS, "LBRACE", "LBRACK"):
                self._again = True
                values.append(self._value())
                needs_comma = True
            else:
                raise _refusal(token, f"unexpected token while parsing list: {token.kind}")
        self._depth -= 1
        return Values(values, opened.place)

    def _deeper(self, token: Token) -> None:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise _refusal(token, f"more than {DEPTH_MAX} objects and lists inside of each other")

    def _peek(self) -> Token:
        token = self._next()
        self._again = True
        return token

    def _next(self) -> Token:
        if not self._again:
            self._token = self._scanner.next()
        self._again = False
        return self._token


def _refusal(token: Token, problem: str) -> HclRefused:
    return HclRefused(f"At {token.place}: {problem}")


class _Pairs(list[tuple[str, Any]]):
    """An object of JSON, with every pair that was written."""

    @classmethod
    def of(cls, pairs: list[tuple[str, Any]]) -> Self:
        return cls(pairs)


def _parse_json(text: str) -> list[Item]:
    """JSON whole and sound. Consul takes what was cut off in the middle, and grants nothing by it."""
    try:
        found, _ = json.JSONDecoder(object_pairs_hook=_Pairs.of, parse_int=_number, parse_float=_float, parse_constant=_float).raw_decode(
            text.lstrip()
        )
    except ValueError as error:
        raise HclRefused(str(error)) from None
    except RecursionError:
        raise HclRefused(f"more than {DEPTH_MAX} objects and lists inside of each other") from None
    value = _from_json(found, 0)
    return value.items if isinstance(value, Items) else []


def _number(text: str) -> Literal:
    return Literal(NUMBER, text, NOWHERE)


def _float(text: str) -> Literal:
    return Literal(FLOAT, text, NOWHERE)


def _from_json(found: Any, depth: int) -> Value:
    if depth > DEPTH_MAX:
        raise HclRefused(f"more than {DEPTH_MAX} objects and lists inside of each other")
    if isinstance(found, _Pairs):
        return Items([Item([name], _from_json(value, depth + 1)) for name, value in found], NOWHERE)
    if isinstance(found, Literal):
        return found
    if isinstance(found, list):
        return Values([_from_json(value, depth + 1) for value in found], NOWHERE)
    if found is None:
        return Literal(STRING, "", NOWHERE)
    return Literal(BOOL, str(found).lower(), NOWHERE) if isinstance(found, bool) else Literal(STRING, found, NOWHERE)
