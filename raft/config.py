"""Every setting of the library, declared once.

:data:`SETTINGS` is the table: name, unit, default, range, rule and what the setting trades. :class:`RaftConfig` holds
the values; it checks them as a whole when it is built and reports every problem at once. The core counts ticks only;
the two derived properties turn durations into ticks.
"""

from dataclasses import dataclass, fields
from typing import NamedTuple

from raft.errors import ConfigInvalid

KIB = 1024
MIB = 1024 * KIB


class Setting(NamedTuple):
    """One row of the table. ``minimum`` and ``maximum`` are inclusive."""

    name: str
    unit: str
    default: int
    minimum: int
    maximum: int
    rule: str
    help: str


SETTINGS: tuple[Setting, ...] = (
    Setting("tick_ms", "ms", 20, 1, 1_000, "divides heartbeat_ms and election_timeout_ms", "How often the node looks at its timers."),
    Setting("heartbeat_ms", "ms", 100, 5, 10_000, "at most a third of election_timeout_ms", "How often a leader says that it lives."),
    Setting(
        "election_timeout_ms",
        "ms",
        500,
        20,
        60_000,
        "at least three times heartbeat_ms",
        "Base T; a follower waits a time from [T, 2T) before it campaigns. Shorter fails over sooner, longer tolerates slower networks and disks.",
    ),
    Setting(
        "lease_drift_percent",
        "percent",
        10,
        1,
        100,
        "",
        "How much slower a leader's clock may run than a follower's before a read under the lease could be stale. The lease is shorter by that; "
        "100 switches it off.",
    ),
    Setting("append_bytes_max", "bytes", MIB, 1, 64 * MIB, "", "Payload of one append message; one entry always fits."),
    Setting(
        "inflight_appends_max", "count", 64, 1, 4_096, "", "Unanswered appends a follower; more hides latency, less bounds what a lost one costs."
    ),
    Setting("inflight_bytes_max", "bytes", 8 * MIB, 1, 1_024 * MIB, "at least append_bytes_max", "Unanswered append payload a follower."),
    Setting("proposal_bytes_max", "bytes", MIB, 1, 64 * MIB, "at most uncommitted_bytes_max", "Length of one proposal."),
    Setting(
        "uncommitted_bytes_max",
        "bytes",
        64 * MIB,
        1,
        4_096 * MIB,
        "",
        "Proposals a leader holds before they are committed; beyond it new ones are refused.",
    ),
    Setting("apply_bytes_max", "bytes", 4 * MIB, 1, 256 * MIB, "", "Payload handed to the state machine at once."),
    Setting(
        "snapshot_threshold_entries", "count", 16_384, 1, 100_000_000, "above trailing_entries", "Entries in the log that make the node compact it."
    ),
    Setting("snapshot_threshold_bytes", "bytes", 32 * MIB, 1, 16_384 * MIB, "", "Payload in the log that makes the node compact it."),
    Setting(
        "trailing_entries",
        "count",
        4_096,
        0,
        100_000_000,
        "below snapshot_threshold_entries",
        "Entries kept behind a compaction, so that a follower a little behind needs no snapshot.",
    ),
    Setting(
        "proposal_timeout_ms",
        "ms",
        7_000,
        10,
        600_000,
        "at least election_timeout_ms",
        "How long a proposal or a read waits for its answer, elections included.",
    ),
    Setting(
        "disk_stall_ms",
        "ms",
        5_000,
        100,
        600_000,
        "",
        "How long a leader's disk may take for one write before the leader gives way to a node whose disk works. Shorter fails over sooner; well "
        "above the slowest sync, for a disk that is merely slow must not cost the leadership.",
    ),
    Setting(
        "forwarding",
        "switch",
        1,
        0,
        1,
        "",
        "Whether a node that does not lead passes proposals and reads on to the leader. With 0 it refuses them and names the leader.",
    ),
    Setting("snapshot_chunk_bytes", "bytes", MIB, KIB, 16 * MIB, "", "Size of one piece of a snapshot on its way."),
)

