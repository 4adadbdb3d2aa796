"""The directory that most tests begin with."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from data_directories import data_directory


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Node n1 of three: five entries, three of them known to be committed and applied."""
    return data_directory(tmp_path / "n1")
