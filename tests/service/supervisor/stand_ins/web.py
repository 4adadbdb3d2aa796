"""Stands in for gunicorn: has one worker process and writes down what happens to it."""

import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from service.lifetime import die_with_parent

BEHAVIOUR = os.environ.get("STAND_IN_WEB", "")
events = Path(os.environ["STAND_IN_EVENTS"])


def note(text: str) -> None:
    """Append one line; short appends are atomic."""
    with events.open("a") as file:
        file.write(f"web {text}\n")


def on_term(number: int, _frame: FrameType | None) -> None:
    """Write the signal down; end with the worker, unless told to be stubborn."""
    note(signal.Signals(number).name)
    if BEHAVIOUR != "stubborn":
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)
        note("ended")
        sys.exit(0)


parent = os.getpid()
worker = os.fork()
if worker == 0:
    die_with_parent(parent)
    while True:
        time.sleep(1)
signal.signal(signal.SIGTERM, on_term)
note(f"worker {worker}")
note(f"pid {os.getpid()}")
while True:
    time.sleep(1)
