"""Watchers while leaders are killed and nodes restarted: ``python -m tests.processes.watch_faults --watchers 200 --kills 20``.

They follow keys, prefixes and keys that do not exist, by blocking queries that only a change ends, while writers write and delete. After each
disturbance the writers hold still, every target is changed once more, and every watcher must see that. At the end all answers are judged by the log
(``watch_log``). Prints what was done; the exit status is 1 after a violation.
"""

# ruff: noqa: T201  (the output on the terminal is what this program is for)

import argparse
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from cluster import Cluster, NotInTime, wait_until
from disturbances import WHOLE_LOG, disturb, ports, told
from links import Connection
from lock_log import read_log
from watch_clients import Journal, Watcher, Writer
from watch_log import Verdict, judge

SINGLE, PREFIXES, MISSING, BELOW = 30, 8, 10, 4
KEYS = [f"single/{number}" for number in range(SINGLE)] + [f"tree/{number}/{leaf}" for number in range(PREFIXES) for leaf in range(BELOW)]
ABSENT = [f"missing/{number}" for number in range(MISSING)]
TARGETS = [f"single/{number}" for number in range(SINGLE)] + [f"tree/{number}/" for number in range(PREFIXES)] + ABSENT
WRITERS = 4
SEEN_SECONDS = 30.0


class Watching:
    """Watchers, writers and the cluster that they use."""

    def __init__(self, cluster: Cluster, count: int, seed: int) -> None:
        self.cluster = cluster
        self.journal = Journal()
        self.writing = threading.Event()
        self.watchers = [Watcher(number, ports(cluster), TARGETS[number % len(TARGETS)]) for number in range(count)]
        self.writers = [Writer(number, ports(cluster), self.journal, keys=KEYS, seed=seed, running=self.writing) for number in range(WRITERS)]
        self.lost: list[str] = []
        self.checked = 0

    def start(self) -> None:
        """Begin."""
        self.writing.set()
        for thread in (*self.watchers, *self.writers):
            thread.start()

    def checkpoint(self) -> None:
        """Let the writers hold still, change every target once more, and wait until each watcher has seen that change."""
        self.writing.clear()
        for writer in self.writers:
            assert writer.resting.wait(60), "a writer hangs"
        link = Connection(ports(self.cluster), 0)
        for target in TARGETS:
            key = f"{target}0" if target.endswith("/") else target
            wait_until(lambda key=key: self.journal.put(link, key) == "true", f"{key} is written")  # type: ignore[misc]  # mypy can't infer it
        newest = {}
        for target in TARGETS:
            listing = "recurse&" if target.endswith("/") else ""
            path = f"/v1/kv/{target}?{listing}consistent"
            newest[target] = wait_until(lambda path=path: link.ask("GET", path).index, f"{target} is read")  # type: ignore[misc]  # likewise
        self._wait_seen("its last change", lambda one: one.index >= newest[one.watched.target])
        for target in ABSENT:
            wait_until(lambda target=target: self.journal.delete(link, target) == "true", f"{target} is deleted")  # type: ignore[misc]  # likewise
        link.close()
        # They have all seen their key just now, so this is no answer of long ago.
        self._wait_seen("its deletion", lambda one: one.watched.target not in ABSENT or not one.watched.answers[-1].rows)
        self.writing.set()

    def _wait_seen(self, what: str, seen: Callable[[Watcher], bool]) -> None:
        def behind() -> list[Watcher]:
            return [one for one in self.watchers if not seen(one)]

        self.checked += len(self.watchers)
        try:
            wait_until(lambda: not behind(), f"every watcher has seen {what}", SEEN_SECONDS)
        except NotInTime:
            self.lost += [f"{one.name} of {one.watched.target} stays at {one.index}: it has not seen {what}" for one in behind()]

    def stop(self) -> None:
        """End the writers; the watchers end with the nodes."""
        for thread in (*self.watchers, *self.writers):
            thread.stopping.set()
        self.writing.set()
        for writer in self.writers:
            writer.join(60)


def run(directory: Path, *, count: int, kills: int, seed: int) -> tuple[Verdict, list[str]]:
    """Run watchers, writers and disturbances on three new nodes, and judge.

    :returns: the verdict, and lines that tell what was done.
    """
    cluster, dice = Cluster(directory, settings=WHOLE_LOG), random.Random(seed)
    watching = Watching(cluster, count, seed)
    began = time.monotonic()
    try:
        cluster.start_all()
        watching.start()
        for number in range(1, kills + 1):
            time.sleep(dice.uniform(0.5, 1.5))
            disturb(cluster, number, dice)
            watching.checkpoint()
        watching.stop()
    finally:
        cluster.stop_all()
    for watcher in watching.watchers:
        watcher.join(60)
    verdict = judge(read_log(cluster.nodes[0].data_dir), watching.journal.writes, (watcher.watched for watcher in watching.watchers))
    verdict.violations += watching.lost
    outcomes = ", ".join(f"{name} {number}" for name, number in sorted(watching.journal.told().items()))
    return verdict, [
        f"seed {seed}: {count} watchers of {len(TARGETS)} targets for {time.monotonic() - began:.0f} s; {told(cluster, kills)}",
        f"writes attempted: {outcomes}; answers: {verdict.counts['answers']}; queries cut off: {sum(one.interrupted for one in watching.watchers)}",
        f"{watching.checked} times a watcher had to see a change; from {len(verdict.delays)} acknowledgements to answers: {_figures(verdict.delays)}",
        f"violations: {len(verdict.violations)}",
    ]


def _figures(delays: Sequence[float]) -> str:
    if not delays:
        return "none"
    return f"median {statistics.median(delays) * 1000:.1f} ms, longest {max(delays):.3f} s"


def main(arguments: list[str] | None = None) -> int:
    """Run once.

    :returns: the exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.processes.watch_faults", description="Watchers while leaders are killed.")
    parser.add_argument("--watchers", type=int, default=200)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args(arguments)
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="kvorum-watches-") as directory:
        verdict, lines = run(Path(directory), count=options.watchers, kills=options.kills, seed=options.seed)
    print("\n".join([*lines, *verdict.violations]))
    return 1 if verdict.violations else 0


if __name__ == "__main__":
    sys.exit(main())
