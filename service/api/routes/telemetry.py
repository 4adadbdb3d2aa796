"""``/v1/agent/metrics``: numbers of this node under Consul's names where Consul has them, in its JSON or as text for Prometheus.

Those that only this server has begin with ``kvorum``. Everything is a gauge; what ends with ``_total`` only grows. ``/metrics`` tells more.
"""

import time
from collections.abc import Mapping
from typing import Any

from service.api.errors import Answer
from service.api.params import parse_for_write
from service.api.responses import json, json_answer
from service.api.routes.node import Node
from service.api.routing import READ_ONLY, Route
from service.ipc.report import NodeReport

Environ = Mapping[str, Any]

PROMETHEUS = ("Content-Type", "text/plain; version=0.0.4; charset=utf-8")


def routes(node: Node) -> list[Route]:
    """The routes of this module."""

    def metrics(environ: Environ) -> Answer:
        params = parse_for_write(environ["QUERY_STRING"])
        gauges = _gauges(node.report())
        if params.query.get("format", ("",))[0] == "prometheus":
            lines = (f"# TYPE {name.replace('.', '_')} gauge\n{name.replace('.', '_')} {value}\n" for name, value in gauges.items())
            return 200, [PROMETHEUS], "".join(lines).encode()
        told = {
            "Timestamp": time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC", time.gmtime()),
            "Gauges": [{"Name": name, "Value": value, "Labels": {}} for name, value in gauges.items()],
            "Points": [],
            "Counters": [],
            "Samples": [],
        }
        return json_answer(json(told), indent=params.pretty)

    return [Route("/v1/agent/metrics", READ_ONLY, metrics)]


def _gauges(report: NodeReport) -> dict[str, float]:
    """The numbers by their names, in order."""
    numbers: dict[str, float] = {
        "consul.raft.applied_index": report.applied,
        "consul.raft.commit_index": report.commit,
        "consul.raft.last_index": report.last_index,
        "consul.raft.peers": sum(member.voter for member in report.members),
        "consul.raft.state.leader": report.role == "leader",
        "consul.raft.state.candidate": report.role == "candidate",
        "consul.raft.term": report.term,
        "kvorum.uptime_seconds": report.uptime_seconds,
    }
    if report.peers:
        numbers["consul.raft.leader.lastContact"] = max(peer.last_contact_ms for peer in report.peers)
    numbers |= {f"kvorum.{name}": value for name, value in report.numbers.items()}
    return {name: int(value) if float(value).is_integer() else value for name, value in sorted(numbers.items())}
