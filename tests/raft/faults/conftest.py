"""The recorder, compiled once, and room for what is recorded."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from raft.testing.crashes import workspace_directory
from raft.testing.recording import NoRecorder, build


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recorder; where it can't be built the tests say why they are skipped."""
    try:
        return build(tmp_path_factory.mktemp("recorder"))
    except NoRecorder as error:
        pytest.skip(str(error))


@pytest.fixture
def workspace() -> Iterator[Path]:
    """A directory for recordings and images, in memory where possible."""
    with workspace_directory() as directory:
        yield Path(directory)
