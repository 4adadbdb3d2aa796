"""A short cut before Flask for what nearly every request is: GET or PUT of one key whose path needs no decoding.

It calls the same functions of :mod:`service.api.kv` as the Flask view, with the same arguments; whatever is in any way unusual goes to Flask.
A test holds both to identical answers.
"""

from collections.abc import Iterable
from time import perf_counter
from typing import Any
from wsgiref.types import StartResponse

from flask import Flask

from service.api.app import EXTENSION, Worker, failure
from service.api.errors import RequestRefused
from service.api.params import NO_PARAMS, parse
from service.api.responses import respond

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
        method = environ["REQUEST_METHOD"]
        action = self._actions.get(method)
        key, _, query = environ.get("RAW_URI", "").partition("?")
        if action is None or not _is_plain(key):
            return self._app(environ, start_response)
        params = NO_PARAMS
        if query:
            try:
                params = parse(query)
            except RequestRefused:
                return self._app(environ, start_response)
            if params.index or params.keys or params.recurse:
                return self._app(environ, start_response)
        began = perf_counter()
        try:
            answer = action(key[len(_PREFIX) :].encode("ascii"), params, environ)
        except Exception as error:  # noqa: BLE001 - as Flask does with what a view raises
            answer = failure(error, method)
        self._count(method, answer[0], perf_counter() - began)
        return respond(environ, start_response, answer)

    def release(self) -> None:
        """Answer all blocking queries at once, and let none wait any more: the worker stops."""
        self._kv.blocking.release()

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
