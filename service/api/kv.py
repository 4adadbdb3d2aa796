"""Keys and values: what ``/v1/kv/`` answers, as plain functions that know nothing of Flask.

Each takes the decoded key, the parsed parameters and the WSGI environment, and returns status, headers and body. The Flask view and the
short cut before it call the same functions.
"""

import time
from collections.abc import Mapping
from typing import Any

from service.api import params as parameters
from service.api.blocking import Blocking
from service.api.cache import Cache
from service.api.errors import Answer, Headers, RequestRefused, backend_failure
from service.api.params import Params
from service.api.reads import Kind, Query, Reads, Result
from service.api.responses import JSON, JSON_HEADERS, NOT_FOUND, OK, RAW_HEADERS, entry, pretty
from service.domain.commands import KvDelete, KvDeleteTree, KvPut, encode
from service.domain.results import decode
from service.errors import BackendError
from service.ipc.client import AgentClient
from service.settings import Settings
from service.store.reader import Reader, Row

Environ = Mapping[str, Any]

METHODS = ("OPTIONS", "GET", "PUT", "DELETE")
TRUE: Answer = (OK, JSON_HEADERS, b"true")
FALSE: Answer = (OK, JSON_HEADERS, b"false")
TRUE_PRETTY: Answer = (OK, JSON_HEADERS, b"true\n")
FALSE_PRETTY: Answer = (OK, JSON_HEADERS, b"false\n")
UUID_CHARACTERS = 36
# What Go's time.Since gives for a time that never was, in milliseconds.
NEVER_MILLISECONDS = 9_223_372_036_854
PRETTY_ON_HUB_BYTES_MAX = 256 * 1024
_LEADER_HEADERS: Headers = [("X-Consul-Knownleader", "true"), ("X-Consul-Lastcontact", "0")]


class KeyValue:
    """The key-value API of one worker."""

    def __init__(self, backend: AgentClient, state: Reader, settings: Settings, cache: Cache | None) -> None:
        self._backend = backend
        self._datacenter = settings.datacenter
        self._value_bytes_max = settings.kv_value_bytes_max
        self._cache = cache
        self._reads = Reads(backend, state)
        self.blocking = Blocking(backend, state, self._reads, settings.blocking_queries_max)

    # -- GET --

    def get_one(self, key: bytes, params: Params, environ: Environ) -> Answer:
        """GET of one key: the entry, or its value with ``?raw``."""
        try:
            parameters.check_headers(environ, params)
            _require(key)
            self._check_datacenter(params)
            if params.cached and self._cache is not None and not (params.stale or params.index):
                return self._get_cached(self._cache, key, params, environ)
            result = self._read(Query(Kind.KEY, key), params)
        except RequestRefused as refused:
            return refused.answer("GET")
        except BackendError as error:
            return backend_failure(error, "GET")
        return _one(result.row, self._index_headers(result.index, params.stale), params)

    def _get_cached(self, cache: Cache, key: bytes, params: Params, environ: Environ) -> Answer:
        found, headers = cache.read(key, parameters.max_age_seconds(environ), lambda: self._reads.read_one(key))
        hit = len(headers) > 1
        return _one(found.row, self._index_headers(found.index, hit) + headers, params)

    def get_many(self, prefix: bytes, params: Params, environ: Environ) -> Answer:
        """GET with ``?keys`` or ``?recurse``: the names or the entries under a prefix."""
        kind, separator = (Kind.NAMES, params.separator) if params.keys else (Kind.TREE, b"")
        try:
            parameters.check_headers(environ, params)
            self._check_datacenter(params)
            result = self._read(Query(kind, prefix, separator), params)
        except RequestRefused as refused:
            return refused.answer("GET")
        except BackendError as error:
            return backend_failure(error, "GET")
        headers = self._index_headers(result.index, params.stale)
        if result.body is None:
            return NOT_FOUND, headers, b""
        return OK, [JSON, *headers], pretty(result.body) if params.pretty else result.body

    def _read(self, query: Query, params: Params) -> Result:
        if params.index:
            return self.blocking.wait(query, params.index, params.wait_seconds, fresh=not params.stale, consistent=params.consistent)
        return self._reads.read(query, fresh=not params.stale, consistent=params.consistent)

    def _index_headers(self, index: int, local: bool) -> Headers:
        """:param local: the leader was not asked."""
        first = ("X-Consul-Index", str(index or 1))
        if not local:
            return [first, *_LEADER_HEADERS]
        state = self._backend.node_state
        known = "true" if state.leader_known else "false"
        return [first, ("X-Consul-Knownleader", known), ("X-Consul-Lastcontact", str(_age_milliseconds(state.leading, state.contact)))]

    # -- PUT and DELETE --

    def put_one(self, key: bytes, params: Params, environ: Environ) -> Answer:
        """PUT of one key: ``true``, or ``false`` when a condition did not hold."""
        try:
            parameters.check_headers(environ, params)
            _require(key)
            options = parameters.parse_put(params)
            origin = parameters.origin(environ)
            value = read_body(environ, self._value_bytes_max)
            self._check_datacenter(params)
            if options.acquire is not None or options.release is not None:
                return _without_sessions(options, params)
            done = decode(self._backend.propose(encode(KvPut(key, value, options.flags, options.cas, origin)))).ok
        except RequestRefused as refused:
            return refused.answer("PUT")
        except BackendError as error:
            return backend_failure(error, "PUT")
        return _truth(done, params)

    def delete(self, key: bytes, params: Params, environ: Environ) -> Answer:
        """DELETE of one key, or of all under a prefix with ``?recurse``."""
        try:
            parameters.check_headers(environ, params)
            parameters.refuse_conflicts(params.query, "recurse", "cas")
            if not params.recurse:
                _require(key)
            cas = parameters.parse_delete_cas(params)
            origin = parameters.origin(environ)
            self._check_datacenter(params)
            command = KvDeleteTree(key, origin) if params.recurse else KvDelete(key, cas, origin)
            done = decode(self._backend.propose(encode(command))).ok
        except RequestRefused as refused:
            return refused.answer("DELETE")
        except BackendError as error:
            return backend_failure(error, "DELETE")
        return _truth(done, params)

    def _check_datacenter(self, params: Params) -> None:
        if params.datacenter and params.datacenter != self._datacenter:
            raise RequestRefused(500, "No path to datacenter")


