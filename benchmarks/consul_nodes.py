"""A freshly started cluster of real Consul servers on loopback, for comparisons: it is started, asked and stopped as a cluster of ours is."""

import os
import subprocess
import sys
from pathlib import Path

import requests

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "processes"))

from cluster import Cluster, Node, free_ports
from consul_server import find_consul

SETTINGS = "performance { raft_multiplier = 1 } limits { http_max_conns_per_client = 8000 }"
"""Consul's own advice for production, and room for the connections of one load generator."""


def command_line(program: str, name: str, data_dir: Path, ports: tuple[int, int, int], join: list[int], *, token: str = "") -> list[str]:
    """How one server of a cluster is started.

    :param ports: of its own: for clients, for servers, for gossip.
    :param join: the ports for gossip of all servers.
    :param token: switches the ACL on, denies by default, and may do everything; empty for no ACL.
    """
    http, server, serf = ports
    listening = f"ports {{ dns = -1 grpc = -1 http = {http} server = {server} serf_lan = {serf} serf_wan = -1 }}"
    acl = f'acl {{ enabled = true default_policy = "deny" tokens {{ master = "{token}" agent = "{token}" }} }}'
    argv = [program, "agent", "-server", f"-bootstrap-expect={len(join)}", f"-node={name}", f"-data-dir={data_dir}"]
    argv += ["-bind=127.0.0.1", "-client=127.0.0.1", "-log-level=err", "-retry-interval=1s", "-hcl", listening, "-hcl", SETTINGS]
    argv += ["-hcl", acl] if token else []
    return argv + [f"-retry-join=127.0.0.1:{other}" for other in join if other != serf]


def environ() -> dict[str, str]:
    """The variables that a server gets: nothing that would configure it."""
    return {key: value for key, value in os.environ.items() if not key.startswith("CONSUL_")}


class ConsulNode(Node):
    """One server; its output goes to ``<directory>/<name>.log``."""

    def __init__(self, name: str, directory: Path, *, ports: tuple[int, int, int], join: list[int], program: str) -> None:
        self.name = name
        self.url = f"http://127.0.0.1:{ports[0]}"
        self.data_dir = directory / name
        self.log_path = directory / f"{name}.log"
        self.process = None
        self.environ = environ()
        self._argv = command_line(program, name, self.data_dir, ports, join)
        self._count = len(join)

    def start(self) -> None:
        """Start it; it is not ready yet."""
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(self._argv, env=self.environ, stdout=log, stderr=log)

    def ready(self) -> bool:
        """Whether it knows a leader and all the others."""
        answer = requests.get(f"{self.url}/v1/operator/raft/configuration", timeout=5)
        servers = answer.json()["Servers"] if answer.status_code == 200 else []
        return len(servers) == self._count and any(server["Leader"] for server in servers)


class ConsulCluster(Cluster):
    """Servers c1, c2, … that know each other. None is started yet.

    :param directory: for data and logs.
    :param program: the path of Consul.
    """

    def __init__(self, directory: Path, program: str, count: int = 3) -> None:
        self.directory = directory
        self.settings = {}
        ports = free_ports(3 * count)
        join = ports[2 * count :]
        self.nodes = [
            ConsulNode(f"c{number + 1}", directory, ports=(ports[number], ports[count + number], join[number]), join=join, program=program)
            for number in range(count)
        ]


def version(program: str) -> str:
    """What the program says it is."""
    return subprocess.run([program, "version"], capture_output=True, text=True, check=True).stdout.split("\n", 1)[0]


__all__ = ["ConsulCluster", "ConsulNode", "find_consul", "version"]
