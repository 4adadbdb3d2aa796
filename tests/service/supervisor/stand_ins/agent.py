"""Stands in for the agent: listens on the node's socket and writes down what happens to it."""

import os
import signal
import socket
import sys
import time
from pathlib import Path
from types import FrameType

BEHAVIOUR = os.environ.get("STAND_IN_AGENT", "")
events = Path(os.environ["STAND_IN_EVENTS"])


def note(text: str) -> None:
    """Append one line; short appends are atomic."""
    with events.open("a") as file:
        file.write(f"agent {text}\n")


def on_signal(number: int, _frame: FrameType | None) -> None:
    """Write the signal down; end on SIGTERM."""
    note(signal.Signals(number).name)
    if number == signal.SIGHUP and BEHAVIOUR == "tells on SIGHUP":
        # More than a pipe holds: whoever supervises must take it, although nothing else happens.
        for deadline_ms in (*range(90_000, 93_000), 700):
            os.write(int(os.environ["_KVORUM_REPORT_FD"]), b'{"stop_deadline_ms": %d, "log_level": "error"}\n' % deadline_ms)
        note("told")
    if number == signal.SIGTERM:
        note("ended")
        sys.exit(0)


signal.signal(signal.SIGTERM, on_signal)
signal.signal(signal.SIGUSR2, on_signal)
signal.signal(signal.SIGUSR1, on_signal)
signal.signal(signal.SIGHUP, signal.SIG_DFL if BEHAVIOUR.startswith("waits") else on_signal)
if BEHAVIOUR.startswith("waits"):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
note(f"pid {os.getpid()}")
if BEHAVIOUR.startswith("exit "):
    sys.exit(int(BEHAVIOUR.split()[1]))
if BEHAVIOUR == "orphan":
    # A grandchild whose parent has gone: whoever is init must collect it.
    if os.fork() == 0:
        if os.fork() == 0:
            note(f"orphan {os.getpid()}")
            os._exit(0)
        os._exit(0)
    os.wait()
if BEHAVIOUR == "never listens":
    while True:
        time.sleep(1)
if BEHAVIOUR.startswith("waits"):
    signal.sigwait({signal.SIGUSR1})
    note("SIGUSR1")
    signal.signal(signal.SIGHUP, on_signal)
path = Path(os.environ["KVORUM_SOCKET_PATH"])
path.parent.mkdir(parents=True, exist_ok=True)
path.unlink(missing_ok=True)
with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
    listener.bind(str(path))
    listener.listen()
    while True:
        connection, _address = listener.accept()
        connection.close()
