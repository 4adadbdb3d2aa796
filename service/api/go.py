"""Texts and notations of Go that Consul's clients can see."""

import re

from service.domain.quoting import quote

UINT64_MAX = 2**64 - 1
_INT64_MAX = 2**63 - 1
_UNIT_NANOSECONDS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_NUMBER = re.compile(r"(?=\.?[0-9])([0-9]*)(?:\.([0-9]*))?")
_UNIT = re.compile(r"[^.0-9]+")
_DECIMAL = re.compile(r"[0-9]+\Z")


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

    :raises ValueError: with the text of Go's time.ParseDuration.
    """
    rest = text[1:] if text[:1] in ("+", "-") else text
    sign = -1 if text.startswith("-") else 1
    if rest == "0":
        return 0
    total, position = 0, 0
    while position < len(rest):
        number = _NUMBER.match(rest, position)
        if number is None:
            raise ValueError(f"time: invalid duration {quote(text)}")
        unit = _UNIT.match(rest, number.end())
        if unit is None:
            raise ValueError(f"time: missing unit in duration {quote(text)}")
        if unit[0] not in _UNIT_NANOSECONDS:
            raise ValueError(f"time: unknown unit {quote(unit[0])} in duration {quote(text)}")
        fraction = (number[2] or "")[:30]
        nanoseconds = _UNIT_NANOSECONDS[unit[0]]
        total += int(number[1][:30] or "0") * nanoseconds + int(fraction or "0") * nanoseconds // 10 ** len(fraction)
        position = unit.end()
    if not rest or total > _INT64_MAX:
        raise ValueError(f"time: invalid duration {quote(text)}")
    return sign * total


def format_duration(nanoseconds: int) -> str:
    """A duration as Go writes it: ``1h15m30.918s``, ``18.4ms``, ``0s``."""
    sign, rest = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    if rest == 0:
        return "0s"
    for unit, size in (("ns", 1), ("\u00b5s", 10**3), ("ms", 10**6)):
        if rest < size * 1000:
            return f"{sign}{_decimal(rest, size)}{unit}"
    minutes, rest = divmod(rest, 60 * 10**9)
    hours, minutes = divmod(minutes, 60)
    whole = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{sign}{whole}{_decimal(rest, 10**9)}s"


def _decimal(number: int, size: int) -> str:
    """Number / size without trailing zeros."""
    whole, part = divmod(number, size)
    digits = str(part).rjust(len(str(size)) - 1, "0").rstrip("0") if part else ""
    return f"{whole}.{digits}" if digits else str(whole)
