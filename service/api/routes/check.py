"""``/v1/cluster/check``: whether all nodes hold the same state.

POST puts a check into the log and answers with its index as soon as it is committed. GET with ``?at=INDEX`` tells how far each member is with the
digest of its state there, and what follows from the digests. Errors are problem+json (RFC 9457).
"""

from collections.abc import Mapping
from typing import Any

from service.api.errors import Answer
from service.api.params import parse
from service.api.responses import json, json_answer
from service.api.routes.cluster import problem_answer
from service.api.routes.node import Node
from service.api.routing import Route
from service.domain.commands import CheckState, encode
from service.domain.results import decode
from service.errors import UNKNOWN, BackendError
from service.ipc import membership

PATH = "/v1/cluster/check"
INDEX_MAX = 2**63 - 1

Environ = Mapping[str, Any]


def routes(node: Node) -> list[Route]:
    """The routes of this module."""

    def check(environ: Environ) -> Answer:
        begins = environ["REQUEST_METHOD"] == "POST"
        try:
            answer = _begin(node) if begins else _look(node, environ)
        except _BadIndex as error:
            return problem_answer(environ, *membership.problem(membership.MALFORMED, str(error)))
        except BackendError as error:
            kind = membership.OUTCOME_UNKNOWN if begins and error.outcome == UNKNOWN else membership.NO_LEADER
            return problem_answer(environ, *membership.problem(kind, str(error), error.outcome))
        return json_answer(json(answer), indent=parse(environ["QUERY_STRING"]).pretty)

    return [Route(PATH, ("OPTIONS", "GET", "POST"), check)]


class _BadIndex(Exception):
    """An index that can't be used; the text names it and what is allowed."""


def _begin(node: Node) -> dict[str, Any]:
    return {"index": decode(node.backend.propose(encode(CheckState()))).index}


def _look(node: Node, environ: Environ) -> dict[str, Any]:
    given = parse(environ["QUERY_STRING"]).query.get("at", ("",))[0]
    if not (given.isascii() and given.isdigit() and len(given) <= len(str(INDEX_MAX)) and 1 <= int(given) <= INDEX_MAX):
        raise _BadIndex(f"?at={given!r} is no index; a number from 1 to {INDEX_MAX} is expected, as POST {PATH} answers it")
    return node.backend.check(int(given))
