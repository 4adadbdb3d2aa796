"""Following the agent's log: each request has a queue of its own, and whoever reads too slowly is told how much it has missed."""

import json
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from gevent.event import Event

from service.api.errors import RequestRefused
from service.ipc.client import AgentClient
from service.ipc.protocol import Logged

FOLLOWERS_MAX = 32
LINES_MAX = 512
LOOK_SECONDS = 0.5

Format = Callable[[Logged], str]


class Follower:
    """One request that follows the log.

    :param level: of :mod:`logging`, the lowest that it wants.
    """

    def __init__(self, level: int, form: Format) -> None:
        self.level = level
        self._form = form
        self._lines: deque[Logged] = deque()
        self._missed = 0
        self._came = Event()

    def offer(self, line: Logged) -> None:
        """Keep a line for it, unless it has too many already."""
        if line.level < self.level:
            return
        if len(self._lines) < LINES_MAX:
            self._lines.append(line)
        else:
            self._missed += 1
        self._came.set()

    def take(self, seconds: float) -> bytes:
        """What has come; waits for it for a while."""
        self._came.wait(seconds)
        self._came.clear()
        lines, self._lines = self._lines, deque()
        missed, self._missed = self._missed, 0
        if missed:
            text = f"{missed} lines were left out: they came faster than they were read"
            lines.append(Logged(logging.WARNING, time.time_ns() // 1_000_000, __name__, text))
        return "".join(self._form(line) + "\n" for line in lines).encode("utf-8", "replace")


class Monitoring:
    """The followers of one worker."""

    def __init__(self, backend: AgentClient) -> None:
        self._backend = backend
        self._followers: set[Follower] = set()
        backend.on_logged = self._logged

    def follow(self, level: int, form: Format, is_over: Callable[[], bool]) -> Iterator[bytes]:
        """The log from now on, piece by piece, the first one empty; it ends with the node, or when the client has gone.

        :param is_over: whether the client has gone.
        :raises RequestRefused: too many follow already.
        """
        if len(self._followers) >= FOLLOWERS_MAX:
            raise RequestRefused(429, f"Too many requests follow the log: {FOLLOWERS_MAX} do already.")
        return self._pieces(Follower(level, form), is_over)

    def _pieces(self, follower: Follower, is_over: Callable[[], bool]) -> Iterator[bytes]:
        self._followers.add(follower)
        self._ask()
        try:
            yield b""
            while not (self._backend.node_state.quitting or is_over()):
                if piece := follower.take(LOOK_SECONDS):
                    yield piece
        finally:
            self._followers.discard(follower)
            self._ask()

    def _ask(self) -> None:
        self._backend.monitor(min((follower.level for follower in self._followers), default=0))

    def _logged(self, line: Logged) -> None:
        for follower in self._followers:
            follower.offer(line)


def as_text(line: Logged) -> str:
    """A line as Consul writes it."""
    name = f"[{_name(line.level)}]"
    return f"{_time(line)} {name:<7} {line.logger}: {line.message}"


def as_json(line: Logged) -> str:
    """A line as Consul writes it with ``-log-json``."""
    fields = {"@level": _name(line.level).lower(), "@message": line.message, "@module": line.logger, "@timestamp": _time(line)}
    return json.dumps(fields, ensure_ascii=False)


def _name(level: int) -> str:
    names = ((logging.ERROR, "ERROR"), (logging.WARNING, "WARN"), (logging.INFO, "INFO"), (logging.DEBUG, "DEBUG"))
    return next((name for least, name in names if level >= least), "TRACE")


def _time(line: Logged) -> str:
    return datetime.fromtimestamp(line.milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
