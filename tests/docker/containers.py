"""The three nodes as containers of this folder's Compose project: found, stopped, killed, started and asked for their leader.

Only containers that Compose names as its own are touched. Either Compose works: docker/compose.sh finds it, and the
environment variable COMPOSE chooses one.
"""

import json
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import requests

TOP = Path(__file__).resolve().parent.parent.parent
SERVICES = ("node1", "node2", "node3")
STOP_GRACE_SECONDS = 15
"""As in docker-compose.yml: what the engine waits after SIGTERM before it kills."""
CONNECT_AND_READ_SECONDS = (2.0, 15.0)
"""A node holds a request up to 7 s while there is no leader, so an answer may take longer than that."""


class ClusterError(Exception):
    """The cluster could not be brought to where a step needs it."""


@dataclass(frozen=True)
class Node:
    """One container and the address that this machine reaches it at."""

    name: str
    container: str
    url: str


def run(argv: Sequence[str], timeout_seconds: float = 120) -> str:
    """Run a program at the top of the repository and give its output.

    Raises:
        ClusterError: it failed; the message holds what it wrote to standard error.
    """
    done = subprocess.run(argv, cwd=TOP, capture_output=True, text=True, timeout=timeout_seconds, check=False)
    if done.returncode != 0:
        raise ClusterError(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done.stdout.strip()


def compose(*arguments: str, timeout_seconds: float = 120) -> str:
    """Run this machine's Compose on the project of this folder."""
    return run([str(TOP / "docker" / "compose.sh"), *arguments], timeout_seconds)


def wait_until(what: str, condition: Callable[[], bool], timeout_seconds: float) -> float:
    """Ask `condition` until it holds, and give the seconds it took.

    Raises:
        ClusterError: it did not hold in time; the message says `what`.
    """
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > timeout_seconds:
            raise ClusterError(f"{what}: not within {timeout_seconds:g} s")
        time.sleep(0.05)
    return time.monotonic() - started


class Cluster:
    """The nodes of one Compose project, all of which must exist."""

    def __init__(self) -> None:
        self.nodes = {name: self._find(name) for name in SERVICES}

    @staticmethod
    def _find(service: str) -> Node:
        container = compose("ps", "-q", service)
        if not container:
            raise ClusterError(f"there is no container of {service}: start the cluster with 'make up' first")
        bindings = json.loads(run(["docker", "inspect", "--format", "{{json .HostConfig.PortBindings}}", container]))
        host = bindings["8500/tcp"][0]
        return Node(service, container, f"http://{host['HostIp']}:{host['HostPort']}")

    def others(self, node: Node) -> list[Node]:
        """Every node but this one."""
        return [other for other in self.nodes.values() if other != node]

    def leader(self) -> Node:
        """The node that the others call their leader.

        Raises:
            ClusterError: nobody names one of ours within 30 s.
        """
        found: list[Node] = []

        def named() -> bool:
            for node in self.nodes.values():
                names = [server.get("Node") for server in _configuration(node) if server.get("Leader")]
                found.extend(ours for ours in self.nodes.values() if ours.name in names)
                if found:
                    return True
            return False

        wait_until("a leader", named, timeout_seconds=30)
        return found[0]

    def wait_ready(self, nodes: Iterable[Node], timeout_seconds: float = 60) -> float:
        """Wait until each of `nodes` answers a consistent read; gives the seconds it took."""
        started = time.monotonic()
        for node in nodes:
            wait_until(f"{node.name} answers consistent reads", partial(_answers, node), timeout_seconds)
        return time.monotonic() - started

    def stop(self, nodes: Sequence[Node], *, kill: bool = False) -> list[int]:
        """Stop containers at the same time, with SIGKILL when `kill`; gives their exit codes in order."""
        order = ["docker", "kill"] if kill else ["docker", "stop", "--time", str(STOP_GRACE_SECONDS)]
        _at_once(lambda node: run([*order, node.container]), nodes)
        return [int(run(["docker", "inspect", "--format", "{{.State.ExitCode}}", node.container])) for node in nodes]

    def incarnation(self, node: Node) -> str | None:
        """The id under which the others count `node` as a voter, None when they don't."""
        for other in self.others(node):
            for server in _configuration(other):
                if server.get("Node") == node.name and server.get("Voter"):
                    return str(server["ID"])
        return None

    def wipe(self, node: Node) -> Node:
        """Remove a container and its volume, and start a new one with an empty one; gives the node as it is from then on."""
        mounts = json.loads(run(["docker", "inspect", "--format", "{{json .Mounts}}", node.container]))
        run(["docker", "rm", "--force", node.container])
        for mount in mounts:
            if mount["Type"] == "volume":
                run(["docker", "volume", "rm", mount["Name"]])
        compose("up", "--detach", "--no-build", "--no-deps", node.name)
        self.nodes[node.name] = self._find(node.name)
        return self.nodes[node.name]

    @contextmanager
    def left_running(self) -> Iterator[None]:
        """However the block ends, no container that it stopped stays so."""
        try:
            yield
        finally:
            self.start(list(self.nodes.values()))

    def start(self, nodes: Sequence[Node]) -> None:
        """Start stopped containers at the same time; does not wait for them to answer."""
        _at_once(lambda node: run(["docker", "start", node.container]), nodes)


def _at_once(action: Callable[[Node], object], nodes: Sequence[Node]) -> None:
    with ThreadPoolExecutor(len(nodes)) as pool:
        list(pool.map(action, nodes))


def _configuration(node: Node) -> list[dict[str, object]]:
    try:
        response = requests.get(f"{node.url}/v1/operator/raft/configuration", timeout=CONNECT_AND_READ_SECONDS)
        return list(response.json()["Servers"]) if response.ok else []
    except (requests.RequestException, ValueError, KeyError, TypeError):
        return []


def _answers(node: Node) -> bool:
    try:
        response = requests.get(f"{node.url}/v1/kv/-/ready?consistent", timeout=CONNECT_AND_READ_SECONDS)
    except requests.RequestException:
        return False
    return response.status_code in {requests.codes.ok, requests.codes.not_found}
