"""Looks after the clients of one worker: cuts those who are too slow, and notices those who have gone while their request is carried out.

No request has a timer of its own. Once a second all connections are looked at; one whose request has been carried out for longer than that is
entered where the kernel tells of its client's going. Then the application is told, by its method ``gone(greenlet)``, where it has one.
"""

import logging
import time
from itertools import count
from select import EPOLLONESHOT, EPOLLRDHUP, epoll
from typing import Any

import gevent

from service.worker.connection import Connection, State

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
CONNECTIONS_A_SLICE = 1_000
"""After so many the requests have their turn."""
SLOW_SECONDS = {State.IDLE: 75.0, State.HEAD: 30.0, State.BODY: 30.0, State.SENDING: 30.0, State.ENDING: 2.0}
"""How long a connection may do what it does without progress. How long an answer takes is the application's business."""
_READ = 1


class Watch:
    """See the module's text.

    :ivar connections: those that are served.
    """

    def __init__(self, application: Any) -> None:
        self.connections: set[Connection] = set()
        self._gone = getattr(application, "gone", None)
        self._watched: dict[int, Connection] = {}
        self._epoll = epoll()
        self._ready: Any = gevent.get_hub().loop.io(self._epoll.fileno(), _READ)
        self._greenlet: Any = None

    def start(self) -> None:
        """Begin to look."""
        self._ready.start(self._tell)
        self._greenlet = gevent.spawn(self._look_again)

    def close(self) -> None:
        """Look no more."""
        if self._greenlet is not None:
            self._greenlet.kill()
        self._ready.stop()
        self._ready.close()
        self._epoll.close()

    def look(self, now: float) -> None:
        """Cut who is too slow by now, and watch whose request is carried out for long."""
        for number, connection in zip(count(1), tuple(self.connections)):
            if number % CONNECTIONS_A_SLICE == 0:
                gevent.sleep(0)
            if connection not in self.connections:
                continue
            seconds = now - connection.since
            if connection.state is State.ANSWERING:
                if seconds >= LOOK_SECONDS and not connection.watched and self._gone is not None:
                    self._enter(connection)
            elif seconds > SLOW_SECONDS[connection.state]:
                connection.cut()

    def finished(self, connection: Connection) -> None:
        """The request of a connection that is watched has been answered."""
        connection.watched = False
        number = connection.fileno()
        if self._watched.pop(number, None) is not None:
            self._epoll.unregister(number)

    def _look_again(self) -> None:
        while True:
            gevent.sleep(LOOK_SECONDS)
            self.look(time.monotonic())

    def _enter(self, connection: Connection) -> None:
        connection.watched = True
        self._watched[connection.fileno()] = connection
        self._epoll.register(connection.fileno(), EPOLLRDHUP | EPOLLONESHOT)

    def _tell(self) -> None:
        """Called by the loop, so it never waits."""
        for number, _events in self._epoll.poll(0):
            connection = self._watched.get(number)
            if connection is not None and self._gone is not None:
                log.debug("a client has gone while its request is carried out")
                self._gone(connection.greenlet)
