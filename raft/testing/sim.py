"""``python -m raft.testing.sim``: run schedules, say what they reached, and how to see a failing one again.

``--seed N`` runs one schedule, ``--trace`` prints each of its steps; ``--count 3000`` runs that many, from ``--start`` on (drawn afresh and printed
when absent), ``--jobs 2`` at a time; ``--twice`` runs each twice, in processes with different hash seeds, and compares the digests of all steps.
``--require-markers`` names the rare branches (:mod:`raft.testing.markers`) that were reached too seldom for so many schedules.

``--record FILE --until 100000`` adds to a file of what was run (:mod:`raft.testing.sim_record`) until that has so many schedules of this core. A
run that was stopped, or killed, goes on where it was when it is started again; ``--seconds`` ends it before. Seeds follow on the last one, or begin
with ``--start``. ``--merge OTHER`` takes over what was recorded elsewhere, with seeds of its own.

The exit status is 0 when every schedule passed, and no marker that is required was missed.
"""

import argparse
import os
import secrets
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from raft.testing import markers, records, sim_record
from raft.testing.same_steps import compare_twice
from raft.testing.trace import Trace
from raft.testing.world import Report, ScheduleFailed, World

SEEDS_A_TASK = 10
"""Schedules that a process runs before it reports."""

TASKS_AHEAD = 3
"""Tasks that wait for each process: enough that none is idle, few enough that a run ends soon when it is told to."""

ORPHAN_CHECK_S = 1.0
"""How often a process looks whether whoever started it still runs."""


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
    rules: dict[int, str] = field(default_factory=dict)
    """By seed that failed: the rule."""
    cpu_s: float = 0.0
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
        self.rules.update(other.rules)
        self.cpu_s += other.cpu_s
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
    summary, began = Summary(), time.process_time()
    for seed in seeds:
        try:
            summary.add(run_seed(seed, digest=digest))
        except ScheduleFailed as failure:
            summary.schedules += 1
            summary.failures[seed] = str(failure)
            summary.rules[seed] = failure.rule
    summary.cpu_s = time.process_time() - began
    return summary


def run_many(start: int, count: int, *, jobs: int, digest: bool = False) -> Summary:
    """Run ``count`` schedules from seed ``start`` on, in ``jobs`` processes."""
    total = Summary()
    for _, part in run_parts(sim_record.chunks(iter(range(start, start + count)), count, SEEDS_A_TASK), jobs=jobs, digest=digest):
        total.merge(part)
    return total


def run_parts(parts: Iterator[range], *, jobs: int, digest: bool = False) -> Iterator[tuple[range, Summary]]:
    """Run ranges of seeds, in ``jobs`` processes; each comes back in its turn, and what failed in it is printed."""
    if jobs == 1:
        for part in parts:
            yield part, _told(run_seeds(part, digest=digest))
        return
    with ProcessPoolExecutor(max_workers=jobs, initializer=_serve, initargs=(os.getpid(),)) as pool:
        waiting: deque[tuple[range, Future[Summary]]] = deque()
        try:
            for part in parts:
                waiting.append((part, pool.submit(run_seeds, part, digest=digest)))
                if len(waiting) > jobs * TASKS_AHEAD:
                    seeds, future = waiting.popleft()
                    yield seeds, _told(future.result())
            while waiting:
                seeds, future = waiting.popleft()
                yield seeds, _told(future.result())
        finally:
            pool.shutdown(cancel_futures=True)


def _told(part: Summary) -> Summary:
    for seed, text in part.failures.items():
        sys.stdout.write(f"{text}\nseed {seed} failed\n")
        sys.stdout.flush()
    return part


