"""A disk that fails one sync and says yes to the next: what was lost stays lost, whatever later syncs say."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from raft.testing.crash_plan import FOLLOWER, RECEIVER
from raft.testing.crashes import Recording, Summary, crash, record_script
from raft.testing.recording import Event, Marked, Opened, Synced

pytestmark = pytest.mark.processes


def failed_sync(events: Sequence[Event]) -> tuple[str, bool, int]:
    """The file whose sync failed, whether anything was acknowledged later, and where in the recording that was."""
    names: dict[int, str] = {}
    for number, event in enumerate(events):
        if isinstance(event, Opened):
            names[event.descriptor] = event.path
        elif isinstance(event, Synced) and event.failed:
            return names[event.descriptor], any(isinstance(later, Marked) for later in events[number:]), number
    raise AssertionError("no sync has failed")


def holds(recording: Recording, workspace: Path) -> None:
    """Whenever the power goes, everything acknowledged is there; what the failed sync should have kept is gone for good."""
    if not any(isinstance(event, Marked) for event in recording.events):
        return  # nothing was acknowledged: the node has never been one
    summary = Summary()
    crash(recording, workspace, summary, count=40, seed=1, failures_max=1, only=["power"])
    assert summary.failures == []


@pytest.mark.parametrize("number", range(1, 11))
def test_st_03_sync_failure_is_final(library: Path, workspace: Path, number: int) -> None:
    """Each of the first ten syncs fails once: the node stops with StorageFailed and acknowledges nothing more.

    The one exception: SQLite does not tell of a directory that it could not sync. The store has synced it again, by itself, before it counts.
    """
    recording = record_script(library, workspace, FOLLOWER, fail_sync=number)
    path, acknowledged, _ = failed_sync(recording.events)
    if path:
        assert "raft.errors.StorageFailed" in recording.complaint
        assert not acknowledged
    holds(recording, workspace)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(11, 101, 6))
def test_st_03_sync_failure_is_final_later_on(library: Path, workspace: Path, number: int) -> None:
    """The same in the middle of appends, votes, checkpoints, snapshots and installations: whoever was to be synced, nobody is answered any more."""
    recording = record_script(library, workspace, RECEIVER, fail_sync=number)
    path, acknowledged, _ = failed_sync(recording.events)
    if path:  # as above
        assert recording.complaint
        assert not acknowledged, f"after the failed sync of {path}"
    holds(recording, workspace)


def test_st_03_a_failed_sync_of_a_checkpoint_is_final_too(library: Path, workspace: Path) -> None:
    """The log's own checkpoints hear of a failed sync: SQLite's automatic ones would pass over it and try again."""
    whole = record_script(library, workspace, FOLLOWER)
    names: dict[int, str] = {}
    syncs, seen, of_log = 0, 0, 0
    for event in whole.events:
        seen += isinstance(event, Marked)
        if isinstance(event, Opened):
            names[event.descriptor] = event.path
        elif isinstance(event, Synced):
            syncs += 1
            if names[event.descriptor] == "log.db" and seen > 5:
                of_log = syncs
                break
    assert of_log, "the script checkpoints its log"
    recording = record_script(library, workspace, FOLLOWER, fail_sync=of_log)
    path, acknowledged, _ = failed_sync(recording.events)
    assert path == "log.db"
    assert "raft.errors.StorageFailed" in recording.complaint
    assert not acknowledged


def test_planted_retry_after_a_failed_sync_is_found(library: Path, workspace: Path) -> None:
    """M27: a log that forgets its failure and takes the next write gives itself away by an acknowledgement."""
    recording = record_script(library, workspace, FOLLOWER, mutant="M27", fail_sync=40)
    _, acknowledged, _ = failed_sync(recording.events)
    assert acknowledged
