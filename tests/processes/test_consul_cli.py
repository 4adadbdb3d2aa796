"""The real Consul command line against a cluster, at its leader and at a follower."""

import os
import subprocess
import uuid
from pathlib import Path

import pytest
import requests
from cluster import Cluster
from consul_server import find_consul

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(600)]

TESTS = Path(__file__).resolve().parent.parent
PROGRAM = find_consul()

with_consul = pytest.mark.skipif(not PROGRAM, reason="no consul program on PATH, in CONSUL_BIN or in .consul (make consul)")


@with_consul
@pytest.mark.parametrize("script", ["consul-cli.sh", "consul-cli-agent.sh"])
def test_the_consul_command_line(cluster: Cluster, script: str) -> None:
    """Every command of the script does and says what it does at a Consul."""
    run(script, cluster)


@with_consul
def test_the_acl_commands(tmp_path: Path) -> None:
    """The same for tokens, policies and roles, on nodes that deny by default."""
    token = str(uuid.uuid4())
    settings = {"KVORUM_ACL_ENABLED": "true", "KVORUM_ACL_DEFAULT_POLICY": "deny", "KVORUM_ACL_INITIAL_MANAGEMENT": token}
    nodes = Cluster(tmp_path, settings=settings)
    try:
        nodes.start_all()
        run("consul-cli-acl.sh", nodes, CONSUL_HTTP_TOKEN=token)
    finally:
        nodes.stop_all()


def run(script: str, cluster: Cluster, **environ: str) -> None:
    """Run a script at the leader and at a follower."""
    leading = requests.get(f"{cluster.nodes[0].url}/v1/status/leader", timeout=20).json()
    leader, *others = sorted(cluster.nodes, key=lambda node: node.peer != leading)
    argv = [TESTS / script, leader.url, others[0].url]
    environ = os.environ | environ | {"CONSUL_BIN": PROGRAM}
    done = subprocess.run(argv, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stdout
    assert "checks passed at 2 addresses" in done.stdout
    print(done.stdout)  # noqa: T201  (how many checks there were)
