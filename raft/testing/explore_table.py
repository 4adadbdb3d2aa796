"""What was seen over several runs: fingerprints in one file, and beside it what each run did. Both are bound to the code that was explored."""

import json
from array import array
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import TypedDict

import raft.core
from raft.testing.explore_search import Fingerprints

SEEDS_A_RUN = 1_000
"""Each run draws its walks' seeds from a range of its own."""


class Run(TypedDict):
    """One run: the first seed of its walks, how many states it found that no earlier one had, how long it took, where it looked breadth-first."""

    seed: int
    states: int
    seconds: float
    breadth: list[str]


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
        self._run: Run | None = None
        self.seen = Fingerprints(values)
        self._seed = self.first_seed = len(self.runs) * SEEDS_A_RUN

    def next_seed(self) -> int:
        """A seed that no run has used."""
        self._seed += 1
        return self._seed

    @property
    def breadth(self) -> set[str]:
        """The parts that were searched breadth-first."""
        return {part for run in self.runs for part in run["breadth"]}

    def save(self, *, states: int, seconds: float, breadth: Iterable[str] = ()) -> None:
        """Keep everything, and note what this run has done so far; a run may save several times.

        :param breadth: the parts that it has searched breadth-first since it saved last.
        """
        if self._base is None:
            return
        if self._run is None:
            self._run = Run(seed=self.first_seed + 1, states=0, seconds=0.0, breadth=[])
            self.runs.append(self._run)
        self._run["states"], self._run["seconds"] = states, round(seconds, 1)
        self._run["breadth"] += breadth
        self._base.parent.mkdir(parents=True, exist_ok=True)
        self._put(".bin", array("Q", self.seen).tobytes())
        self._put(".json", json.dumps(self.runs, indent=1).encode())

    def _put(self, suffix: str, content: bytes) -> None:
        """Write a file beside its place and then put it there: a run that is killed leaves the old one."""
        assert self._base is not None
        beside = self._base.with_suffix(f"{suffix}.new")
        beside.write_bytes(content)
        beside.replace(self._base.with_suffix(suffix))


def code_digest() -> str:
    """Names the core and the explorer as they are now: fingerprints of other versions mean something else."""
    core, explorer = Path(raft.core.__file__).parent, Path(__file__).parent
    digest = sha256()
    for path in [*sorted(core.glob("*.py")), *sorted(explorer.glob("explore*.py"))]:
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]
