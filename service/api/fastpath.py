"""A short cut before Flask for nearly all requests: GET of a key or a listing, PUT of a key, where the path needs no decoding, and transactions.

It calls the same functions of :mod:`service.api.kv` and :mod:`service.api.txn` as the Flask views, with the same arguments; whatever is in any way
unusual goes to Flask.
A test holds both to identical answers.
"""

import io
from collections.abc import Iterable, Mapping
from time import perf_counter
from typing import Any
from wsgiref.types import StartResponse

from flask import Flask

from service.api.app import EXTENSION, Worker, failure
from service.api.errors import Answer, RequestRefused, backend_failure
from service.api.kept import Kept, KeptAnswers, Standing
from service.api.params import NO_PARAMS, Params, parse
from service.api.responses import complete, respond
from service.errors import BackendError
from service.worker.response import Complete

_PREFIX = "/v1/kv/"
_TXN = "/v1/txn"


class FastPath:
    """The application that the web server calls.

    :param app: the complete application, made by :func:`service.api.app.create_app`.
    """

    def __init__(self, app: Flask) -> None:
        self._app = app.wsgi_app
        worker: Worker = app.extensions[EXTENSION]
        self._kv = worker.kv
        self._txn = worker.txn
        self._backend = worker.backend
        self._count = worker.requests.count
        self._kept = KeptAnswers()

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """WSGI."""
        answer = self._answer(environ["REQUEST_METHOD"], environ.get("RAW_URI", ""), environ, None)
        return self._app(environ, start_response) if answer is None else respond(environ, start_response, answer)

    def recall(self, head: bytes) -> Complete | Standing | None:
        """The answer to a request, before it is taken apart: what was answered to the same one before, if that still stands.

        :param head: all of it.
        :returns: where there is no such answer, what :meth:`fast` wants to be told if there is none but this head to the request, and the next one
            will be read on its connection.
        """
        if not head.startswith(b"GET "):
            return None
        connection = self._backend.connection
        kept = self._kept.find(head, connection)
        if kept is None:
            return Standing(head, connection)
        began = perf_counter()
        try:
            required = self._kv.reads.require(kept.freshness)
        except BackendError as error:
            failed = backend_failure(error, "GET")
            self._count("GET", failed[0], perf_counter() - began)
            return Complete(*complete(kept.variables, failed))
        if required > kept.as_of:
            return Standing(head, connection, required)
        self._count("GET", kept.status, perf_counter() - began)
        return kept.answer

    def fast(self, method: str, target: str, variables: Mapping[str, str], body: bytes, standing: Standing | None = None) -> Complete | None:
        """The answer to a request without WSGI around it; None when it is to be asked of :meth:`__call__`.

        :param target: as it came, decoded as Latin-1.
        :param variables: the headers as WSGI names them.
        :param body: all of it.
        :param standing: what :meth:`recall` gave.
        """
        if method == "GET":
            return self._get(target, variables, standing)
        if method != "PUT":
            return None
        environ = {**variables, "QUERY_STRING": target.partition("?")[2], "wsgi.input": io.BytesIO(body)}
        answer = self._answer(method, target, environ, None)
        return None if answer is None else Complete(*complete(environ, answer))

    def _get(self, target: str, variables: Mapping[str, str], standing: Standing | None) -> Complete | None:
        environ = {**variables, "QUERY_STRING": target.partition("?")[2]} if "?" in target else variables
        answer = self._answer("GET", target, environ, standing)
        if answer is None:
            return None
        made = Complete(*complete(environ, answer))
        if standing is not None and standing.as_of:
            self._kept.keep(standing.head, Kept(made, answer[0], variables, standing.as_of, standing.freshness), standing.connection)
        return made

    def _answer(self, method: str, target: str, environ: Mapping[str, Any], standing: Standing | None) -> Answer | None:
        """The answer to what is usual."""
        path, _, query = target.partition("?")
        if method not in ("GET", "PUT") or not (_is_plain(path) or (path == _TXN and method == "PUT")):
            return None
        params = NO_PARAMS
        if query:
            try:
                params = parse(query)
            except RequestRefused:
                return None
            if (params.index or params.keys or params.recurse) and method == "PUT":
                return None
        began = perf_counter()
        try:
            answer = self._act(method, path, params, environ, standing)
        except Exception as error:  # noqa: BLE001 - as Flask does with what a view raises
            answer = failure(error, method)
        self._count(method, answer[0], perf_counter() - began, waited="index=" in query)
        return answer

    def _act(self, method: str, path: str, params: Params, environ: Mapping[str, Any], standing: Standing | None) -> Answer:
        if path == _TXN:
            return self._txn.put(environ)
        key = path[len(_PREFIX) :].encode("ascii")
        if method == "PUT":
            return self._kv.put_one(key, params, environ)
        get = self._kv.get_many if params.keys or params.recurse else self._kv.get_one
        return get(key, params, environ, standing)

    def release(self) -> None:
        """Answer all blocking queries at once, and let none wait any more: the worker stops."""
        self._kv.blocking.release()

    def gone(self, greenlet: Any) -> None:
        """The client has gone whose request a greenlet carries out: if it only waits for a change, it waits no longer. Never waits."""
        self._kv.blocking.gone(greenlet)

    def abandon(self) -> None:
        """Answer everybody who still waits for the agent: of a write that was sent nobody knows what becomes of it."""
        self._backend.close()

    @property
    def stopping(self) -> bool:
        """Whether the whole node stops, not just this worker."""
        return self._backend.node_state.quitting


def _is_plain(path: str) -> bool:
    """Whether the path is that of a key, and stands for itself."""
    return (
        path.startswith(_PREFIX)
        and len(path) > len(_PREFIX)
        and "%" not in path
        and "//" not in path
        and "/." not in path
        and path.isascii()
        and path.isprintable()
    )
