"""A follower loses its disk while a large cluster takes writes: how does it come back, and what does that cost? ``make bench-wiped``.

Three nodes on loopback get a million keys (of 128 random bytes), proposed in batches through the socket of the leader's agent: the fastest way in.
Then a few writers put new values at a bounded rate, at the two nodes that stay. A follower is killed, its directory removed, and it is started again
as a new incarnation: it asks to be added, receives the state as a snapshot, and takes the place of its former self. Meanwhile the memory of the
agents of leader and follower (/proc/PID/smaps_rollup) and the size of their directories are sampled ten times a second.

Prints the times, the peaks beside what they were before, and what the writers saw. Ends with 1 when an acknowledged write is missing, when the nodes
differ, or when an agent's own memory (anonymous; the page cache of its files is the kernel's) grew by more than ``--growth-mib-max``: a snapshot of
any size must pass through.
"""

import argparse
import itertools
import random
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import requests

from service.client import Client
from service.domain.commands import KvPut, encode
from service.ipc import protocol

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "processes"))

from cluster import Cluster, Node, NotInTime, wait_until

MIB = 1024 * 1024
BATCH = 500
BATCHES_UNDER_WAY = 4
SAMPLE_SECONDS = 0.1
CATCH_UP_SECONDS = 900.0
QUIET_SECONDS = 3.0


class AgentSocket:
    """The socket of a node's agent, for proposals in batches, as a web worker makes them."""

    def __init__(self, node: Node) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(str(node.data_dir / "agent.sock"))
        self._file = self._socket.makefile("rb")
        self._socket.sendall(protocol.frame(protocol.Hello(protocol.VERSION, 1)))

    def close(self) -> None:
        """Let go."""
        self._file.close()
        self._socket.close()

    def propose(self, number: int, commands: list[bytes]) -> None:
        """Send one batch."""
        ids = list(range(number * BATCH + 1, number * BATCH + 1 + len(commands)))
        self._socket.sendall(protocol.frame(protocol.Propose(ids, commands)))

    def await_batch(self) -> None:
        """Wait until one batch was carried out.

        :raises RuntimeError: when it was not.
        """
        while True:
            length = int.from_bytes(self._read(protocol.HEADER_BYTES), "big")
            message = protocol.from_agent.decode(self._read(length))
            if isinstance(message, protocol.Results):
                return
            failure = f"{message.kind}: {message.reason}" if isinstance(message, protocol.Failed) else ""
            if failure:
                raise RuntimeError(f"a batch failed: {failure}")

    def _read(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) < count:
            raise RuntimeError("the agent closed its socket")
        return data


def load_keys(node: Node, count: int, value_bytes: int) -> float:
    """Write the keys ``data/0000000`` and so on.

    :returns: the seconds it took.
    """
    dice, agent, started = random.Random(1), AgentSocket(node), time.monotonic()
    try:
        under_way = 0
        for number, first in enumerate(range(0, count, BATCH)):
            keys = (b"data/%07d" % key for key in range(first, min(first + BATCH, count)))
            agent.propose(number, [encode(KvPut(key, dice.randbytes(value_bytes))) for key in keys])
            under_way += 1
            if under_way == BATCHES_UNDER_WAY:
                agent.await_batch()
                under_way -= 1
            if first % 100_000 == 0 and first:
                print(f"  {first} keys after {time.monotonic() - started:.0f} s", flush=True)
        for _ in range(under_way):
            agent.await_batch()
    finally:
        agent.close()
    return time.monotonic() - started


