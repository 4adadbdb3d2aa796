"""``kvorum status``: what the addressed node knows of itself and its peers."""

import json
from collections.abc import Mapping
from typing import Any

import click

from service.cli.console import columns, node_options, printable
from service.client import Client

_NODE_LINES = (
    ("node", "name"),
    ("id", "id"),
    ("cluster", "cluster_id"),
    ("version", "version"),
    ("role", "role"),
    ("term", "term"),
    ("lease", "lease"),
    ("vote", "vote"),
    ("leader", "leader"),
    ("first index", "first_index"),
    ("last index", "last_index"),
    ("commit index", "commit_index"),
    ("applied index", "applied_index"),
    ("snapshot index", "snapshot_index"),
    ("uptime", "uptime_seconds"),
)
_PEER_COLUMNS = (
    ("PEER", "name"),
    ("ADDRESS", "address"),
    ("VOTER", "voter"),
    ("MATCH", "match_index"),
    ("NEXT", "next_index"),
    ("STATE", "state"),
    ("IN FLIGHT", "inflight"),
    ("LAST CONTACT", "last_contact_ms"),
)


@click.command()
@node_options
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def status(address: str | None, token: str | None, output: str) -> None:
    """Show role, term, vote, leader and log positions of a node, and how far each peer is (the leader knows)."""
    with Client(address, token) as client:
        content = client.status()
    if output == "json":
        click.echo(json.dumps(content, indent=2))
        return
    click.echo(_node_text(content.get("node") or {}))
    peers = content.get("peers") or []
    if peers:
        click.echo()
        click.echo(columns([[title for title, _name in _PEER_COLUMNS], *(_peer_cells(peer) for peer in peers)]))


def _node_text(node: Mapping[str, Any]) -> str:
    shown = dict(node)
    if node.get("leader") and node.get("leader_name"):
        shown["leader"] = f"{node['leader_name']} ({node['leader']})"
    elif not node.get("leader"):
        shown["leader"] = "none known"
    shown["lease"] = {True: "held", False: "no"}.get(node.get("lease", ""), "")
    if isinstance(node.get("uptime_seconds"), (int, float)):
        shown["uptime_seconds"] = f"{node['uptime_seconds']:.0f} s"
    width = max(len(title) for title, _name in _NODE_LINES)
    return "\n".join(f"{title.ljust(width)}  {_shown(shown.get(name))}" for title, name in _NODE_LINES)


def _peer_cells(peer: Mapping[str, Any]) -> list[str]:
    cells = {**peer, "voter": {True: "yes", False: "no"}.get(peer.get("voter", ""), "-")}
    contact = peer.get("last_contact_ms")
    cells["last_contact_ms"] = f"{contact:.0f} ms ago" if isinstance(contact, (int, float)) else "-"
    return [_shown(cells.get(name)) for _title, name in _PEER_COLUMNS]


def _shown(value: object) -> str:
    return "-" if value is None or value == "" else printable(str(value))
