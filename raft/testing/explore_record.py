"""States that were explored, added up over many runs: how many, how far, how long, what was found.

``python -m raft.testing.explore --record FILE --table FOLDER --until N`` goes on where the table ends; :mod:`raft.testing.records` says what makes
the count begin anew. Only the table knows which states are new, so the two belong together: a record without its table can't be continued.
"""

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from raft.testing import records
from raft.testing.records import PACKAGE, RecordFile, RecordRefused

if TYPE_CHECKING:
    from raft.testing.explore import Report

KIND = "states"


def explorer_digest() -> str:
    """The digest of the explorer: what a state is, and which rules hold in it."""
    return records.digest((PACKAGE / "testing").glob("explore*.py"))


class Recorder:
    """Adds what a run does to the record of the present core.

    :param file: held by this run.
    :param known: how many states the table has.
    :raises RecordRefused: when the table is not the one that was recorded.
    """

    def __init__(self, file: RecordFile, known: int) -> None:
        self._file = file
        self.core = records.core_digest()
        fresh: dict[str, Any] = {"breadth": {}, "moves": {}, "violations": []}
        fresh |= dict.fromkeys(("states", "looked_at", "depth", "wall_s", "cpu_s"), 0)
        self.part = records.part_of(file.of(self.core), {"explorer": explorer_digest()}, fresh)
        if known < self.part["states"]:
            raise RecordRefused(f"the table has {known:,} states, the record {self.part['states']:,}: give the table that was recorded")
        self._counted = time.monotonic()

    def add(self, report: "Report", states: int) -> None:
        """A leg has ended. :param states: how many the table has now."""
        part, outcome, now = self.part, report.outcome, time.monotonic()
        part["states"] = states
        part["looked_at"] += outcome.states
        part["depth"] = max(part["depth"], outcome.depth)
        if not report.leg.seed:
            part["breadth"][report.leg.part] = max(part["breadth"].get(report.leg.part, 0), outcome.depth)
        part["moves"] = dict(Counter(part["moves"]) + report.tried)
        part["wall_s"] = round(part["wall_s"] + now - self._counted, 2)
        part["cpu_s"] = round(part["cpu_s"] + report.cpu_s, 2)
        self._counted = now
        self._file.save()

    def found(self, rule: str, replay: str) -> None:
        """A rule was broken."""
        self.part["violations"].append({"rule": rule, "replay": replay})
        self._file.save()
