"""Values in Redis: the form of an entry, who may replace whom, and connections that cost nothing when Redis is slow or gone.

Used by the workers, which read and fill (:mod:`service.api.cache`), and by the agent, which applies commits
(:mod:`service.agent.cache_writer`).

An entry is a hash under ``kvorum:<namespace>:kv:<key>``, so that others can read it, too. It may be served while all of this holds:

1. It was written to the run of Redis that answers now (``run``): after a restart, perhaps with an older dump, nothing is served that was
   written before.
2. Its ``as_of``, the index up to which it is known to be right, is not below the floor: deleting a whole prefix raises the floor.
3. Its age, counted from ``written``, is below the time to live. What is never replaced because a write to Redis was lost ends so.

An entry only ever gives way to one with an ``as_of`` at least as high; a deletion leaves an entry without a value. The namespace holds the
cluster's id and how often a backup was restored, because that makes indexes go back.
"""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import redis
import redis.backoff
import redis.exceptions
import redis.retry

MILLISECONDS = 1000
PAUSE_SECONDS_MIN = 0.5
PAUSE_SECONDS_MAX = 30.0

FIELDS = ("run", "as_of", "written", "index", "value", "flags", "lock_index", "session", "create_index", "modify_index")

# KEYS: entry. ARGV: run, as_of, milliseconds to live, then names and values of the fields.
SET_IF_NEWER = """
local old = redis.call('HMGET', KEYS[1], 'run', 'as_of')
if old[1] == ARGV[1] and tonumber(old[2]) > tonumber(ARGV[2]) then return 0 end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], unpack(ARGV, 4))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""

# KEYS: floor. ARGV: run, index.
RAISE_FLOOR = """
local old = redis.call('HMGET', KEYS[1], 'run', 'index')
if old[1] == ARGV[1] and tonumber(old[2]) >= tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], 'run', ARGV[1], 'index', ARGV[2])
return 1
"""

FAILURES = (redis.exceptions.RedisError, OSError)


class CacheUnavailable(Exception):
    """Redis can't be asked now; go on without."""


RowFields = tuple[bytes, int, int, str | None, int, int]


class Entry(msgspec.Struct, frozen=True):
    """A key as the cache knows it.

    :ivar row: value, flags, lock index, session, create and modify index; None when there is no such key.
    :ivar index: of the answer (X-Consul-Index).
    :ivar as_of: the applied index of the state that it was read from.
    :ivar written_ms: wall clock when that was, in milliseconds since 1970.
    """

    row: RowFields | None
    index: int
    as_of: int
    written_ms: int


def namespace(cluster_id: str, restored: int = 0) -> str:
    """The part of Redis's keys that keeps clusters, and the times before and after a restored backup, apart."""
    return f"{cluster_id}:{restored}"


def entry_key(space: str, key: bytes) -> bytes:
    """Where the entry of a key is."""
    return f"kvorum:{space}:kv:".encode() + key


def floor_key(space: str) -> bytes:
    """Where the floor is."""
    return f"kvorum:{space}:floor".encode()


def now_ms() -> int:
    """The wall clock."""
    return time.time_ns() // 1_000_000


