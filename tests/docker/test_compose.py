"""The Compose file and the image on a real engine, with each Compose that this machine has."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from containers import TOP, Cluster, ClusterError, compose, run

sys.path.insert(0, str(TOP / "tests" / "processes"))

from cluster import free_ports
from consul_server import find_consul

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(900)]

UP_SECONDS_MAX = 600
CHAOS_SECONDS_MAX = 300


def installed(command: str) -> bool:
    """Whether this Compose answers."""
    try:
        return subprocess.run([*command.split(), "version"], capture_output=True, timeout=30, check=False).returncode == 0
    except OSError:
        return False


@pytest.fixture(scope="module", params=["docker compose", "docker-compose"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Three nodes and Redis, started by docker/up.sh as a project of their own; docker-compose 1.29 builds with the classic builder."""
    command: str = request.param
    if not installed(command):
        pytest.skip(f"'{command}' is not installed")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("COMPOSE", command)
        environment.setenv("COMPOSE_PROJECT_NAME", f"kvorum-test-{os.getpid()}")
        environment.setenv("COMPOSE_PROFILES", "cache")
        for number, port in enumerate(free_ports(3), start=1):
            environment.setenv(f"NODE{number}_PORT", str(port))
        try:
            run([str(TOP / "docker" / "up.sh")], UP_SECONDS_MAX)
            yield Cluster()
        finally:
            compose("down", "--volumes", "--remove-orphans")


def test_containers_are_confined(cluster: Cluster) -> None:
    """Each node runs as an ordinary user, without capabilities, on a root file system that it cannot write."""
    for node in cluster.nodes.values():
        status = run(["docker", "exec", node.container, "cat", "/proc/1/status"])
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert fields["Uid"].split() == ["10001"] * 4
        assert int(fields["CapEff"], 16) == 0
        assert int(fields["CapBnd"], 16) == 0
        assert fields["NoNewPrivs"] == "1"
        with pytest.raises(ClusterError, match="Read-only file system"):
            run(["docker", "exec", node.container, "touch", "/opt/kvorum/written"])
        run(["docker", "exec", node.container, "touch", "/data/written", "/tmp/written"])


def test_health_check_is_that_of_the_command_line(cluster: Cluster) -> None:
    """The engine calls a node healthy because `kvorum healthcheck` said so."""
    for node in cluster.nodes.values():
        health = json.loads(run(["docker", "inspect", "--format", "{{json .State.Health}}", node.container]))
        assert health["Status"] == "healthy"
        assert health["Log"][-1]["ExitCode"] == 0


def test_cached_read(cluster: Cluster) -> None:
    """With the profile `cache`, a cached read comes from Redis, and stopping Redis takes nothing but the cache."""
    url = f"{next(iter(cluster.nodes.values())).url}/v1/kv/compose/cached"
    assert requests.put(url, data=b"value", timeout=10).text == "true"
    seen = [requests.get(f"{url}?cached&raw", timeout=10) for _ in range(3)]
    assert [answer.content for answer in seen] == [b"value"] * 3
    assert "HIT" in [answer.headers.get("X-Cache", "") for answer in seen]
    compose("stop", "redis")
    assert requests.get(f"{url}?cached&raw", timeout=10).content == b"value"
    assert requests.put(url, data=b"other", timeout=10).text == "true"
    assert requests.get(f"{url}?cached&raw", timeout=10).content == b"other"
    compose("start", "redis")


def test_consul_command_line(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real Consul command line works at the leader and at a follower."""
    consul = find_consul()
    if not consul:
        pytest.skip("no consul program on PATH, in CONSUL_BIN or in .consul (make consul)")
    monkeypatch.setenv("CONSUL_BIN", consul)
    leader = cluster.leader()
    assert "checks passed at 2 addresses" in run([str(TOP / "tests" / "consul-cli.sh"), leader.url, cluster.others(leader)[0].url])


@pytest.mark.parametrize("options", [[], ["--kill"]], ids=["stop", "kill"])
def test_chaos(cluster: Cluster, options: list[str]) -> None:
    """Every acknowledged byte survives the leader's container, and then all three, being stopped or killed."""
    assert len(cluster.nodes) == 3
    program = Path(__file__).with_name("chaos_quick.py")
    done = subprocess.run([sys.executable, str(program), *options], capture_output=True, text=True, timeout=CHAOS_SECONDS_MAX, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_base_image_script_refuses_unknown_names() -> None:
    """A name that it does not know ends the script with a usage error, before anything is made."""
    done = subprocess.run([str(TOP / "docker" / "base-image.sh"), "ruby"], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert "unknown argument 'ruby'" in done.stderr
