"""The agent's log for those who follow it through a web worker. While nobody does, nothing is added to the cost of a log line."""

import asyncio
import logging

from service.ipc import protocol
from service.ipc.server import Worker
from service.logs import Listener


class Monitors:
    """Which worker wants which lines. All on the loop's thread, but for the lines themselves: any thread logs."""

    def __init__(self) -> None:
        self._levels: dict[Worker, int] = {}
        self._loop = asyncio.get_running_loop()
        self._listener = Listener(self._hear)

    def want(self, worker: Worker, level: int) -> None:
        """A worker wants lines of a level of :mod:`logging` and above; 0 for none."""
        if level == self._levels.get(worker, 0):
            return
        if level:
            self._levels[worker] = level
        else:
            del self._levels[worker]
        self._listener.listen(min(self._levels.values(), default=0))

    def close(self) -> None:
        """Listen no more."""
        self._levels.clear()
        self._listener.listen(0)

    def _hear(self, record: logging.LogRecord) -> None:
        line = protocol.Logged(record.levelno, int(record.created * 1000), record.name, record.getMessage())
        self._loop.call_soon_threadsafe(self._send, line)

    def _send(self, line: protocol.Logged) -> None:
        for worker, level in self._levels.items():
            if line.level >= level:
                worker.send(line)