def _require(key: bytes) -> None:
    if not key:
        raise RequestRefused(400, "Missing key name")


def read_body(environ: Environ, bytes_max: int) -> bytes:
    """The whole body of a request, verbatim.

    :raises RequestRefused: it is longer than allowed (chunked ones too), or ended early.
    """
    stream = environ["wsgi.input"]
    if length := environ.get("CONTENT_LENGTH"):
        expected = int(length)
        if expected > bytes_max:
            raise RequestRefused(413, _too_large(f"({expected} bytes)", bytes_max))
        body: bytes = stream.read(expected)
        if len(body) < expected:
            raise RequestRefused(400, f"The request's body ended after {len(body)} of {expected} bytes.")
        return body
    if "HTTP_TRANSFER_ENCODING" not in environ:
        return b""
    body = stream.read(bytes_max + 1)
    if len(body) > bytes_max:
        raise RequestRefused(413, _too_large("", bytes_max))
    return body


def _too_large(found: str, bytes_max: int) -> str:
    see = "https://www.consul.io/docs/agent/options.html#kv_max_value_size"
    return f"Request body{found} too large, max size: {bytes_max} bytes. See {see}."


def _one(row: Row | None, headers: Headers, params: Params) -> Answer:
    if row is None:
        return NOT_FOUND, headers, b""
    if params.raw:
        return OK, [*RAW_HEADERS, *headers], row.value
    body = b"[%b]" % entry(row)
    return OK, [JSON, *headers], pretty(body) if params.pretty else body


def _truth(value: bool, params: Params) -> Answer:
    if params.pretty:
        return TRUE_PRETTY if value else FALSE_PRETTY
    return TRUE if value else FALSE


def _without_sessions(options: parameters.PutParams, params: Params) -> Answer:
    """What Consul answers when the session does not exist: there are none yet."""
    if options.acquire is None:
        if not options.release:
            raise RequestRefused(500, "missing session")
        return _truth(value=False, params=params)
    if not options.acquire:
        raise RequestRefused(500, "missing session")
    if len(options.acquire.encode("utf-8", "surrogateescape")) != UUID_CHARACTERS:
        raise RequestRefused(500, f"failed session lookup: index error: UUID must be {UUID_CHARACTERS} characters")
    raise RequestRefused(500, f'invalid session "{options.acquire}"')


def _age_milliseconds(leading: bool, contact: float) -> int:
    if leading:
        return 0
    if not contact:
        return NEVER_MILLISECONDS
    return max(0, int((time.clock_gettime(time.CLOCK_BOOTTIME) - contact) * 1000))
