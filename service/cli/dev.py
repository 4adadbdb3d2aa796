"""``kvorum dev``: a cluster of real processes on loopback."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from shutil import which
from typing import Any

import click

from service.cli.console import leave, say
from service.client import Client, ClientError
from service.settings import Settings
from service.supervisor.loopback import LoopbackCluster, plan_cluster

_READY_ANSWER_SECONDS = 2.0


@click.command()
@click.option("--nodes", type=int, default=3, show_default=True, help="How many nodes.")
@click.option("--data-dir", type=click.Path(path_type=Path), default=Path(".kvorum"), show_default=True, help="Where the nodes keep their data.")
@click.option("--port", type=int, default=8501, show_default=True, help="Client port of the first node; the others follow. Peers: 200 below.")
@click.option("--json", "as_json", is_flag=True, help="When healthy, print one JSON object a node instead of text.")
def dev(nodes: int, data_dir: Path, port: int, as_json: bool) -> None:
    """Run a whole cluster on this machine, in the foreground.

    Ctrl-C stops it; the data stay. A node that is killed stays dead: start it again by hand with the argv and env that --json prints.
    Settings in the environment (KVORUM_…) hold for all nodes.
    """
    plan = plan_cluster(nodes, data_dir, port, os.environ)
    say(f"starting {nodes} nodes in {plan.data_dir}")
    cluster = LoopbackCluster(plan, _ready, say)
    leave(cluster.run(_print_json if as_json else _print_text))


def _ready(settings: Settings) -> tuple[bool, str]:
    try:
        with Client(settings.api_bind, answer_seconds=_READY_ANSWER_SECONDS) as client:
            return client.ready()
    except ClientError as error:
        return False, str(error)


def _print_json(nodes: Sequence[dict[str, Any]]) -> None:
    for node in nodes:
        click.echo(json.dumps(node))


def _print_text(nodes: Sequence[dict[str, Any]]) -> None:
    first = nodes[0]["api"]
    # Run from a virtual environment that is not activated, the command has to be named by its path.
    command = "kvorum" if which("kvorum") else str(Path(sys.executable).with_name("kvorum"))
    click.echo(f"The cluster is ready: {len(nodes)} nodes.\n")
    for node in nodes:
        click.echo(f"  {node['name']}  clients {node['api']}   peers {node['peer']}   pid {node['pids']['supervisor']}   {node['data_dir']}/node.log")
    click.echo(
        f"\nTry, in another terminal:\n\n"
        f"  export KVORUM_HTTP_ADDR={first}\n"
        f"  {command} kv put greeting hello\n"
        f"  {command} kv get greeting\n"
        f"  {command} status\n"
        f"  curl {first}/v1/kv/greeting?raw\n\n"
        f"The nodes speak Consul's KV API (CONSUL_HTTP_ADDR={first}). Ctrl-C stops them; the data stay."
    )
