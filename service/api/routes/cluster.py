"""The native view of the cluster: ``/v1/cluster/status``, for ``kvorum status`` and dashboards."""

from collections.abc import Mapping
from typing import Any

from service.api.errors import Answer
from service.api.params import parse
from service.api.responses import json, json_answer
from service.api.routes.node import Node
from service.api.routing import READ_ONLY, Route

Environ = Mapping[str, Any]


def routes(node: Node) -> list[Route]:
    """The routes of this module."""

    def status(environ: Environ) -> Answer:
        params = parse(environ["QUERY_STRING"])
        return json_answer(json(_status(node)), indent=params.pretty)

    return [Route("/v1/cluster/status", READ_ONLY, status)]


def _status(node: Node) -> dict[str, Any]:
    report = node.report()
    leader = report.leader
    return {
        "node": {
            "name": report.name,
            "id": report.id,
            "cluster_id": report.cluster_id,
            "version": report.version,
            "role": report.role,
            "term": report.term,
            "vote": report.vote,
            "leader": leader.id if leader else "",
            "leader_name": leader.name if leader else "",
            "first_index": report.first_index,
            "last_index": report.last_index,
            "commit_index": report.commit,
            "applied_index": report.applied,
            "snapshot_index": report.snapshot_index,
            "generation": report.generation,
            "uptime_seconds": report.uptime_seconds,
        },
        "peers": [
            {
                "id": peer.id,
                "name": peer.name,
                "address": peer.address,
                "voter": peer.voter,
                "match_index": peer.match_index,
                "next_index": peer.next_index,
                "state": peer.state,
                "inflight": peer.inflight,
                "last_contact_ms": peer.last_contact_ms,
            }
            for peer in report.peers
        ],
    }
