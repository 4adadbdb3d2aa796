"""``/v1/agent/monitor``: the log of this node's agent, until the client goes."""

import logging
import socket
from collections.abc import Callable, Mapping
from typing import Any

import gevent.select

from service.api.errors import TEXT, Answer, RequestRefused
from service.api.monitoring import Monitoring, as_json, as_text
from service.api.params import parse_for_write
from service.api.routing import READ_ONLY, Route, Stream

Environ = Mapping[str, Any]

_LEVELS = {"TRACE": 1, "DEBUG": logging.DEBUG, "INFO": logging.INFO, "WARN": logging.WARNING, "ERR": logging.ERROR, "ERROR": logging.ERROR}


def routes(monitoring: Monitoring) -> list[Route]:
    """The routes of this module."""

    def monitor(environ: Environ) -> Answer | Stream:
        query = parse_for_write(environ["QUERY_STRING"]).query
        wanted = query.get("loglevel", ("",))[0] or "INFO"
        level = _LEVELS.get(wanted.upper())
        if level is None:
            raise RequestRefused(400, f"Bad request: Unknown log level: {wanted}")
        form = as_json if "logjson" in query else as_text
        return 200, [TEXT], monitoring.follow(level, form, _is_gone(environ))

    return [Route("/v1/agent/monitor", READ_ONLY, monitor)]


def _is_gone(environ: Environ) -> Callable[[], bool]:
    """A function that tells whether the client has closed its connection; only a web server of our own kind lets us know before we write."""
    connection = environ.get("gunicorn.socket")

    def is_gone() -> bool:
        if connection is None or not gevent.select.select([connection], [], [], 0)[0]:
            return False
        try:
            return not connection.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    return is_gone
