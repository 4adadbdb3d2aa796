"""Cached reads, with a real Redis: what may be served, what never, and what Redis may do to a node (nothing)."""

import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
import redis

from service import cache as module
from service.agent.cache_writer import CacheWriter
from service.cache import CacheUnavailable, Entry, Link, Links, namespace
from service.domain.commands import KvDelete, KvPut, encode, stamp
from service.store.changes import Changes

pytestmark = [pytest.mark.processes, pytest.mark.skipif(not shutil.which("redis-server"), reason="redis-server is not installed")]

SPACE = namespace("c1")
TTL_MS = 60_000


class Redis:
    """A redis-server of our own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(exist_ok=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        """Start, with what was saved."""
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory), "--save", ""]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while True:
            try:
                self.client.ping()
            except redis.exceptions.ConnectionError:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            else:
                return

    @property
    def client(self) -> Any:
        """A client of it."""
        return redis.Redis.from_url(self.url)

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Redis]:
    """A running Redis."""
    made = Redis(tmp_path / "redis")
    yield made
    made.kill()


@pytest.fixture
def cached(make_worker: Any, server: Redis) -> Any:
    """A worker with a cache."""
    return make_worker(redis_url=server.url, cache_timeout_ms=200)


@pytest.fixture
def writer(cached: Any) -> Iterator[CacheWriter]:
    """The agent's end of the cache."""
    made = CacheWriter(cached.settings, "c1")
    made.start()
    yield made
    made.stop(5)


def get(worker: Any, key: str = "a", **headers: str) -> tuple[str, bytes]:
    """A cached read: whence, and what. Its filling is finished when this returns."""
    reply = worker.call("GET", f"/v1/kv/{key}?cached&raw", **headers)
    gevent.sleep(0)
    return reply.headers["X-Cache"], reply.body


def apply(worker: Any, writer: CacheWriter, command: Any) -> None:
    """Apply a command as the agent does, and tell the cache."""
    machine = worker.agent.machine
    stamp_ms = module.now_ms()
    machine.apply([(machine.applied_index + 1, 1, stamp(encode(command), stamp_ms))])
    writer.publish(machine.take_changes(), stamp_ms)


def settled(server: Redis, key: bytes, expected: bytes | None) -> None:
    """Wait until Redis holds a value."""
    deadline = time.monotonic() + 5
    while server.client.hget(module.entry_key(SPACE, key), "value") != expected or not server.client.exists(module.entry_key(SPACE, key)):
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_miss_then_hit(cached: Any) -> None:
    """The first read fills the cache, the next is served from it with its age; both tell the key's index; other reads never ask Redis."""
    index = cached.put("a", b"1")
    first = cached.call("GET", "/v1/kv/a?cached")
    gevent.sleep(0)
    second = cached.call("GET", "/v1/kv/a?cached")
    assert (first.headers["X-Cache"], "Age" in first.headers) == ("MISS", False)
    assert (second.headers["X-Cache"], second.headers["Age"]) == ("HIT", "0")
    assert first.body == second.body
    assert first.headers["X-Consul-Index"] == second.headers["X-Consul-Index"] == str(index)
    cached.put("a", b"2")
    assert get(cached) == ("HIT", b"1")
    for query in ("raw", "raw&consistent", "raw&stale", "raw&cached&stale"):
        reply = cached.call("GET", f"/v1/kv/a?{query}")
        assert (reply.body, "X-Cache" in reply.headers) == (b"2", False)


def test_missing_keys_and_all_fields(cached: Any) -> None:
    """A key that does not exist is cached as such; flags and empty values survive."""
    assert cached.call("GET", "/v1/kv/none?cached").status == 404
    gevent.sleep(0)
    reply = cached.call("GET", "/v1/kv/none?cached")
    assert (reply.status, reply.headers["X-Cache"]) == (404, "HIT")
    cached.call("PUT", "/v1/kv/e?flags=18446744073709551615", b"")
    bodies = {cached.call("GET", f"/v1/kv/e?{query}").body for query in ("cached", "cached", "consistent")}
    gevent.sleep(0)
    bodies.add(cached.call("GET", "/v1/kv/e?cached").body)
    assert len(bodies) == 1