class Link:
    """One connection, to one run of a Redis.

    :raises redis.exceptions.RedisError: it can't be made.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        connection.connect()
        self.run = _run_id(self.ask("INFO", "server"))
        self._set_if_newer = self.ask("SCRIPT", "LOAD", SET_IF_NEWER)
        self._raise_floor = self.ask("SCRIPT", "LOAD", RAISE_FLOOR)

    def ask(self, *words: Any) -> Any:
        """One command and its answer."""
        return self.ask_all([words])[0]

    def ask_all(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Commands in one round trip, and their answers."""
        self._connection.send_packed_command(self._connection.pack_commands(commands))
        return [self._connection.read_response() for _ in commands]

    def close(self) -> None:
        """Hang up."""
        self._connection.disconnect()

    def get(self, space: str, key: bytes, ttl_ms: int) -> Entry | None:
        """The entry of a key, if there is one that may be served."""
        floor, fields = self.ask_all([("HMGET", floor_key(space), "run", "index"), ("HMGET", entry_key(space, key), *FIELDS)])
        try:
            return self._check(floor, fields, ttl_ms)
        except (ValueError, TypeError):
            # Somebody else wrote it.
            return None

    def _check(self, floor: list[bytes | None], fields: list[Any], ttl_ms: int) -> Entry | None:
        if fields[0] != self.run or fields[1] is None:
            return None
        as_of, written_ms = int(fields[1]), int(fields[2])
        if floor[0] == self.run and as_of < int(floor[1] or 0):
            return None
        if not -ttl_ms < now_ms() - written_ms < ttl_ms:
            return None
        row: RowFields | None = None
        if fields[4] is not None:
            session = fields[7].decode() if fields[7] else None
            row = (fields[4], int(fields[5]), int(fields[6]), session, int(fields[8]), int(fields[9]))
        return Entry(row, int(fields[3]), as_of, written_ms)

    def put_command(self, space: str, key: bytes, entry: Entry, ttl_ms: int) -> tuple[Any, ...] | None:
        """The command that stores an entry unless a newer one is there; None when it is too old to be stored."""
        remaining_ms = entry.written_ms + ttl_ms - now_ms()
        if remaining_ms <= 0:
            return None
        fields: list[Any] = ["run", self.run, "as_of", entry.as_of, "written", entry.written_ms, "index", entry.index]
        if entry.row is not None:
            value, flags, lock_index, session, created, modified = entry.row
            fields += ["value", value, "flags", flags, "lock_index", lock_index, "session", session or ""]
            fields += ["create_index", created, "modify_index", modified]
        return ("EVALSHA", self._set_if_newer, 1, entry_key(space, key), self.run, entry.as_of, min(remaining_ms, ttl_ms), *fields)

    def floor_command(self, space: str, index: int) -> tuple[Any, ...]:
        """The command after which no entry is served that is not known to be right at ``index``."""
        return ("EVALSHA", self._raise_floor, 1, floor_key(space), self.run, index)


def _run_id(info: bytes) -> bytes:
    for line in info.split(b"\r\n"):
        if line.startswith(b"run_id:"):
            return line.removeprefix(b"run_id:")
    raise redis.exceptions.ResponseError("the server does not tell its run_id")


class Links:
    """A few connections, and a pause after each failure so that a Redis that is gone or slow costs nobody anything.

    :param url: of the Redis.
    :param timeout_seconds: for each step of a request.
    :param size: how many requests may ask at the same time; more go on without.
    :param pause_seconds_max: the longest pause after failures in a row.
    """

    def __init__(self, url: str, timeout_seconds: float, size: int, *, pause_seconds_max: float = PAUSE_SECONDS_MAX) -> None:
        never = redis.retry.Retry(redis.backoff.NoBackoff(), 0)
        limits = {"socket_timeout": timeout_seconds, "socket_connect_timeout": timeout_seconds, "retry": never, "health_check_interval": 0}
        self._pool = redis.ConnectionPool.from_url(url, **limits)
        self._idle: deque[Link] = deque()
        self._free = size
        self._pause_seconds = PAUSE_SECONDS_MIN
        self._pause_seconds_max = pause_seconds_max
        self._closed_until = 0.0

    @property
    def pausing(self) -> bool:
        """Whether nothing is asked because of a failure a moment ago."""
        return time.monotonic() < self._closed_until

    @contextmanager
    def borrow(self) -> Iterator[Link]:
        """A connection for one exchange.

        :raises CacheUnavailable: all are in use, Redis failed a moment ago, or it fails now.
        """
        if not self._free or self.pausing:
            raise CacheUnavailable
        self._free -= 1
        link: Link | None = None
        try:
            link = self._idle.pop() if self._idle else Link(self._pool.make_connection())
            yield link
        except BaseException as error:
            # An answer may still be on its way: nobody else may get it.
            if link is not None:
                link.close()
            if not isinstance(error, FAILURES):
                raise
            self._close_for_a_while()
            raise CacheUnavailable(str(error)) from error
        else:
            self._pause_seconds = PAUSE_SECONDS_MIN
            self._idle.append(link)
        finally:
            self._free += 1

    def _close_for_a_while(self) -> None:
        while self._idle:
            self._idle.pop().close()
        self._closed_until = time.monotonic() + self._pause_seconds
        self._pause_seconds = min(self._pause_seconds * 2, self._pause_seconds_max)

    def close(self) -> None:
        """Hang up."""
        while self._idle:
            self._idle.pop().close()
