"""Go's notations: numbers, durations, quoted texts. The expectations were taken from Go's standard library as Consul 1.8 shows it."""

import pytest

from service.api.go import UINT64_MAX, format_duration, parse_duration, parse_uint64
from service.domain.quoting import quote

SECOND = 10**9


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("-0", 0),
        ("1s", SECOND),
        ("+5s", 5 * SECOND),
        ("-1.5h", -5400 * SECOND),
        ("1h1m1.5s", 3661_500_000_000),
        (".5s", SECOND // 2),
        ("1.s", SECOND),
        ("0.2s", SECOND // 5),
        ("300000us", 300_000_000),
        ("5µs", 5000),
        ("5μs", 5000),
        ("7ns", 7),
        ("2562047h47m16.854775807s", 2**63 - 1),
    ],
)
def test_durations(text: str, nanoseconds: int) -> None:
    """Every unit, fractions, signs and the greatest duration are read as Go reads them."""
    assert parse_duration(text) == nanoseconds


DURATIONS_REFUSED = [
    *((text, "time: invalid duration {}") for text in ("", "+", "-", ".s", ".", "s", "abc", "--1s", "9999999h", "2562047h47m16.854775808s")),
    *((text, "time: missing unit in duration {}") for text in ("1", "10", "10s5", "1.5.5s")),
    *(
        (text, f'time: unknown unit "{unit}" in duration {{}}')
        for text, unit in (("1d", "d"), ("3 s", " s"), ("1s ", "s "), ("1h-1m", "h-"), ("1e3s", "e"))
    ),
]


@pytest.mark.parametrize(("text", "reason"), DURATIONS_REFUSED)
def test_durations_refused(text: str, reason: str) -> None:
    """What Go's time.ParseDuration refuses is refused, with its text."""
    with pytest.raises(ValueError, match="time") as refused:
        parse_duration(text)
    assert str(refused.value) == reason.format(quote(text))


@pytest.mark.parametrize(("text", "value"), [("0", 0), ("007", 7), (str(UINT64_MAX), UINT64_MAX), ("0" * 300 + "1", 1)])
def test_numbers(text: str, value: int) -> None:
    """All of 64 bits, with leading zeros."""
    assert parse_uint64(text) == value


@pytest.mark.parametrize("text", ["", "-1", "+1", " 1", "1 ", "0x1", "1_0", "a", "1.0", "\u0661", "1\n"])
def test_numbers_refused(text: str) -> None:
    """Signs, spaces, other notations and other digits are a syntax error."""
    with pytest.raises(ValueError, match=r"^strconv.ParseUint: parsing .*: invalid syntax$"):
        parse_uint64(text)


@pytest.mark.parametrize("text", [str(UINT64_MAX + 1), "9" * 5000])
def test_numbers_out_of_range(text: str) -> None:
    """One more than 64 bits hold is out of range, and so is a number that would take long to convert."""
    with pytest.raises(ValueError, match=r"value out of range$"):
        parse_uint64(text)


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("a b", '"a b"'),
        ('"\\', r'"\"\\"'),
        ("\n\t\x00\x1f\x7f", r'"\n\t\x00\x1f\u007f"'),
        ("é世", '"é世"'),
        ("\u2028", r'"\u2028"'),
        ("\U000e0001", r'"\U000e0001"'),
        ("\udcff", r'"\xff"'),
    ],
)
def test_quoting(text: str, quoted: str) -> None:
    """Texts are quoted as strconv.Quote does it."""
    assert quote(text) == quoted


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0s"),
        (-1, "-1ns"),
        (999, "999ns"),
        (1_500, "1.5µs"),
        (18_400_000, "18.4ms"),
        (200_000_000, "200ms"),
        (10**9, "1s"),
        (1_250_000_000, "1.25s"),
        (60 * 10**9, "1m0s"),
        (4515 * 10**9 + 918_000_000, "1h15m15.918s"),
        (3600 * 10**9, "1h0m0s"),
    ],
)
def test_format_duration(nanoseconds: int, text: str) -> None:
    """Durations are written as Go writes them, and what is written can be read."""
    assert format_duration(nanoseconds) == text
    assert parse_duration(text) == nanoseconds
