"""``kvorum member``: who belongs to the cluster, and changes of that. Any node will do; the leader carries it out."""

import json
from collections.abc import Mapping
from typing import Any

import click

from service.cli.console import CLEAN, FAILED, columns, leave, node_options, printable, say
from service.client import Client

_COLUMNS = (
    ("NAME", "name"),
    ("ID", "id"),
    ("ADDRESS", "address"),
    ("SUFFRAGE", "suffrage"),
    ("LEADER", "leader"),
    ("CAUGHT UP", "caught_up"),
    ("MATCH", "match_index"),
    ("NEXT", "next_index"),
    ("STATE", "state"),
    ("LAST CONTACT", "last_contact_ms"),
    ("BECOMES", "promotion"),
)
_output = click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)


@click.group()
def member() -> None:
    """See and change who belongs to the cluster. MEMBER is a name or an id."""


@member.command("list")
@click.option("--stale", is_flag=True, help="What the addressed node knows; for when there is no leader.")
@_output
@node_options
def list_members(*, stale: bool, output: str, address: str | None, token: str | None) -> None:
    """List the members. How far each of them is the leader knows."""
    with Client(address, token) as client:
        _show(client.members(stale=stale), output)


@member.command()
@click.argument("name")
@click.argument("peer_address", metavar="ADDRESS")
@click.option("--learner", is_flag=True, help="It stays a learner; else it becomes a voter by itself once it has caught up.")
@_output
@node_options
def add(*, name: str, peer_address: str, learner: bool, output: str, address: str | None, token: str | None) -> None:
    """Add the server NAME that waits at the peer address ADDRESS (host:port), as a learner at first."""
    with Client(address, token) as client:
        done = client.add_member(name, peer_address, voter=not learner)
    _tell(done, f"added: {name} as a learner" + ("" if learner else "; it becomes a voter once it has caught up"), output)


@member.command()
@click.argument("old", metavar="MEMBER")
@click.argument("name")
@click.argument("peer_address", metavar="ADDRESS")
@_output
@node_options
def replace(*, old: str, name: str, peer_address: str, output: str, address: str | None, token: str | None) -> None:
    """Let the server NAME at ADDRESS take the place of MEMBER, in one change, once it has caught up."""
    with Client(address, token) as client:
        done = client.add_member(name, peer_address, replaces=old)
    _tell(done, f"added: {name} as a learner; it takes the place of {old} once it has caught up", output)


@member.command()
@click.argument("name", metavar="MEMBER")
@_output
@node_options
def promote(*, name: str, output: str, address: str | None, token: str | None) -> None:
    """Give the learner MEMBER a vote."""
    with Client(address, token) as client:
        done = client.promote_member(name)
    _tell(done, f"promoted: {name}", output)


@member.command()
@click.argument("name", metavar="MEMBER")
@_output
@node_options
def demote(*, name: str, output: str, address: str | None, token: str | None) -> None:
    """Take the vote of MEMBER; it stays as a learner."""
    with Client(address, token) as client:
        done = client.demote_member(name)
    _tell(done, f"demoted: {name}", output)


@member.command()
@click.argument("name", metavar="MEMBER")
@_output
@node_options
def remove(*, name: str, output: str, address: str | None, token: str | None) -> None:
    """Take MEMBER out of the cluster. It can come back with an empty data directory only."""
    with Client(address, token) as client:
        done = client.remove_member(name)
    _tell(done, f"removed: {name}", output)


@member.command()
@click.argument("name", metavar="[MEMBER]", default="")
@_output
@node_options
def transfer(*, name: str, output: str, address: str | None, token: str | None) -> None:
    """Hand leadership over to the voter MEMBER, by default to one that keeps up, and of those to the last to come back. Writes wait."""
    with Client(address, token) as client:
        done = client.transfer_leadership(name)
    leader = next((one for one in done.get("members") or [] if one["id"] == done.get("id")), {"id": "?", "name": "?"})
    missed = name not in {"", leader["id"], leader["name"]}
    _tell(done, f"{leader['name']} leads now" + (f", not {name}: an election came in between" if missed else ""), output)
    leave(FAILED if missed else CLEAN)


def _tell(done: Mapping[str, Any], text: str, output: str) -> None:
    """Say what was done; the members as they are now are the data."""
    say(printable(text))
    _show(done, output)


def _show(content: Mapping[str, Any], output: str) -> None:
    if output == "json":
        click.echo(json.dumps(content, indent=2))
    else:
        members = content.get("members") or []
        click.echo(columns([[title for title, _name in _COLUMNS], *([_cell(one, name) for _title, name in _COLUMNS] for one in members)]))


def _cell(one: Mapping[str, Any], name: str) -> str:
    value = one.get(name)
    if name == "promotion" and isinstance(value, dict):
        return "voter" + (f", replacing {printable(str(value['replaces']))}" if value.get("replaces") else "")
    if name == "last_contact_ms" and value is not None:
        return f"{value} ms ago"
    if value is None or isinstance(value, bool):
        return {True: "yes", False: "no", None: "-"}[value]
    return printable(str(value))
