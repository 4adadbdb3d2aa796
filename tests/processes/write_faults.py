"""Writes under faults: ``python -m tests.processes.write_faults --kills 40``. What was called failed never shows, what was acknowledged does.

Writers ask for all kinds of writes, possible and impossible, through all nodes, while leaders are killed and paused, quorums lost, agents and workers
killed, disks filled. At the end all logs and states are read and judged (``write_log``).
Prints what was done; the exit status is 1 after a violation.
"""

# ruff: noqa: T201  (the output on the terminal is what this program is for)

import argparse
import itertools
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cluster import Cluster, Node, wait_until
from disturbances import WHOLE_LOG, kill, pause, ports, restart
from links import Connection
from lock_log import read_log
from small_disk import fill, small_disk
from write_clients import PREFIX, Reader, Writer, rows
from write_log import DONE, REJECTED, UNKNOWN, UNMET, Row, Verdict, judge

WRITERS, READERS = 9, 3
SETTINGS = {**WHOLE_LOG, "KVORUM_RAFT_PROPOSAL_TIMEOUT_MS": "2000"}
"""Nobody waits for long for a leader, so that a lost quorum soon means that writes are turned away."""
DISK_MEBIBYTES = 256
PATIENCE_SECONDS = 60.0


class NotPossible(Exception):
    """A fault that can't be done on this machine."""


class Field:
    """A cluster with its clients.

    :ivar prober: a writer that does not run by itself.
    :ivar done: the faults so far, counted by name.
    """

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.cluster, self.dice = cluster, random.Random(seed)
        self.writers = [Writer(number, ports(cluster), seed) for number in range(WRITERS)]
        self.prober = Writer(WRITERS, ports(cluster), seed)
        self.readers = [Reader(number, ports(cluster), seed) for number in range(READERS)]
        self.done: Counter[str] = Counter()

    def ask_leader_alone(self, leader: Node) -> None:
        """Let the leader, whose followers are silent, take a write: it is in its log and nobody can say more. The next one it takes no more."""
        node = self.cluster.nodes.index(leader)
        for _ in range(2):
            told = self.prober.put(node)
            assert told != DONE, "a leader alone has acknowledged a write"

    def disturb(self, name: str) -> None:
        """Do one of :data:`FAULTS`. All nodes are ready afterwards."""
        try:
            FAULTS[name](self)
        except NotPossible:
            name = f"{name} (not possible here)"
        self.cluster.wait_ready()
        self.done[name] += 1

    def start(self) -> None:
        """Let the clients begin."""
        for client in (*self.writers, *self.readers):
            client.start()

    def stop(self) -> None:
        """Let the clients end."""
        clients: tuple[Writer | Reader, ...] = (*self.writers, *self.readers)
        for client in clients:
            client.stopping.set()
        for client in clients:
            client.join(60)
        assert not any(client.is_alive() for client in clients), "a client hangs"


def _kill_leader(field: Field) -> None:
    kill(field.cluster.leader(), field.dice)


def _pause_leader(field: Field) -> None:
    pause(field.cluster.leader())


def _kill_agent(field: Field) -> None:
    """The agent of the leader goes without a word; its workers and its supervisor live a moment longer."""
    leader = field.cluster.leader()
    os.kill(leader.agent_pid(), signal.SIGKILL)
    leader.wait()
    leader.start()


def _kill_worker(field: Field) -> None:
    """The worker of the leader goes with the requests that it has."""
    node = field.cluster.leader()
    [pid] = node.worker_pids()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: node.worker_pids() not in ([], [pid]), "another worker works", PATIENCE_SECONDS)


def _pause_quorum(field: Field) -> None:
    """Both followers stand still. What the leader takes until it notices is in its log alone, and nobody is told what became of it; what comes later
    is turned away. Then one follower goes on, which has no more than the leader: so what the leader had is committed.
    """
    leader, followers = _sides(field)
    pids = [node.agent_pid() for node in followers]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        field.ask_leader_alone(leader)
    finally:
        for node, pid in zip(followers, pids, strict=True):
            os.kill(pid, signal.SIGCONT)
            _await_ready(node)


def _kill_quorum(field: Field) -> None:
    """The same, with followers that are killed and started again."""
    leader, followers = _sides(field)
    for node in followers:
        node.kill()
    field.ask_leader_alone(leader)
    for node in followers:
        node.start()
        _await_ready(node)


def _sides(field: Field) -> tuple[Node, list[Node]]:
    """The leader, and its followers in any order."""
    leader = field.cluster.leader()
    followers = [node for node in field.cluster.nodes if node is not leader]
    field.dice.shuffle(followers)
    return leader, followers


def _await_ready(node: Node) -> None:
    wait_until(node.ready, f"{node.name} is ready; its log ends with: {node.log()[-2000:]}", PATIENCE_SECONDS)


def _hand_over(field: Field) -> None:
    leader, target = field.cluster.leader(), field.dice.choice(field.cluster.followers())
    link = Connection([int(leader.url.rpartition(":")[2])], 0)
    link.ask("POST", f"/v1/cluster/transfer?to={target.name}")
    link.close()


def _restart_leader(field: Field) -> None:
    restart(field.cluster, field.cluster.leader())


