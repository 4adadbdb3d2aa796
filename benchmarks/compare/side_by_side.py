"""kvorum and one peer, both running, in turn: kvorum, peer, kvorum, peer … for each workload. What counts is the ratio of each pair."""

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.compare.asker import Asker, Order, summary
from benchmarks.compare.system import System
from benchmarks.compare.workloads import Workload


@dataclass
class Row:
    """One workload.

    :ivar pairs: summaries of kvorum and of the peer.
    :ivar unsteady: pairs that were not counted, because the peer's leader changed meanwhile. A change of kvorum's leader counts.
    """

    workload: Workload
    peer: str
    pairs: list[tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=list)
    unsteady: int = 0

    @property
    def void(self) -> str:
        """Why the row counts for nothing; empty when it counts."""
        if not self.pairs:
            return f"void: {self.peer} had no steady leader"
        bad = [sum(pair[side]["not_2xx"] + pair[side]["unanswered"] for pair in self.pairs) for side in (0, 1)]
        if any(bad):
            return f"void: not answered 2xx: kvorum {bad[0]}, {self.peer} {bad[1]}"
        return "" if all(pair[side]["rate"] for pair in self.pairs for side in (0, 1)) else "void: nothing was answered in time"

    @property
    def ratios(self) -> list[float]:
        """The rate of kvorum by the peer's, of each pair."""
        return [ours["rate"] / theirs["rate"] for ours, theirs in self.pairs]

    def rate(self, side: int) -> float:
        """The median rate of kvorum (0) or the peer (1)."""
        return statistics.median(pair[side]["rate"] for pair in self.pairs) * self.workload.weight

    def ms(self, side: int, share: str) -> float:
        """The median of a percentile."""
        return statistics.median(pair[side]["ms"][share] for pair in self.pairs)

    def told(self) -> str:
        """The row as one line."""
        if self.void:
            return f"{self.workload.name:9} {self.void}"
        ratios, times = self.ratios, [f"{self.ms(side, 'p50'):8.2f}/{self.ms(side, 'p99'):8.2f}" for side in (0, 1)]
        spread = f"{statistics.median(ratios):6.2f} ({min(ratios):.2f}..{max(ratios):.2f})"
        return f"{self.workload.name:9} {self.rate(0):9.0f} {self.rate(1):9.0f} {spread:24} {times[0]} {times[1]}"

    def raw(self) -> dict[str, Any]:
        """Everything."""
        return {"workload": self.workload.name, "void": self.void, "unsteady": self.unsteady, "pairs": self.pairs}


def compare(
    asker: Asker, systems: tuple[System, System], workloads: Iterable[Workload], *, rounds: int, seconds: float, tell: Callable[[str], None]
) -> list[Row]:
    """Fill both and run the workloads that the peer offers.

    :param systems: kvorum and the peer.
    :param rounds: pairs a row.
    :param seconds: a run.
    :param tell: is given each line as soon as it is known.
    """
    for system in systems:
        asker.fill(system)
    tell(f"{'workload':9} {'kvorum':>9} {systems[1].name:>9}   {'ratio (min..max)':22} {'kvorum p50/p99 ms':>17} {systems[1].name + ' p50/p99':>17}")
    rows = []
    for workload in workloads:
        if workload.name in systems[1].offers:
            row = Row(workload, systems[1].name)
            for _ in range(rounds):
                _pair(asker, systems, row, seconds)
            tell(row.told())
            rows.append(row)
    return rows


def _pair(asker: Asker, systems: tuple[System, System], row: Row, seconds: float) -> None:
    runs, roles = [], [system.roles() for system in systems]
    for system, (leader, follower) in zip(systems, roles, strict=True):
        asked, work = follower if row.workload.follower else leader, row.workload
        order = Order((asked,), system.dialect, system.token, work.kind, work.query, work.connections, seconds)
        runs.append(summary(asker.ask(order)))
    if systems[1].roles() != roles[1]:
        row.unsteady += 1
    else:
        row.pairs.append((runs[0], runs[1]))
