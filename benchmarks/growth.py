"""How does the cost of a request grow? ``make bench-growth``.

One factor is varied at a time, from three nodes, values of 128 bytes, ten thousand keys and 64 connections at the leader: the number of nodes (1 to
7), the size of values (128 bytes to 512 KiB), the number of keys (10³ to 10⁶), and of connections (1 to 1,024). At each point PUTs of new values and
GETs, to keys at random, in a closed loop: the rate, how long the median and the 99th of a hundred took, and the processor time a request takes in
each process. A cluster is fresh for each size of cluster, value and store.

All points are measured in rounds, every other one in the opposite order, as long as another one fits into ``--minutes``: the medians stand beside
the smallest and the largest of the rounds, so it can be seen what the machine's own moods are. ``--quick`` is one round of fewer, shorter points.

Writes ``growth.json``, ``growth.md`` and a plot a factor and measure (``growth-*.svg``) into ``docs/performance``, with ``--quick`` into a new
temporary directory unless ``--directory`` names one. Ends with 1 when a point could not be measured; the others are written all the same.
"""

import argparse
import itertools
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import requests

from benchmarks import hammer, workload
from benchmarks.compare import machine
from benchmarks.growth_report import BASE, FACTORS, Figures, Point, Results, held_keys, write
from benchmarks.processes import Spent, end_on_sigterm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "processes"))

from cluster import Cluster, Node, NotInTime, wait_until

QUICK = {"nodes": (1, 3, 5), "value_bytes": (128, 65536), "keys": (1_000, 10_000, 100_000), "connections": (1, 64, 1_024)}
WARM_SECONDS = 1.0
ATTEMPTS = 3
CATCH_UP_SECONDS = 120.0
OWN_FILES = 200
"""Descriptors that the generator needs beside its connections."""


class Shape(NamedTuple):
    """What a cluster is made for; points that differ only in their connections share one."""

    nodes: int
    value_bytes: int
    keys: int


class NotMeasured(Exception):
    """A point has no figures; the text says why."""


@dataclass(slots=True)
class Plan:
    """What is to be measured, and what has been.

    :param seconds: for each workload of a point.
    """

    shapes: dict[Shape, list[Point]]
    seconds: float
    results: Results = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    seed: int = 0


def plan(factors: dict[str, tuple[int, ...]], seconds: float) -> Plan:
    """Every point once, by the cluster that it needs."""
    shapes: dict[Shape, list[Point]] = {}
    for point in dict.fromkeys(BASE._replace(**{name: value}) for name, values in factors.items() for value in values):
        shapes.setdefault(Shape(point.nodes, point.value_bytes, held_keys(point)), []).append(point)
    return Plan(shapes, seconds)


def one_round(work: Plan, *, backwards: bool) -> None:
    """Measure every point once more."""
    shapes = list(work.shapes.items())
    for shape, points in reversed(shapes) if backwards else shapes:
        print(f"  nodes: {shape.nodes}, {shape.keys:,} keys of {shape.value_bytes:,} bytes", flush=True)
        with tempfile.TemporaryDirectory(prefix="kvorum-growth-") as directory:
            cluster = Cluster(Path(directory), shape.nodes)
            try:
                cluster.start_all()
                workload.fill(cluster.leader().url, shape.keys, shape.value_bytes, told_every=250_000)
                for point in reversed(points) if backwards else points:
                    for name in ("PUT", "GET"):
                        _measure(work, cluster, shape, point, name)
            except (hammer.LoadFailed, NotMeasured, NotInTime, requests.RequestException) as failed:
                work.failures.append(f"{shape}: {failed}")
                print(f"    NOT MEASURED: {failed}", flush=True)
            finally:
                cluster.stop_all()


def _measure(work: Plan, cluster: Cluster, shape: Shape, point: Point, name: str) -> None:
    """Measure one workload of one point, and note it."""
    for _ in range(ATTEMPTS):
        _even(cluster)
        work.seed += 1
        leader, spent = cluster.leader(), Spent(cluster)
        asked = workload.puts(shape.keys, shape.value_bytes, work.seed) if name == "PUT" else workload.gets(shape.keys, work.seed)
        seen = hammer.run([leader.url], asked, point.connections, seconds=work.seconds, warm_seconds=WARM_SECONDS, watch=spent)
        if cluster.leader() is leader:
            break
        print("    the leader changed: once more", flush=True)
    else:
        raise NotMeasured(f"{name}, {point.connections} connections: the leader changed {ATTEMPTS} times")
    cpu = {process: used.cpu for process, used in spent.each(seen.answers).items()}
    figures = Figures(seen.rate, seen.percentile_ms(50), seen.percentile_ms(99), cpu)
    work.results.setdefault(point, {}).setdefault(name, []).append(figures)
    told = f"{figures.rate:8.0f}/s, p50 {figures.p50_ms:7.2f} ms, p99 {figures.p99_ms:7.2f} ms, {cpu[Spent.TOGETHER]:7.0f} µs a request"
    print(f"    {name}, {point.connections:>5} connections: {told}", flush=True)


def _even(cluster: Cluster) -> None:
    """Wait until every node has applied what the leader has: nobody still works for an earlier load."""
    applied = cluster.leader().status()["node"]["applied_index"]
    for node in cluster.nodes:
        wait_until(partial(_applied, node, applied), f"{node.name} has applied {applied}", CATCH_UP_SECONDS)


def _applied(node: Node, index: int) -> bool:
    return bool(node.status()["node"]["applied_index"] >= index)


def rounds(work: Plan, minutes: float, keep: Callable[[int], None]) -> None:
    """Measure in rounds, at least one, as long as another one fits into the time.

    :param keep: called with their number after each of them.
    """
    began, longest = time.monotonic(), 0.0
    for count in itertools.count(1):
        started = time.monotonic()
        print(f"round {count}, after {started - began:.0f} s of {minutes * 60:.0f} s; load average {os.getloadavg()[0]:.1f}", flush=True)
        one_round(work, backwards=count % 2 == 0)
        keep(count)
        longest = max(longest, time.monotonic() - started)
        if time.monotonic() - began + longest > minutes * 60:
            return


def allow_connections(count: int) -> None:
    """Let this process, and the nodes that it starts, have so many connections.

    :raises SystemExit: when the system does not allow it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + OWN_FILES
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise SystemExit(f"growth: {count} connections need {needed} open files, {hard} are allowed (ulimit -Hn)")
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def commit() -> str:
    """What is measured, as git names it."""
    told = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return told.stdout.strip() or "unknown"


def main() -> int:
    """Run it."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--quick", action="store_true", help="one round of fewer and shorter points, within two minutes")
    arguments.add_argument("--only", choices=sorted(FACTORS), action="append", help="vary this factor; may be given several times")
    arguments.add_argument("--minutes", type=float, default=30.0, help="for all rounds together")
    arguments.add_argument("--seconds", type=float, default=0.0, help="for each workload of a point; by default 6, with --quick 1.5")
    arguments.add_argument("--directory", type=Path, help="where the results go")
    options = arguments.parse_args()
    end_on_sigterm()
    every = QUICK if options.quick else FACTORS
    factors = {name: values for name, values in every.items() if not options.only or name in options.only}
    work = plan(factors, options.seconds or (1.5 if options.quick else 6.0))
    allow_connections(max(point.connections for points in work.shapes.values() for point in points))
    directory = options.directory or (Path(tempfile.mkdtemp(prefix="kvorum-growth-results-")) if options.quick else Path("docs/performance"))

    facts = {
        **machine.described(Path(tempfile.gettempdir())),
        "commit": commit(),
        "command": shlex.join(["python", "-m", "benchmarks.growth", *sys.argv[1:]]),
    }

    def keep(count: int) -> None:
        """Write what there is: a run that is broken off has given something."""
        if work.results:
            write(directory, facts, work.results, factors, f"{count} {'rounds' if count > 1 else 'round'}, {work.seconds:g} s a workload and point")
            print(f"written to {directory}", flush=True)

    try:
        rounds(work, 0.0 if options.quick else options.minutes, keep)
    except subprocess.TimeoutExpired as failed:
        raise SystemExit(f"growth: a node did not end: {failed}") from failed
    print("\n".join(f"NOT MEASURED: {failure}" for failure in work.failures) or "every point was measured")
    return 1 if work.failures else 0


if __name__ == "__main__":
    sys.exit(main())