class Writer(threading.Thread):
    """Puts an ever growing number under keys of its own, at a bounded rate, one attempt at a time.

    :ivar acknowledged: (end of the attempt, number) of each acknowledged write.
    """

    def __init__(self, number: int, urls: list[str], per_second: float) -> None:
        super().__init__(daemon=True)
        self.key = f"writer/{number}"
        self.attempted = 0
        self.acknowledged: list[tuple[float, int]] = []
        self.others: list[str] = []
        self.stopping = threading.Event()
        self._urls = itertools.cycle(urls)
        self._pause_seconds = 1 / per_second

    def run(self) -> None:
        """Write until told to stop."""
        session, due = requests.Session(), time.monotonic()
        while not self.stopping.is_set():
            self.attempted += 1
            try:
                answer = session.put(f"{next(self._urls)}/v1/kv/{self.key}", data=str(self.attempted), timeout=20)
            except requests.RequestException as error:
                self.others.append(f"unknown: {error}")
            else:
                if answer.status_code == 200:
                    self.acknowledged.append((time.monotonic(), self.attempted))
                else:
                    self.others.append(f"{answer.headers.get('X-Kvorum-Outcome')}: {answer.status_code} {answer.text}")
            due += self._pause_seconds
            self.stopping.wait(max(0.0, due - time.monotonic()))


class Memory:
    """One sample of a process, in bytes."""

    NAMES = ("Rss", "Pss", "Anonymous")

    def __init__(self, pid: int) -> None:
        self.values = dict.fromkeys(self.NAMES, 0)
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                name, _, rest = line.partition(":")
                if name in self.values:
                    self.values[name] = int(rest.split()[0]) * 1024


class Watch(threading.Thread):
    """Samples the agent and the directory of a node, and keeps the peaks.

    :ivar before: the first sample.
    """

    def __init__(self, node: Node) -> None:
        super().__init__(daemon=True)
        self.node = node
        self.stopping = threading.Event()
        self.before = dict.fromkeys((*Memory.NAMES, "disk"), 0)
        self.peak = dict(self.before)
        self._pid = 0

    def run(self) -> None:
        """Sample until told to stop."""
        while not self.stopping.wait(SAMPLE_SECONDS):
            self.sample()

    def sample(self) -> dict[str, int]:
        """Take one now."""
        with suppress(StopIteration, OSError):
            if self._pid not in self.node.pids():
                self._pid = self.node.agent_pid()
        found = Memory(self._pid).values | {"disk": sum(sizes(self.node.data_dir))}
        self.peak = {name: max(value, found[name]) for name, value in self.peak.items()}
        return found


def sizes(directory: Path) -> Iterator[int]:
    """What the files below a directory occupy, in bytes."""
    for path in directory.rglob("*"):
        with suppress(OSError):
            yield path.stat().st_blocks * 512


