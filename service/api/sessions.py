"""Sessions: what ``/v1/session/`` answers."""

import uuid
from collections.abc import Callable

from service.api import params as parameters
from service.api import session_body
from service.api.acl.resolver import DENIED, FORBIDDEN
from service.api.conditions import INDEX
from service.api.errors import Answer, Headers, RequestRefused, backend_failure
from service.api.kv import Environ, KeyValue, read_body, written
from service.api.params import Params
from service.api.paths import KEY
from service.api.reads import Kind, Query
from service.api.responses import JSON, OK, json, json_answer, pretty, sessions
from service.domain.acl.rules import WRITE
from service.domain.commands import SessionCreate, SessionDestroy, SessionRenew, encode
from service.domain.results import decode, decode_session
from service.domain.sessions import SessionIdRefused, canonical_id
from service.errors import BackendError
from service.ipc.client import AgentClient
from service.ipc.report import read
from service.reloading import Live

READ_METHODS = ("OPTIONS", "GET")
WRITE_METHODS = ("OPTIONS", "PUT")
_FAILED_READ_HEADERS = (("X-Consul-Index", "1"), ("X-Consul-Knownleader", "false"), ("X-Consul-Lastcontact", "0"))


class Sessions:
    """The sessions of one worker.

    :param kv: whose reads and blocking queries they share.
    """

    def __init__(self, backend: AgentClient, kv: KeyValue, live: Live) -> None:
        self._backend = backend
        self._kv = kv
        self._node = live.now.name
        self._live = live

    # -- reads --

    def info(self, environ: Environ) -> Answer:
        """GET of one session: an array of one or none."""
        return self._read(environ, "Missing session", lambda name: Query(Kind.SESSION, _canonical(name).encode()))

    def of_node(self, environ: Environ) -> Answer:
        """GET of those of a node."""
        return self._read(environ, "Missing node name", lambda name: Query(Kind.NODE_SESSIONS, name.lower().encode("utf-8", "surrogateescape")))

    def all(self, environ: Environ) -> Answer:
        """GET of all."""
        return self._read(environ, "", lambda _: Query(Kind.SESSIONS, b""))

    def _read(self, environ: Environ, missing: str, query_for: Callable[[str], Query]) -> Answer:
        """Those that may be seen.

        :param missing: the refusal of an empty name; empty when there is none in the path.
        """
        try:
            params = _options(environ)
            name = _name(environ, missing)
            try:
                self._kv.check_datacenter(params)
                if self._kv.permissions.enabled:
                    self._kv.permissions.local(environ)  # an unknown token comes before an id that can't be one
                query = query_for(name)._replace(token=self._kv.permissions.token(environ))
                result = self._kv.read(query, params)
            except RequestRefused as refused:
                raise RequestRefused(refused.status, refused.text, _headers_of(refused)) from None
        except RequestRefused as refused:
            return refused.answer("GET")
        except BackendError as error:
            return backend_failure(error, "GET")
        body = result.body or b"[]"
        return OK, [JSON, *self._kv.headers(result, params)], pretty(body) if params.pretty else body

    # -- writes --

    def create(self, environ: Environ) -> Answer:
        """PUT: begins a session and gives its id."""
        return self._write(environ, "", self._create, _few_options)

    def destroy(self, environ: Environ) -> Answer:
        """PUT: ends a session, whether or not it exists."""
        return self._write(environ, "Missing session", self._destroy, _few_options)

    def renew(self, environ: Environ) -> Answer:
        """PUT: lets a session's time begin anew, and gives the session. Acknowledged when that is committed."""
        return self._write(environ, "Missing session", self._renew, _options)

    def _write(
        self, environ: Environ, missing: str, carry_out: Callable[[Environ, Params, str], Answer], options: Callable[[Environ], Params]
    ) -> Answer:
        try:
            return carry_out(environ, options(environ), _name(environ, missing))
        except RequestRefused as refused:
            return refused.answer("PUT")
        except BackendError as error:
            return backend_failure(error, "PUT")

    def _create(self, environ: Environ, params: Params, _name: str) -> Answer:
        found, lock_delay_ns = session_body.parse(read_body(environ, self._live.now.kv_value_bytes_max), self._node)
        self._kv.check_datacenter(params)
        actor = self._kv.permissions.require(environ, WRITE, "session", found.node).accessor if found.node else ""
        session = session_body.check(found, lock_delay_ns, str(uuid.uuid4()), self._is_node)
        done = self._kv.writes.propose(SessionCreate(session, parameters.origin(environ, actor)), environ, session.id.encode())
        result = decode(done.result)
        if not result.ok:
            raise RequestRefused(500, f"the id {session.id} is taken; ask again")
        return _applied(result.index, json_answer(json({"ID": done.memo.decode()}), indent=params.pretty), done.headers)

    def _destroy(self, environ: Environ, params: Params, name: str) -> Answer:
        self._kv.check_datacenter(params)
        actor = self._may_write(environ, name, "Session lookup failed: ")
        done = self._kv.writes.propose(SessionDestroy(_canonical(name), parameters.origin(environ, actor)), environ)
        return written(decode(done.result), params, done.headers)

    def _renew(self, environ: Environ, params: Params, name: str) -> Answer:
        self._kv.check_datacenter(params)
        self._may_write(environ, name)
        result = decode_session(self._backend.propose(encode(SessionRenew(_canonical(name)))))
        if result.session is None:
            raise RequestRefused(404, f"Session id '{name}' not found")
        return _applied(result.index, json_answer(sessions([result.session]), indent=params.pretty), [])

    def _may_write(self, environ: Environ, name: str, prefix: str = "") -> str:
        """Refuse a change of a session of a node whose sessions may not be written.

        :param prefix: what stands before the refusal of a name that can't be that of a session.
        :returns: the accessor of who asks.
        """
        permissions = self._kv.permissions
        if not permissions.enabled:
            return ""
        who = permissions.fresh(environ)
        try:
            id_ = canonical_id(name)
        except SessionIdRefused as refused:
            raise RequestRefused(500, f"{prefix}{refused}") from None
        if not all(who.may(WRITE, "session", node) for node in self._kv.reads.nodes_of_session(id_)):
            raise RequestRefused(FORBIDDEN, DENIED)
        return who.accessor

    def _is_node(self, name: str) -> bool:
        """Whether a node of the cluster has this name, whatever the case."""
        if name.lower() == self._node.lower():
            return True
        return any(member.name.lower() == name.lower() for member in read(self._backend.status()).members)


