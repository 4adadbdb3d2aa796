"""Keys and values: what ``/v1/kv/`` answers, as plain functions that know nothing of Flask.

Each takes the decoded key, the parsed parameters and the WSGI environment, and returns status, headers and body. The Flask view and the
short cut before it call the same functions.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec import structs

from service.api import params as parameters
from service.api.acl.permissions import Permissions
from service.api.acl.resolver import DENIED, FORBIDDEN, Resolver
from service.api.blocking import Blocking
from service.api.conditions import IF_MATCH, IF_NONE_MATCH, INDEX, entity_tag, failed, guarded, is_known, refuse
from service.api.consistency import Freshness, contact, effective, evaluate
from service.api.errors import Answer, Headers, RequestRefused, backend_failure
from service.api.kept import Standing
from service.api.params import Params
from service.api.reads import Kind, Query, Reads, Result
from service.api.responses import JSON, NOT_FOUND, NOT_MODIFIED, OK, RAW_HEADERS, entry, pretty
from service.api.writes import Writes
from service.domain.acl.authorizer import EVERYTHING, Authorizer
from service.domain.acl.rules import READ, WRITE
from service.domain.commands import KeyCommand, KvDelete, KvDeleteTree, KvLock, KvPut, Origin, TxnOperation
from service.domain.entries import Row
from service.domain.results import WriteResult, decode
from service.errors import BackendError
from service.ipc.client import AgentClient
from service.reloading import Live
from service.store.reader import Reader

if TYPE_CHECKING:
    from service.api.cache import Cache  # brings the client of Redis along, which few nodes need

Environ = Mapping[str, Any]
_OfKeys = KvPut | KvDelete | KvDeleteTree | KvLock

METHODS = ("OPTIONS", "GET", "PUT", "DELETE")
PRETTY_ON_HUB_BYTES_MAX = 256 * 1024
_LEADER_HEADERS: Headers = [("X-Consul-Knownleader", "true"), ("X-Consul-Lastcontact", "0")]


class KeyValue:
    """The key-value API of one worker."""

    def __init__(self, backend: AgentClient, state: Reader, live: Live, cache: "Cache | None") -> None:
        self._backend = backend
        self._live = live
        self._datacenter = live.now.datacenter
        self._cache = cache
        resolver = Resolver(state, live.now)
        self.reads = Reads(backend, state, resolver)
        self.permissions = Permissions(resolver, self.reads, live.now.name)
        self.writes = Writes(backend, live)
        self.blocking = Blocking(backend, state, self.reads, live)

    # -- GET --

    def get_one(self, key: bytes, params: Params, environ: Environ, standing: Standing | None = None) -> Answer:
        """GET of one key: the entry, or its value with ``?raw``.

        :param standing: what is known already, and takes how long the answer stands.
        """
        try:
            parameters.check_cache_control(environ)
            _require(key)
            parameters.check_namespace(environ, params)
            self.check_datacenter(params)
            if params.cached and self._cache is not None and not (params.stale or params.index):
                return self._get_cached(self._cache, key, params, environ)
            result = self.read(Query(Kind.KEY, key, token=self.permissions.token(environ)), params, standing)
        except RequestRefused as refused:
            return refused.answer("GET")
        except BackendError as error:
            return backend_failure(error, "GET")
        return _one(result.row, self.headers(result, params), params, environ)

    def _get_cached(self, cache: "Cache", key: bytes, params: Params, environ: Environ) -> Answer:
        if self.permissions.enabled and not self.permissions.local(environ).may(READ, "key", key):
            raise RequestRefused(FORBIDDEN, DENIED)
        found, headers = cache.read(key, parameters.max_age_seconds(environ), lambda: self.reads.read_one(key))
        hit = len(headers) > 1
        return _one(found.row, self.index_headers(found.index, hit) + headers, params, environ)

    def get_many(self, prefix: bytes, params: Params, environ: Environ, standing: Standing | None = None) -> Answer:
        """GET with ``?keys`` or ``?recurse``: the names or the entries under a prefix; see :meth:`get_one`."""
        kind, separator = (Kind.NAMES, params.separator) if params.keys else (Kind.TREE, b"")
        try:
            parameters.check_headers(environ, params)
            self.check_datacenter(params)
            result = self.read(Query(kind, prefix, separator, token=self.permissions.token(environ)), params, standing)
        except RequestRefused as refused:
            return refused.answer("GET")
        except BackendError as error:
            return backend_failure(error, "GET")
        headers = self.headers(result, params)
        if result.body is None:
            return NOT_FOUND, headers, b""
        return OK, [JSON, *headers], pretty(result.body) if params.pretty else result.body

    def read(self, query: Query, params: Params, standing: Standing | None = None) -> Result:
        """Answer any query as the common parameters say: at once, or when there is news.

        :param standing: as in :meth:`get_one`.
        :raises BackendError: the barrier failed, or the state can't be read.
        """
        if params.available or params.max_stale_ms:
            result, local = evaluate(self._backend, params, partial(self._read, query, params))
            return structs.replace(result, local=local)
        if params.index:
            return self._read(query, params, Freshness(not params.stale, params.consistent))
        if standing is None or params.stale:
            return self.reads.read(query, fresh=not params.stale, consistent=params.consistent)
        standing.freshness = Freshness(fresh=True, consistent=params.consistent)
        result = self.reads.read(query, fresh=True, consistent=params.consistent, required=standing.required)
        standing.as_of = result.as_of
        return result

    def _read(self, query: Query, params: Params, freshness: Freshness) -> Result:
        if params.index:
            return self.blocking.wait(query, params.index, params.wait_seconds, freshness)
        return self.reads.read(query, **freshness._asdict())

    def headers(self, result: Result, params: Params) -> Headers:
        """The headers of the answer to a query."""
        if result.local is None:
            return self.index_headers(result.index, params.stale)
        return self.index_headers(result.index, result.local) + effective(result.local)

    def index_headers(self, index: int, local: bool) -> Headers:
        """The headers that every read has.

        :param local: the leader was not asked.
        """
        first = ("X-Consul-Index", str(index or 1))
        if not local:
            return [first, *_LEADER_HEADERS]
        known, milliseconds = contact(self._backend)
        return [first, ("X-Consul-Knownleader", known), ("X-Consul-Lastcontact", str(milliseconds))]

    # -- PUT and DELETE --

    def put_one(self, key: bytes, params: Params, environ: Environ) -> Answer:
        """PUT of one key: ``true``, or ``false`` when a condition did not hold."""
        try:
            parameters.check_headers(environ, params)
            _require(key)
            options = parameters.parse_put(params)
            value = read_body(environ, self._live.now.kv_value_bytes_max)
            self.check_datacenter(params)
            make = _lock if options.acquire is not None or options.release is not None else _put
            result, headers = self._write(partial(make, key, value, options), options.cas, environ, lambda who: who.may(WRITE, "key", key))
        except RequestRefused as refused:
            return refused.answer("PUT")
        except BackendError as error:
            return backend_failure(error, "PUT")
        return written(result, params, headers)

    def delete(self, key: bytes, params: Params, environ: Environ) -> Answer:
        """DELETE of one key, or of all under a prefix with ``?recurse``."""
        try:
            parameters.check_headers(environ, params)
            parameters.refuse_conflicts(params.query, "recurse", "cas")
            if not params.recurse:
                _require(key)
            cas = parameters.parse_delete_cas(params)
            self.check_datacenter(params)
            if params.recurse:
                refuse(environ)
                result, headers = self._write(partial(KvDeleteTree, key), cas, environ, lambda who: who.may_on_all(WRITE, key))
            else:
                result, headers = self._write(partial(KvDelete, key, cas), cas, environ, lambda who: who.may(WRITE, "key", key))
        except RequestRefused as refused:
            return refused.answer("DELETE")
        except BackendError as error:
            return backend_failure(error, "DELETE")
        return written(result, params, headers)

    def _write(
        self, make: Callable[[Origin], _OfKeys], cas: int | None, environ: Environ, may: Callable[[Authorizer], bool]
    ) -> tuple[WriteResult, Headers]:
        """Have a write carried out.

        :param make: makes the command.
        :param may: whether it is allowed.
        """

        def write(who: Authorizer, seen_index: int | None) -> tuple[WriteResult, Headers]:
            if who is not EVERYTHING and not may(who):
                raise RequestRefused(FORBIDDEN, DENIED)
            command: KeyCommand = make(parameters.origin(environ, who.accessor))
            if (IF_MATCH in environ or IF_NONE_MATCH in environ) and isinstance(command, KvPut | KvDelete | KvLock):
                command = guarded(environ, command, cas)
            done = self.writes.propose(command, environ, seen_index=seen_index)
            return decode(done.result), done.headers

        result, headers = self.permissions.carry_out(environ, may, write)
        if result.error:
            raise RequestRefused(500, result.error, tuple(headers))
        return result, headers

    def check_datacenter(self, params: Params) -> None:
        """Refuse a request for another datacenter."""
        if params.datacenter and params.datacenter != self._datacenter:
            raise RequestRefused(500, "No path to datacenter")


def _put(key: bytes, value: bytes, options: parameters.PutParams, origin: Origin) -> KvPut:
    return KvPut(key, value, options.flags, options.cas, origin)


def _lock(key: bytes, value: bytes, options: parameters.PutParams, origin: Origin) -> KvLock:
    verb, session = ("unlock", options.release or "") if options.acquire is None else ("lock", options.acquire)
    named = session.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return KvLock(TxnOperation(verb, key, value, options.flags, session=named), origin)


def _require(key: bytes) -> None:
    if not key:
        raise RequestRefused(400, "Missing key name")


def read_body(environ: Environ, bytes_max: int, setting: str = "kv_max_value_size") -> bytes:
    """The whole body of a request, verbatim.

    :param setting: what the limit is called in Consul.

    :raises RequestRefused: it is longer than allowed (chunked ones too), or ended early.
    """
    stream = environ["wsgi.input"]
    if length := environ.get("CONTENT_LENGTH"):
        expected = int(length)
        if expected > bytes_max:
            raise RequestRefused(413, _too_large(f"({expected} bytes)", bytes_max, setting))
        body: bytes = stream.read(expected)
        if len(body) < expected:
            raise RequestRefused(400, f"The request's body ended after {len(body)} of {expected} bytes.")
        return body
    if "HTTP_TRANSFER_ENCODING" not in environ:
        return b""
    body = stream.read(bytes_max + 1)
    if len(body) > bytes_max:
        raise RequestRefused(413, _too_large("", bytes_max, setting))
    return body


def _too_large(found: str, bytes_max: int, setting: str) -> str:
    see = f"https://www.consul.io/docs/agent/options.html#{setting}"
    return f"Request body{found} too large, max size: {bytes_max} bytes. See {see}."


def _one(row: Row | None, headers: Headers, params: Params, environ: Environ) -> Answer:
    if row is None:
        return NOT_FOUND, headers, b""
    headers.append(entity_tag(row.modify_index))
    if IF_NONE_MATCH in environ and is_known(environ, row.modify_index):
        return NOT_MODIFIED, headers, b""
    if params.raw:
        return OK, [*RAW_HEADERS, *headers], row.value
    body = b"[%b]" % entry(row)
    return OK, [JSON, *headers], pretty(body) if params.pretty else body


def written(result: WriteResult, params: Params, more: Headers) -> Answer:
    """The answer to a write: ``true``, or ``false`` when a condition of Consul's did not hold. The headers name the log index at which it was
    applied, and the version that the key has now.

    :param more: more headers.
    """
    if result.unmet:
        status, headers, body = failed(result, params)
        return status, headers + more, body
    headers = [JSON, (INDEX, str(result.index)), *more]
    if result.modify_index:
        headers.append(entity_tag(result.modify_index))
    body = b"true" if result.ok else b"false"
    return OK, headers, body + b"\n" if params.pretty else body
