"""The gunicorn worker: accepts connections and serves each in a greenlet of its own. Chosen by ``worker_class``; see decision 22.

A connection beyond ``worker_connections`` waits in the kernel's queue, as with gunicorn's own worker.
"""

from typing import Any

from gunicorn.http.wsgi import base_environ

from service.worker.connection import Connection, Service, State
from service.worker.drain import DrainingWorker
from service.worker.watch import Watch

_INTERRUPTED = (State.IDLE, State.HEAD, State.ENDING)


class Worker(DrainingWorker):
    """Serves by the means of this package."""

    def run(self) -> None:
        """Serve until told to stop."""
        self._watch = Watch(self.wsgi)
        self._watch.start()
        environ = {**base_environ(self.cfg), "wsgi.multithread": True}
        self._service = Service(application=self.wsgi, environ=environ, is_last=self.is_last, finished=self._watch.finished)
        # Asked now: a listener that is closed has no name, and whoever it has let in is still served.
        self._names = {id(sock): server_environ(sock.getsockname()) for sock in self.sockets}
        super().run()

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve one connection until it ends."""
        self.open += 1
        connections = self._watch.connections
        try:
            connection = Connection(self._service, client, {**self._names[id(listener)], **client_environ(addr)})
            connections.add(connection)
            try:
                connection.serve()
            finally:
                connections.discard(connection)
        finally:
            self.open -= 1

    def end_idle(self) -> None:
        """See :meth:`DrainingWorker.end_idle`."""
        for connection in tuple(self._watch.connections):
            if connection.state in _INTERRUPTED:
                connection.end_reading()


def server_environ(name: Any) -> dict[str, str]:
    """What WSGI wants to know of the listening socket.

    :param name: of a socket: host and port, or a path.
    """
    if isinstance(name, tuple):
        return {"SERVER_NAME": name[0], "SERVER_PORT": str(name[1])}
    return {"SERVER_NAME": str(name), "SERVER_PORT": ""}


def client_environ(address: Any) -> dict[str, str]:
    """What WSGI wants to know of the client."""
    if isinstance(address, tuple):
        return {"REMOTE_ADDR": address[0], "REMOTE_PORT": str(address[1])}
    return {"REMOTE_ADDR": address.decode() if isinstance(address, bytes) else str(address)}
