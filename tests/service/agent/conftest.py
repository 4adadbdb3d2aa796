"""A redis-server of our own, and a node's state without Raft: entries are applied by hand."""

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from service.agent.cache_writer import CacheWriter
from service.agent.machine import ObservedMachine
from service.cache import Entry, Link, Links, namespace, now_ms
from service.domain.commands import Command, encode, stamp
from service.settings import Settings, load
from service.store.machine import KvMachine

CLUSTER = "c1"
SPACE = namespace(CLUSTER)
TTL_MS = 60_000
PATIENCE_SECONDS = 15.0


def wait_until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> Any:
    """Ask again and again until the answer is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := condition():
            return answer
        time.sleep(0.005)
    raise AssertionError(f"not within {seconds:g} s: {what}")


class RedisServer:
    """A redis-server on a port of its own, with its files in ``directory``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(exist_ok=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None
        self.client = redis.Redis.from_url(self.url)

    def start(self) -> None:
        """Start with what was saved, and wait until it answers."""
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory), "--save", ""]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_until(self._answers, "redis-server answers")

    def freeze(self) -> None:
        """Let it hold its connections and answer nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once; what was not saved is lost."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self.client.close()

    def ask(self, key: bytes, ttl_ms: int = TTL_MS) -> Entry | None:
        """What may be served for a key now."""
        links = Links(self.url, 5.0, 1)
        try:
            with links.borrow() as link:
                return link.get(SPACE, key, ttl_ms)
        finally:
            links.close()

    def value(self, key: bytes) -> bytes | None:
        """The value that may be served; None also for a key that is known not to exist, or not known at all."""
        entry = self.ask(key)
        return entry.row[0] if entry is not None and entry.row is not None else None

    def link(self) -> Link:
        """A bare connection."""
        return Link(redis.ConnectionPool.from_url(self.url).make_connection())

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.exceptions.ConnectionError:
            return False

    def _signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)


class State:
    """A node's state and the writing end of its cache."""

    def __init__(self, directory: Path, redis_url: str, **settings: str) -> None:
        directory.mkdir(exist_ok=True)
        environ = {"KVORUM_NAME": "n1", "KVORUM_DATA_DIR": str(directory), "KVORUM_REDIS_URL": redis_url}
        self.settings: Settings = load(environ | settings)
        self.machine = ObservedMachine(KvMachine(directory), directory)
        self.writer = CacheWriter(self.settings, CLUSTER)
        self.machine.listeners.append(self.writer.publish)

    def apply(self, *commands: Command, stamp_ms: int | None = None) -> int:
        """Apply one batch as the agent does.

        :param stamp_ms: the leader's clock; the present one by default.
        :returns: the index of the last entry.
        """
        index = self.machine.store.applied_index
        stamped = now_ms() if stamp_ms is None else stamp_ms
        self.machine.apply([(index + offset, 1, stamp(encode(command), stamped)) for offset, command in enumerate(commands, 1)])
        return index + len(commands)

    def close(self) -> None:
        """End the writer and release the files."""
        if self.writer._thread.ident is not None:
            self.writer.stop(5.0)
        self.machine.store.close()


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A running Redis."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    server = RedisServer(tmp_path / "redis")
    server.start()
    yield server
    server.thaw()
    server.kill()


@pytest.fixture
def make_state(tmp_path: Path, redis_server: RedisServer) -> Iterator[Callable[..., State]]:
    """Makes nodes' states, each in a directory of its own; their writers are not started."""
    made: list[State] = []

    def make(**settings: str) -> State:
        made.append(State(tmp_path / f"state{len(made)}", redis_server.url, **settings))
        return made[-1]

    yield make
    for state in made:
        state.close()


@pytest.fixture
def state(make_state: Callable[..., State]) -> State:
    """A node's state with a running writer that has raised the floor already."""
    made = make_state()
    made.writer.start()
    wait_until(lambda: not made.writer._doubtful, "the writer has raised the floor")
    return made
