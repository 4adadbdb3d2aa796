# ruff: noqa: T201  (the output on the terminal is what this program is for)
"""The same random requests to a real Consul and to kvorum: do the answers agree?

    python -m tests.differential --operations 20000 --seed 1 --jobs 2
    python -m tests.differential --seed 1 --sequence 17              one sequence again, shown

Each job has a Consul and a node of kvorum of its own, made anew after every PAIR_OPERATIONS. Prints what was carried out, and ends with 1 when
an answer differed in a way that ``differences.py`` does not name, or when nothing ran.
"""

import argparse
import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from tests.differential.differences import PANIC
from tests.differential.generate import sequence
from tests.differential.run import Counts, Failure, Session, shorten
from tests.differential.servers import CONSUL_VERSION, Pair, consul_version, find_consul

PAIR_OPERATIONS = 20_000
"""After so many both servers are made anew: Consul forgets what was deleted after a quarter of an hour, and answers differently then."""
FAILURES_SHOWN = 10


def describe(seed: int, number: int, failure: Failure, operations: list[str]) -> str:
    """A failure for people."""
    lines = [f"sequence {number}, operation {failure.position}: {failure.operation}", *(f"    {message}" for message in failure.messages)]
    lines += [
        f"  again: python -m tests.differential --seed {seed} --sequence {number}; what is left when it is made short:",
        *(f"    {one}" for one in operations),
    ]
    return "\n".join(lines)


def one_sequence(session: Session, seed: int, number: int) -> str | None:
    """Carry one out, and make it short when an answer differs.

    :returns: the difference, for people.
    """
    made = sequence(seed, number)
    failure = session.run(made)
    if failure is None:
        return None
    counted, session.counts = session.counts, Counts()
    short, last = shorten(made, failure, session.run)
    session.counts = counted
    return describe(seed, number, last, [str(one) for one in short.operations])


def job(consul: str, seed: int, start: int, step: int, operations: int, *, keep_going: bool) -> tuple[Counts, list[str], int]:
    """Every ``step``-th sequence from ``start``, until so many operations are carried out.

    :returns: what was carried out, the failures, and the last sequence.
    """
    total, failures, number = Counts(), [], start
    while total.operations < operations:
        with Pair(consul) as pair:
            session = Session(pair.ports)
            enough = min(operations - total.operations, PAIR_OPERATIONS)
            while session.counts.operations < enough:
                try:
                    found = one_sequence(session, seed, number)
                except OSError:
                    if not pair.consul.panicked():
                        raise
                    session.counts.named[PANIC] += 1
                    found = None
                number += step
                if pair.consul.ended:
                    break
                if found is None:
                    continue
                failures.append(found)
                if not keep_going or len(failures) >= FAILURES_SHOWN:
                    break
            total.add(session.counts)
        if failures and (not keep_going or len(failures) >= FAILURES_SHOWN):
            break
    return total, failures, number - step


def replay(consul: str, seed: int, number: int) -> int:
    """Show one sequence, and whether it agrees."""
    made = sequence(seed, number)
    for position, operation in enumerate(made.operations):
        print(position, operation)
    with Pair(consul) as pair:
        session = Session(pair.ports)
        failure = session.run(made)
        if failure is None:
            print(f"{session.counts.operations} operations, no difference; meant: {dict(session.counts.named)}")
            return 0
        short, last = shorten(made, failure, session.run)
        print(describe(seed, number, last, [str(one) for one in short.operations]))
        return 1


def record(path: Path, run: dict[str, Any]) -> None:
    """Add a run to those that are recorded."""
    runs = json.loads(path.read_text(encoding="utf-8"))["runs"] if path.exists() else []
    path.write_text(json.dumps({"runs": [*runs, run]}, indent=2) + "\n", encoding="utf-8")


def summary(counts: Counts, seed: int, jobs: int, last: int) -> dict[str, Any]:
    """What a run without differences is remembered by: no date, no duration."""
    return {
        "consul": CONSUL_VERSION,
        "seed": seed,
        "jobs": jobs,
        "last_sequence": last,
        "operations": counts.operations,
        "sequences": counts.sequences,
        "kinds": dict(sorted(counts.kinds.items())),
        "statuses": dict(sorted(counts.statuses.items())),
        "meant": dict(sorted(counts.named.items())),
        "differences": 0,
    }


def main(argv: list[str] | None = None) -> int:
    """Run as the arguments say."""
    parser = argparse.ArgumentParser(prog="python -m tests.differential", description="The same random requests to a real Consul and to kvorum.")
    parser.add_argument("--operations", type=int, default=2000, help="requests, each to both (default: 2000)")
    parser.add_argument("--seed", type=int, default=None, help="default: drawn, and printed")
    parser.add_argument("--jobs", type=int, default=1, help="pairs of servers at a time (default: 1)")
    parser.add_argument("--sequence", type=int, help="carry out only this sequence, and show it")
    parser.add_argument("--keep-going", action="store_true", help=f"do not stop at the first difference, but after {FAILURES_SHOWN} a job")
    parser.add_argument("--record", type=Path, help="add what was carried out to this file, if nothing differed")
    arguments = parser.parse_args(argv)
    seed = time.time_ns() % 1_000_000 if arguments.seed is None else arguments.seed
    consul = find_consul()
    if not consul or consul_version(consul) != CONSUL_VERSION:
        print(f"differential: needs Consul {CONSUL_VERSION}: name the program by CONSUL_BIN (found: {consul or 'none'})", file=sys.stderr)
        return 2
    if arguments.sequence is not None:
        return replay(consul, seed, arguments.sequence)
    began = time.monotonic()
    share = -(-arguments.operations // arguments.jobs)
    total, failures, last = Counts(), [], 0
    with ProcessPoolExecutor(arguments.jobs) as pool:
        running = [pool.submit(job, consul, seed, start, arguments.jobs, share, keep_going=arguments.keep_going) for start in range(arguments.jobs)]
        for one in running:
            counts, found, reached = one.result()
            total.add(counts)
            failures += found
            last = max(last, reached)
    seconds = time.monotonic() - began
    for text in failures:
        print(text)
    print(f"seed {seed}: {total.operations} operations in {total.sequences} sequences, {total.operations / seconds:.0f} a second")
    print("  " + ", ".join(f"{name} {number}" for name, number in sorted(total.kinds.items())))
    print("  statuses " + ", ".join(f"{name}: {number}" for name, number in sorted(total.statuses.items())))
    print("  differences that are meant: " + (", ".join(f"{name} {number}" for name, number in sorted(total.named.items())) or "none came up"))
    print(f"  other differences: {len(failures)}")
    if total.operations and not failures and arguments.record:
        record(arguments.record, summary(total, seed, arguments.jobs, last))
    return 1 if failures or not total.operations else 0


if __name__ == "__main__":
    raise SystemExit(main())
