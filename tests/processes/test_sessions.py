"""Locks and sessions on real processes, while the leader is killed."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from cluster import Cluster, Node, wait_until

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]

KEY = "lock"
TTL_SECONDS = 10.0


def create(node: Node, **fields: str) -> str:
    """Begin a session, and wait until some leader takes it."""
    answer = wait_until(lambda: (found := requests.put(f"{node.url}/v1/session/create", json=fields, timeout=15)).ok and found, "a session begins")
    found: str = answer.json()["ID"]
    return found


class Contender:
    """Takes the lock again and again through one node.

    :ivar rounds: how often it had the lock.
    :ivar crowd: of all contenders: who has the lock now.
    """

    def __init__(self, node: Node, crowd: set[str], overlaps: list[set[str]], guard: threading.Lock) -> None:
        self.node = node
        self.session = create(node, LockDelay="0s")
        self.crowd, self.overlaps, self.guard = crowd, overlaps, guard
        self.rounds = 0

    def run(self, stopping: threading.Event) -> None:
        """Contend until told to stop."""
        while not stopping.is_set():
            try:
                if not self._take():
                    continue
                with self.guard:
                    self.crowd.add(self.session)
                    if len(self.crowd) > 1:
                        self.overlaps.append(set(self.crowd))
                self.rounds += 1
                self.node.get(KEY, "stale", 5)
                with self.guard:
                    self.crowd.discard(self.session)
                self.node.put(KEY, b"", f"release={self.session}", 5)
            except requests.RequestException:
                with self.guard:
                    self.crowd.discard(self.session)
                stopping.wait(0.05)

    def _take(self) -> bool:
        """Try once; where nobody knows what became of it, ask who holds the lock."""
        answer = self.node.put(KEY, self.session.encode(), f"acquire={self.session}", 5)
        if answer.status_code == 200:
            return answer.text == "true"
        held = self.node.get(KEY, "consistent", 5)
        return held.status_code == 200 and held.json()[0].get("Session") == self.session


def test_one_holder_at_a_time_through_a_failover(cluster: Cluster) -> None:
    """Contenders at the two other nodes never hold a lock at once, before, while and after the leader is killed, and all get their turn."""
    leader, followers = cluster.leader(), cluster.followers()
    crowd: set[str] = set()
    overlaps: list[set[str]] = []
    guard, stopping = threading.Lock(), threading.Event()
    contenders = [Contender(followers[number % 2], crowd, overlaps, guard) for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(contender.run, stopping) for contender in contenders]
        try:
            wait_until(lambda: all(contender.rounds > 3 for contender in contenders), "everybody had the lock")
            leader.kill()
            before = [contender.rounds for contender in contenders]
            wait_until(
                lambda: all(contender.rounds > rounds + 3 for contender, rounds in zip(contenders, before, strict=True)), "everybody had it again"
            )
        finally:
            stopping.set()
    for one in running:
        one.result()
    assert overlaps == []


@pytest.mark.slow
def test_a_failover_shortens_no_session(cluster: Cluster) -> None:
    """A session that nobody renews outlives its leader by what is left of its time, and then it ends and lets its lock go."""
    leader, follower = cluster.leader(), cluster.followers()[0]
    session = create(follower, TTL=f"{TTL_SECONDS:g}s", LockDelay="0s")
    began = time.monotonic()
    assert follower.put(KEY, b"v", f"acquire={session}").text == "true"
    leader.kill()

    def is_over() -> bool:
        answer = requests.get(f"{follower.url}/v1/session/info/{session}", timeout=15)
        return answer.status_code == 200 and answer.json() == []

    wait_until(is_over, "the session ends", 4 * TTL_SECONDS)
    assert time.monotonic() - began >= TTL_SECONDS
    assert "Session" not in follower.get(KEY, "consistent").json()[0]
