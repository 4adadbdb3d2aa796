"""A node with the real state machine is crashed at any call that changes its files: `state.db`, its generations, CURRENT, the log, the snapshots."""

from pathlib import Path

import pytest

from raft.testing.crash_plan import FOLLOWER, LEADER, RECEIVER, Apply, Arrive, Compact, Operation
from raft.testing.crashes import Summary, crash, hunt, places_inside, record_script, workspace_directory
from raft.testing.images import CLASSES
from raft.testing.recording import NoRecorder, build

pytestmark = [pytest.mark.processes, pytest.mark.slow]
SUBJECT = "tests.service.store.crash_subject:KvSubject"
IMAGES = 150


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recorder; where it can't be built the tests say why they are skipped."""
    try:
        return build(tmp_path_factory.mktemp("recorder"))
    except NoRecorder as error:
        pytest.skip(str(error))


def around(library: Path, role: str, kind: type[Operation]) -> list[str]:
    """What is wrong with images of the calls that belong to operations of this kind alone: killed, torn, without power."""
    with workspace_directory() as directory:
        workspace = Path(directory)
        recording, summary = record_script(library, workspace, role, subject=SUBJECT), Summary()
        crash(recording, workspace, summary, count=IMAGES, seed=1, failures_max=3, among=places_inside(recording, kind))
    assert all(summary.checked[role, name] for name in CLASSES)
    return summary.failures


def test_st_09_data_and_applied_index_move_together(library: Path) -> None:
    """Crashed around applying, the state is exactly what the entries up to its applied index make of it, and the log can bring it up."""
    assert around(library, FOLLOWER, Apply) == []


def test_st_12_crashed_in_checkpoint_and_compaction(library: Path) -> None:
    """With readers that hold checkpoints up: indexes never go back, nothing compacted returns, nothing kept vanishes."""
    assert around(library, LEADER, Compact) == []


def test_sn_06_crashed_at_every_step_of_an_installation(library: Path) -> None:
    """The old generation with the old log or the new one with the new, in full, however far the files had come."""
    assert around(library, RECEIVER, Arrive) == []


@pytest.mark.parametrize(("mutant", "role"), [("M25", FOLLOWER), ("unsynced", RECEIVER), ("believes", LEADER)])
def test_planted_faults_are_found(library: Path, mutant: str, role: str) -> None:
    """Effects and index that part, files published unsynced, a checkpoint believed that a reader held up: each shows in some image."""
    with workspace_directory() as directory:
        assert hunt(library, Path(directory), mutant, [role], subject=SUBJECT, count=1_500)
