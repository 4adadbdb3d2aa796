"""What a node tells about itself and its cluster: ``/v1/status``, ``/v1/agent/self``, ``/v1/operator/raft/configuration``."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from service.api.catalog import CONSUL_VERSION, COORDINATE, member
from service.api.errors import TEXT, Answer, RequestRefused
from service.api.params import Params, check_headers, parse
from service.api.responses import json, json_answer
from service.api.routing import READ_ONLY, Route
from service.domain.servers import Server
from service.errors import BackendError
from service.ipc.client import AgentClient
from service.ipc.report import MemberReport, NodeReport, read
from service.reloading import Live
from service.settings import SETTINGS, Settings
from service.settings_text import shown_value

Environ = Mapping[str, Any]

GREETING = b"Consul Agent"


class Node:
    """The node as its worker sees it."""

    def __init__(self, backend: AgentClient, live: Live) -> None:
        self.backend = backend
        self._live = live

    @property
    def settings(self) -> Settings:
        """What is in force now."""
        return self._live.now

    def report(self) -> NodeReport:
        """What the agent tells.

        :raises BackendError: it can't be reached.
        """
        return read(self.backend.status())


def routes(node: Node) -> list[Route]:
    """The routes of this module."""

    def leader(environ: Environ) -> Answer:
        params = parse_local(environ, node)
        known = node.report().leader
        return json_answer(json(known.peer if known else ""), indent=params.pretty)

    def peers(environ: Environ) -> Answer:
        params = parse_local(environ, node)
        return json_answer(json([one.peer for one in node.report().members if one.voter]), indent=params.pretty)

    def configuration(environ: Environ) -> Answer:
        params = parse_local(environ, node)
        check_headers(environ, params)
        report = node.report()
        return json_answer(json({"Servers": [_server(one) for one in report.members], "Index": 0}), indent=params.pretty)

    def agent_self(environ: Environ) -> Answer:
        params = parse("pretty") if "pretty" in environ["QUERY_STRING"] else parse("")
        return json_answer(json(_self(node)), indent=params.pretty)

    return [
        Route("/", None, lambda _: (200, [TEXT], GREETING)),
        Route("/v1/status/leader", READ_ONLY, leader),
        Route("/v1/status/peers", READ_ONLY, peers),
        Route("/v1/operator/raft/configuration", READ_ONLY, configuration),
        Route("/v1/agent/self", READ_ONLY, agent_self),
    ]


def parse_local(environ: Environ, node: Node) -> Params:
    """The parameters of a request that only this datacenter can answer.

    :raises RequestRefused: when it names another one, or can't be read.
    """
    params = parse(environ["QUERY_STRING"])
    if params.datacenter and params.datacenter != node.settings.datacenter:
        raise RequestRefused(500, "No path to datacenter")
    return params


def _server(one: MemberReport) -> dict[str, Any]:
    return {
        "ID": one.id,
        "Node": one.name,
        "Address": one.peer,
        "Leader": one.leader,
        "ProtocolVersion": "3",
        "Voter": one.voter,
    }


def _self(node: Node) -> dict[str, Any]:
    """The parts of Consul's answer that clients use; it also answers while the agent can't be reached."""
    settings = node.settings
    try:
        report = node.report()
    except BackendError:
        report = NodeReport(name=settings.name)
    own = next((one for one in report.members if one.id == report.id), MemberReport())
    return {
        "Config": {
            "Datacenter": settings.datacenter,
            "NodeName": settings.name,
            "NodeID": report.id,
            "Revision": "",
            "Server": True,
            "Version": CONSUL_VERSION,
        },
        "DebugConfig": {
            "Datacenter": settings.datacenter,
            "KVMaxValueSize": settings.kv_value_bytes_max,
            "NodeName": settings.name,
            "KvorumVersion": version("kvorum"),
            "Settings": {row.name: shown_value(row, settings) for row in SETTINGS},
        },
        "Coord": COORDINATE,
        "Member": member(Server(report.id, settings.name, settings.peer_advertise, own.voter, alive=True), settings),
        "Stats": _stats(report, settings),
        "Meta": {"consul-network-segment": ""},
    }


def _stats(report: NodeReport, settings: Settings) -> dict[str, dict[str, str]]:
    leader = report.leader
    servers = (f"{{Suffrage:{'Voter' if member.voter else 'Nonvoter'} ID:{member.id} Address:{member.peer}}}" for member in report.members)
    voters = sum(member.voter for member in report.members)
    return {
        "agent": {"check_monitors": "0", "check_ttls": "0", "checks": "0", "services": "0"},
        "build": {"prerelease": "", "revision": "", "version": CONSUL_VERSION},
        "consul": {
            "acl": "enabled" if settings.acl_enabled == "true" else "disabled",
            "known_datacenters": "1",
            "leader": "true" if report.role == "leader" else "false",
            "leader_addr": leader.peer if leader else "",
            "server": "true",
        },
        "raft": {
            "applied_index": str(report.applied),
            "commit_index": str(report.commit),
            "last_log_index": str(report.last_index),
            "last_log_term": str(report.last_term),
            "last_snapshot_index": str(report.snapshot_index),
            "last_snapshot_term": str(report.snapshot_term),
            "latest_configuration": "[" + " ".join(servers) + "]",
            "num_peers": str(max(0, voters - 1)),
            "state": report.role.capitalize(),
            "term": str(report.term),
        },
    }
