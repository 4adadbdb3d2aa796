"""For whoever runs the node: ``/livez``, ``/readyz``, ``/metrics``."""

from collections.abc import Mapping
from typing import Any

from service.api.blocking import Blocking
from service.api.errors import TEXT, Answer
from service.api.metrics import CONTENT_TYPE, Requests, exposition
from service.api.routes.node import Node
from service.api.routing import READ_ONLY, Route
from service.errors import BackendError

Environ = Mapping[str, Any]
METHODS = (*READ_ONLY, "HEAD")


def routes(node: Node, requests: Requests, blocking: Blocking) -> list[Route]:
    """The routes of this module."""

    def livez(_: Environ) -> Answer:
        return 200, [TEXT], b"ok\n"

    def readyz(environ: Environ) -> Answer:
        checks = _checks(node)
        ready = not any(checks.values())
        if "verbose" in environ["QUERY_STRING"]:
            lines = [f"[-] {name}: {problem}" if problem else f"[+] {name}" for name, problem in checks.items()]
            text = "\n".join([*lines, "ready" if ready else "not ready"])
        else:
            text = "ok" if ready else "; ".join(problem for problem in checks.values() if problem)
        return 200 if ready else 503, [TEXT], f"{text}\n".encode()

    def metrics(_: Environ) -> Answer:
        state = node.backend.node_state
        gauges = {"blocking_queries": blocking.waiting, "agent_connected": int(node.backend.connected)}
        agent: dict[str, float] = {"leader_known": state.leader_known, "leading": state.leading, "applied": state.applied}
        try:
            report = node.report()
        except BackendError:
            pass
        else:
            agent |= {"term": report.term, "commit": report.commit, "last_index": report.last_index, "members": len(report.members)}
            agent |= report.numbers
        return 200, [("Content-Type", CONTENT_TYPE)], exposition(requests, gauges, agent)

    return [Route("/livez", METHODS, livez), Route("/readyz", METHODS, readyz), Route("/metrics", METHODS, metrics)]


def _checks(node: Node) -> dict[str, str]:
    """What is wrong, by the name of each check; empty where nothing is."""
    state = node.backend.node_state
    return {
        "agent": "" if node.backend.connected else "the agent of this node can't be reached",
        "leader": "" if state.leader_known else "no leader is known",
        "state": state.reason,
        "stopping": "the node is stopping" if state.quitting else "",
    }