def _serve(parent: int) -> None:
    """A process of the pool: an interruption is its parent's business, and it does not outlive that."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def watch() -> None:
        while os.getppid() == parent:
            threading.Event().wait(ORPHAN_CHECK_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main(arguments: list[str] | None = None) -> int:
    """The command line; see the module's text."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.seed is not None:
        return _one(options.seed, trace=options.trace)
    if options.record is not None:
        if options.until is None and not options.merge:
            parser.error("--record needs --until, how many schedules the file is to have, or --merge")
        try:
            return _record(options)
        except records.RecordRefused as refused:
            parser.error(str(refused))
    if options.until is not None or options.merge or options.seconds is not None:
        parser.error("--until, --seconds and --merge belong to --record")
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
    void = options.require_markers and _void(summary.counts, summary.schedules)
    return 1 if summary.failures or void else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m raft.testing.sim", description="Run simulated schedules of a Raft cluster.")
    parser.add_argument("--seed", type=int, help="run this one schedule")
    parser.add_argument("--trace", action="store_true", help="with --seed: print every step")
    parser.add_argument("--count", type=_positive, default=100, help="how many schedules (default 100)")
    parser.add_argument("--start", type=_positive, help="the first seed (default: a fresh one; with --record the one after the last)")
    parser.add_argument("--jobs", type=_positive, default=1, help="processes (default 1)")
    parser.add_argument("--twice", action="store_true", help="run every schedule twice and compare")
    parser.add_argument("--digests", action="store_true", help="print the digest of every schedule")
    parser.add_argument("--require-markers", action="store_true", help="fail when a rare branch was reached too seldom")
    parser.add_argument("--record", type=Path, metavar="FILE", help="add to what this file says was run, until it has --until schedules of this core")
    parser.add_argument("--until", type=_positive, metavar="SCHEDULES", help="with --record: how many the file is to have")
    parser.add_argument("--seconds", type=float, help="with --record: stop after so long (default: never)")
    parser.add_argument("--merge", type=Path, action="append", default=[], metavar="OTHER", help="with --record: take over this file first")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return int(text)


def _record(options: argparse.Namespace) -> int:
    """Add to a file of what was run."""
    if options.merge:
        sim_record.merge_files(options.record, options.merge)
        if options.until is None:
            return 0
    with records.held(options.record, sim_record.KIND) as file:
        recorder = sim_record.Recorder(file)
        began = time.monotonic()
        summary = _go_on(options, recorder)
        if summary.schedules:
            recorder.save()
            sys.stdout.write(summary.text(time.monotonic() - began) + "\n")
        sys.stdout.write(f"{options.record}: {recorder.schedules:,} schedules of core {recorder.core}, {len(recorder.violations)} failed\n")
        for violation in recorder.violations:
            sys.stdout.write(f"failed ({violation['rule']}): python -m raft.testing.sim --seed {violation['seed']}\n")
        void = options.require_markers and _void(recorder.counts, recorder.schedules)
        enough = recorder.schedules >= options.until or options.seconds is not None
        return 0 if enough and not void and not recorder.violations else 1


def _go_on(options: argparse.Namespace, recorder: sim_record.Recorder) -> Summary:
    """Run what is missing, for as long as there is time and nobody interrupts."""
    summary, stop = Summary(), threading.Event()
    deadline_s = float("inf") if options.seconds is None else time.monotonic() + options.seconds
    seeds = sim_record.fresh_seeds(sim_record.seeds_of(recorder.parts), options.start)
    ranges = sim_record.chunks(seeds, max(options.until - recorder.schedules, 0), SEEDS_A_TASK)
    in_time = (part for part in ranges if time.monotonic() < deadline_s and not stop.is_set())
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    sys.stdout.write(f"{options.record}: {recorder.schedules:,} schedules of core {recorder.core} are recorded\n")
    sys.stdout.flush()
    try:
        for part, done in run_parts(in_time, jobs=options.jobs):
            recorder.add(part, done)
            summary.merge(done)
            if stop.is_set():
                break
        if stop.is_set():
            sys.stdout.write("stopped\n")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return summary


def _void(counts: Counter[str], schedules: int) -> bool:
    """Name the markers that were reached too seldom. :returns: whether there are any."""
    missed = markers.missed(counts, schedules)
    for name, count, least in missed:
        sys.stdout.write(f"marker reached {count:,} times in {schedules:,} schedules, at least {least:,} wanted: {name}\n")
    return bool(missed)


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
