"""Settings of gunicorn for the web workers, made from the node's own settings (the environment).

gunicorn reads the names of this module; see its documentation for their meaning. The web worker keeps nothing, so it is loaded after the
fork (its socket and greenlets are its own), and gunicorn may replace it at any time.
"""

import os
import sys
from typing import Any

import gunicorn.glogging

from service.lifetime import die_with_parent
from service.logs import JsonLines, TextLines
from service.settings import load
from service.worker.drain import BACKLOG, STOP_SECONDS
from service.worker.parser import TARGET_LINE_BYTES_MAX
from service.worker.server import Worker
from service.worker.stock import StockWorker

_settings = load(os.environ)

bind = [_settings.api_bind]
workers = _settings.workers
worker_class = {"own": Worker, "gevent": StockWorker}[_settings.worker_class]
worker_connections = _settings.connections_max
backlog = BACKLOG
preload_app = False
keepalive = 75
# A worker that does not turn its loop for this long is replaced.
timeout = 30
graceful_timeout = STOP_SECONDS

# Consul's clients may use any method and header; what is not served is answered by the application.
permit_unconventional_http_method = True
http_parser = "python"
# gunicorn allows no more than 8190 by itself; see service.worker.stock.
limit_request_line = TARGET_LINE_BYTES_MAX
# Nobody in front of a worker may change the address, the path or the scheme of a request by a header.
forwarded_allow_ips = ""
forwarder_headers = ""
secure_scheme_headers: dict[str, str] = {}
# A header with an underscore could pass for another one in the environment.
header_map = "drop"


class NoAccessLog(gunicorn.glogging.Logger):  # type: ignore[misc]  # gunicorn has no types
    """Requests are counted (see /metrics), not logged.

    Given a ``logconfig_dict``, gunicorn makes a record of each request even when ``accesslog`` is unset: a fifth of a worker's time.
    """

    @property
    def access_log_enabled(self) -> bool:
        """Never."""
        return False


logger_class = NoAccessLog
accesslog = None
errorlog = "-"
loglevel = _settings.log_level
_text = _settings.log_format == "text" or (_settings.log_format == "auto" and sys.stderr.isatty())
logconfig_dict = {
    "version": 1,
    "disable_existing_loggers": False,
    "root": {"level": _settings.log_level.upper(), "handlers": ["lines"]},
    # NOTSET: the level of the root, which a worker changes by itself.
    "loggers": {"gunicorn.error": {"level": "NOTSET", "handlers": [], "propagate": True}, "gunicorn.access": {"handlers": [], "propagate": False}},
    "handlers": {"lines": {"class": "logging.StreamHandler", "stream": "ext://sys.stderr", "formatter": "lines"}},
    "formatters": {"lines": {"()": TextLines if _text else JsonLines, "node": _settings.name}},
}
control_socket_disable = True
proc_name = "kvorum-web"


def post_fork(_server: Any, worker: Any) -> None:
    """In the new worker: end with the parent, even if that is killed."""
    die_with_parent(worker.ppid)