RELOADABLE = frozenset(
    {
        "heartbeat_ms",
        "append_bytes_max",
        "inflight_appends_max",
        "inflight_bytes_max",
        "apply_bytes_max",
        "snapshot_threshold_entries",
        "snapshot_threshold_bytes",
        "trailing_entries",
        "proposal_timeout_ms",
        "disk_stall_ms",
        "forwarding",
    }
)
"""What may change while a node runs. Not the tick, in which everything is counted; not the election timeout and the drift, on which the other
nodes' leases rely; not what the transport's buffers were made for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RaftConfig:
    """The settings of one node; see :data:`SETTINGS` for units and meaning.

    :raises ConfigInvalid: with every problem, when the values can't be used together.
    """

    tick_ms: int = 20
    heartbeat_ms: int = 100
    election_timeout_ms: int = 500
    lease_drift_percent: int = 10
    append_bytes_max: int = MIB
    inflight_appends_max: int = 64
    inflight_bytes_max: int = 8 * MIB
    proposal_bytes_max: int = MIB
    uncommitted_bytes_max: int = 64 * MIB
    apply_bytes_max: int = 4 * MIB
    snapshot_threshold_entries: int = 16_384
    snapshot_threshold_bytes: int = 32 * MIB
    trailing_entries: int = 4_096
    proposal_timeout_ms: int = 7_000
    disk_stall_ms: int = 5_000
    forwarding: int = 1
    snapshot_chunk_bytes: int = MIB

    def __post_init__(self) -> None:
        problems = (*self._out_of_range(), *self._broken_rules())
        if problems:
            raise ConfigInvalid(problems)

    @property
    def heartbeat_ticks(self) -> int:
        """The heartbeat interval in ticks."""
        return self.heartbeat_ms // self.tick_ms

    @property
    def election_ticks(self) -> int:
        """The base election timeout T in ticks."""
        return self.election_timeout_ms // self.tick_ms

    @property
    def lease_ns(self) -> int:
        """How long a leader may rely on a round of heartbeats, in nanoseconds from its sending.

        Followers promise ``election_ticks``. The first of them may come right after the promise, and a late one just before the next: two
        ticks say nothing. The rest is what passes at least on a follower's clock, and it is cut by how much faster that may run.
        """
        return max(0, self.election_ticks - 2) * self.tick_ms * 10_000 * (100 - self.lease_drift_percent)

    def changed_to(self, other: "RaftConfig") -> tuple[str, ...]:
        """The settings in which a running node would change to ``other``.

        :raises ConfigInvalid: naming each that needs a restart.
        """
        names = tuple(setting.name for setting in SETTINGS if getattr(self, setting.name) != getattr(other, setting.name))
        problems = [
            f"{name} can't change from {getattr(self, name)} to {getattr(other, name)} while the node runs; it needs a restart"
            for name in names
            if name not in RELOADABLE
        ]
        if "append_bytes_max" in names and other.append_bytes_max > max(self.append_bytes_max, self.uncommitted_bytes_max):
            problems.append(
                f"append_bytes_max {other.append_bytes_max} is over uncommitted_bytes_max {self.uncommitted_bytes_max}, for which the transport "
                f"was made; it needs a restart"
            )
        if problems:
            raise ConfigInvalid(tuple(problems))
        return names

    def _out_of_range(self) -> tuple[str, ...]:
        problems = []
        for setting in SETTINGS:
            value = getattr(self, setting.name)
            if not isinstance(value, int) or isinstance(value, bool):
                problems.append(f"{setting.name} is {value!r}; it must be a whole number ({setting.unit})")
            elif not setting.minimum <= value <= setting.maximum:
                problems.append(f"{setting.name} is {value}; it must lie in {setting.minimum} to {setting.maximum} ({setting.unit})")
        return tuple(problems)

    def _broken_rules(self) -> tuple[str, ...]:
        if any(not isinstance(getattr(self, field.name), int) for field in fields(self)) or self.tick_ms < 1:
            return ()
        rules = (
            (self.heartbeat_ms % self.tick_ms == 0, f"tick_ms {self.tick_ms} must divide heartbeat_ms {self.heartbeat_ms}"),
            (self.election_timeout_ms % self.tick_ms == 0, f"tick_ms {self.tick_ms} must divide election_timeout_ms {self.election_timeout_ms}"),
            (
                3 * self.heartbeat_ms <= self.election_timeout_ms,
                f"election_timeout_ms {self.election_timeout_ms} must be at least three times heartbeat_ms {self.heartbeat_ms}",
            ),
            (
                self.inflight_bytes_max >= self.append_bytes_max,
                f"inflight_bytes_max {self.inflight_bytes_max} must be at least append_bytes_max {self.append_bytes_max}",
            ),
            (
                self.proposal_bytes_max <= self.uncommitted_bytes_max,
                f"proposal_bytes_max {self.proposal_bytes_max} must be at most uncommitted_bytes_max {self.uncommitted_bytes_max}",
            ),
            (
                self.trailing_entries < self.snapshot_threshold_entries,
                f"trailing_entries {self.trailing_entries} must be below snapshot_threshold_entries {self.snapshot_threshold_entries}",
            ),
            (
                self.proposal_timeout_ms >= self.election_timeout_ms,
                f"proposal_timeout_ms {self.proposal_timeout_ms} must be at least election_timeout_ms {self.election_timeout_ms}",
            ),
        )
        return tuple(problem for holds, problem in rules if not holds)
