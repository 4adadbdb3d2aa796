"""The bounds of the transport follow the settings of the node."""

from dataclasses import replace

from raft.config import MIB, RaftConfig
from raft.core.messages import AppendRequest, ProposeRequest
from raft.core.model import Entry, EntryKind
from raft.transport.codec import decode, encode
from raft.transport.limits import HttpLimits

INDEX = 2**62


def test_the_defaults_are_those_of_the_default_settings() -> None:
    """A transport without settings and one with the default settings behave alike."""
    assert HttpLimits.for_config(RaftConfig()) == HttpLimits()


def test_times_follow_heartbeat_and_election_timeout() -> None:
    """Ten times slower settings make a peer silent after ten times as long, and dial it a tenth as often."""
    slow = HttpLimits.for_config(RaftConfig(tick_ms=200, heartbeat_ms=1_000, election_timeout_ms=5_000))
    base = HttpLimits()
    for lane, lane_base in ((slow.control, base.control), (slow.bulk, base.bulk)):
        assert lane.request_seconds == 10 * lane_base.request_seconds
        assert lane.redial_seconds_min == 10 * lane_base.redial_seconds_min
        assert lane.redial_seconds_max == 10 * lane_base.redial_seconds_max
    assert slow.connect_seconds == 10 * base.connect_seconds
    assert slow.sweep_seconds == 10 * base.sweep_seconds


def test_the_largest_messages_fit() -> None:
    """Whatever the settings let a leader append or a follower forward fits into a body, with as many entries as a log may hold."""
    config = RaftConfig(
        append_bytes_max=2 * MIB,
        inflight_bytes_max=2 * MIB,
        proposal_bytes_max=3 * MIB,
        uncommitted_bytes_max=3 * MIB,
        snapshot_threshold_entries=20_000,
    )
    limit = HttpLimits.for_config(config).body_bytes_max
    size = config.append_bytes_max // config.snapshot_threshold_entries
    entries = tuple(Entry(INDEX + number, INDEX, EntryKind.COMMAND, bytes(size)) for number in range(config.snapshot_threshold_entries))
    one = (Entry(INDEX, INDEX, EntryKind.COMMAND, bytes(config.proposal_bytes_max)),)
    for message in (
        AppendRequest("a", "b", INDEX, INDEX - 1, INDEX, entries, INDEX),
        AppendRequest("a", "b", INDEX, INDEX - 1, INDEX, one, INDEX),
        ProposeRequest("a", "b", INDEX, INDEX, tuple(bytes(3) for _ in range(MIB))),
    ):
        assert decode(encode("c" * 36, [message]), "c" * 36, "b", limit) == (message,)


def test_large_appends_fit_into_the_queue() -> None:
    """The queue of a lane holds several of the largest appends."""
    config = replace(RaftConfig(), append_bytes_max=64 * MIB, inflight_bytes_max=64 * MIB)
    limits = HttpLimits.for_config(config)
    assert limits.bulk.queue_bytes_max >= 2 * config.append_bytes_max
