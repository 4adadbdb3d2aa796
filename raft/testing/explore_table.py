"""What was seen over several runs: fingerprints in one file, and beside it what each run did. Both are bound to the code that was explored."""

import json
from array import array
from hashlib import sha256
from pathlib import Path
from typing import TypedDict

import raft.core
from raft.testing.explore_search import Fingerprints

SEEDS_A_RUN = 1_000
"""Each run draws its walks' seeds from a range of its own."""


class Run(TypedDict):
    """One run: the first seed of its walks, how many states it found that no earlier one had, and how long it took."""

    seed: int
    states: int
    seconds: float


class Table:
    """The fingerprints of all runs so far.

    :param folder: where they are kept; None keeps nothing.
    """

    def __init__(self, folder: str | None) -> None:
        self.runs: list[Run] = []
        values = array("Q")
        self._base = Path(folder, f"explored-{code_digest()}") if folder else None
        if self._base and self._base.with_suffix(".json").exists():
            self.runs = json.loads(self._base.with_suffix(".json").read_text())
            values.frombytes(self._base.with_suffix(".bin").read_bytes())
        self.seen = Fingerprints(values)
        self._seed = self.first_seed = len(self.runs) * SEEDS_A_RUN

    def next_seed(self) -> int:
        """A seed that no run has used."""
        self._seed += 1
        return self._seed

    def save(self, *, states: int, seconds: float) -> None:
        """Keep everything, and note this run."""
        if self._base is None:
            return
        self._base.parent.mkdir(parents=True, exist_ok=True)
        self.runs.append(Run(seed=self.first_seed + 1, states=states, seconds=round(seconds, 1)))
        self._base.with_suffix(".bin").write_bytes(array("Q", self.seen).tobytes())
        self._base.with_suffix(".json").write_text(json.dumps(self.runs, indent=1))


def code_digest() -> str:
    """Names the core and the explorer as they are now: fingerprints of other versions mean something else."""
    core, explorer = Path(raft.core.__file__).parent, Path(__file__).parent
    digest = sha256()
    for path in [*sorted(core.glob("*.py")), *sorted(explorer.glob("explore*.py"))]:
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]
