"""What the agent tells its supervisor: the settings in force, a line of JSON each, through a pipe."""

import fcntl
import json
import os
from collections.abc import Iterator
from typing import Any

READ_BYTES = 65_536


class Told:
    """The pipe. This process gets SIGIO when there is something to read, so that it can wait for signals alone.

    :ivar inlet: the descriptor for the agent.
    """

    def __init__(self) -> None:
        self._outlet, self.inlet = os.pipe()
        self._rest = b""
        os.set_blocking(self._outlet, False)

    def begin(self) -> None:
        """Ask for SIGIO; it must be blocked, for by itself it ends a process."""
        fcntl.fcntl(self._outlet, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(self._outlet, fcntl.F_SETFL, fcntl.fcntl(self._outlet, fcntl.F_GETFL) | os.O_ASYNC)

    def read(self) -> Iterator[dict[str, Any]]:
        """Everything that was told since the last time."""
        while True:
            try:
                data = os.read(self._outlet, READ_BYTES)
            except BlockingIOError:
                break
            if not data:
                break
            self._rest += data
        *lines, self._rest = self._rest.split(b"\n")
        yield from (json.loads(line) for line in lines)

    def close(self) -> None:
        """Close both ends."""
        os.close(self._outlet)
        os.close(self.inlet)
