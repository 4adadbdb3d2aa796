"""The other programs: three processes each, started by their command lines."""

import os
import shutil
import signal
import subprocess
import sys
import time
from abc import abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Any

import requests

from benchmarks import consul_nodes
from benchmarks.compare.system import COUNT, TOP, Missing, System, ask_json
from benchmarks.compare.workloads import WORKLOADS

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "processes"))

from cluster import free_ports
from consul_server import find_consul

STEADY_SECONDS = 1.0


class Peer(System):
    """Another program: three processes that are started by command lines, each with a log of its own."""

    def __init__(self, directory: Path, token: str = "") -> None:
        super().__init__(directory, token)
        self.program = self.find()
        self._processes: list[subprocess.Popen[bytes]] = []

    @abstractmethod
    def command_lines(self) -> list[list[str]]:
        """How the processes are started; sets ``addresses``."""

    @abstractmethod
    def ask_version(self) -> str:
        """Of a cluster that runs."""

    def environ(self) -> dict[str, str]:
        """The variables it gets."""
        return dict(os.environ)

    def start(self) -> None:
        """Start all processes and wait for a steady leader."""
        for number, line in enumerate(self.command_lines()):
            with (self.directory / f"{number}.log").open("wb") as log:
                self._processes.append(subprocess.Popen(line, stdout=log, stderr=log, env=self.environ()))
        first = self.leader()
        time.sleep(STEADY_SECONDS)
        while (second := self.leader()) != first:
            first = second
            time.sleep(STEADY_SECONDS)
        self.version = self.ask_version()

    def stop(self) -> None:
        """Kill what still runs: its data are not needed any more."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()

    def kill(self, number: int) -> None:
        """End one process."""
        self._processes[number].send_signal(signal.SIGKILL)
        self._processes[number].wait()

    def ask(self, number: int, path: str, body: bytes | None = None) -> Any:
        """What JSON a node answers; raises while it doesn't."""
        host, port = self.addresses[number]
        return ask_json(f"http://{host}:{port}{path}", self.token, body)

    def ask_any(self, path: str) -> Any:
        """What the first node says that answers."""
        for number in range(len(self.addresses)):
            with suppress(requests.RequestException):
                return self.ask(number, path)
        raise requests.ConnectionError(f"no node of {self.name} answers {path}")


class Consul(Peer):
    """Consul servers, which is what kvorum can stand in for."""

    name = "Consul"
    offers = frozenset(WORKLOADS)  # it takes ?cached, and answers as always
    has_acl = True

    @classmethod
    def find(cls) -> str:
        """CONSUL_BIN, PATH, or what ``make consul`` fetched."""
        if found := find_consul():
            return found
        raise Missing("no Consul: set CONSUL_BIN, or run make consul")

    def command_lines(self) -> list[list[str]]:
        """Servers that find each other by gossip."""
        ports = free_ports(3 * COUNT)
        join = ports[2 * COUNT :]
        self.addresses = [("127.0.0.1", port) for port in ports[:COUNT]]
        return [
            consul_nodes.command_line(
                self.program,
                f"peer{number}",
                self.directory / str(number),
                (ports[number], ports[COUNT + number], join[number]),
                join,
                token=self.token,
            )
            for number in range(COUNT)
        ]

    def environ(self) -> dict[str, str]:
        """Nothing that would configure it."""
        return consul_nodes.environ()

    def ask_version(self) -> str:
        """Of the first node."""
        return str(self.ask(0, "/v1/agent/self")["Config"]["Version"])

    def leader_number(self) -> int:
        """Which node is called leader; its name ends with its number."""
        servers = self.ask_any("/v1/operator/raft/configuration")["Servers"]
        if len(servers) < COUNT:
            raise requests.RequestException("not all have joined")
        name = next((server["Node"] for server in servers if server["Leader"]), "")
        if not name:
            raise requests.RequestException("no leader")
        return int(name.removeprefix("peer"))


