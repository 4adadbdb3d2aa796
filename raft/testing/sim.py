"""``python -m raft.testing.sim``: run schedules, say what they reached, and how to see a failing one again.

``--seed N`` runs one schedule, ``--trace`` prints each of its steps; ``--count 3000`` runs that many, from ``--start`` on (drawn afresh and printed
when absent), ``--jobs 2`` at a time; ``--twice`` runs each twice, in processes with different hash seeds, and compares the digests of all steps.
The exit status is 0 when every schedule passed.
"""

import argparse
import os
import secrets
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

from raft.testing.trace import Trace
from raft.testing.world import Report, ScheduleFailed, World

SEEDS_A_TASK = 10
"""Schedules that a process runs before it reports."""


def run_seed(seed: int, *, digest: bool = False) -> Report:
    """Run one schedule.

    :raises ScheduleFailed: when it finds something.
    """
    return World(seed, trace=Trace(digest=digest)).run()


@dataclass(slots=True)
class Summary:
    """What many schedules did together."""

    schedules: int = 0
    steps: int = 0
    simulated_ms: int = 0
    committed: int = 0
    acknowledged: int = 0
    reads: int = 0
    digests: dict[int, str] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, report: Report) -> None:
        """Take one schedule in."""
        self.schedules += 1
        self.steps += report.steps
        self.simulated_ms += report.simulated_ms
        self.committed += report.committed
        self.acknowledged += report.acknowledged
        self.reads += report.reads
        self.counts.update(report.counts)
        self.digests[report.seed] = report.digest

    def merge(self, other: "Summary") -> None:
        """Take in what another process did."""
        self.schedules += other.schedules
        self.steps += other.steps
        self.simulated_ms += other.simulated_ms
        self.committed += other.committed
        self.acknowledged += other.acknowledged
        self.reads += other.reads
        self.digests.update(other.digests)
        self.failures.update(other.failures)
        self.counts.update(other.counts)

    def text(self, elapsed_s: float) -> str:
        """A table for people."""
        width = max((len(name) for name in self.counts), default=0)
        lines = [f"  {name:<{width}}  {count:>10,}" for name, count in sorted(self.counts.items())]
        total = (
            f"{self.schedules:,} schedules, {len(self.failures)} failed, in {elapsed_s:.1f} s ({self.schedules / elapsed_s:.1f}/s); "
            f"{self.simulated_ms / 3_600_000:.1f} simulated hours, {self.steps:,} steps, {self.committed:,} entries committed, "
            f"{self.acknowledged:,} commands acknowledged, {self.reads:,} linearizable reads"
        )
        return "\n".join([*lines, total])


def run_seeds(seeds: Iterable[int], *, digest: bool = False) -> Summary:
    """Run schedules one after the other; failures are collected."""
    summary = Summary()
    for seed in seeds:
        try:
            summary.add(run_seed(seed, digest=digest))
        except ScheduleFailed as failure:
            summary.schedules += 1
            summary.failures[seed] = str(failure)
    return summary


def run_many(start: int, count: int, *, jobs: int, digest: bool = False) -> Summary:
    """Run ``count`` schedules from seed ``start`` on, in ``jobs`` processes."""
    total = Summary()
    for part in _parts(start, count, jobs=jobs, digest=digest):
        total.merge(part)
        for seed, text in part.failures.items():
            sys.stdout.write(f"{text}\nseed {seed} failed\n")
            sys.stdout.flush()
    return total


def _parts(start: int, count: int, *, jobs: int, digest: bool) -> Iterator[Summary]:
    ranges = [range(first, min(first + SEEDS_A_TASK, start + count)) for first in range(start, start + count, SEEDS_A_TASK)]
    if jobs == 1:
        yield from (run_seeds(part, digest=digest) for part in ranges)
        return
    with ProcessPoolExecutor(max_workers=jobs) as pool:
        for future in [pool.submit(run_seeds, part, digest=digest) for part in ranges]:
            yield future.result()


def compare_twice(start: int, count: int, jobs: int) -> list[int]:
    """Run every schedule in two processes with different hash seeds.

    :returns: the seeds whose digests differ, or that failed in one of the two runs.
    """
    runs = [_digests(start, count, jobs, hash_seed) for hash_seed in ("1", "4242")]
    return sorted(seed for seed in range(start, start + count) if runs[0].get(seed) is None or runs[0].get(seed) != runs[1].get(seed))


def _digests(start: int, count: int, jobs: int, hash_seed: str) -> dict[int, str]:
    argv = [sys.executable, "-m", "raft.testing.sim", "--start", str(start), "--count", str(count), "--jobs", str(jobs), "--digests"]
    done = subprocess.run(argv, env={**os.environ, "PYTHONHASHSEED": hash_seed}, stdout=subprocess.PIPE, text=True, check=False)
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("digest ")]
    return {int(seed): digest for _, seed, digest in lines}


def main(arguments: list[str] | None = None) -> int:
    """The command line; see the module's text."""
    parser = argparse.ArgumentParser(prog="python -m raft.testing.sim", description="Run simulated schedules of a Raft cluster.")
    parser.add_argument("--seed", type=int, help="run this one schedule")
    parser.add_argument("--trace", action="store_true", help="with --seed: print every step")
    parser.add_argument("--count", type=int, default=100, help="how many schedules (default 100)")
    parser.add_argument("--start", type=int, help="the first seed (default: a fresh one)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
    parser.add_argument("--twice", action="store_true", help="run every schedule twice and compare")
    parser.add_argument("--digests", action="store_true", help="print the digest of every schedule")
    options = parser.parse_args(arguments)
    if options.seed is not None:
        return _one(options.seed, trace=options.trace)
    start = options.start if options.start is not None else secrets.randbelow(1 << 40)
    sys.stdout.write(f"seeds {start} to {start + options.count - 1}\n")
    sys.stdout.flush()
    began = time.monotonic()
    if options.twice:
        different = compare_twice(start, options.count, options.jobs)
        sys.stdout.write(f"{options.count} schedules run twice in {time.monotonic() - began:.1f} s; {len(different)} differ {different}\n")
        return 1 if different else 0
    summary = run_many(start, options.count, jobs=options.jobs, digest=options.digests)
    for seed, digest in sorted(summary.digests.items()) if options.digests else ():
        sys.stdout.write(f"digest {seed} {digest}\n")
    sys.stdout.write(summary.text(time.monotonic() - began) + "\n")
    for seed in sorted(summary.failures):
        sys.stdout.write(f"failed: python -m raft.testing.sim --seed {seed}\n")
    return 1 if summary.failures else 0


def _one(seed: int, *, trace: bool) -> int:
    echo = (lambda line: sys.stdout.write(line + "\n")) if trace else None
    began = time.monotonic()
    try:
        report = World(seed, trace=Trace(digest=True, echo=echo)).run()
    except ScheduleFailed as failure:
        sys.stdout.write(f"{failure}\n")
        return 1
    summary = Summary()
    summary.add(report)
    sys.stdout.write(f"{summary.text(time.monotonic() - began)}\nseed {seed}: {report.nodes} nodes, digest {report.digest}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