def test_without_redis_nothing_changes(worker: Any) -> None:
    """With the cache switched off, ``?cached`` is an ordinary read."""
    worker.put("a", b"1")
    reply = worker.call("GET", "/v1/kv/a?cached&raw")
    assert (reply.body, "X-Cache" in reply.headers) == (b"1", False)


def test_ages(cached: Any, server: Redis) -> None:
    """What is older than the client takes, or than the time to live, is not served, even where Redis forgot to expire it."""
    cached.put("a", b"1")
    assert get(cached)[0] == "MISS"
    assert get(cached, Cache_Control="max-age=60")[0] == "HIT"
    assert get(cached, Cache_Control="max-age=0")[0] == "MISS"
    assert get(cached, Cache_Control="no-cache")[0] == "MISS"
    name = module.entry_key(SPACE, b"a")
    assert 0 < server.client.pttl(name) <= TTL_MS
    server.client.hset(name, "written", module.now_ms() - TTL_MS)
    server.client.persist(name)
    assert get(cached)[0] == "MISS"
    server.client.hset(name, "written", module.now_ms() + 2 * TTL_MS)
    assert get(cached)[0] == "MISS"
    assert get(cached)[0] == "HIT"


def test_commits_reach_the_cache(cached: Any, server: Redis, writer: CacheWriter) -> None:
    """Whoever applies a commit writes: a new value and a deletion are served at once, and a deleted prefix is not served any more."""
    apply(cached, writer, KvPut(b"a", b"1"))
    settled(server, b"a", b"1")
    assert get(cached) == ("HIT", b"1")
    apply(cached, writer, KvPut(b"a", b"2"))
    settled(server, b"a", b"2")
    assert get(cached) == ("HIT", b"2")
    apply(cached, writer, KvDelete(b"a"))
    settled(server, b"a", None)
    assert get(cached) == ("HIT", b"")
    apply(cached, writer, KvPut(b"t/a", b"1"))
    settled(server, b"t/a", b"1")
    cached.call("DELETE", "/v1/kv/t?recurse")
    writer.publish(module_changes(cached), module.now_ms())
    cached.until(lambda: get(cached, "t/a") == ("MISS", b""))
    assert get(cached, "t/a") == ("HIT", b"")


def module_changes(worker: Any) -> Any:
    """What a deleted prefix looks like to the writer."""
    return Changes(worker.agent.machine.applied_index, [], [b"t"], everything=False)


def test_older_never_replaces_newer(server: Redis) -> None:
    """An entry gives way only to one that was read from a state at least as new; a floor hides what is below it, and only rises."""
    with Links(server.url, 1.0, 1).borrow() as link:
        old, new = (Entry((value, 0, 0, None, 1, index), index, index, module.now_ms()) for value, index in ((b"old", 5), (b"new", 9)))
        stored = [link.ask(*(link.put_command(SPACE, b"a", entry, TTL_MS) or ())) for entry in (old, new, old, new)]
        assert stored == [1, 1, 0, 1]
        assert link.get(SPACE, b"a", TTL_MS) == new
        assert link.put_command(SPACE, b"a", Entry(None, 9, 9, module.now_ms() - TTL_MS), TTL_MS) is None
        link.ask(*link.floor_command(SPACE, 9))
        assert link.get(SPACE, b"a", TTL_MS) == new
        link.ask(*link.floor_command(SPACE, 10))
        link.ask(*link.floor_command(SPACE, 7))
        assert link.get(SPACE, b"a", TTL_MS) is None
        assert link.get(namespace("c1", 1), b"a", TTL_MS) is None


def test_an_older_dump_is_never_served(cached: Any, server: Redis) -> None:
    """A Redis that comes back with yesterday's data serves nothing of it."""
    cached.put("a", b"old")
    assert [get(cached)[0] for _ in range(2)] == ["MISS", "HIT"]
    server.client.save()
    cached.put("a", b"new")
    assert get(cached, Cache_Control="max-age=0") == ("MISS", b"new")
    assert get(cached) == ("HIT", b"new")
    server.kill()
    server.start()
    assert server.client.hget(module.entry_key(SPACE, b"a"), "value") == b"old"
    answers = [get(cached)]
    cached.until(lambda: answers.append(get(cached)) or answers[-1][0] == "HIT")
    assert {body for _, body in answers} == {b"new"}


