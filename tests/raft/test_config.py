"""The table of settings and the values: one cannot differ from the other, and every problem is told at once."""

from dataclasses import fields, replace

import pytest

from raft.config import SETTINGS, RaftConfig, Setting
from raft.errors import ConfigInvalid

RULED = {
    "tick_ms",
    "heartbeat_ms",
    "election_timeout_ms",
    "inflight_bytes_max",
    "proposal_bytes_max",
    "snapshot_threshold_entries",
    "trailing_entries",
    "proposal_timeout_ms",
}


def problems(**values: object) -> tuple[str, ...]:
    """What is wrong with these values."""
    with pytest.raises(ConfigInvalid) as caught:
        RaftConfig(**values)  # type: ignore[arg-type]  # wrong on purpose
    return caught.value.problems


def test_the_table_is_the_configuration() -> None:
    """Names, order and defaults of the table are those of the class."""
    assert [(row.name, row.default) for row in SETTINGS] == [(field.name, field.default) for field in fields(RaftConfig)]


def test_the_rows_make_sense() -> None:
    """Each row has a unit, a help text and a default within its range; a rule where values depend on each other."""
    for row in SETTINGS:
        assert row.minimum <= row.default <= row.maximum, row.name
        assert row.unit in {"ms", "bytes", "count", "percent", "switch"}
        assert row.help.endswith(".")
    assert {row.name for row in SETTINGS if row.rule} == RULED


def test_the_defaults_are_valid() -> None:
    """The defaults can be used together, and their ticks follow from the durations."""
    config = RaftConfig()
    assert (config.heartbeat_ticks, config.election_ticks) == (5, 25)


@pytest.mark.parametrize("row", SETTINGS, ids=lambda row: row.name)
def test_every_setting_is_checked(row: Setting) -> None:
    """Values outside the range, and what is no whole number, are named with the limits."""
    for value in (row.minimum - 1, row.maximum + 1):
        expected = f"{row.name} is {value}; it must lie in {row.minimum} to {row.maximum} ({row.unit})"
        assert expected in problems(**{row.name: value})
    for value in ("5", 1.5, None, True):
        assert f"{row.name} is {value!r}; it must be a whole number ({row.unit})" in problems(**{row.name: value})


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"heartbeat_ms": 90}, "tick_ms 20 must divide heartbeat_ms 90"),
        ({"election_timeout_ms": 510}, "tick_ms 20 must divide election_timeout_ms 510"),
        ({"heartbeat_ms": 200}, "election_timeout_ms 500 must be at least three times heartbeat_ms 200"),
        ({"inflight_bytes_max": 1000}, "inflight_bytes_max 1000 must be at least append_bytes_max 1048576"),
        ({"uncommitted_bytes_max": 1000}, "proposal_bytes_max 1048576 must be at most uncommitted_bytes_max 1000"),
        ({"trailing_entries": 16_384}, "trailing_entries 16384 must be below snapshot_threshold_entries 16384"),
        ({"proposal_timeout_ms": 480}, "proposal_timeout_ms 480 must be at least election_timeout_ms 500"),
    ],
)
def test_rules_between_settings(values: dict[str, int], text: str) -> None:
    """Values that do not go together are named, both of them."""
    assert problems(**values) == (text,)


def test_every_problem_at_once() -> None:
    """One error tells all that is wrong."""
    found = problems(tick_ms=30, heartbeat_ms=100, proposal_timeout_ms=5, snapshot_chunk_bytes=1)
    assert len(found) == 5
    assert {text.split()[0] for text in found} == {"tick_ms", "proposal_timeout_ms", "snapshot_chunk_bytes"}


def test_a_configuration_can_not_be_changed() -> None:
    """Other values mean another object, checked as a whole again."""
    config = RaftConfig()
    with pytest.raises(AttributeError):
        config.tick_ms = 10  # type: ignore[misc]  # frozen
    with pytest.raises(ConfigInvalid):
        replace(config, tick_ms=0)
