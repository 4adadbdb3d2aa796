"""Nodes as real processes on loopback, started, killed and asked one by one. Used by the tests here and by the benchmarks."""

import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import requests

PATIENCE_SECONDS = 60.0


class NotInTime(AssertionError):
    """A condition that did not come true within the time allowed."""


def wait_until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> Any:
    """Ask again and again until the answer is true; a server that can't be reached counts as a no.

    :raises NotInTime: naming ``what``.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(requests.RequestException):
            if answer := condition():
                return answer
        time.sleep(0.02)
    raise NotInTime(f"not within {seconds:g} s: {what}")


_draws = itertools.count()


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens at, below those that the system gives to clients: a node that is down keeps its own."""
    # Test processes that run at the same time begin far from each other, and no search begins where the one before it did.
    start = (os.getpid() * 97 + next(_draws)) % 450 * 20
    found: list[int] = []
    with ExitStack() as probes:
        for port in (10_000 + (start + number) % 9_000 for number in range(9_000)):
            with suppress(OSError):
                probes.enter_context(socket.create_server(("127.0.0.1", port)))
                found.append(port)
            if len(found) == count:
                return found
    raise OSError(f"no {count} free ports")


class Node:
    """One node; its output goes to ``<directory>/<name>.log``.

    :param settings: KVORUM_ variables beyond those that make it a node of its cluster.
    """

    def __init__(self, name: str, directory: Path, *, api_port: int, peer_port: int, initial: str, settings: Mapping[str, str]) -> None:
        self.name = name
        self.url = f"http://127.0.0.1:{api_port}"
        self.peer = f"127.0.0.1:{peer_port}"
        self.data_dir = directory / name
        self.log_path = directory / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.environ = {key: value for key, value in os.environ.items() if not key.startswith("KVORUM_")} | {
            "KVORUM_NAME": name,
            "KVORUM_DATA_DIR": str(self.data_dir),
            "KVORUM_API_BIND": f"127.0.0.1:{api_port}",
            "KVORUM_PEER_BIND": self.peer,
            "KVORUM_INITIAL_CLUSTER": initial,
            **settings,
        }

    def start(self) -> None:
        """Start the node; it is not ready yet."""
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "-P", "-m", "service.cli", "server"], env=self.environ, stdout=log, stderr=log)

    def ready(self) -> bool:
        """Whether the node says that it is ready."""
        return requests.get(f"{self.url}/readyz", timeout=5).status_code == 200

    def log(self) -> str:
        """All that it has written so far."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def pids(self) -> list[int]:
        """The node's processes: the supervisor first, then all below it."""
        if self.process is None or self.process.poll() is not None:
            return []
        found = [self.process.pid]
        for pid in found:
            with suppress(OSError):
                for thread in Path(f"/proc/{pid}/task").iterdir():
                    found += [int(child) for child in (thread / "children").read_text().split()]
        return found

    def agent_pid(self) -> int:
        """The agent's process."""
        return next(pid for pid in self.pids() if "service.agent" in command_line(pid))

    def worker_pids(self) -> list[int]:
        """Gunicorn's workers."""
        masters = [pid for pid in self.pids()[1:] if "gunicorn" in command_line(pid)]
        return [pid for pid in masters if parent(pid) in masters]

    def kill(self) -> None:
        """SIGKILL to every process of the node, without any order."""
        for pid in reversed(self.pids()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.wait()

    def terminate(self) -> int:
        """SIGTERM to the supervisor.

        :returns: the exit code.
        """
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
        return self.wait()

    def ended(self) -> bool:
        """Whether the node was started and has ended since."""
        return self.process is not None and self.process.poll() is not None

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Wait for the end of the node.

        :returns: the exit code.
        """
        if self.process is None:
            raise AssertionError(f"{self.name} was never started")
        return self.process.wait(seconds)

    def get(self, key: str, query: str = "raw", seconds: float = 15.0) -> requests.Response:
        """GET of a key."""
        return requests.get(f"{self.url}/v1/kv/{key}?{query}", timeout=seconds)

    def put(self, key: str, value: bytes, query: str = "", seconds: float = 15.0) -> requests.Response:
        """PUT of a key."""
        return requests.put(f"{self.url}/v1/kv/{key}?{query}", data=value, timeout=seconds)

    def wipe(self) -> None:
        """Lose the disk of a node that does not run."""
        shutil.rmtree(self.data_dir)

    def members(self, query: str = "") -> list[dict[str, Any]]:
        """What ``/v1/cluster/members`` lists; empty when it has no answer."""
        answer = requests.get(f"{self.url}/v1/cluster/members?{query}", timeout=20)
        listed: list[dict[str, Any]] = answer.json()["members"] if answer.status_code == 200 else []
        return listed

    def suffrages(self) -> dict[str, str]:
        """Name and suffrage of every member, as this node's answer has it."""
        return {member["name"]: member["suffrage"] for member in self.members()}

    def unready(self) -> str:
        """Why the node says that it is not ready; empty when it says that it is."""
        answer = requests.get(f"{self.url}/readyz", timeout=5)
        return answer.text if answer.status_code == 503 else ""

    def status(self) -> dict[str, Any]:
        """What ``/v1/cluster/status`` says of the node."""
        answer: dict[str, Any] = requests.get(f"{self.url}/v1/cluster/status", timeout=5).json()
        return answer


class Cluster:
    """Nodes n1, n2, … that know each other. None is started yet.

    :param directory: for data and logs.
    :param count: of nodes.
    :param settings: KVORUM_ variables for all of them.
    """

    def __init__(self, directory: Path, count: int = 3, settings: Mapping[str, str] | None = None) -> None:
        self.directory = directory
        self.settings = dict(settings or {})
        ports = free_ports(2 * count)
        names = [f"n{number}" for number in range(1, count + 1)]
        initial = ",".join(f"{name}=http://127.0.0.1:{port}" for name, port in zip(names, ports[count:], strict=True))
        self.nodes = [
            Node(name, directory, api_port=api, peer_port=peer, initial=initial, settings=settings or {})
            for name, api, peer in zip(names, ports[:count], ports[count:], strict=True)
        ]

    def newcomer(self, name: str, join: str, **settings: str) -> Node:
        """Another node, that asks to be added. It is not started yet.

        :param join: whom it asks.
        """
        api, peer = free_ports(2)
        more = {**self.settings, "KVORUM_JOIN": join, **settings}
        node = Node(name, self.directory, api_port=api, peer_port=peer, initial="", settings=more)
        self.nodes.append(node)
        return node

    def start_all(self) -> None:
        """Start every node that does not run, and wait until all are ready."""
        for node in self.nodes:
            if node.process is None or node.process.poll() is not None:
                node.start()
        self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until every node is ready."""
        for node in self.nodes:
            wait_until(node.ready, f"{node.name} is ready; its log ends with: {node.log()[-2000:]}")

    def stop_all(self) -> None:
        """End whatever still runs."""
        running = [node for node in self.nodes if node.process is not None and node.process.poll() is None]
        for node in running:
            node.process.terminate()  # type: ignore[union-attr]  # it was just asked for
        for node in running:
            try:
                node.wait(20)
            except subprocess.TimeoutExpired:
                node.kill()

    def leader(self) -> Node:
        """The node that leads, as the others know it too."""

        def find() -> Node | None:
            for node in self.nodes:
                if node.process is None or node.process.poll() is not None:
                    continue
                with suppress(requests.RequestException, ValueError):
                    servers = requests.get(f"{node.url}/v1/operator/raft/configuration", timeout=2).json()["Servers"]
                    names = [server["Node"] for server in servers if server["Leader"]]
                    if found := next((one for one in self.nodes if one.name in names and one.process and one.process.poll() is None), None):
                        return found
            return None

        leader: Node = wait_until(find, "a leader is known")
        return leader

    def followers(self) -> list[Node]:
        """The nodes that run and do not lead."""
        leader = self.leader()
        return [node for node in self.nodes if node is not leader and node.process and node.process.poll() is None]


def command_line(pid: int) -> str:
    """The command line of a process; empty when it has gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def parent(pid: int) -> int:
    """The parent of a process; 0 when it has gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return 0


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
