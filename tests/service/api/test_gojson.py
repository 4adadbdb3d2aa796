"""Go's JSON and base64: what is taken and the texts of what is not. The texts were recorded from Consul 1.8.7, which hands its bodies to them."""

from typing import Any

import pytest

from service.api import gobase64, gojson
from service.api.gobase64 import Base64Refused
from service.api.gojson import JsonRefused, Number, Pairs

REFUSED = [
    (b"", "EOF"),
    (b" \n\t\r", "EOF"),
    (b"[", "unexpected EOF"),
    (b"[1", "unexpected EOF"),
    (b"-", "unexpected EOF"),
    (b'{"a"', "unexpected EOF"),
    (b'{"a":', "unexpected EOF"),
    (b'"\\u12', "unexpected EOF"),
    (b"nul", "unexpected EOF"),
    (b"[]]"[:1] + b"}", "invalid character '}' looking for beginning of value"),
    (b"[,]", "invalid character ',' looking for beginning of value"),
    (b"'", "invalid character '\\'' looking for beginning of value"),
    (b"\xef\xbb\xbf[]", "invalid character 'ï' looking for beginning of value"),
    (b"[\xa0", "invalid character '\\u00a0' looking for beginning of value"),
    (b"nu\xc3\xa9", "invalid character 'Ã' in literal null (expecting 'l')"),
    (b"fals3", "invalid character '3' in literal false (expecting 'e')"),
    (b"[tru]", "invalid character ']' in literal true (expecting 'e')"),
    (b"[1 2]", "invalid character '2' after array element"),
    (b"[01]", "invalid character '1' after array element"),
    (b"[1.]", "invalid character ']' after decimal point in numeric literal"),
    (b"[1e]", "invalid character ']' in exponent of numeric literal"),
    (b"[1.5e+x]", "invalid character 'x' in exponent of numeric literal"),
    (b"-x", "invalid character 'x' in numeric literal"),
    (b'{"a" 1}', "invalid character '1' after object key"),
    (b'{"a":1 2}', "invalid character '2' after object key:value pair"),
    (b"{1:2}", "invalid character '1' looking for beginning of object key string"),
    (b'{"a":1,}', "invalid character '}' looking for beginning of object key string"),
    (b'"a\tb"', "invalid character '\\t' in string literal"),
    (b'"\x01"', "invalid character '\\x01' in string literal"),
    (b'{"a":1\x7f}', "invalid character '\\u007f' after object key:value pair"),
    (b'"\\q"', "invalid character 'q' in string escape code"),
    (b'"\\u12g4"', "invalid character 'g' in \\u hexadecimal character escape"),
    (b"[" * 300, "exceeded max depth"),
]


@pytest.mark.parametrize(("data", "reason"), REFUSED)
def test_refused(data: bytes, reason: str) -> None:
    """What is no JSON is refused with the text of Go's decoder."""
    with pytest.raises(JsonRefused) as refused:
        gojson.decode(data)
    assert str(refused.value) == reason


TAKEN: list[tuple[bytes, Any]] = [
    (b"null", None),
    (b" [ ] x", []),
    (b"{}}", Pairs()),
    (b'{"a":1,"A":[true,false,null],"a":-0.5e+3}', Pairs([("a", Number("1")), ("A", [True, False, None]), ("a", Number("-0.5e+3"))])),
    (b'"\\ud83d\\ude00\\ud800\\n\\/\xff\x7f"', "😀\ufffd\n/\ufffd\x7f"),
    (b"10 1", Number("10")),
]


@pytest.mark.parametrize(("data", "value"), TAKEN)
def test_taken(data: bytes, value: Any) -> None:
    """The first value counts; an object keeps its pairs as they came, a number its digits, and what is no Unicode becomes U+FFFD."""
    found = gojson.decode(data)
    assert (type(found), found) == (type(value), value)


def test_fields_go_by_any_case() -> None:
    """A name finds its field whatever its case, the long s and the Kelvin sign included; other names find none."""
    pairs = [("verb", 1), ("\u017feSSion", 2), ("\u212aey", 3), ("verbs", 4)]
    assert list(gojson.fields(pairs, ("Verb", "Session", "Key"))) == [
        ("Verb", "verb", 1),
        ("Session", "\u017feSSion", 2),
        ("Key", "\u212aey", 3),
        ("", "verbs", 4),
    ]


BASE64_WRONG = {
    "=": 0, "====": 0, "M": 0, "MQ": 0, "MQ=": 3, "MQ==x": 4, "TWFuM": 4, "TWFuMQ": 4, "TWFuMQ=": 7, "TWFuMQ=x": 6, "TWFu=": 4, "TWFu====": 4,
    "TWFuTW======": 8, "TWF==": 4, "T===": 1, "TWF\n": 1, "MQ=\nx": 3, "TWFu\u00e9": 4, "MQ=\n": 4, "M=": 1, "TWFuTWFuT": 8, "TWFuTWFuTW=": 11,
    "TWF=x": 4, "M Q==": 1, "MQ=M": 2, "MQ==MQ==": 4, "-_==": 0,
}  # fmt: skip


@pytest.mark.parametrize(("text", "at"), BASE64_WRONG.items())
def test_base64_that_is_wrong(text: str, at: int) -> None:
    """The byte that is named is Go's."""
    with pytest.raises(Base64Refused) as refused:
        gobase64.decode(text)
    assert str(refused.value) == f"illegal base64 data at input byte {at}"


BASE64_RIGHT = {"": b"", "\n": b"", "MQ==": b"1", "MR==": b"1", "M\nQ==": b"1", "MQ=\n=\r\n": b"1", "TWF=": b"Ma", "TWF=\n": b"Ma", "TWFu": b"Man"}


@pytest.mark.parametrize(("text", "data"), BASE64_RIGHT.items())
def test_base64_that_is_right(text: str, data: bytes) -> None:
    """Line ends count for nothing, wherever they stand; neither do bits left over."""
    assert gobase64.decode(text) == data
