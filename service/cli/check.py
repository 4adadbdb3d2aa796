"""``kvorum check``: whether all nodes hold the same state."""

import json
import time
from collections.abc import Mapping
from threading import Event
from typing import Any

import click

from service.cli.console import FAILED, columns, leave, node_options, printable, say
from service.client import Client

POLL_SECONDS = 0.1
_DIGEST_CHARACTERS = 16


@click.command()
@node_options
@click.option("--timeout", "seconds", type=click.FloatRange(1, 3600), default=300.0, show_default=True, help="Seconds to wait for slow nodes.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def check(address: str | None, token: str | None, seconds: float, output: str) -> None:
    """Compare the state of all nodes at one index.

    Every node takes a digest of everything it holds at the same place in the log, while reads and writes go on. Ends with 0 only when all
    of them have one and all are equal.
    """
    nothing = Event()  # no node tells when it is done
    with Client(address, token) as client:
        index = client.begin_check()
        deadline = time.monotonic() + seconds
        found = client.check(index)
        while found["verdict"] == "computing" and time.monotonic() < deadline:
            nothing.wait(POLL_SECONDS)
            found = client.check(index)
    click.echo(json.dumps(found, indent=2) if output == "json" else _table(found))
    say(_told(found, seconds))
    leave(0 if found["verdict"] == "equal" else FAILED)


def _table(found: Mapping[str, Any]) -> str:
    rows = [[node["name"], "yes" if node["voter"] else "no", node["stage"], *_digest(node)] for node in found["nodes"]]
    return columns([["NODE", "VOTER", "STAGE", "KEYS", "DIGEST"], *rows])


def _digest(node: Mapping[str, Any]) -> tuple[str, str]:
    if node["stage"] != "done":
        return "-", printable(node["problem"])
    return str(node["keys"]), node["sha256"][:_DIGEST_CHARACTERS]


def _told(found: Mapping[str, Any], seconds: float) -> str:
    index = found["index"]
    match found["verdict"]:
        case "equal":
            return f"all {len(found['nodes'])} nodes hold the same state at index {index}"
        case "different":
            return f"the nodes hold DIFFERENT states at index {index}"
        case "computing":
            return f"not every node had its digest of index {index} within {seconds:g} s; so far none differs"
        case _:
            return f"not every node has a digest of index {index}; those that have agree"
