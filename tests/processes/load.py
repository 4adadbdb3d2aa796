"""Clients that write and read while a cluster is changed, remember everything they were told, and judge it."""

import random
import threading
import time
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Self

import requests
from cluster import Node
from requests.exceptions import ConnectTimeout
from urllib3.exceptions import MaxRetryError, NewConnectionError

from raft.testing.linearizability import History, Running, anomalies

WRITERS = 3
READERS = 2
REGISTERS = 6
REQUEST_SECONDS = 20.0


class Load:
    """Writers that put one new key after the other, and a register that all of them write to after each; readers of the registers.

    Each asks the nodes that may be asked now in turn. The registers hold a different value after each write, so a stale or lost one shows.

    :param urls: the nodes that may be asked now.
    :param seed: of the choice of registers and consistencies.
    :ivar acknowledged: when each write was acknowledged, in seconds of the monotonic clock. One of a new key has the key's name.
    :ivar failed: what the others were told.
    """

    def __init__(self, urls: Callable[[], list[str]], seed: int = 1) -> None:
        self.acknowledged: dict[str, float] = {}
        self.failed: list[str] = []
        self.reads = 0
        self.history = History()
        self._urls = urls
        self._seed = seed
        self._over = threading.Event()
        work = [(self._write, number) for number in range(WRITERS)] + [(self._read, number) for number in range(READERS)]
        self._threads = [threading.Thread(target=self._repeat, args=one) for one in work]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    @property
    def longest_gap_seconds(self) -> float:
        """Between two acknowledged writes."""
        times = sorted(self.acknowledged.values())
        return max(later - earlier for earlier, later in pairwise(times))

    @property
    def told(self) -> str:
        """The figures in one line."""
        return (
            f"{len(self.acknowledged)} writes acknowledged, {len(self.failed)} not, {self.reads} reads answered; "
            f"longest gap between two acknowledged writes: {self.longest_gap_seconds:.3f} s"
        )

    def judge(self, nodes: Iterable[Node]) -> None:
        """Hold what was told against what each node has now, and all answers together against a single copy of the data."""
        keys = {key for key in self.acknowledged if key.startswith("load/")}
        for node in nodes:
            held = set(requests.get(f"{node.url}/v1/kv/load/?keys&consistent", timeout=30).json())
            assert keys - held == set(), f"{node.name} lost acknowledged writes"
            for number in range(REGISTERS):
                self._get(requests.Session(), node.url, f"register/{number}", "consistent")
        wrong = anomalies(self.history.operations())
        assert not wrong, "\n".join(map(str, wrong))

    def _repeat(self, work: Callable[[requests.Session, random.Random, int, int], None], number: int) -> None:
        session, dice, count = requests.Session(), random.Random(f"{self._seed} {work.__name__} {number}"), 0
        while not self._over.is_set():
            work(session, dice, number, count)
            count += 1

    def _write(self, session: requests.Session, dice: random.Random, number: int, count: int) -> None:
        urls = self._urls()
        url, name = urls[(number + count) % len(urls)], f"load/{number}/{count}"
        self._put(session, url, name, name.encode())
        register = f"register/{dice.randrange(REGISTERS)}"
        self._put(session, url, register, b"%d-%d" % (number, count))

    def _put(self, session: requests.Session, url: str, key: str, value: bytes) -> None:
        running = self.history.write(threading.current_thread().name, key, value)
        try:
            answer = session.put(f"{url}/v1/kv/{key}", data=value, timeout=REQUEST_SECONDS)
        except requests.RequestException as error:
            self._unanswered(running, key, error)
            return
        outcome = answer.headers.get("X-Kvorum-Outcome")
        if answer.status_code == 200:
            running.succeeded()
            self.acknowledged[key if key.startswith("load/") else f"{key} = {value.decode()}"] = time.monotonic()
            return
        if outcome == "rejected":
            running.failed()
        self.failed.append(f"{key}: {answer.status_code} {outcome} {answer.text}")

    def _unanswered(self, running: Running, key: str, error: requests.RequestException) -> None:
        """The outcome is unknown, unless no connection was made."""
        cause = error.args[0] if error.args else None
        never_left = isinstance(error, ConnectTimeout) or (isinstance(cause, MaxRetryError) and isinstance(cause.reason, NewConnectionError))
        if never_left:
            running.failed()
        self.failed.append(f"{key}: {'never sent' if never_left else 'unknown'}: {error}")

    def _read(self, session: requests.Session, dice: random.Random, number: int, count: int) -> None:
        urls = self._urls()
        self._get(session, urls[(number + count) % len(urls)], f"register/{dice.randrange(REGISTERS)}", dice.choice(("", "consistent")))

    def _get(self, session: requests.Session, url: str, key: str, consistency: str) -> None:
        reading = self.history.read(threading.current_thread().name, key)
        try:
            answer = session.get(f"{url}/v1/kv/{key}?raw&{consistency}", timeout=REQUEST_SECONDS)
        except requests.RequestException:
            return
        if answer.status_code in {200, 404}:
            reading.found(answer.content if answer.status_code == 200 else None)
            self.reads += 1
