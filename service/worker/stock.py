"""gunicorn's own gevent worker, with the stop of :mod:`service.worker.drain`: the other choice beside :mod:`service.worker.server`."""

import logging
import re
import socket
from typing import Any

import gunicorn.http.message
import gunicorn.http.wsgi
import gunicorn.util

from service.worker.drain import DrainingWorker
from service.worker.parser import TARGET_LINE_BYTES_MAX

log = logging.getLogger(__name__)


class StockWorker(DrainingWorker):
    """Serves by gunicorn's means."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._idle: set[Any] = set()

    def init_process(self) -> None:
        """In the new process, before anything is served."""
        _announce_last_answers(self)
        relax_parser()
        gunicorn.util.write_error = write_error
        super().init_process()

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve one connection until it ends."""
        self.open += 1
        self._idle.add(client)
        try:
            super().handle(listener, client, addr)
        finally:
            self.open -= 1
            self._idle.discard(client)

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        """Serve one request of a connection."""
        self._idle.discard(sock)
        super().handle_request(listener_name, req, sock, addr)
        self._idle.add(sock)

    def end_idle(self) -> None:
        """See :meth:`DrainingWorker.end_idle`."""
        for client in tuple(self._idle):
            # By a twin: shutting down its own would make gevent fail the read that waits, instead of letting it see the end.
            twin = client.dup()
            try:
                twin.shutdown(socket.SHUT_RD)
            except OSError as error:
                log.debug("an idle connection has ended by itself: %s", error)
            finally:
                twin.close()


def relax_parser() -> None:
    """Let requests through that Go's server accepts: raw UTF-8 in the path, and request lines longer than 8190 bytes.

    gunicorn has no setting for either.
    """
    gunicorn.http.message.RFC9112_TARGET_INVALID = re.compile(r"[\x00-\x20\x7f]")
    gunicorn.http.message.MAX_REQUEST_LINE = TARGET_LINE_BYTES_MAX


def write_error(sock: Any, status: int, reason: str, _detail: str) -> None:
    """Answer a request that could not even be read, as Go's server does: gunicorn would send a page of HTML. The detail is in the log."""
    text = f"{status} {reason}"
    head = f"HTTP/1.1 {text}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\nContent-Length: {len(text)}"
    gunicorn.util.write_nonblock(sock, f"{head}\r\n\r\n{text}".encode("latin-1"))


def _announce_last_answers(worker: StockWorker) -> None:
    """Let every answer whose headers are sent once the worker stops say that it is the last one; gunicorn decides when the request begins."""
    plain = gunicorn.http.wsgi.Response.default_headers

    def default_headers(response: Any) -> Any:
        if worker.is_last():
            response.force_close()
        return plain(response)

    gunicorn.http.wsgi.Response.default_headers = default_headers