def _applied(index: int, answer: Answer, more: Headers) -> Answer:
    """An answer to a write, with the log index at which that was applied, and more headers."""
    status, headers, body = answer
    return status, [*headers, (INDEX, str(index)), *more], body


def _options(environ: Environ) -> Params:
    """Those of a read, which a renewal takes, too: Consul's renewals read the session that they answer with."""
    params = parameters.parse(environ["QUERY_STRING"])
    parameters.check_headers(environ, params)
    return params


def _few_options(environ: Environ) -> Params:
    """Those of a write, which looks neither at Cache-Control nor at how fresh an answer is to be."""
    params = parameters.parse_for_write(environ["QUERY_STRING"])
    parameters.check_namespace(environ, params)
    return params


def _headers_of(refused: RequestRefused) -> tuple[tuple[str, str], ...]:
    """Those of a refusal of a read."""
    return refused.headers or _FAILED_READ_HEADERS


def _name(environ: Environ, missing: str) -> str:
    raw: bytes = environ.get(KEY, b"")
    if missing and not raw:
        raise RequestRefused(400, missing)
    return raw.decode("utf-8", "surrogateescape")


def _canonical(name: str) -> str:
    try:
        return canonical_id(name)
    except SessionIdRefused as refused:
        raise RequestRefused(500, str(refused)) from None
