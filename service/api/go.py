"""Texts and notations of Go that Consul's clients can see."""

import re

UINT64_MAX = 2**64 - 1
_INT64_MAX = 2**63 - 1
_UNIT_NANOSECONDS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_PART = re.compile(r"([0-9]*)(\.([0-9]*))?(ns|us|µs|μs|ms|s|m|h)")
_ESCAPES = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v", "\\": "\\\\", '"': '\\"'}
_DECIMAL = re.compile(r"[0-9]+\Z")
_SURROGATE_FIRST, _SURROGATE_LAST = 0xDC80, 0xDCFF


def parse_uint64(text: str) -> int:
    """An unsigned decimal number of 64 bits.

    :raises ValueError: with the text of Go's strconv.ParseUint.
    """
    if not _DECIMAL.match(text):
        raise ValueError(f"strconv.ParseUint: parsing {quote(text)}: invalid syntax")
    # 400 digits of zeros are a number, too; more than that is refused before the conversion takes long.
    value = int(text) if len(text) < 400 else UINT64_MAX + 1
    if value > UINT64_MAX:
        raise ValueError(f"strconv.ParseUint: parsing {quote(text)}: value out of range")
    return value


def parse_duration(text: str) -> int:
    """A duration such as ``1h15m30.918s``, in nanoseconds.

    :raises ValueError: when Go's time.ParseDuration refuses it.
    """
    rest = text[1:] if text[:1] in ("+", "-") else text
    sign = -1 if text.startswith("-") else 1
    if rest == "0":
        return 0
    total, position = 0, 0
    while position < len(rest):
        match = _PART.match(rest, position)
        if match is None or not (match[1] or match[3]):
            raise ValueError(f"time: invalid duration {quote(text)}")
        unit = _UNIT_NANOSECONDS[match[4]]
        fraction = (match[3] or "")[:30]
        total += int(match[1][:30] or "0") * unit + int(fraction or "0") * unit // 10 ** len(fraction)
        position = match.end()
    if not rest or total > _INT64_MAX:
        raise ValueError(f"time: invalid duration {quote(text)}")
    return sign * total


def quote(text: str) -> str:
    """As Go's strconv.Quote. Bytes that are no UTF-8 are expected as surrogate escapes."""
    return '"' + "".join(_quoted(character) for character in text) + '"'


def _quoted(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    code = ord(character)
    if _SURROGATE_FIRST <= code <= _SURROGATE_LAST:
        return f"\\x{code - 0xDC00:02x}"
    if character.isprintable():
        return character
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
