"""Clients that hold sessions, renew them and contend for locks through any node, and note everything they were told."""

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from links import Connection, Reply
from lock_log import Attempt, Row, Seen

PREFIX = "locks/"


class Plan(NamedTuple):
    """How a client uses its sessions.

    :ivar leaves: whether it ends its sessions now and then, by hand or by silence, with a lock in its hands if it can.
    """

    ttl_seconds: int
    delay_seconds: float
    behavior: str
    leaves: bool


class Client(threading.Thread):
    """One session at a time.

    :param keys: the locks that it may contend for.
    :param stopping: when it is set the client goes silent.
    :ivar attempts: what it asked and was told; ``seen``: the locks that it read.
    :ivar told: answers by what was asked.
    """

    def __init__(self, number: int, ports: Sequence[int], plan: Plan, *, keys: Sequence[str], seed: int, pause_seconds: float) -> None:
        super().__init__(daemon=True, name=f"client {number}")
        self.attempts: list[Attempt] = []
        self.seen: list[Seen] = []
        self.told: Counter[str] = Counter()
        self.stopping = threading.Event()
        self._number, self._plan, self._keys, self._pause_seconds = number, plan, keys, pause_seconds
        self._dice = random.Random(f"{seed} {number}")
        self._link = Connection(ports, number)
        self._count = 0
        self._session = ""
        self._renew_at = 0.0

    def run(self) -> None:
        """Live one session after the other."""
        self.stopping.wait(self._dice.uniform(0, self._pause_seconds))
        while not self.stopping.is_set():
            self._session = self._begin()
            if self._session:
                self._live()
            else:
                self.stopping.wait(0.2)
        self._link.close()

    def _begin(self) -> str:
        plan = self._plan
        fields = {"TTL": f"{plan.ttl_seconds}s", "LockDelay": f"{plan.delay_seconds:g}s", "Behavior": plan.behavior}
        reply = self._link.ask("PUT", "/v1/session/create", json.dumps(fields).encode())
        self.told["sessions begun" if reply.status == 200 else "sessions not begun"] += 1
        self._renew_at = time.monotonic() + plan.ttl_seconds / 3
        return str(json.loads(reply.body)["ID"]) if reply.status == 200 else ""

    def _live(self) -> None:
        over_at = time.monotonic() + (self._dice.uniform(3, 12) if self._plan.leaves else float("inf"))
        while not self.stopping.is_set():
            if time.monotonic() >= self._renew_at and not self._renew():
                return
            key = self._dice.choice(self._keys)
            if self._take("acquire", key) == "true":
                self._look(key)
                if time.monotonic() >= over_at:
                    self._leave()
                    return
                self.stopping.wait(self._dice.uniform(0, self._pause_seconds / 4))
                self._take("release", key)
            self.stopping.wait(self._dice.uniform(0.5, 1.5) * self._pause_seconds)

    def _leave(self) -> None:
        """End the session, or forget it: its lock is lost either way."""
        if self._dice.random() < 0.5:
            self._ask("destroy", "", f"/v1/session/destroy/{self._session}")

    def _renew(self) -> bool:
        """Whether the session lives, as far as this client knows."""
        outcome = self._ask("renew", "", f"/v1/session/renew/{self._session}")
        if outcome == "true":
            self._renew_at = time.monotonic() + self._plan.ttl_seconds / 3
        return outcome != "gone"

    def _take(self, what: str, key: str) -> str:
        return self._ask(what, key, f"/v1/kv/{key}?{what}={self._session}")

    def _ask(self, what: str, key: str, path: str) -> str:
        self._count += 1
        nonce = b"%d-%d" % (self._number, self._count)
        sent = time.time()
        outcome = _outcome(self._link.ask("PUT", path, nonce))
        self.attempts.append(Attempt(what, self._session, key, nonce, sent, time.time(), outcome))
        self.told[f"{what} {outcome}"] += 1
        return outcome

    def _look(self, key: str) -> None:
        reply = self._link.ask("GET", f"/v1/kv/{key}?consistent")
        if reply.status == 200:
            [row] = json.loads(reply.body)
            self.seen.append(Seen(key, Row(row.get("Session", ""), row["LockIndex"], row["ModifyIndex"])))
            self.told["locks read"] += 1


def _outcome(reply: Reply) -> str:
    if reply.status == 200:
        return "false" if reply.body.strip() == b"false" else "true"
    if reply.status == 404 or b"invalid session" in reply.body:
        return "gone"
    return reply.outcome or "unknown"
