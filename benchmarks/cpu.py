"""What does a request cost each process? ``make bench-cpu``.

Three nodes on loopback, filled with keys; then some seconds of each workload from as many connections, at the leader or at a follower. From
``/proc/PID/stat`` and the threads' ``status`` before and after: microseconds of processor time a request, in the program and in the kernel, and how
often a thread went to sleep or was made to give way. The rows of a follower are those of one of them, the mean.

A table a workload. The table tells where to dig; two tables are compared by their microseconds, not by their rates.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks import hammer, workload
from benchmarks.processes import Spent, end_on_sigterm, table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "processes"))

from cluster import Cluster, Node

WORKLOADS = ("put", "get", "consistent", "txn")
CONNECTIONS = {"txn": 16}
WARM_SECONDS = 1.0
SHOWN_MICROSECONDS = 0.1
"""What costs less a request is left out: the supervisor does nothing while requests are answered."""


def requests(name: str, options: argparse.Namespace, seed: int) -> Iterator[bytes]:
    """The requests of a workload."""
    if name == "put":
        return workload.puts(options.keys, options.value_bytes, seed)
    if name == "txn":
        return workload.random_transactions(options.keys, options.value_bytes, seed)
    return workload.gets(options.keys, seed, "?consistent" if name == "consistent" else "")


def measure(cluster: Cluster, name: str, options: argparse.Namespace, seed: int) -> None:
    """Run one workload, and print its table."""
    leader = cluster.leader()
    asked: Node = leader if options.at == "leader" or len(cluster.nodes) == 1 else cluster.followers()[0]
    connections = options.connections or CONNECTIONS.get(name, 64)
    spent = Spent(cluster, asked)
    seen = hammer.run([asked.url], requests(name, options, seed), connections, seconds=options.seconds, warm_seconds=WARM_SECONDS, watch=spent)
    if cluster.leader() is not leader:
        raise SystemExit(f"cpu: the leader changed during {name}, the figures say nothing")
    print(f"\n{name}, {connections} connections, at the {options.at}: ", end="")
    print(f"{seen.rate:.0f}/s, p50 {seen.percentile_ms(50):.2f} ms, p99 {seen.percentile_ms(99):.2f} ms\n")
    shown = [(process, used) for process, used in spent.each(seen.answers).items() if used.cpu >= SHOWN_MICROSECONDS]
    rows = [
        [process, *(f"{value:.1f}" for value in (used.user, used.system, used.cpu)), f"{used.switches:.2f}", f"{used.preempted:.2f}"]
        for process, used in sorted(shown, key=lambda row: row[1].cpu)
    ]
    print(table(["µs a request", "user", "system", "both", "switches", "preempted"], rows), flush=True)


def main() -> int:
    """Run it."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--workload", choices=WORKLOADS, action="append", help="may be given several times; by default all of them, in turn")
    arguments.add_argument("--at", choices=("leader", "follower"), default="leader")
    arguments.add_argument("--connections", type=int, default=0, help="by default 64, and 16 for txn")
    arguments.add_argument("--seconds", type=float, default=5.0)
    arguments.add_argument("--nodes", type=int, default=3)
    arguments.add_argument("--keys", type=int, default=10_000)
    arguments.add_argument("--value-bytes", type=int, default=128)
    options = arguments.parse_args()
    end_on_sigterm()
    with tempfile.TemporaryDirectory(prefix="kvorum-cpu-") as directory:
        cluster = Cluster(Path(directory), options.nodes)
        try:
            print(
                f"starting {options.nodes} nodes, {options.keys} keys of {options.value_bytes} bytes; load average {os.getloadavg()[0]:.1f}",
                flush=True,
            )
            cluster.start_all()
            workload.fill(cluster.leader().url, options.keys, options.value_bytes)
            for seed, name in enumerate(options.workload or WORKLOADS, 1):
                measure(cluster, name, options, seed)
        except hammer.LoadFailed as failed:
            raise SystemExit(f"cpu: {failed}") from failed
        finally:
            cluster.stop_all()
    return 0


if __name__ == "__main__":
    sys.exit(main())
