"""What the parts of a node cost, each by itself: ``python benchmarks/micro.py``; half a minute.

Every row is called in a loop for some tens of milliseconds, several times over; the table has the median of these runs, in microseconds an operation,
and the fastest and the slowest of them. How often it is called follows from a trial before. Rows that use the disk write beside the working tree, so
that it is the real one; nothing leaves this machine. An operation is what the row's name says: of a batch of 64, one of the 64.

The rates of two hours of a machine that others use can't be compared; what of a row changes against the others beside it can.
"""

import argparse
import gc
import os
import platform
import sqlite3
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))

import micro_raft
import micro_service
from micro_case import Case, Run

RUNS = 7
RUN_SECONDS = 0.06
TRIAL_SECONDS = 0.01
BESIDE = Path(__file__).resolve().parent.parent.parent


class Measured(NamedTuple):
    """What a row costs, in microseconds an operation.

    :ivar calls: in each of the runs.
    """

    median: float
    fastest: float
    slowest: float
    calls: int


def measure(run: Run, operations: int, runs: int, seconds: float) -> Measured:
    """Time a case.

    :param run: makes that many calls.
    :param operations: of a call.
    :param seconds: how long a run takes, about; 0 for one call a run.
    """
    run(1)
    calls = 1
    while (took := min(timed(run, calls), timed(run, calls))) < TRIAL_SECONDS < seconds:
        calls *= 2
    calls = max(1, round(calls * seconds / took))
    costs = [timed(run, calls) / calls / operations * 1e6 for _ in range(runs)]
    return Measured(statistics.median(costs), min(costs), max(costs), calls)


def timed(run: Run, calls: int) -> float:
    """How long that many calls take, in seconds; what others left to be collected is not counted."""
    gc.collect()
    began = time.perf_counter()
    run(calls)
    return time.perf_counter() - began


def machine() -> str:
    """Where it was measured."""
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    return (
        f"{os.cpu_count()} processors, load {load}; Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, Linux {platform.release()}"
    )


def main() -> None:
    """Measure each case, and print its row."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--runs", type=int, default=RUNS, help=f"of each row (default {RUNS})")
    arguments.add_argument("--milliseconds", type=float, default=RUN_SECONDS * 1000, help="how long a run takes, about; 0: one call")
    arguments.add_argument("--only", default="", help="rows whose name contains this")
    arguments.add_argument("--beside", type=Path, default=BESIDE, help="where to write (default: beside the working tree)")
    given = arguments.parse_args()
    cases: list[Case] = [case for case in (*micro_raft.CASES, *micro_service.CASES) if given.only in case.name]
    print(machine())
    print(f"{'':<62}{'us an operation':>16}{'(fastest..slowest)':>24}{'calls a run':>13}")
    for case in cases:
        with TemporaryDirectory(prefix=".kvorum-micro-", dir=given.beside) as directory, case.prepare(Path(directory)) as run:
            found = measure(run, case.operations, given.runs, given.milliseconds / 1000)
        spread = f"({found.fastest:.2f}..{found.slowest:.2f})"
        print(f"{case.name:<62}{found.median:>16.2f}{spread:>24}{found.calls:>13}", flush=True)


if __name__ == "__main__":
    main()
