"""What is written about growth: every point has its row, every plot is XML, and a store of large values is told."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

from benchmarks.growth_report import BASE, FACTORS, WORKLOADS, Figures, Point, Results, write
from benchmarks.processes import Spent


def figures(rate: float) -> Figures:
    """Some, of a leader with an agent that takes half a processor."""
    cpu = {Spent.OWN: 5.0, "leader's agent": 500_000 / rate, "a follower's agent": 30.0, Spent.TOGETHER: 500_000 / rate + 60}
    return Figures(rate, 1.0, 9.0, cpu)


def points() -> list[Point]:
    """All of them."""
    return list(dict.fromkeys(BASE._replace(**{name: value}) for name, values in FACTORS.items() for value in values))


def test_all_is_written(tmp_path: Path) -> None:
    """Tables have a row a point and workload, with the median of its runs; there are three plots a factor."""
    results: Results = {point: {name: [figures(rate) for rate in (900.0, 1_000.0, 2_000.0)] for name in WORKLOADS} for point in points()}
    write(tmp_path, {"kernel": "6"}, results, FACTORS, "three rounds")
    text = (tmp_path / "growth.md").read_text()
    assert "* kernel: 6\n" in text
    assert text.count("(900..2,000)") == len(WORKLOADS) * sum(len(values) for values in FACTORS.values())
    assert text.count("|      1,000 |") == text.count("(900..2,000)")
    assert text.count("leader's agent |       50% |") == text.count("(900..2,000)")
    assert "4,096 of 65,536 bytes and 512 of 524,288 bytes" in text
    assert len(json.loads((tmp_path / "growth.json").read_text())["points"]) == len(WORKLOADS) * len(points())
    plots = sorted(tmp_path.glob("*.svg"))
    assert len(plots) == 3 * len(FACTORS)
    for plot in plots:
        assert plot.name in text
        assert ET.fromstring(plot.read_text()).tag.endswith("svg")


def test_a_point_without_figures_is_left_out(tmp_path: Path) -> None:
    """What could not be measured takes nothing else with it."""
    results: Results = {point: {"PUT": [figures(10.0)]} | ({} if point.nodes == 7 else {"GET": [figures(10.0)]}) for point in points()}
    write(tmp_path, {}, results, FACTORS, "one round")
    assert "\n| 7 " not in (tmp_path / "growth.md").read_text()
