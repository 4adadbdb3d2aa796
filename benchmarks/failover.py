"""How long does a cluster take no writes when its leader is killed? ``make bench-failover``.

Starts three nodes on loopback and a few writers that put a new value every time, round the nodes. Again and again the processes of the leader
are killed (SIGKILL, all of them), the time from there to the next acknowledged write is taken, and the node is started again. Writers note every
attempt; at the end each acknowledged value, or a later one of the same writer, must be there.

Prints one line a kill and a summary: median, worst, attempts by outcome.
"""

import argparse
import itertools
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import requests

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "processes"))

from cluster import PATIENCE_SECONDS, Cluster

ANSWER_SECONDS = 10.0


class Writer(threading.Thread):
    """Puts an ever growing number under a key of its own; one attempt at a time, at one node until it fails, then at the next."""

    def __init__(self, number: int, urls: list[str]) -> None:
        super().__init__(daemon=True)
        self.key = f"bench/writer-{number}"
        self.attempted = self.acknowledged = 0
        self.outcomes = {"acknowledged": 0, "rejected": 0, "unknown": 0}
        self.last = (0.0, 0.0)  # when the last acknowledged attempt began and ended
        self.stopping = threading.Event()
        self._urls = itertools.cycle(urls[number % len(urls) :] + urls[: number % len(urls)])

    def run(self) -> None:
        """Write until told to stop."""
        session, url = requests.Session(), next(self._urls)
        while not self.stopping.is_set():
            self.attempted += 1
            began = time.monotonic()
            outcome = self._put(session, url)
            self.outcomes[outcome] += 1
            if outcome == "acknowledged":
                self.acknowledged, self.last = self.attempted, (began, time.monotonic())
            else:
                url = next(self._urls)
                self.stopping.wait(0.01)  # a dead node refuses at once; this is a client's pause, not a hot loop

    def _put(self, session: requests.Session, url: str) -> str:
        try:
            answer = session.put(f"{url}/v1/kv/{self.key}", data=str(self.attempted), timeout=ANSWER_SECONDS)
        except requests.ConnectionError as error:
            return "rejected" if "refused" in str(error) else "unknown"
        except requests.RequestException:
            return "unknown"
        if answer.status_code == 200:
            return "acknowledged"
        return answer.headers.get("X-Kvorum-Outcome", "unknown")


def measure(cluster: Cluster, writers: list[Writer], kills: int) -> list[float]:
    """Kill the leader again and again.

    :returns: seconds to the next acknowledged write, one a kill.
    """
    gaps: list[float] = []
    while len(gaps) < kills:
        number, leader = len(gaps) + 1, cluster.leader()
        before = leader.status()["node"]
        if before["role"] != "leader":
            continue  # nodes that start take the processors, and may have cost it the leadership meanwhile
        killed = time.monotonic()
        leader.kill()
        dead = time.monotonic()  # to find and kill all of its processes takes a few milliseconds, in which it still writes
        deadline = dead + PATIENCE_SECONDS
        while (first := _first_after(dead, writers)) == 0.0:
            if time.monotonic() > deadline:
                raise SystemExit(f"failover: no write was acknowledged within {PATIENCE_SECONDS:g} s of kill {number}")
            time.sleep(0.002)
        gaps.append(first - killed)
        terms = f"term {before['term']} to {max(node.status()['node']['term'] for node in cluster.nodes if node is not leader)}"
        print(f"kill {number:3}: {leader.name}, next acknowledged write after {gaps[-1] * 1000:6.0f} ms, {terms}", flush=True)
        leader.start()
        cluster.wait_ready()
    return gaps


def _first_after(dead: float, writers: list[Writer]) -> float:
    """When the first attempt that began after the leader's end was acknowledged; an older one may owe its answer to the dead leader."""
    return min((ended for began, ended in (writer.last for writer in writers) if began > dead), default=0.0)


def check(cluster: Cluster, writers: list[Writer]) -> int:
    """How many writers have lost an acknowledged value."""
    lost = 0
    for writer in writers:
        for node in cluster.nodes:
            found = int(node.get(writer.key).text)
            if not writer.acknowledged <= found <= writer.attempted:
                print(f"LOST: {writer.key} is {found} at {node.name}; {writer.acknowledged} was acknowledged")
                lost += 1
    return lost


def main() -> int:
    """Run it; the exit code is 1 when anything acknowledged was lost."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--kills", type=int, default=20)
    arguments.add_argument("--writers", type=int, default=8)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="kvorum-failover-") as directory:
        cluster = Cluster(Path(directory))
        try:
            cluster.start_all()
            writers = [Writer(number, [node.url for node in cluster.nodes]) for number in range(options.writers)]
            for writer in writers:
                writer.start()
            gaps = measure(cluster, writers, options.kills)
            for writer in writers:
                writer.stopping.set()
            for writer in writers:
                writer.join()
            lost = check(cluster, writers)
        finally:
            cluster.stop_all()
    outcomes = {name: sum(writer.outcomes[name] for writer in writers) for name in ("acknowledged", "rejected", "unknown")}
    print(f"{len(gaps)} kills: median {statistics.median(gaps) * 1000:.0f} ms, worst {max(gaps) * 1000:.0f} ms; {outcomes}; {lost} lost")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
