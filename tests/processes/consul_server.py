"""A real Consul: where the program is, and a server with ACLs on that denies by default."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import requests
from cluster import free_ports, wait_until

_FETCHED = Path(__file__).parents[2] / ".consul/usr/bin/consul"
PATIENCE_SECONDS = 60.0


def find_consul() -> str:
    """The program: CONSUL_BIN, or on PATH, or what ``make consul`` has fetched.

    :returns: empty when there is none.
    """
    named = os.environ.get("CONSUL_BIN", "")
    if named:
        return named if shutil.which(named) else ""
    return shutil.which("consul") or (str(_FETCHED) if _FETCHED.is_file() else "")


class ConsulServer:
    """One server, in memory; its output goes to ``<directory>/consul.log``.

    :ivar token: of its bootstrap.
    """

    def __init__(self, program: str, directory: Path) -> None:
        self.token = ""
        self._program = program
        self._log = directory / "consul.log"
        http, server, serf = free_ports(3)
        self.url = f"http://127.0.0.1:{http}"
        ports = f"ports {{ dns = -1 http = {http} grpc = -1 serf_lan = {serf} serf_wan = -1 server = {server} }}"
        rest = 'acl { enabled = true default_policy = "deny" } connect { enabled = false } performance { raft_multiplier = 1 }'
        self._argv = [program, "agent", "-dev", "-node=real", "-bind=127.0.0.1", "-client=127.0.0.1", "-hcl", ports, "-hcl", rest]
        self._environ = {key: value for key, value in os.environ.items() if not key.startswith("CONSUL_")}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and have its first token."""
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._argv, stdout=log, stderr=log, env=self._environ)

        def bootstrapped() -> Any:
            answer = requests.put(f"{self.url}/v1/acl/bootstrap", timeout=20)
            return answer.json()["SecretID"] if answer.status_code == 200 else ""

        self.token = wait_until(bootstrapped, "Consul has a leader and was bootstrapped", PATIENCE_SECONDS)

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def command(self, *arguments: str, token: str, url: str = "") -> str:
        """Run a command of its command line, against it or against another address.

        :returns: what it said.
        """
        environ = self._environ | {"CONSUL_HTTP_ADDR": url or self.url, "CONSUL_HTTP_TOKEN": token}
        done = subprocess.run([self._program, *arguments], env=environ, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, f"consul {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout
