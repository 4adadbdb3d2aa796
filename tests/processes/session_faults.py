"""Sessions and locks while leaders change: ``python -m tests.processes.session_faults --sessions 200 --kills 20 --transfers 80``.

Clients hold sessions of several TTLs, behaviours and lock-delays; most renew, some leave with a lock in their hands. At the end the whole log is
read and judged (``lock_log``), and every node's state is held against what the log says.
Prints what was done; the exit status is 1 after a violation.
"""

# ruff: noqa: T201  (the output on the terminal is what this program is for)

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import requests

sys.path.insert(0, str(Path(__file__).parent))

from cluster import Cluster, Node, wait_until
from disturbances import WHOLE_LOG, disturb, hand_over, ports, told
from lock_log import Model, Row, judge, read_log
from session_clients import PREFIX, Client, Plan

PLANS = [
    Plan(ttl, delay, behavior, leaves)
    for leaves in (False, False, True)
    for behavior in ("release", "delete")
    for ttl, delay in ((10, 0), (12, 1), (15, 3))
]


def locks(node: Node) -> dict[str, Row]:
    """The locks as a node has them now."""
    answer = requests.get(f"{node.url}/v1/kv/{PREFIX}?recurse&consistent", timeout=20)
    rows = answer.json() if answer.status_code == 200 else []
    return {row["Key"]: Row(row.get("Session", ""), row["LockIndex"], row["ModifyIndex"]) for row in rows}


def sessions(node: Node) -> set[str]:
    """The sessions as a node has them now."""
    answer = requests.get(f"{node.url}/v1/session/list?consistent", timeout=20)
    answer.raise_for_status()
    return {session["ID"] for session in answer.json()}


def wait_for_the_end(cluster: Cluster, plans: Sequence[Plan]) -> None:
    """All clients are silent: every session must end within twice its TTL and what a failover may add."""
    seconds = 2.0 * max(plan.ttl_seconds for plan in plans) + 20

    def over() -> bool:
        with suppress(ValueError):
            return not sessions(cluster.nodes[0])
        return False

    wait_until(over, "all sessions end", seconds)


def differences(model: Model, states: Mapping[str, tuple[set[str], dict[str, Row]]]) -> list[str]:
    """Where the state of a node is not what the log says, and locks whose session is dead."""
    found = []
    for name, (alive, held) in states.items():
        if alive != model.alive():
            found.append(f"{name} has other sessions than the log: {sorted(alive ^ model.alive())}")
        found += [
            f"{name} has {key} as {held.get(key)}, the log as {model.rows.get(key)}"
            for key in sorted(held.keys() | model.rows.keys())
            if held.get(key) != model.rows.get(key)
        ]
        found += [f"{name}: {key} is held by the dead session {row.session}" for key, row in held.items() if row.session and row.session not in alive]
    return found


class Changes:
    """The changes of leaders, one after the other.

    :param kills: how many leaders are killed or paused (:func:`disturbances.disturb`); ``transfers`` how many hand over, between these.
    :ivar moments: when a leader was killed or paused, in seconds of the wall clock.
    :ivar handed_over: how many transfers succeeded.
    """

    def __init__(self, cluster: Cluster, dice: random.Random, kills: int, transfers: int) -> None:
        self.moments: list[float] = []
        self.handed_over = 0
        self._cluster, self._dice = cluster, dice
        self._kills, self._transfers = kills, transfers

    def make(self, settled_seconds: float) -> None:
        """Make them all, with a pause before each."""
        total = self._kills + self._transfers
        for number in range(1, total + 1):
            time.sleep(self._dice.uniform(0.5, 1.5) * settled_seconds)
            kills = number * self._kills // total
            if kills > len(self.moments):
                self.moments.append(disturb(self._cluster, kills, self._dice))
            else:
                self.handed_over += hand_over(self._cluster, self._dice)

    def __str__(self) -> str:
        """What was done, in words."""
        return told(self._cluster, self._kills) + (f", {self.handed_over} of {self._transfers} transfers of leadership" if self._transfers else "")


def run(
    directory: Path, *, count: int, kills: int, seed: int, pause_seconds: float, settled_seconds: float, transfers: int = 0
) -> tuple[Model, list[str]]:
    """Run the clients and the disturbances on three new nodes, and judge.

    :returns: the model with its verdict, and lines that tell what was done.
    """
    cluster, dice = Cluster(directory, settings=WHOLE_LOG), random.Random(seed)
    try:
        cluster.start_all()
        keys = [f"{PREFIX}{number}" for number in range(max(3, count // 5))]
        clients = [
            Client(number, ports(cluster), PLANS[number % len(PLANS)], keys=keys, seed=seed, pause_seconds=pause_seconds) for number in range(count)
        ]
        began = time.monotonic()
        for client in clients:
            client.start()
        terms = [cluster.leader().status()["node"]["term"]]
        changes = Changes(cluster, dice, kills, transfers)
        changes.make(settled_seconds)
        terms.append(cluster.leader().status()["node"]["term"])
        for client in clients:
            client.stopping.set()
        for client in clients:
            client.join(60)
        assert not any(client.is_alive() for client in clients), "a client hangs"
        wait_for_the_end(cluster, PLANS)
        states = {node.name: (sessions(node), locks(node)) for node in cluster.nodes}
    finally:
        cluster.stop_all()
    attempts = [attempt for client in clients for attempt in client.attempts]
    log = list(read_log(cluster.nodes[0].data_dir))
    model = judge(log, attempts, (seen for client in clients for seen in client.seen), changes.moments)
    model.verdict.violations += differences(model, states)
    answers: Counter[str] = sum((client.told for client in clients), Counter())
    verdict = model.verdict
    return model, [
        f"seed {seed}: {count} clients for {time.monotonic() - began:.0f} s, {len(keys)} locks; {changes}, term {terms[0]} to {terms[1]}",
        f"clients were told: {', '.join(f'{name} {number}' for name, number in sorted(answers.items()))}",
        f"log: {len(log)} commands; {', '.join(f'{name} {number}' for name, number in sorted(verdict.counts.items()))}",
        f"ended by time: shortest life {verdict.shortest:.3f} TTL from its renewal, longest {verdict.longest_ms / 1000:.3f} s beyond twice the TTL",
        f"violations: {len(verdict.violations)}",
    ]


def main(arguments: list[str] | None = None) -> int:
    """Run once.

    :returns: the exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.processes.session_faults", description="Sessions and locks while leaders are killed.")
    parser.add_argument("--sessions", type=int, default=200)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--transfers", type=int, default=0, help="how often leadership is handed over, between the kills")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--pause-seconds", type=float, default=2.0, help="of a client between two locks, on average")
    parser.add_argument("--settled-seconds", type=float, default=2.0, help="between two disturbances, on average")
    options = parser.parse_args(arguments)
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="kvorum-sessions-") as directory:
        model, lines = run(
            Path(directory),
            count=options.sessions,
            kills=options.kills,
            transfers=options.transfers,
            seed=options.seed,
            pause_seconds=options.pause_seconds,
            settled_seconds=options.settled_seconds,
        )
    print("\n".join([*lines, *model.verdict.violations]))
    return 1 if model.verdict.violations else 0


if __name__ == "__main__":
    sys.exit(main())
