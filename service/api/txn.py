"""Transactions: what ``/v1/txn`` answers.

One that writes is one entry of the log. One that only reads is evaluated against the local state, at one moment, after the same barrier as any other
read; it costs no entry.
"""

from collections.abc import Iterable, Sequence
from functools import partial

from service.api import params as parameters
from service.api import txn_body
from service.api.acl.resolver import DENIED
from service.api.conditions import INDEX
from service.api.consistency import ASKED, contact, effective, evaluate
from service.api.errors import Answer, Headers, RequestRefused, backend_failure
from service.api.kv import Environ, KeyValue, read_body
from service.api.params import Params
from service.api.responses import JSON, each_entry, pretty, text
from service.domain.acl.authorizer import EVERYTHING, Authorizer
from service.domain.acl.rules import READ, WRITE
from service.domain.commands import Txn, TxnOperation
from service.domain.entries import Row
from service.domain.quoting import quote_key
from service.domain.results import decode_txn
from service.domain.txn import Outcome, only_reads
from service.errors import BackendError
from service.ipc.client import AgentClient
from service.reloading import Live

METHODS = ("OPTIONS", "PUT")
_DONE, _CONFLICT = 200, 409
_NANOSECONDS_A_MILLISECOND = 1_000_000
_FILTERED = frozenset({"get", "get-tree"})
_READING = frozenset({"check-index", "check-session"})


class Transactions:
    """The transactions of one worker.

    :param kv: whose reads they share.
    """

    def __init__(self, backend: AgentClient, kv: KeyValue, live: Live) -> None:
        self._backend = backend
        self._kv = kv
        self._live = live

    def put(self, environ: Environ) -> Answer:
        """PUT: the results of all operations, or the failures."""
        try:
            settings = self._live.now
            body = read_body(environ, max(settings.txn_bytes_max, settings.kv_value_bytes_max), "txn_max_req_len")
            operations = txn_body.parse(body, settings.txn_operations_max)
            _check_values(operations, settings.kv_value_bytes_max)
            if only_reads(operations):
                return self._read(operations, environ)
            return self._write(operations, environ)
        except RequestRefused as refused:
            return refused.answer("PUT")
        except BackendError as error:
            return backend_failure(error, "PUT")

    def _write(self, operations: list[TxnOperation], environ: Environ) -> Answer:
        params = parameters.parse_for_write(environ["QUERY_STRING"])
        self._kv.check_datacenter(params)

        def write(who: Authorizer, seen_index: int | None) -> Answer:
            if objections := _objections(who, operations):
                return _answer(objections, [], params, [], b"")
            command = Txn(operations, parameters.origin(environ, who.accessor))
            done = self._kv.writes.propose(command, environ, seen_index=seen_index)
            result = decode_txn(done.result)
            return _answer(result.failures, _seen(who, result.rows), params, [(INDEX, str(result.index)), *done.headers], b"")

        return self._kv.permissions.carry_out(environ, lambda who: not _objections(who, operations), write)

    def _read(self, operations: list[TxnOperation], environ: Environ) -> Answer:
        params = parameters.parse(environ["QUERY_STRING"])
        parameters.check_cache_control(environ)
        self._kv.check_datacenter(params)
        permissions = self._kv.permissions
        who = permissions.local(environ) if params.stale or params.available else permissions.fresh(environ)
        objections = _objections(who, operations)
        outcome, local = evaluate(self._backend, params, partial(self._kv.reads.transaction, [] if objections else operations))
        if objections:
            outcome = Outcome(objections, [], [])
        known, milliseconds = contact(self._backend) if local else ASKED
        headers = [("X-Consul-Knownleader", known), ("X-Consul-Lastcontact", str(milliseconds))]
        if params.available or params.max_stale_ms:
            headers += effective(local)
        about = b',"Index":0,"LastContact":%d,"KnownLeader":%b,"ConsistencyLevel":""' % (milliseconds * _NANOSECONDS_A_MILLISECOND, known.encode())
        return _answer(outcome.failures, _seen(who, outcome.rows), params, headers, about)


def _objections(who: Authorizer, operations: Sequence[TxnOperation]) -> list[tuple[int, str]]:
    """What is not allowed. As in Consul, what was found is filtered instead; and where anything is denied, an empty key is told along with it."""
    if who is EVERYTHING:
        return []
    denied = [_is_denied(who, operation) for operation in operations]
    if not any(denied):
        return []
    empty = [not operation.key and operation.verb != "delete-tree" for operation in operations]
    told = (("Must provide key" if empty_one else DENIED if denied_one else "") for empty_one, denied_one in zip(empty, denied, strict=True))
    return [(number, text) for number, text in enumerate(told) if text]


def _is_denied(who: Authorizer, operation: TxnOperation) -> bool:
    if operation.verb in _FILTERED:
        return False
    if operation.verb == "delete-tree":
        return not who.may_on_all(WRITE, operation.key)
    return not who.may(READ if operation.verb in _READING else WRITE, "key", operation.key)


def _seen(who: Authorizer, rows: Sequence[Row]) -> list[Row]:
    return list(rows) if who is EVERYTHING else [row for row in rows if who.may(READ, "key", row.key)]


def _check_values(operations: Iterable[TxnOperation], bytes_max: int) -> None:
    for operation in operations:
        size = len(operation.value)
        if size > bytes_max:
            raise RequestRefused(413, f"Value for key {quote_key(operation.key)} is too large ({size} > {bytes_max} bytes)")


def _answer(failures: Sequence[tuple[int, str]], rows: Sequence[Row], params: Params, headers: Headers, about: bytes) -> Answer:
    """:param about: more members of the JSON object."""
    if failures:
        errors = b",".join(b'{"OpIndex":%d,"What":%b}' % (number, text(what.encode("utf-8", "surrogateescape"))) for number, what in failures)
        body = b'{"Results":null,"Errors":[%b]%b}' % (errors, about)
    else:
        body = b'{"Results":[%b],"Errors":null%b}' % (b",".join([b'{"KV":%b}' % entry for entry in each_entry(rows)]), about)
    return _CONFLICT if failures else _DONE, [JSON, *headers], pretty(body) if params.pretty else body