def test_redis_is_gone(cached: Any, server: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Redis reads are ordinary ones, it is not asked again for a while, and used again when it is back."""
    cached.put("a", b"1")
    assert get(cached)[0] == "MISS"
    server.kill()
    attempts = []
    init = Link.__init__
    monkeypatch.setattr(Link, "__init__", lambda self, connection: (attempts.append(1), init(self, connection))[1])
    assert [get(cached) for _ in range(20)] == [("BYPASS", b"1")] * 20
    assert len(attempts) <= 1
    server.start()
    cached.until(lambda: get(cached)[0] == "HIT")


def test_redis_is_slow(cached: Any, server: Redis) -> None:
    """A Redis that does not answer costs one request its time limit, and the next ones nothing; late answers reach nobody."""
    cached.put("a", b"1")
    cached.put("b", b"2")
    assert [get(cached)[0], get(cached, "b")[0]] == ["MISS", "MISS"]
    server.client.client_pause(400, all=True)
    began = time.monotonic()
    assert [get(cached) for _ in range(20)] == [("BYPASS", b"1")] * 20
    assert time.monotonic() - began < 0.39
    cached.until(lambda: get(cached, "b")[0] == "HIT")
    assert get(cached, "b") == ("HIT", b"2")


def test_after_a_failure_nothing_older(cached: Any, server: Redis) -> None:
    """A Redis that slept through a write, and was told nothing of it, serves nothing older than what was answered in the meantime."""
    cached.put("a", b"old")
    assert [get(cached)[0] for _ in range(2)] == ["MISS", "HIT"]
    server.process.send_signal(signal.SIGSTOP)
    cached.put("a", b"new")
    assert get(cached) == ("BYPASS", b"new")
    server.process.send_signal(signal.SIGCONT)
    answers = [get(cached)]
    cached.until(lambda: answers.append(get(cached)) or answers[-1][0] == "HIT")
    assert {body for _, body in answers} == {b"new"}


def test_foreign_data(cached: Any, server: Redis) -> None:
    """What others wrote under our names is not served, and fails nobody."""
    cached.put("a", b"1")
    assert get(cached)[0] == "MISS"
    server.client.hset(module.entry_key(SPACE, b"a"), "as_of", "x")
    assert get(cached) == ("MISS", b"1")
    server.client.set(module.entry_key(SPACE, b"a"), "a string")
    assert get(cached) == ("BYPASS", b"1")


def test_lost_commits_raise_the_floor(cached: Any, server: Redis, writer: CacheWriter) -> None:
    """What could not be written while Redis did not answer is not served afterwards, although Redis kept the old entry."""
    apply(cached, writer, KvPut(b"a", b"1"))
    settled(server, b"a", b"1")
    writer._links._closed_until = time.monotonic() + 0.3
    apply(cached, writer, KvPut(b"a", b"2"))
    cached.until(lambda: get(cached)[1] == b"2")


def test_a_new_writer_trusts_nothing(cached: Any, server: Redis) -> None:
    """Entries that were there before a writer begins are not served: its predecessor may have lost some."""
    cached.put("a", b"1")
    assert [get(cached)[0] for _ in range(2)] == ["MISS", "HIT"]
    cached.put("b", b"moves the index")
    writer = CacheWriter(cached.settings, "c1")
    writer.start()
    cached.until(lambda: server.client.hget(module.floor_key(SPACE), "index") is not None)
    assert get(cached)[0] == "MISS"
    writer.stop(5)


def test_all_connections_in_use(server: Redis) -> None:
    """More requests than connections go on without the cache, and that is no reason to pause."""
    links = Links(server.url, 1.0, 1)
    with links.borrow(), pytest.raises(CacheUnavailable), links.borrow():
        pass
    with links.borrow() as link:
        assert link.ask("PING") == b"PONG"
    links.close()


def test_a_node_without_redis_does_not_load_its_client() -> None:
    """Starting is mostly importing; what nobody configured is not imported."""
    told = "import sys, service.agent.main, service.api.fastpath; print('redis' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True).stdout == "False\n"
