"""Runs the real loopback cluster, its nodes made of stand-ins. Arguments: data directory, port, how many nodes, NAME=VALUE for the stand-ins."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from service.errors import KvorumError
from service.settings import Settings
from service.supervisor.listening import accepts
from service.supervisor.loopback import LoopbackCluster, plan_cluster


def ready(settings: Settings) -> tuple[bool, str]:
    """A node is ready when both of its processes run."""
    path = Path(dict(argument.split("=", 1) for argument in sys.argv[4:])["STAND_IN_EVENTS"])
    events = path.read_text() if path.exists() else ""
    return accepts(settings.socket_path) and events.count("web pid") >= int(sys.argv[3]), "not yet"


def tell(text: str) -> None:
    """Write a line for people."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def describe(nodes: Sequence[dict[str, Any]]) -> None:
    """Write one JSON line a node."""
    sys.stdout.write("".join(json.dumps(node) + "\n" for node in nodes))
    sys.stdout.flush()


def main() -> int:
    """Plan and run; print one JSON line a node."""
    node = (sys.executable, str(Path(__file__).parent / "node.py"), *sys.argv[4:])
    try:
        plan = plan_cluster(int(sys.argv[3]), Path(sys.argv[1]), int(sys.argv[2]), {}, node)
        return LoopbackCluster(plan, ready, tell).run(describe)
    except KvorumError as error:
        tell(str(error))
        return error.exit_code


sys.exit(main())
