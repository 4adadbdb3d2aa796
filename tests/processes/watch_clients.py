"""Writers with a journal of every attempt, and watchers that follow a key or a prefix by blocking queries, as Consul's clients do."""

import base64
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence

from links import Connection
from watch_log import Answer, Watched, Write

WAIT_SECONDS = 300
"""Longer than any run: what ends a wait is a change, or the end of its node, and never the time."""


class Watcher(threading.Thread):
    """Asks for news of one target again and again, with the index of the last answer; from 0 on again should that ever go back.

    :ivar watched: what it was answered.
    :ivar interrupted: how many queries were not answered at all, or with an error.
    """

    def __init__(self, number: int, ports: Sequence[int], target: str) -> None:
        super().__init__(daemon=True, name=f"watcher {number}")
        self.watched = Watched(target, [])
        self.interrupted = 0
        self.stopping = threading.Event()
        self._link = Connection(ports, number)

    @property
    def index(self) -> int:
        """The newest that it has seen."""
        return self.watched.answers[-1].index if self.watched.answers else 0

    def run(self) -> None:
        """Watch until told to stop; the query under way then ends with the node."""
        known, target = 0, self.watched.target
        listing = "recurse&" if target.endswith("/") else ""
        while not self.stopping.is_set():
            reply = self._link.ask("GET", f"/v1/kv/{target}?{listing}index={known}&wait={WAIT_SECONDS}s", seconds=2 * WAIT_SECONDS)
            if reply.status not in {200, 404}:
                self.interrupted += 1
                self.stopping.wait(0.05)
                continue
            rows = json.loads(reply.body) if reply.status == 200 else []
            held = {row["Key"]: (base64.b64decode(row["Value"] or ""), row["ModifyIndex"]) for row in rows}
            self.watched.answers.append(Answer(known, reply.index, held, time.monotonic()))
            known = reply.index if reply.index >= known else 0
        self._link.close()


class Journal:
    """Writes that are noted before and after; shared by all that use it with :meth:`put` and :meth:`delete` from any thread.

    :ivar writes: what was attempted and told.
    """

    def __init__(self) -> None:
        self.writes: list[Write] = []
        self._guard = threading.Lock()
        self._numbers: Iterator[int] = iter(range(1 << 60))

    def put(self, link: Connection, key: str) -> str:
        """Set a key to a value of its own."""
        with self._guard:
            value = b"value %d" % next(self._numbers)
        return self._note(key, value, link.ask("PUT", f"/v1/kv/{key}", value).status, link.last)

    def delete(self, link: Connection, key: str) -> str:
        """Delete a key; a prefix, which ends with a slash, with all below it."""
        return self._note(key, b"", link.ask("DELETE", f"/v1/kv/{key}{'?recurse' if key.endswith('/') else ''}").status, link.last)

    def _note(self, key: str, value: bytes, status: int, outcome: str) -> str:
        told = "true" if status == 200 else outcome or "unknown"
        with self._guard:
            self.writes.append(Write(key, value, told, time.monotonic()))
        return told

    def told(self) -> Counter[str]:
        """Attempts by outcome."""
        return Counter(write.outcome for write in self.writes)


class Writer(threading.Thread):
    """Writes and deletes at random; holds still while ``running`` is clear.

    :param keys: what it writes; now and then it deletes one, or all below a prefix.
    :ivar resting: set while it holds still.
    """

    def __init__(self, number: int, ports: Sequence[int], journal: Journal, *, keys: Sequence[str], seed: int, running: threading.Event) -> None:
        super().__init__(daemon=True, name=f"writer {number}")
        self.stopping, self.resting = threading.Event(), threading.Event()
        self._keys, self._journal, self._running = keys, journal, running
        self._dice = random.Random(f"{seed} {number}")
        self._link = Connection(ports, number)

    def run(self) -> None:
        """Write until told to stop."""
        while not self.stopping.is_set():
            if not self._running.is_set():
                self.resting.set()
                self._running.wait()
                self.resting.clear()
                continue
            key, choice = self._dice.choice(self._keys), self._dice.random()
            if choice < 0.85:
                self._journal.put(self._link, key)
            elif choice < 0.97 or "/" not in key:
                self._journal.delete(self._link, key)
            else:
                self._journal.delete(self._link, key[: key.rindex("/") + 1])
            self.stopping.wait(self._dice.uniform(0, 0.2))
        self._link.close()
