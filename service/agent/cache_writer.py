"""Tells Redis what commits changed. For the process that applies them; a thread of its own, so that a slow Redis slows nothing.

Every node writes, not the leader alone. That needs no handing over: what a leader that is killed, frozen or cut off from Redis did not write,
the others write, as they apply the same commits; an election costs no entry; and nodes may each have a Redis of their own. It is right
because an entry only gives way to one read from a state at least as new, and because its age is counted from the *leader's stamp* on the
last entry that was applied, not from the moment of writing: at that time the leader had appended nothing later. So whoever lags behind, or
was stopped for an hour, writes what is as old as it is, and what has outlived its time to live is not written at all.

Only the names of keys are handed over, after COMMIT, and gather for a moment; the thread reads the rows itself, so that what it writes is never
older than what it was told. What can't be written is dropped, and the floor raised as soon as Redis answers again: then nothing is
served that was read before. Until then an entry that should have been replaced may be served, at most until its time to live ends.
"""

import logging
import threading
from collections import deque
from collections.abc import Iterator, Sequence

from service.cache import MILLISECONDS, CacheUnavailable, Entry, Link, Links, namespace
from service.errors import StateUnreadable
from service.settings import Settings
from service.store.changes import Changes
from service.store.reader import Reader

log = logging.getLogger(__name__)

BATCHES_MAX = 1024
KEYS_A_ROUND_TRIP = 128
BYTES_A_ROUND_TRIP = 1024 * 1024
GATHER_SECONDS = 0.01
"""How long batches gather: a key that changes often is written once, and the thread seldom asks for the interpreter."""
RETRY_SECONDS = 0.5
PATIENCE = 20
"""Nobody waits for this thread, so it gives Redis that many times what a request does."""

Command = tuple[object, ...]


class CacheWriter:
    """The writing end of the cache.

    :param cluster_id: of the cluster, once it was formed.
    :ivar ttl_ms: how long an entry may be served, in milliseconds; from the next batch on when it is set.
    """

    def __init__(self, settings: Settings, cluster_id: str) -> None:
        self._space = namespace(cluster_id)
        self.ttl_ms = settings.cache_ttl_seconds * MILLISECONDS
        self._reader = Reader(settings.data_dir)
        timeout_seconds = PATIENCE * settings.cache_timeout_ms / MILLISECONDS
        self._links = Links(settings.redis_url, timeout_seconds, 1, pause_seconds_max=RETRY_SECONDS)
        self._batches: deque[tuple[Changes, int]] = deque()
        self._due = threading.Event()
        self._stopping = threading.Event()
        # An entry in Redis may be wrong without being told so: it was written before this process, or what should have replaced it was dropped.
        self._doubtful = True
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="cache-writer", daemon=True)

    def start(self) -> None:
        """Begin to write; nothing that was written before is served from then on."""
        self._due.set()
        self._thread.start()

    def publish(self, changes: Changes, stamp_ms: int) -> None:
        """Pass on what a batch changed, after its COMMIT. Never waits; from one thread at a time.

        :param stamp_ms: the leader's clock when it appended the batch's last command, in milliseconds since 1970.
        """
        if not (changes.keys or changes.prefixes or changes.everything):
            return
        if len(self._batches) < BATCHES_MAX:
            self._batches.append((changes, stamp_ms))
        else:
            self._doubtful = True
        self._due.set()

    def configure(self, settings: Settings) -> None:
        """Other settings are in force."""
        self.ttl_ms = settings.cache_ttl_seconds * MILLISECONDS

    def stop(self, timeout_seconds: float = 0.5) -> None:
        """Write what waits, as far as the time allows. Blocks."""
        self._stopping.set()
        self._due.set()
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        stopping = False
        while not stopping:
            self._due.wait(RETRY_SECONDS if self._doubtful else None)
            self._due.clear()
            stopping = self._stopping.wait(GATHER_SECONDS)
            self._exchange()
        self._links.close()
        self._reader.close()

    def _exchange(self) -> None:
        """Write what gathered, or drop it."""
        keys, stamp_ms = self._take()
        if not keys and not self._doubtful:
            return
        try:
            with self._links.borrow() as link:
                if self._doubtful:
                    self._raise_floor(link)
                for commands in self._round_trips(link, keys, stamp_ms):
                    link.ask_all(commands)
                if self._doubtful:
                    self._raise_floor(link)
        except (CacheUnavailable, StateUnreadable) as reason:
            self._doubtful = True
            self._say(failing=True, reason=reason)
        else:
            self._say(failing=False)

    def _take(self) -> tuple[list[bytes], int]:
        """The keys that changed, each once, and the stamp of the last batch. Deleted prefixes and the like make everything doubtful."""
        keys: dict[bytes, None] = {}
        stamp_ms = 0
        while self._batches:
            changes, stamp_ms = self._batches.popleft()
            keys.update(dict.fromkeys(changes.keys))
            if changes.prefixes or changes.everything:
                self._doubtful = True
        return list(keys), stamp_ms

    def _raise_floor(self, link: Link) -> None:
        # In this order: a batch that is dropped from now on makes everything doubtful again.
        self._doubtful = False
        link.ask(*link.floor_command(self._space, self._reader.applied()))

    def _round_trips(self, link: Link, keys: Sequence[bytes], stamp_ms: int) -> Iterator[list[Command]]:
        commands: list[Command] = []
        size, ttl_ms = 0, self.ttl_ms
        for key in keys:
            found = self._reader.get(key)
            command = link.put_command(self._space, key, Entry(found.row and found.row[1:], found.index, found.applied, stamp_ms), ttl_ms)
            if command is None:
                # Too old to be stored: then what it should replace must not be served either.
                self._doubtful = True
                continue
            commands.append(command)
            size += len(found.row.value) if found.row else 0
            if len(commands) >= KEYS_A_ROUND_TRIP or size >= BYTES_A_ROUND_TRIP:
                yield commands
                commands, size = [], 0
        if commands:
            yield commands

    def _say(self, *, failing: bool, reason: Exception | None = None) -> None:
        """One line when Redis fails, and one when it works again."""
        if failing and not self._failing:
            log.warning("the cache is not told of changes: %s", reason)
        elif self._failing and not failing:
            log.info("the cache is told of changes again; nothing older is served")
        self._failing = failing
