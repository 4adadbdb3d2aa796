"""A stop that leaves no request without an answer, for whatever serves HTTP in a gunicorn worker.

A client whose connection closes after it has sent a write knows nothing of that write. So when the worker is told to stop (SIGTERM):

1. Whoever waits for a change (a blocking query) is answered.
2. Nobody new is let in, and everybody whose connection the kernel has accepted by then is served (:class:`Listener`).
3. Every answer from then on says ``Connection: close`` and is the last on its connection.
4. A connection on which no request comes for :data:`IDLE_SECONDS` is closed for reading: what has arrived on it by then is still answered.
5. Who is not answered by then (a write without a leader, say) is told at :data:`PATIENCE_SECONDS` that its outcome is unknown.

One race is left, and is HTTP's own (RFC 9112, section 9.5): a request on a connection that had been idle for so long, on its way in the very moment
in which that is closed. It is never carried out, but its client can't know.
"""

import ctypes
import logging
import socket
import time
from functools import partial
from typing import Any

import gevent
import gevent.event
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn.workers.ggevent import GeventWorker

log = logging.getLogger(__name__)

BACKLOG = 4096
IDLE_SECONDS = 1.0
PATIENCE_SECONDS = 2.5
ANSWER_SECONDS = 0.5
STOP_SECONDS = 4
"""More than all of that takes: gunicorn kills a worker that has not ended by then."""
HANDSHAKE_SECONDS = 0.05
"""How long a connection may take from its first packet to the last of the handshake."""

_NOTIFY_SECONDS = 1.0
_POLL_SECONDS = 0.02

_SO_ATTACH_FILTER = 26  # asm-generic/socket.h
_SO_DETACH_FILTER = 27


class _Instruction(ctypes.Structure):
    """``struct sock_filter`` (linux/filter.h)."""

    _fields_ = (("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    """``struct sock_fprog`` (linux/filter.h)."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction)))


# A filter at a TCP socket sees the packet from the TCP header on; its flags are byte 13, of which SYN is 2 (RFC 9293, section 3.1).
_DROP_NEW_CONNECTIONS = (_Instruction * 4)(
    _Instruction(0x30, 0, 0, 13),  # load that byte
    _Instruction(0x45, 0, 1, 2),  # is SYN set? if not, skip the next
    _Instruction(0x06, 0, 0, 0),  # drop
    _Instruction(0x06, 0, 0, 0xFFFFFFFF),  # take the whole packet
)


def refuse_newcomers(listener: Any) -> bool:
    """Let the kernel begin no connection at a listener any more. Those that it has begun go on, and can still be accepted.

    Without this some are begun between the last look for them and the closing, which resets them, perhaps with a request on the way. The system of
    a client that comes meanwhile tries again by itself, after a second, and is refused once the listener is closed.

    :returns: False where the system has no such filters.
    """
    program = _Program(len(_DROP_NEW_CONNECTIONS), _DROP_NEW_CONNECTIONS)
    try:
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, bytes(program))
    except OSError as error:
        log.debug("no filter at the listener: %s", error)
        return False
    return True


class Listener(StreamServer):
    """Stops listening only when nobody is left whose connection the kernel has accepted already.

    :ivar shared: whether other processes listen on the same socket and go on doing so.
    """

    shared = False
    _came = False

    def do_handle(self, *args: Any) -> None:
        """A connection was accepted."""
        self._came = True
        super().do_handle(*args)

    def close(self) -> None:
        """Accept what is there, then stop."""
        if not self.closed:
            self.max_accept = BACKLOG
            filtered = refuse_newcomers(self.socket)
            quiet_at = time.monotonic() + (HANDSHAKE_SECONDS if filtered else 0.0)
            self._came = True
            while self._came or time.monotonic() < quiet_at:
                # gunicorn asks the listener for its name first of all: whoever came must have done so before it is closed.
                gevent.sleep(0 if self._came else _POLL_SECONDS)
                self._came = False
                self._do_read()  # type: ignore[attr-defined]  # what the listener's watcher calls; gevent's stubs leave it out
            if filtered and self.shared:
                self.socket.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
        super().close()


class DrainingWorker(GeventWorker):  # type: ignore[misc]  # gunicorn has no types
    """See the module's text. An application may have what the stop asks of it; one that has not is served all the same:

    * ``release()`` answers whoever waits for a change, and lets nobody wait any more;
    * ``abandon()`` answers everybody who still waits;
    * ``stopping`` tells whether the whole node stops, not just this worker.

    :ivar open: how many connections there are.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.open = 0
        self._told: Any = None  # an event, once this process serves

    def run(self) -> None:
        """Serve until told to stop, then stop as the module's text says."""
        self._told = gevent.event.Event()
        listeners = []
        for sock in self.sockets:
            sock.setblocking(1)
            listener = Listener(sock, handle=partial(self.handle, sock), spawn=Pool(self.worker_connections))
            listener.max_accept = 1 if self.cfg.workers > 1 else listener.max_accept
            listener.start()
            listeners.append(listener)
        while self.alive:
            self.notify()
            self._told.wait(_NOTIFY_SECONDS)
        self._stop(listeners)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """SIGTERM. The rest is done in :meth:`run`: a signal may come in the middle of anything."""
        super().handle_exit(sig, frame)
        if self._told is not None:  # else run() finds out before it waits
            gevent.spawn(self._told.set)

    def is_last(self) -> bool:
        """Whether an answer whose headers are sent now is the last of its connection. The application may be told of the stop first."""
        return not self.alive or self._node_stops

    def end_idle(self) -> None:
        """Let idle connections come to their end: behind what has arrived, there is nothing more to read."""
        raise NotImplementedError

    @property
    def _node_stops(self) -> bool:
        return bool(getattr(self.wsgi, "stopping", False))

    def _stop(self, listeners: list[Listener]) -> None:
        began = time.monotonic()
        getattr(self.wsgi, "release", _nothing)()
        for listener in listeners:
            listener.shared = not self._node_stops
            listener.close()
        while self.open and time.monotonic() < began + PATIENCE_SECONDS:
            if time.monotonic() >= began + IDLE_SECONDS:
                self.end_idle()
            self._pause()
        if self.open:
            getattr(self.wsgi, "abandon", _nothing)()
        while self.open and time.monotonic() < began + PATIENCE_SECONDS + ANSWER_SECONDS:
            self._pause()
        if self.open:
            log.warning("%d connections are cut: their requests did not end in time", self.open)

    def _pause(self) -> None:
        self.notify()
        gevent.sleep(_POLL_SECONDS)


def _nothing() -> None:
    """What an application does that was not written for this server."""