class Clock:
    """Names moments, and prints them as they come."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def mark(self, what: str) -> float:
        """Now."""
        seconds = time.monotonic() - self._started
        print(f"  {seconds:7.1f} s  {what}", flush=True)
        return seconds

    def await_mark(self, condition: Callable[[], object], what: str) -> float:
        """Wait for a moment."""
        wait_until(condition, what, CATCH_UP_SECONDS)
        return self.mark(what)


def come_back(cluster: Cluster, follower: Node, leader: Node) -> None:
    """Kill, wipe and start a follower, and wait until it votes in the place of its former self."""
    old = next(member["id"] for member in leader.members() if member["name"] == follower.name)
    follower.kill()
    follower.wipe()
    clock = Clock()
    follower.start()

    def told() -> dict[str, str]:
        return {member["id"]: member["suffrage"] for member in leader.members() if member["name"] == follower.name}

    clock.await_mark(lambda: any(id_ != old for id_ in told()), "the new incarnation is a learner")
    clock.await_mark(lambda: any((follower.data_dir / "snapshots").glob("*.json")), "its snapshot has arrived whole")
    clock.await_mark(lambda: follower.status()["node"]["generation"] > 1, "the snapshot is installed")
    clock.await_mark(lambda: "voter" in told().values() and old not in told(), "it votes, its former self is out")
    clock.await_mark(follower.ready, "it is ready")
    applied = leader.status()["node"]["applied_index"]
    clock.await_mark(lambda: follower.status()["node"]["applied_index"] >= applied, "it has applied what the leader had then")
    if len(cluster.nodes[0].members()) != len(cluster.nodes):
        raise NotInTime(f"members: {cluster.nodes[0].suffrages()}")


def differences(cluster: Cluster, writers: list[Writer]) -> list[str]:
    """What is wrong afterwards."""
    found = []
    for writer, node in itertools.product(writers, cluster.nodes):
        held = int(node.get(writer.key).text)
        if not writer.acknowledged[-1][1] <= held <= writer.attempted:
            found.append(f"{writer.key} is {held} at {node.name}; {writer.acknowledged[-1][1]} was acknowledged")
    with Client(cluster.nodes[0].url) as client:
        index = client.begin_check()
        checked = wait_until(lambda: (told := client.check(index))["verdict"] != "computing" and told, "the nodes are compared", 120)
    return found if checked["verdict"] == "equal" else [*found, f"the nodes hold different states: {checked}"]


def report(watches: list[Watch], writers: list[Writer]) -> int:
    """Print what was sampled and what the writers saw; the largest growth of anonymous memory, in bytes."""
    names = (*Memory.NAMES, "disk")
    print(f"{'MiB':<20}" + "".join(f"{name + ' before':>18}{'peak':>8}" for name in names))
    for watch in watches:
        cells = "".join(f"{watch.before[name] / MIB:>18.0f}{watch.peak[name] / MIB:>8.0f}" for name in names)
        print(f"{watch.name:<20}{cells}")
    times = sorted(moment for writer in writers for moment, _ in writer.acknowledged)
    gap = max(later - earlier for earlier, later in pairwise(times))
    others = [text for writer in writers for text in writer.others]
    rate = len(times) / (times[-1] - times[0])
    print(f"writers: {len(times)} acknowledged ({rate:.0f}/s), {len(others)} not {others[:3]}; longest gap {gap * 1000:.0f} ms")
    return max(watch.peak["Anonymous"] - watch.before["Anonymous"] for watch in watches)


def measure(cluster: Cluster, options: argparse.Namespace) -> int:
    """The whole run; the exit code."""
    leader, (follower, _other) = cluster.leader(), cluster.followers()
    print(f"loading {options.keys} keys of {options.value_bytes} bytes through the agent of {leader.name}", flush=True)
    seconds = load_keys(leader, options.keys, options.value_bytes)
    print(f"loaded in {seconds:.0f} s, {options.keys / seconds:.0f} keys/s", flush=True)
    leader = cluster.leader()
    if follower is leader:
        follower = cluster.followers()[0]
    urls = [node.url for node in cluster.nodes if node is not follower]
    writers = [Writer(number, urls, options.writes_per_second / options.writers) for number in range(options.writers)]
    watches = [Watch(leader), Watch(follower)]
    for watch, role in zip(watches, ("leader", "follower"), strict=True):
        watch.name = f"{role} ({watch.node.name})"
    for writer in writers:
        writer.start()
    time.sleep(QUIET_SECONDS)  # the memory of before is that under the same writers
    for watch in watches:
        watch.before = watch.sample()
        watch.start()
    try:
        come_back(cluster, follower, leader)
    finally:
        time.sleep(QUIET_SECONDS)
        for thread in (*writers, *watches):
            thread.stopping.set()
            thread.join()
    growth = report(watches, writers)
    wrong = differences(cluster, writers)
    if growth > options.growth_mib_max * MIB:
        wrong.append(f"an agent's own memory grew by {growth / MIB:.0f} MiB; {options.growth_mib_max} are allowed")
    print("\n".join(f"WRONG: {text}" for text in wrong) or "no acknowledged write is missing, the nodes hold the same state")
    return 1 if wrong else 0


def main() -> int:
    """Run it."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--keys", type=int, default=1_000_000)
    arguments.add_argument("--value-bytes", type=int, default=128)
    arguments.add_argument("--writers", type=int, default=4)
    arguments.add_argument("--writes-per-second", type=float, default=200)
    arguments.add_argument("--growth-mib-max", type=float, default=64)
    arguments.add_argument("--directory", type=Path, help="where the nodes' directories are made and kept; by default they are removed at the end")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="kvorum-wiped-") as directory:
        cluster = Cluster(options.directory or Path(directory))
        try:
            cluster.start_all()
            return measure(cluster, options)
        finally:
            cluster.stop_all()


if __name__ == "__main__":
    sys.exit(main())
