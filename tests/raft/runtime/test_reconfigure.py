"""Other settings for a running server."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from raft import ConfigInvalid, NotLeader
from raft.config import MIB, RELOADABLE, SETTINGS
from raft.testing.servers import BRISK, Servers, until

Run = Callable[[Coroutine[Any, Any, None]], None]


def test_settings_change_while_the_server_runs(run: Run) -> None:
    """Thresholds, deadlines and forwarding hold from the next turn on, and the changed names are told."""

    async def scenario() -> None:
        async with Servers("abc") as servers:
            leader = await servers.led()
            follower = next(name for name in "abc" if name != leader)
            assert servers[leader].reconfigure(BRISK) == ()
            changed = replace(BRISK, snapshot_threshold_entries=10, trailing_entries=3, proposal_timeout_ms=200, forwarding=0)
            for name in "abc":
                assert set(servers[name].reconfigure(changed)) == {
                    "snapshot_threshold_entries",
                    "trailing_entries",
                    "proposal_timeout_ms",
                    "forwarding",
                }
            with pytest.raises(NotLeader):
                await servers[follower].propose([b"x"])
            await asyncio.gather(*(servers[leader].propose([b"%d" % number], 20) for number in range(30)))
            await until(lambda: servers[leader].status().boundary_index > 0, "the log is compacted")

    run(scenario())


def test_what_needs_a_restart_is_named_and_nothing_changes(run: Run) -> None:
    """Every setting that can't change is named, and those that could are left alone, too."""

    async def scenario() -> None:
        async with Servers("a") as servers:
            await servers.led()
            wanted = replace(BRISK, tick_ms=10, election_timeout_ms=200, forwarding=0, append_bytes_max=64 * MIB, inflight_bytes_max=64 * MIB)
            with pytest.raises(ConfigInvalid) as raised:
                servers["a"].reconfigure(wanted)
            assert [problem.split()[0] for problem in raised.value.problems] == ["tick_ms", "election_timeout_ms"]
            assert "election_timeout_ms can't change from 100 to 200 while the node runs; it needs a restart" in str(raised.value)
            assert servers["a"].driver.node.state.config is BRISK

    run(scenario())


def test_the_list_names_settings() -> None:
    """What may change is a part of the table."""
    assert {setting.name for setting in SETTINGS} > RELOADABLE


def test_an_append_stays_within_what_the_transport_takes() -> None:
    """An append may grow up to the limit that the buffers were made for, not beyond."""
    small = replace(BRISK, uncommitted_bytes_max=2 * MIB)
    assert small.changed_to(replace(small, append_bytes_max=2 * MIB)) == ("append_bytes_max",)
    with pytest.raises(ConfigInvalid, match="append_bytes_max 3145728 is over uncommitted_bytes_max 2097152"):
        small.changed_to(replace(small, append_bytes_max=3 * MIB))