class Etcd(Peer):
    """etcd, asked through its JSON gateway."""

    name = "etcd"
    dialect = "etcd"
    note = (
        "etcd is asked through its JSON gateway, the only way to it over HTTP/1.1; its own clients speak gRPC, which costs it less. "
        "Its reads are agreed by a quorum unless stale ones are asked for, so get and getc are the same to it."
    )

    @classmethod
    def find(cls) -> str:
        """ETCD_BIN or PATH."""
        if found := shutil.which(os.environ.get("ETCD_BIN") or "etcd"):
            return found
        raise Missing("no etcd: set ETCD_BIN, or put it on PATH")

    def command_lines(self) -> list[list[str]]:
        """A static cluster."""
        ports = free_ports(2 * COUNT)
        self.addresses = [("127.0.0.1", port) for port in ports[:COUNT]]
        clients, peers = ([f"http://127.0.0.1:{port}" for port in some] for some in (ports[:COUNT], ports[COUNT:]))
        cluster = ",".join(f"peer{number}={url}" for number, url in enumerate(peers))
        lines = []
        for number in range(COUNT):
            own = ["--name", f"peer{number}", "--data-dir", f"{self.directory}/{number}", "--initial-cluster", cluster, "--log-level", "error"]
            client = ["--listen-client-urls", clients[number], "--advertise-client-urls", clients[number]]
            lines.append([self.program, *own, *client, "--listen-peer-urls", peers[number], "--initial-advertise-peer-urls", peers[number]])
        return lines

    def environ(self) -> dict[str, str]:
        """Nothing that would configure it."""
        return {key: value for key, value in os.environ.items() if not key.startswith("ETCD_")}

    def ask_version(self) -> str:
        """Of the first node."""
        return str(self.ask(0, "/version")["etcdserver"])

    def leader_number(self) -> int:
        """Which node says that it leads."""
        for number in range(COUNT):
            with suppress(requests.RequestException):
                status = self.ask(number, "/v3/maintenance/status", b"{}")
                if status.get("leader", "0") == status["header"]["member_id"]:
                    return number
        raise requests.RequestException("no leader")


class PySyncObj(Peer):
    """PySyncObj behind a small HTTP front of ours."""

    name = "PySyncObj"
    note = (
        "PySyncObj is a library: each node is a Python process with its replicated dictionary behind a small HTTP front of ours "
        "(benchmarks/compare/pysyncobj_node.py). It does not sync its journal to the disk before it acknowledges a write, and keeps no votes. "
        "It reads only what the asked node has, so its reads are compared with stale ones alone; they come out of a dictionary as raw bytes."
    )
    offers = frozenset({"put1", "put64", "put256", "fput64", "stale64"})

    @classmethod
    def find(cls) -> str:
        """The folder PYSYNCOBJ_PATH or .pysyncobj, which pip has installed it into."""
        folder = Path(os.environ.get("PYSYNCOBJ_PATH") or TOP / ".pysyncobj").resolve()
        if (folder / "pysyncobj").is_dir():
            return str(folder)
        raise Missing("no PySyncObj: .venv/bin/pip install --target .pysyncobj pysyncobj, or set PYSYNCOBJ_PATH")

    def command_lines(self) -> list[list[str]]:
        """Our front, on this Python."""
        ports = free_ports(2 * COUNT)
        self.addresses = [("127.0.0.1", port) for port in ports[:COUNT]]
        self._rafts = [f"127.0.0.1:{port}" for port in ports[COUNT:]]
        front = str(Path(__file__).with_name("pysyncobj_node.py"))
        return [
            [sys.executable, front, str(port), own, f"{self.directory}/{port}.journal", *(other for other in self._rafts if other != own)]
            for (_, port), own in zip(self.addresses, self._rafts, strict=True)
        ]

    def environ(self) -> dict[str, str]:
        """Where the library is."""
        return {**os.environ, "PYTHONPATH": self.program}

    def ask_version(self) -> str:
        """Of the first node."""
        return str(self.ask(0, "/status")["version"])

    def leader_number(self) -> int:
        """Whom the first node that answers names, if it is ready."""
        status = self.ask_any("/status")
        if not status["ready"] or status["leader"] not in self._rafts:
            raise requests.RequestException("no leader")
        return self._rafts.index(status["leader"])
