"""Go's notations: numbers, durations, quoted texts. The expectations were taken from Go's standard library as Consul 1.8 shows it."""

import pytest

from service.api.go import UINT64_MAX, parse_duration, parse_uint64, quote

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


@pytest.mark.parametrize(
    "text", ["", "+", "-", "1", "10", ".s", "s", "1d", "3 s", "1s ", "abc", "1h-1m", "9999999h", "2562047h47m16.854775808s", "1e3s"]
)
def test_durations_refused(text: str) -> None:
    """What Go's time.ParseDuration refuses is refused."""
    with pytest.raises(ValueError, match="invalid duration"):
        parse_duration(text)


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
        ("\n\t\x00\x7f", r'"\n\t\x00\x7f"'),
        ("é世", '"é世"'),
        ("\u2028", r'"\u2028"'),
        ("\U000e0001", r'"\U000e0001"'),
        ("\udcff", r'"\xff"'),
    ],
)
def test_quoting(text: str, quoted: str) -> None:
    """Texts are quoted as strconv.Quote does it."""
    assert quote(text) == quoted
