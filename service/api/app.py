"""The Flask application: one worker's whole API.

Flask's router never sees a key: :class:`PathGuard` before it decodes and checks the path as Go does and leaves the key in the environment,
so that every rule is static.
"""

import logging
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any
from wsgiref.types import StartResponse, WSGIApplication

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Rule

from service.api import paths
from service.api.errors import OUTCOME, READ_METHODS, TEXT, Answer, RequestRefused, backend_failure
from service.api.events import Events
from service.api.kv import KeyValue
from service.api.metrics import Requests
from service.api.monitoring import Monitoring
from service.api.params import request_id
from service.api.responses import REQUEST_ID, respond
from service.api.restore import Restoring
from service.api.routes import (
    acl,
    agent,
    catalog,
    check,
    cluster,
    event,
    health,
    kv,
    leadership,
    monitor,
    node,
    operator,
    reload,
    scan,
    sessions,
    snapshot,
    telemetry,
    txn,
)
from service.api.routing import Route
from service.api.save import Saving
from service.api.sessions import Sessions
from service.api.txn import Transactions
from service.errors import UNKNOWN, BackendError
from service.ipc.client import AgentClient
from service.ipc.report import read
from service.reloading import Live
from service.settings import Settings
from service.store.reader import Reader

if TYPE_CHECKING:
    from service.api.cache import Cache

log = logging.getLogger(__name__)

EXTENSION = "kvorum"


class PlainResponse(Response):
    """A response that has no Content-Type unless it is given one."""

    default_mimetype = None


class Worker:
    """What the parts of one worker share; found as ``app.extensions["kvorum"]``."""

    def __init__(self, backend: AgentClient, state: Reader, settings: Settings) -> None:
        self.backend = backend
        self.live = Live(settings)
        self.requests = Requests()
        self.cache = _open_cache(self.live, backend) if settings.redis_url else None
        self.kv = KeyValue(backend, state, self.live, self.cache)
        self.txn = Transactions(backend, self.kv, self.live)
        self.events = Events(backend, self.kv, settings)
        self.sessions = Sessions(backend, self.kv, self.live)
        self.monitoring = Monitoring(backend)
        self.saving = Saving(backend, self.kv, settings)
        self.restoring = Restoring(backend, self.kv, self.live)
        backend.on_configured = lambda configured: self.live.take(configured.values)


def _open_cache(live: Live, backend: AgentClient) -> "Cache":
    from service.api.cache import Cache  # noqa: PLC0415 - a tenth of a worker's start that only nodes with a Redis pay

    return Cache(live, ClusterId(backend))


class ClusterId:
    """The cluster's id, asked of the agent once; empty until that knows it."""

    def __init__(self, backend: AgentClient) -> None:
        self._backend = backend
        self._known = ""

    def __call__(self) -> str:
        """The id."""
        if not self._known:
            try:
                self._known = read(self._backend.status()).cluster_id
            except BackendError as error:
                log.debug("the cluster's id is not known: %s", error)
        return self._known


def create_app(backend: AgentClient, state: Reader, settings: Settings) -> Flask:
    """Make the application of one worker.

    :param backend: the agent of this node.
    :param state: the local copy of the replicated state.
    :param settings: those the process was started with; the agent tells what has changed since.
    """
    app = Flask(__name__, static_folder=None, template_folder=None)
    app.response_class = PlainResponse
    app.url_map.merge_slashes = False
    app.url_map.redirect_defaults = False
    worker = Worker(backend, state, settings)
    app.extensions[EXTENSION] = worker
    about = node.Node(backend, worker.live)
    for route in [
        *kv.routes(worker.kv),
        *txn.routes(worker.txn),
        *scan.routes(backend, worker.kv),
        *event.routes(worker.events),
        *sessions.routes(worker.sessions),
        *node.routes(about),
        *agent.routes(about, worker.kv),
        *catalog.routes(about, worker.kv),
        *operator.routes(about, worker.kv),
        *monitor.routes(worker.monitoring),
        *snapshot.routes(worker.saving, worker.restoring),
        *telemetry.routes(about),
        *reload.routes(about),
        *cluster.routes(about),
        *leadership.routes(about),
        *check.routes(about),
        *health.routes(about, worker.requests, worker.kv.blocking),
        *acl.routes(backend, worker.kv, settings),
    ]:
        _add(app, worker.kv.permissions.guard(route))
    app.after_request(_echo_request_id)
    app.register_error_handler(404, lambda _: PlainResponse(status=404))
    app.register_error_handler(Exception, _unexpected)
    app.wsgi_app = PathGuard(app.wsgi_app, worker.requests)  # type: ignore[method-assign]  # the documented way to put a layer around Flask
    return app


def _add(app: Flask, route: Route) -> None:
    # Every method reaches the view: Consul's answer to a wrong one is not Flask's.
    app.url_map.add(Rule(route.path, endpoint=route.path, methods=None))
    app.view_functions[route.path] = _flask_view(route)


def _flask_view(route: Route) -> Callable[[], Response]:
    def view(**_variables: str) -> Response:
        status, headers, body = route.answer(request.environ)
        return PlainResponse(body, status, headers)

    return view


def _echo_request_id(response: Response) -> Response:
    if named := request_id(request.environ):
        response.headers[REQUEST_ID] = named
    return response


def _unexpected(error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return PlainResponse(error.description, error.code, [TEXT])
    status, headers, body = failure(error, request.method)
    return PlainResponse(body, status, headers)


def failure(error: Exception, method: str) -> Answer:
    """The answer when a view raised."""
    if isinstance(error, BackendError):
        return backend_failure(error, method)
    log.error("a request failed", exc_info=error)
    headers = [TEXT] if method in READ_METHODS else [TEXT, (OUTCOME, UNKNOWN)]
    return 500, headers, b"internal error; the log of this node says more"


class PathGuard:
    """Decides about the path before Flask does, and counts the answers.

    It answers unclean and unprintable paths itself. For the others it sets ``PATH_INFO`` (that of a key without the key), and
    :data:`service.api.paths.KEY`.
    """

    def __init__(self, app: WSGIApplication, requests: Requests) -> None:
        self._app = app
        self._requests = requests

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Any:
        """WSGI."""
        began = perf_counter()
        method = environ["REQUEST_METHOD"]
        seen: list[int] = []

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            seen.append(int(status[:3]))
            return start_response(status, headers, *rest)

        try:
            answer = self._guard(environ, method)
        except RequestRefused as refused:
            answer = refused.answer(method)
        body = self._app(environ, start) if answer is None else respond(environ, start, answer)
        self._requests.count(method, seen[-1] if seen else 500, perf_counter() - began, waited="index=" in environ.get("QUERY_STRING", ""))
        return body

    def _guard(self, environ: dict[str, Any], method: str) -> Answer | None:
        target = paths.parse(paths.raw_uri(environ))
        path = target.path
        if path == b"*":
            return (200, [], b"") if method == "OPTIONS" else (400, [], b"")
        if not paths.is_clean(path):
            # Go's server keeps the mark of an empty query but where it only adds a slash.
            mark = "" if not target.query and paths.lacks_slash(path) else target.mark
            return paths.redirect(paths.clean(path), mark + target.query, method)
        environ["QUERY_STRING"] = target.query
        path, behind = paths.split(path)
        if behind is not None:
            environ[paths.KEY] = behind
        environ["PATH_INFO"] = path.decode("latin-1")
        environ["SCRIPT_NAME"] = ""
        return None
