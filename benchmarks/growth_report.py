"""What the measurements of growth are written as: JSON, tables in Markdown, plots."""

import json
import os
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.compare import svg
from benchmarks.processes import Spent, table


class Point(NamedTuple):
    """Where a measurement is taken. Connections are those of the load generator, to the leader."""

    nodes: int
    value_bytes: int
    keys: int
    connections: int


BASE = Point(nodes=3, value_bytes=128, keys=10_000, connections=64)
FACTORS = {
    "nodes": (1, 3, 5, 7),
    "value_bytes": (128, 4096, 65536, 524288),
    "keys": (1_000, 10_000, 100_000, 1_000_000),
    "connections": (1, 4, 16, 64, 256, 1_024),
}
HELD_BYTES_MAX = 256 * 1024 * 1024
"""A store of large values has fewer keys: each is in the log and in the state, and that of every node."""
WORDS = {"nodes": "nodes", "value_bytes": "bytes a value", "keys": "keys", "connections": "connections"}
WORKLOADS = ("PUT", "GET")


def held_keys(point: Point) -> int:
    """How many keys the store of a point has."""
    return min(point.keys, HELD_BYTES_MAX // point.value_bytes)


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run of one workload at one point gave.

    :ivar rate: requests a second.
    :ivar cpu: microseconds of processor time a request, by process.
    """

    rate: float
    p50_ms: float
    p99_ms: float
    cpu: Mapping[str, float]

    def busiest(self) -> tuple[str, float]:
        """The process that had the least time left, and what share of one processor it took."""
        alone = {name: spent * self.rate / 1e6 for name, spent in self.cpu.items() if name not in {Spent.TOGETHER, Spent.OWN}}
        name = max(alone, key=alone.__getitem__)
        return name, alone[name]

    def machine(self) -> float:
        """What share of all processors nodes and load generator took."""
        return (self.cpu[Spent.TOGETHER] + self.cpu[Spent.OWN]) * self.rate / 1e6 / (os.cpu_count() or 1)


Results = dict[Point, dict[str, list[Figures]]]
"""By point and workload: a run a round."""


LOAD = "a closed loop to the leader; PUTs of new values and default GETs, keys at random; medians of the rounds"
SHARES = "busiest is the process with the least time left, of a core what it takes of one; machine is what nodes and generator take of all"


def write(directory: Path, facts: Mapping[str, Any], results: Results, factors: Mapping[str, tuple[int, ...]], how: str) -> None:
    """Write everything.

    :param facts: about the machine and what was measured, by name.
    :param how: it was measured, for the heads.
    """
    directory.mkdir(parents=True, exist_ok=True)
    about = {**facts, "measured": how, "load": LOAD, "columns": SHARES}
    runs = [
        {**point._asdict(), "workload": workload, "runs": [asdict(figures) for figures in runs]}
        for point, workloads in results.items()
        for workload, runs in workloads.items()
    ]
    (directory / "growth.json").write_text(json.dumps({"about": about, "points": runs}, indent=1) + "\n")
    parts = ["# How cost grows", "", *(f"* {name.replace('_', ' ')}: {text}" for name, text in about.items()), ""]
    for factor in factors:
        series = [(point, results[point]) for point in _along(factor, factors) if set(WORKLOADS) <= set(results.get(point, {}))]
        if series:
            plots = dict(_plots(factor, series, how))
            for name, plot in plots.items():
                (directory / name).write_text(plot)
            parts += _section(factor, series, list(plots))
    (directory / "growth.md").write_text("\n".join(parts))


def _along(factor: str, factors: Mapping[str, tuple[int, ...]]) -> Iterator[Point]:
    return (BASE._replace(**{factor: value}) for value in factors[factor])


def _section(factor: str, series: list[tuple[Point, dict[str, list[Figures]]]], plots: list[str]) -> list[str]:
    """Tables and plots of one factor."""
    heads = [
        WORDS[factor],
        "requests/s",
        "(min..max)",
        "p50 ms",
        "p99 ms",
        "leader µs",
        "a follower µs",
        "all nodes µs",
        "busiest",
        "of a core",
        "machine",
    ]
    parts = [f"## {WORDS[factor].capitalize()}", ""]
    if fewer := [f"{held_keys(point):,} of {point.value_bytes:,} bytes" for point, _ in series if held_keys(point) < point.keys]:
        parts += [f"Large values: no more keys than {HELD_BYTES_MAX // 2**20} MiB hold, {' and '.join(fewer)}.", ""]
    for workload in WORKLOADS:
        rows = [[f"{getattr(point, factor):,}", *_cells(workloads[workload])] for point, workloads in series]
        parts += [f"{workload}:", "", table(heads, rows), ""]
    return [*parts, *(f"![{name}]({name})\n" for name in plots)]


def _cells(runs: list[Figures]) -> list[str]:
    rates = [run.rate for run in runs]
    middle = min(runs, key=lambda run: abs(run.rate - statistics.median(rates)))
    name, share = middle.busiest()
    return [
        f"{statistics.median(rates):,.0f}",
        f"({min(rates):,.0f}..{max(rates):,.0f})",
        f"{_median(runs, lambda run: run.p50_ms):.2f}",
        f"{_median(runs, lambda run: run.p99_ms):.2f}",
        f"{_median(runs, _leaders):,.0f}",
        f"{_median(runs, _followers):,.0f}",
        f"{_median(runs, _together):,.0f}",
        name,
        f"{share:.0%}",
        f"{middle.machine():.0%}",
    ]


def _median(runs: list[Figures], what: Callable[[Figures], float]) -> float:
    return statistics.median(what(run) for run in runs)


def _leaders(run: Figures) -> float:
    return sum(spent for name, spent in run.cpu.items() if name.startswith("leader's "))


def _followers(run: Figures) -> float:
    return sum(spent for name, spent in run.cpu.items() if name.startswith("a follower's "))


def _together(run: Figures) -> float:
    return run.cpu[Spent.TOGETHER]


MEASURES: dict[str, tuple[str, str, dict[str, Callable[[Figures], float]]]] = {
    "rate": ("Requests a second", "requests/s", {"": lambda run: run.rate}),
    "latency": ("Latency", "ms", {" p50": lambda run: run.p50_ms, " p99": lambda run: run.p99_ms}),
    "cpu": ("Processor time a request", "µs", {", all nodes": _together, ", leader": _leaders}),
}
"""By the name of its plot: title, unit, and what is drawn for each workload."""


def _plots(factor: str, series: list[tuple[Point, dict[str, list[Figures]]]], how: str) -> Iterator[tuple[str, str]]:
    """Name and text of each plot of a factor."""
    places = [getattr(point, factor) for point, _ in series]
    x = svg.Axis(WORDS[factor], places[0], max(places[-1], places[0] + 1), [(at, _short(factor, at)) for at in places], logarithmic=factor != "nodes")
    rest = ", ".join(f"{_short(name, value)} {WORDS[name]}" for name, value in BASE._asdict().items() if name != factor)
    for measure, (title, unit, drawn) in MEASURES.items():
        lines = {
            workload + name: [
                svg.Point(at, _median(runs[workload], what), min(map(what, runs[workload])), max(map(what, runs[workload])))
                for at, (_, runs) in zip(places, series, strict=True)
            ]
            for workload in WORKLOADS
            for name, what in drawn.items()
        }
        yield f"growth-{factor.replace('_', '-')}-{measure}.svg", svg.lines(title, f"{rest}; {how}", x, _scale(unit, lines), lines)


def _scale(unit: str, lines: Mapping[str, list[svg.Point]]) -> svg.Axis:
    """The axis that shows all of them: of ratios when they are far apart."""
    ends = [end for points in lines.values() for point in points for end in (point.low, point.high) if end is not None]
    if max(ends) > 20 * min(ends):
        return svg.logarithmic(unit, max(min(ends), 1e-3), max(ends))
    return svg.linear(unit, max(ends))


def _short(factor: str, value: int) -> str:
    if factor != "value_bytes" or value < 1024:
        return f"{value:,}"
    return f"{value // 1024} Ki"
