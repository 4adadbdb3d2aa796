"""A node is crashed at any call that changes its files and starts again: nothing that it had acknowledged is missing, nothing comes back.

Some hundred images of each role here; ``python -m raft.testing.crashes`` makes thousands.
"""

import os
from pathlib import Path

import pytest

from raft.testing.crash_plan import FOLLOWER, LEADER, RECEIVER, ROLES, Apply, Arrive, Compact, Operation, Write
from raft.testing.crashes import CELLS, Summary, crash, hunt, main, places_inside, record_script
from raft.testing.images import CLASSES, KILL, POWER, TORN, places
from raft.testing.recording import Marked, Synced

pytestmark = pytest.mark.processes
IMAGES = 120


def crashed(library: Path, workspace: Path, role: str, *classes: str) -> Summary:
    """Record the role on a fresh seed, make the images and check them."""
    seed = int.from_bytes(os.urandom(3), "big")
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails
    recording, summary = record_script(library, workspace, role, seed=seed), Summary()
    crash(recording, workspace, summary, count=IMAGES, seed=seed, failures_max=3, only=classes)
    return summary


@pytest.mark.parametrize("role", ROLES)
def test_st_01_killed_between_and_inside_calls(library: Path, workspace: Path, role: str) -> None:
    """Stopped before, after or amid any write, sync, rename or removal, the node holds what it had acknowledged, and at most one step more."""
    summary = crashed(library, workspace, role, KILL, TORN)
    assert summary.failures == []
    assert sum(summary.checked.values()) == IMAGES


@pytest.mark.parametrize("role", ROLES)
def test_st_02_power_loss_takes_nothing_that_was_acknowledged(library: Path, workspace: Path, role: str) -> None:
    """With what was not synced dropped in whole or by sectors, no acknowledged vote, entry, record or snapshot is missing."""
    summary = crashed(library, workspace, role, POWER)
    assert summary.failures == []
    assert sum(summary.checked.values()) == IMAGES


@pytest.mark.parametrize("role", ROLES)
def test_st_02_power_loss_while_the_files_are_made(library: Path, workspace: Path, role: str) -> None:
    """Until the first acknowledgement, every place and however much is found: the node starts. A torn first page of the log is no damage."""
    recording, summary = record_script(library, workspace, role), Summary()
    acknowledged = next(number for number, event in enumerate(recording.events) if isinstance(event, Marked))
    beginning = [place for place in places(recording.events)[POWER] if place.event <= acknowledged]
    for seed in range(3):
        crash(recording, workspace, summary, count=0, seed=seed, failures_max=3, among={KILL: [], TORN: [], POWER: beginning})
    assert summary.failures == []
    assert summary.checked[role, POWER] == 3 * len(beginning)


def around(library: Path, workspace: Path, role: str, kind: type[Operation]) -> list[str]:
    """What is wrong with images of the calls that belong to operations of this kind alone."""
    recording, summary = record_script(library, workspace, role), Summary()
    crash(recording, workspace, summary, count=2 * IMAGES, seed=1, failures_max=3, among=places_inside(recording, kind))
    assert all(summary.checked[role, name] for name in CLASSES)
    return summary.failures


def test_sn_06_killed_at_every_step_of_an_installation(library: Path, workspace: Path) -> None:
    """From the first byte of an arriving snapshot to the last call of its installation: the old state or the new one, in full."""
    assert around(library, workspace, RECEIVER, Arrive) == []


def test_st_09_killed_around_applying(library: Path, workspace: Path) -> None:
    """The cells and the applied index belong together, and the log can bring them up: nothing is applied twice or left out."""
    assert around(library, workspace, FOLLOWER, Apply) == []


def test_st_12_killed_in_checkpoint_and_compaction(library: Path, workspace: Path) -> None:
    """Indexes never go back, nothing compacted returns, and nothing kept vanishes."""
    assert around(library, workspace, LEADER, Compact) == []


def test_st_13_a_single_node_acknowledges_after_its_sync(library: Path, workspace: Path) -> None:
    """Between the acknowledgements of two writes the log is synced, and the power may go at any call of a write."""
    recording = record_script(library, workspace, LEADER)
    synced, marks = False, 0
    for event in recording.events:
        if isinstance(event, Marked):
            assert synced or not isinstance(recording.operations[marks], Write), f"operation {marks} was acknowledged without a sync"
            synced, marks = False, marks + 1
        synced = synced or isinstance(event, Synced)
    assert marks == len(recording.operations)
    assert around(library, workspace, LEADER, Write) == []


@pytest.mark.parametrize(
    ("mutant", "role"),
    [
        ("M05", FOLLOWER),
        ("M24", RECEIVER),
        ("M25", FOLLOWER),
        ("M26-normal", FOLLOWER),
        ("M26-off", LEADER),
        ("no-transaction", RECEIVER),
        ("snapshot-unsynced", RECEIVER),
    ],
)
def test_planted_faults_are_found(library: Path, workspace: Path, mutant: str, role: str) -> None:
    """A node that answers early, syncs too little or splits what belongs together is caught by a few hundred images."""
    assert hunt(library, workspace, mutant, [role], subject=CELLS, count=900)


def test_the_command_counts_and_fails_at_zero(library: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It prints how many images of each role and class it checked, and a class without any is a failure."""
    assert library.exists()
    monkeypatch.setattr("raft.testing.crashes.ROLES", [LEADER])
    assert main(["--images", "3", "--seed", "5"]) == 0
    printed = capsys.readouterr().out
    assert "3 crash images checked, 0 wrong" in printed
    assert "leader    kill 1 of" in printed
    assert main(["--images", "1", "--seed", "5"]) == 1