def _fill_disk(field: Field) -> None:
    """The leader's disk is full for a while."""
    leader = field.cluster.leader()
    disk = leader.data_dir.parent
    if not disk.is_mount():
        raise NotPossible
    ballast = fill(disk)
    wait_until(lambda: "disk full" in leader.unready(), f"{leader.name} says that its disk is full", PATIENCE_SECONDS)
    ballast.unlink()


FAULTS: dict[str, Callable[[Field], None]] = {
    "leader killed": _kill_leader,
    "leader paused": _pause_leader,
    "quorum paused": _pause_quorum,
    "agent killed": _kill_agent,
    "worker killed": _kill_worker,
    "leadership handed over": _hand_over,
    "disk full": _fill_disk,
    "quorum killed": _kill_quorum,
    "leader restarted": _restart_leader,
}


@contextmanager
def three_nodes(directory: Path, *, disks: bool) -> Iterator[Cluster]:
    """Three nodes that run.

    :param disks: whether each gets a small disk of its own, where that is permitted.
    """
    cluster = Cluster(directory, settings=SETTINGS)
    with ExitStack() as stack:
        try:
            for node in cluster.nodes if disks else ():
                node.data_dir = stack.enter_context(small_disk(directory / "disks" / node.name, DISK_MEBIBYTES)) / "data"
                node.environ |= {"KVORUM_DATA_DIR": str(node.data_dir), "KVORUM_SOCKET_PATH": str(directory / f"{node.name}.sock")}
        except pytest.skip.Exception as refused:
            print(refused)
        stack.callback(cluster.stop_all)
        cluster.start_all()
        yield cluster


def state(node: Node) -> list[Row]:
    """All keys as a node has them, asked of nobody else."""
    link = Connection([int(node.url.rpartition(":")[2])], 0)
    try:
        reply = link.ask("GET", f"/v1/kv/{PREFIX}?recurse&stale")
    finally:
        link.close()
    assert reply.status in {200, 404}, reply
    return rows(reply)


def settle(cluster: Cluster) -> int:
    """Wait until every node has applied one more write.

    :returns: an index up to which all have.
    """

    def written() -> int:
        answer = cluster.nodes[0].put(f"{PREFIX}settled", b"1")
        return int(answer.headers.get("X-Kvorum-Index", "0")) if answer.text == "true" else 0

    index = int(wait_until(written, "a last write", PATIENCE_SECONDS))
    for node in cluster.nodes:
        wait_until(lambda node=node: node.status()["node"]["applied_index"] >= index, f"{node.name} has applied it", PATIENCE_SECONDS)  # type: ignore[misc]  # the loop's
    return index


def run(directory: Path, *, faults: Sequence[str], seed: int, settled_seconds: float, disks: bool = False) -> tuple[Verdict, list[str]]:
    """Run the clients and the faults, one after the other, on three new nodes, and judge.

    :returns: the verdict, and lines that tell what was done.
    """
    began = time.monotonic()
    with three_nodes(directory, disks=disks) as cluster:
        field = Field(cluster, seed)
        field.start()
        try:
            for name in faults:
                time.sleep(field.dice.uniform(0.5, 1.5) * settled_seconds)
                field.disturb(name)
        finally:
            field.stop()
        until = settle(cluster)
        states = {node.name: state(node) for node in cluster.nodes}
        cluster.stop_all()
        logs = {node.name: list(read_log(node.data_dir)) for node in cluster.nodes}
    attempts = [attempt for writer in (*field.writers, field.prober) for attempt in writer.attempts]
    verdict = judge(logs, until, attempts, itertools.chain(*(reader.seen for reader in field.readers)), states)
    counts = verdict.counts
    outcomes = ", ".join(f"{counts[name]} {name}" for name in (DONE, UNMET, REJECTED, UNKNOWN))
    looked_at = f"{counts['rows read']} rows read, {counts['entries']} entries and {len(states)} states"
    return verdict, [
        f"seed {seed}: {WRITERS} writers and {READERS} readers for {time.monotonic() - began:.0f} s; {_told(field.done)}",
        f"{len(attempts)} attempts: {outcomes}; {_told(_unknown(counts))}",
        f"{counts['values of failed writes']} values of failed writes in none of {looked_at}",
        f"violations: {len(verdict.violations)}",
    ]


def _unknown(counts: Counter[str]) -> Counter[str]:
    return Counter({name: number for name, number in counts.items() if name.startswith("unknown, ")})


def _told(counts: Counter[str]) -> str:
    return ", ".join(f"{name}: {number}" for name, number in sorted(counts.items()))


def main(arguments: list[str] | None = None) -> int:
    """Run once.

    :returns: the exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.processes.write_faults", description="Writes while leaders are killed, and much else.")
    parser.add_argument("--kills", type=int, default=40, metavar="N", help="faults, each kind in its turn")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--settled-seconds", type=float, default=1.0, help="between two faults, on average")
    options = parser.parse_args(arguments)
    print(f"seed {options.seed}", flush=True)
    faults = list(itertools.islice(itertools.cycle(FAULTS), options.kills))
    with tempfile.TemporaryDirectory(prefix="kvorum-writes-") as directory:
        verdict, lines = run(Path(directory), faults=faults, seed=options.seed, settled_seconds=options.settled_seconds, disks=True)
    print("\n".join([*lines, *verdict.violations]))
    return 1 if verdict.violations else 0


if __name__ == "__main__":
    sys.exit(main())
