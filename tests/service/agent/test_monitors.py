"""The agent's log for workers that follow it."""

import asyncio
import io
import logging
from typing import Any

from service import logs
from service.agent.monitors import Monitors
from service.ipc import protocol

log = logging.getLogger("kvorum.test")


class Worker:
    """Notes what it is sent."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def send(self, line: protocol.Logged) -> None:
        """One line."""
        self.lines.append(f"{line.level} {line.logger} {line.message}")


async def _spread(*lines: tuple[int, str]) -> None:
    """Log from another thread, as the disk does, and let the loop pass it on."""
    for level, text in lines:
        await asyncio.to_thread(log.log, level, text)
    await asyncio.sleep(0)


async def _follow(stream: io.StringIO) -> tuple[list[str], list[str]]:
    monitors = Monitors()
    errors, everything = Worker(), Worker()
    everybody: list[Any] = [errors, everything]
    await _spread((40, "before"))
    monitors.want(everybody[0], logging.ERROR)
    monitors.want(everybody[1], logging.DEBUG)
    await _spread((10, "one"), (20, "two"), (40, "three"))
    logs.configure("info", "text", "n1", stream)
    await _spread((10, "four"))
    monitors.want(everybody[1], 0)
    assert logging.getLogger().level == logging.INFO
    await _spread((10, "five"), (40, "six"))
    monitors.close()
    await _spread((40, "after"))
    monitors.want(everybody[1], 0)
    return errors.lines, everything.lines


def test_who_hears_what() -> None:
    """Each worker hears the lines of its level, from all threads; the stream goes on as it was set, also when it is set anew meanwhile."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    stream = io.StringIO()
    try:
        logs.configure("info", "text", "n1", stream)
        errors, everything = asyncio.run(_follow(stream))
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    assert [line for line in errors if "kvorum.test" in line] == ["40 kvorum.test three", "40 kvorum.test six"]
    assert [line for line in everything if "kvorum.test" in line] == [
        "10 kvorum.test one",
        "20 kvorum.test two",
        "40 kvorum.test three",
        "10 kvorum.test four",
    ]
    written = [line.rpartition(": ")[2] for line in stream.getvalue().splitlines() if "kvorum.test" in line]
    assert written == ["before", "two", "three", "six", "after"]
