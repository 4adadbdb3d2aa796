"""What the leader may do about its servers by itself: Consul's autopilot configuration, replicated.

``CleanupDeadServers`` is off by default, other than in Consul: a server that was removed comes back with an empty data directory only.
"""

from typing import NamedTuple

from service.domain.commands import AutopilotConfiguration

DEFAULT = AutopilotConfiguration(
    cleanup_dead_servers=False, last_contact_threshold_ns=200_000_000, max_trailing_logs=250, server_stabilization_time_ns=10_000_000_000
)


class Stored(NamedTuple):
    """The configuration in force, with the indexes of its first and its last change."""

    configuration: AutopilotConfiguration
    create_index: int
    modify_index: int


def removable(voters: int, dead: int, min_quorum: int) -> int:
    """How many of the dead voters may be removed without a risk to the others.

    Only a minority is ever removed, since more may be a broken network, and no fewer voters than ``min_quorum`` (at least one) are left.
    """
    if 2 * dead >= voters:
        return 0
    return min(dead, max(0, voters - max(1, min_quorum)))
