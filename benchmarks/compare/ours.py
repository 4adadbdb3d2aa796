"""kvorum as it is compared: three nodes of this checkout, alone or with a Redis beside them."""

import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import requests

from benchmarks.compare.system import COUNT, TOP, Missing, System, address_of, ask_json
from benchmarks.compare.workloads import WORKLOADS

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "processes"))

from cluster import Cluster, Node, free_ports


class Kvorum(System):
    """kvorum, from this checkout."""

    name = "kvorum"
    has_acl = True

    def settings(self) -> dict[str, str]:
        """What differs from the defaults."""
        acl = {"KVORUM_ACL_ENABLED": "true", "KVORUM_ACL_DEFAULT_POLICY": "deny", "KVORUM_ACL_INITIAL_MANAGEMENT": self.token}
        return acl if self.token else {}

    def start(self) -> None:
        """Start it."""
        self._cluster = Cluster(self.directory, COUNT, self.settings())
        self._cluster.start_all()
        self.addresses = [address_of(node.url) for node in self._cluster.nodes]
        commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=TOP, capture_output=True, text=True, check=False).stdout.strip()
        self.version = commit or "without git"

    def stop(self) -> None:
        """End it."""
        self._cluster.stop_all()

    def leader_number(self) -> int:
        """Whom the nodes name; n1 is the first."""
        for host, port in self.addresses:
            with suppress(requests.RequestException, StopIteration):
                servers = ask_json(f"http://{host}:{port}/v1/operator/raft/configuration", self.token)["Servers"]
                return int(next(server["Node"] for server in servers if server["Leader"]).removeprefix("n")) - 1
        raise requests.RequestException("no leader")

    def kill(self, number: int) -> None:
        """End all processes of a node."""
        node: Node = self._cluster.nodes[number]
        node.kill()


class KvorumWithRedis(Kvorum):
    """kvorum with a Redis beside it, which its agents write to and ``?cached`` reads ask."""

    note = "A Redis runs beside kvorum: it answers ?cached reads; every write goes there too. Consul takes ?cached with a key, and reads as always."
    offers = frozenset(WORKLOADS)

    @classmethod
    def find(cls) -> str:
        """Of the Redis."""
        if found := shutil.which("redis-server"):
            return found
        raise Missing("no redis-server on PATH")

    def settings(self) -> dict[str, str]:
        """Where the Redis is."""
        return {**super().settings(), "KVORUM_REDIS_URL": f"redis://127.0.0.1:{self._port}/0"}

    def start(self) -> None:
        """Start the Redis first."""
        (self._port,) = free_ports(1)
        line = [self.find(), "--port", str(self._port), "--bind", "127.0.0.1", "--dir", str(self.directory), "--save", ""]
        self._redis = subprocess.Popen(line, stdout=subprocess.DEVNULL)
        super().start()

    def stop(self) -> None:
        """End both."""
        super().stop()
        self._redis.kill()
        self._redis.wait()
