"""Real nodes on loopback: every test starts its own processes and ends exactly those."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cluster import Cluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Three nodes, healthy."""
    made = Cluster(tmp_path)
    try:
        made.start_all()
        yield made
    finally:
        made.stop_all()
