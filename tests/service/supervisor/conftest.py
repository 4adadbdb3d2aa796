"""Processes to supervise, and ways to wait for what they do."""

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

STAND_INS = Path(__file__).parent / "stand_ins"
WAIT_SECONDS = 60.0
"""Longer than anything takes, also where two other tests and a simulation want the same two processors: no test asserts a time."""
NODES = 3
"""How many neighbouring ports a cluster takes for its clients, and as many for its peers."""


def wait_for(condition: Callable[[], object], what: str, seconds: float = WAIT_SECONDS) -> None:
    """Wait until a condition holds, with a deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:g} s for {what}")
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


_draws = itertools.count()


def free_port() -> int:
    """A port that nobody listens on at the moment, nor on those of a whole cluster from there on, away from the range the kernel gives to clients."""
    # Test processes that run at the same time begin far from each other, and no test begins where the one before it did.
    start = 20_000 + (os.getpid() * 37 + next(_draws)) % 400 * 25
    for port in [*range(start, 31_000, 5), *range(20_000, start, 5)]:
        with contextlib.suppress(OSError), contextlib.ExitStack() as probes:
            for first in (port, port - 200):
                for number in range(first, first + NODES):
                    probe = probes.enter_context(socket.socket())
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", number))
                    probe.listen(1)
            return port
    pytest.fail("no free port")


class Node:
    """A supervisor over stand-ins, in a process of its own."""

    def __init__(self, directory: Path, **environ: str) -> None:
        self.events_path = directory / "events"
        port = free_port()
        self.environ = {
            "PATH": os.environ["PATH"],
            "STAND_IN_EVENTS": str(self.events_path),
            "KVORUM_NAME": "n1",
            "KVORUM_DATA_DIR": str(directory / "data"),
            "KVORUM_API_BIND": f"127.0.0.1:{port}",
            "KVORUM_PEER_BIND": f"127.0.0.1:{port - 200}",
            **environ,
        }
        self.log_path = directory / "log"
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen([sys.executable, str(STAND_INS / "node.py")], env=self.environ, stderr=log)

    @property
    def events(self) -> list[str]:
        """What the stand-ins wrote down so far."""
        return self.events_path.read_text().splitlines() if self.events_path.exists() else []

    @property
    def log(self) -> str:
        """What the supervisor logged."""
        return self.log_path.read_text()

    def pid_of(self, what: str) -> int:
        """A process id that a stand-in wrote down, such as ``agent pid`` or ``web worker``."""
        return next(int(line.rsplit(maxsplit=1)[1]) for line in self.events if line.startswith(what + " "))

    def wait_started(self) -> None:
        """Wait until both children run."""
        wait_for(lambda: any(line.startswith("web pid") for line in self.events), "the web server")

    def send(self, number: signal.Signals) -> None:
        """Signal the supervisor."""
        self.process.send_signal(number)

    def wait_code(self) -> int:
        """Wait for the supervisor's exit code."""
        return self.process.wait(WAIT_SECONDS)

    def signals(self) -> list[str]:
        """The events without process ids."""
        return [line for line in self.events if not line.rsplit(maxsplit=1)[1].isdigit()]


@pytest.fixture
def start_node(tmp_path: Path) -> Iterator[Callable[..., Node]]:
    """Start nodes; whatever is left of them is killed at the end."""
    started: list[Node] = []

    def start(**environ: str) -> Node:
        node = Node(tmp_path, **environ)
        started.append(node)
        return node

    yield start
    for node in started:
        if node.process.poll() is None:
            node.process.kill()
            node.process.wait()


@pytest.fixture(name="wait_for")
def wait_for_fixture() -> Callable[..., None]:
    """Wait until a condition holds, with a deadline."""
    return wait_for


@pytest.fixture(name="alive")
def alive_fixture() -> Callable[[int], bool]:
    """Whether a process exists and is no zombie."""
    return alive


@pytest.fixture
def port() -> int:
    """A port that nobody listens on, nor on the one 200 below."""
    return free_port()
