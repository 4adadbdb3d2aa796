"""``GET /v1/scan?prefix=&start=&limit=``: keys and values in byte order, a page at a time.

A page is read in one transaction and is short enough to be sent from memory, so a slow client holds up nothing. ``next`` is what to give as ``start``
for the following page, encoded as it stands in a query; a page may be shorter than ``limit`` because of the bytes in it. Errors are problem+json.

With the ACL on a page has the keys that its token may read, and ``limit`` counts those. What may not be read is passed over by ranges, not key by
key: it makes no page shorter, costs nothing, and ``next`` never names it.
"""

from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from sqlite3 import Connection
from typing import Any
from urllib.parse import quote

from service.api.consistency import effective, evaluate
from service.api.errors import Answer, RequestRefused
from service.api.kv import KeyValue
from service.api.params import Params, parse
from service.api.responses import JSON, OK, entries, pretty
from service.api.routes.cluster import problem_answer
from service.api.routing import READ_ONLY, Route
from service.domain.acl.authorizer import Authorizer
from service.errors import BackendError
from service.ipc import membership
from service.ipc.client import AgentClient
from service.store import scans

LIMIT_DEFAULT = 1_000
LIMIT_MAX = 10_000

Environ = Mapping[str, Any]


def routes(backend: AgentClient, kv: KeyValue) -> list[Route]:
    """The routes of this module."""

    def scan(environ: Environ) -> Answer:
        try:
            params = parse(environ["QUERY_STRING"])
            kv.check_datacenter(params)
            limit = _limit(params)
            _refuse_waiting(params)
        except RequestRefused as refused:
            return _refusal(refused)
        read = partial(_read, _bytes(params, "prefix"), _bytes(params, "start"), limit)
        try:
            (page, body), local = evaluate(backend, params, partial(kv.reads.look_as, kv.permissions.token(environ), read))
        except RequestRefused as refused:
            return refused.answer("GET")
        except BackendError as error:
            return problem_answer(environ, *membership.problem(membership.NO_LEADER, str(error)))
        headers = [JSON, *kv.index_headers(page.index, local), *effective(local)]
        return OK, headers, pretty(body) if params.pretty else body

    return [Route("/v1/scan", READ_ONLY, scan)]


def _refuse_waiting(params: Params) -> None:
    if params.index:
        raise RequestRefused(400, "/v1/scan does not wait for changes; GET /v1/kv/PREFIX?recurse&index=N does")


def _refusal(refused: RequestRefused) -> Answer:
    if refused.status != HTTPStatus.BAD_REQUEST:
        return refused.answer("GET")
    # The query may be what is wrong: it is not looked at for how the answer is to look.
    return problem_answer({"REQUEST_METHOD": "GET", "QUERY_STRING": ""}, *membership.problem(membership.MALFORMED, refused.text))


def _read(prefix: bytes, start: bytes, limit: int, who: Authorizer, connection: Connection) -> tuple[scans.Page, bytes]:
    page = scans.read(connection, who.ranges(prefix), start, limit)
    following = b"null" if page.next is None else b'"%b"' % quote(page.next, safe="").encode()
    return page, b'{"entries":%b,"next":%b}' % (entries(page.rows), following)


def _bytes(params: Params, name: str) -> bytes:
    return params.query.get(name, ("",))[0].encode("utf-8", "surrogateescape")


def _limit(params: Params) -> int:
    text = params.query.get("limit", (str(LIMIT_DEFAULT),))[0]
    if not (text.isascii() and text.isdecimal() and len(text) < len(str(LIMIT_MAX)) + 1 and int(text) <= LIMIT_MAX):
        raise RequestRefused(400, f"limit is {text!r}; a number from 0 to {LIMIT_MAX} was expected")
    return int(text)
