"""JSON as Go writes it."""

import json
from typing import Any

import pytest

from service.api.responses import entries, entry, pretty, text, texts
from service.api.responses import json as go_json
from service.domain.entries import Row


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"plain ~!#[]", b'"plain ~!#[]"'),
        (b"<a>&'", b'"\\u003ca\\u003e\\u0026\'"'),
        (b'q"\\', b'"q\\"\\\\"'),
        (b"\n\r\t\x08\x00\x1f\x7f", b'"\\n\\r\\t\\u0008\\u0000\\u001f\x7f"'),
        ("é世😀".encode(), '"é世😀"'.encode()),
        ("\u2028\u2029".encode(), b'"\\u2028\\u2029"'),
        (b"\xff\xfe", b'"\\ufffd\\ufffd"'),
        (b"\xe2\x82", b'"\\ufffd\\ufffd"'),
        (b"\xed\xa0\x80", b'"\\ufffd\\ufffd\\ufffd"'),
        ("\ufffd".encode(), '"\ufffd"'.encode()),
    ],
)
def test_strings(data: bytes, expected: bytes) -> None:
    """HTML's characters, controls and separators are escaped; each invalid byte becomes one escaped U+FFFD."""
    assert text(data) == expected


def test_entry() -> None:
    """Fields have Consul's order; an empty value is null; Session is there only while the key is locked; flags have 64 bits."""
    row = Row(b"k", b"", 2**64 - 1, 0, None, 3, 4)
    assert entry(row) == b'{"LockIndex":0,"Key":"k","Flags":18446744073709551615,"Value":null,"CreateIndex":3,"ModifyIndex":4}'
    locked = entry(row._replace(value=b"\x00\xff", session="s", lock_index=2))
    assert locked == b'{"LockIndex":2,"Key":"k","Flags":18446744073709551615,"Value":"AP8=","Session":"s","CreateIndex":3,"ModifyIndex":4}'


def test_entries_are_those_of_each_key() -> None:
    """Whether one of the keys needs an escape or none does."""
    plain = [Row(b"a", b"v", 1, 2, "s", 3, 4), Row(b"b/c", b"", 0, 0, None, 5, 6)]
    for rows in ([], plain, [*plain, Row(b'q"<', b"\x00", 0, 0, None, 7, 8)], [Row(b"", b"", 0, 0, None, 1, 1)]):
        assert entries(rows) == b"[%b]" % b",".join(entry(row) for row in rows)


def test_pretty() -> None:
    """Four spaces, a newline at the end, and escapes as they were."""
    assert pretty(texts([b"<"])) == b'[\n    "\\u003c"\n]\n'
    assert pretty(texts([])) == b"[]\n"
    assert pretty(b"true") == b"true\n"


@pytest.mark.parametrize("value", [{"a": "<&>\u2028\u2029"}, ["é"], "", None, True])
def test_any_value(value: Any) -> None:
    """Any value survives, and no character that Go escapes is left."""
    data = go_json(value)
    assert json.loads(data) == value
    assert not any(character in data.decode() for character in "<>&\u2028\u2029")
