"""A real Consul and a node of kvorum, each alone, freshly made, with the same name."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import requests

sys.path.insert(0, str(Path(__file__).parents[1] / "processes"))

from cluster import Cluster, free_ports, wait_until
from consul_server import find_consul  # noqa: F401  (whoever makes a Pair asks here for the program)

NODE = "n1"
CONSUL_VERSION = "1.8.7"
"""The release that kvorum answers like."""


def consul_version(program: str) -> str:
    """What it says that it is, such as ``1.8.7``."""
    said = subprocess.run([program, "version"], capture_output=True, text=True, timeout=30, check=True).stdout
    return said.split("\n", 1)[0].removeprefix("Consul v").partition("+")[0]


class Consul:
    """A Consul server of one node, as it is by default but for its ports.

    :param directory: for its data and its log.
    """

    def __init__(self, program: str, directory: Path) -> None:
        self.port, server, serf = free_ports(3)
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = directory / "consul.log"
        ports = f"ports {{ dns = -1 http = {self.port} grpc = -1 serf_lan = {serf} serf_wan = -1 server = {server} }}"
        self._argv = [program, "agent", "-server", "-bootstrap-expect=1", f"-data-dir={directory / 'consul'}", f"-node={NODE}", "-bind=127.0.0.1"]
        self._argv += ["-client=127.0.0.1", "-log-level=warn", "-hcl", ports, "-hcl", "performance { raft_multiplier = 1 }"]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it is not ready yet."""
        with self._log.open("ab") as log:
            environ = {key: value for key, value in os.environ.items() if not key.startswith("CONSUL_")}
            self._process = subprocess.Popen(self._argv, stdout=log, stderr=log, env=environ)

    @property
    def ended(self) -> bool:
        """Whether it does not run any more."""
        return self._process is not None and self._process.poll() is not None

    def panicked(self, seconds: float = 3.0) -> bool:
        """Whether it has ended by itself.

        :param seconds: how long to wait for that.
        """
        if self._process is None:
            return False
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self.ended

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()


def takes_sessions(url: str) -> bool:
    """Begin a session and end it. Once Consul lets it, its own node is known, and healthy. Both servers have had one then."""
    answer = requests.put(f"{url}/v1/session/create", timeout=10)
    return answer.ok and requests.put(f"{url}/v1/session/destroy/{answer.json()['ID']}", timeout=10).ok


class Pair:
    """One of each, ready. Used by ``with``.

    :ivar ports: of Consul and of kvorum.
    """

    def __init__(self, consul: str) -> None:
        shared = Path("/dev/shm")
        self._directory = Path(tempfile.mkdtemp(prefix="differential-", dir=shared if os.access(shared, os.W_OK) else None))
        self.consul = Consul(consul, self._directory)
        self._cluster = Cluster(self._directory, 1)
        self.ports = (self.consul.port, int(self._cluster.nodes[0].url.rpartition(":")[2]))

    def __enter__(self) -> Self:
        try:
            self.consul.start()
            self._cluster.start_all()
            for url in (self.consul.url, self._cluster.nodes[0].url):
                wait_until(lambda url=url: takes_sessions(url), f"{url} takes sessions; {self.logs()}", 60)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, OSError):
            error.add_note(f"{error}\n{self.logs()}")
        self.stop()

    def logs(self) -> str:
        """How the logs of both end."""
        return "\n".join(f"{path.name} ends with: {path.read_text(errors='replace')[-4000:]}" for path in self._directory.glob("*.log"))

    def stop(self) -> None:
        """End both, and remove what they stored."""
        self.consul.stop()
        with suppress(OSError):
            self._cluster.stop_all()
        shutil.rmtree(self._directory, ignore_errors=True)
