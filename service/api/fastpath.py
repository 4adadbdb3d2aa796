"""A short cut before Flask for what nearly every request is: GET or PUT of one key whose path needs no decoding.

It calls the same functions of :mod:`service.api.kv` as the Flask view, with the same arguments; whatever is in any way unusual goes to Flask.
A test holds both to identical answers.
"""

import io
from collections.abc import Iterable, Mapping
from time import perf_counter
from typing import Any
from wsgiref.types import StartResponse

from flask import Flask

from service.api.app import EXTENSION, Worker, failure
from service.api.errors import Answer, Headers, RequestRefused
from service.api.params import NO_PARAMS, parse
from service.api.responses import complete, respond

_PREFIX = "/v1/kv/"


class FastPath:
    """The application that the web server calls.

    :param app: the complete application, made by :func:`service.api.app.create_app`.
    """

    def __init__(self, app: Flask) -> None:
        self._app = app.wsgi_app
        worker: Worker = app.extensions[EXTENSION]
        self._kv = worker.kv
        self._backend = worker.backend
        self._actions = {"GET": worker.kv.get_one, "PUT": worker.kv.put_one}
        self._count = worker.requests.count

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """WSGI."""
        answer = self._answer(environ["REQUEST_METHOD"], environ.get("RAW_URI", ""), environ)
        return self._app(environ, start_response) if answer is None else respond(environ, start_response, answer)

    def fast(self, method: str, target: str, variables: Mapping[str, str], body: bytes) -> tuple[str, Headers, bytes] | None:
        """The answer to a request without WSGI around it, ready to be sent; None when it is to be asked of :meth:`__call__`.

        :param target: as it came, decoded as Latin-1.
        :param variables: the headers as WSGI names them.
        :param body: all of it.
        """
        environ: Mapping[str, Any] = variables
        if method == "PUT":
            environ = {**variables, "QUERY_STRING": target.partition("?")[2], "wsgi.input": io.BytesIO(body)}
        elif "?" in target:
            environ = {**variables, "QUERY_STRING": target.partition("?")[2]}
        answer = self._answer(method, target, environ)
        return None if answer is None else complete(environ, answer)

    def _answer(self, method: str, target: str, environ: Mapping[str, Any]) -> Answer | None:
        """The answer to what is usual."""
        action = self._actions.get(method)
        key, _, query = target.partition("?")
        if action is None or not _is_plain(key):
            return None
        params = NO_PARAMS
        if query:
            try:
                params = parse(query)
            except RequestRefused:
                return None
            if params.index or params.keys or params.recurse:
                return None
        began = perf_counter()
        try:
            answer = action(key[len(_PREFIX) :].encode("ascii"), params, environ)
        except Exception as error:  # noqa: BLE001 - as Flask does with what a view raises
            answer = failure(error, method)
        self._count(method, answer[0], perf_counter() - began)
        return answer

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
