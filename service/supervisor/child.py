"""One process that a supervisor owns: started from argv, in a session of its own, gone when the supervisor is gone."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import IO

from service.lifetime import die_with_parent


class Child:
    """A started process.

    It gets a session of its own, so that Ctrl-C in a terminal reaches the supervisor alone, which then stops everybody in order; what it
    forks stays in its process group and is killed with it.

    :param name: what log lines call it.
    :param argv: program and arguments.
    :param environ: its whole environment.
    :param output: where its standard output and error go; None: where the supervisor's go.
    :param keeps: descriptors that it inherits, under their numbers.
    :raises OSError: when the program can't be started.
    """

    def __init__(
        self, name: str, argv: Sequence[str], environ: Mapping[str, str], output: IO[bytes] | None = None, keeps: Sequence[int] = ()
    ) -> None:
        self.name = name
        parent = os.getpid()

        def prepare() -> None:
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            die_with_parent(parent)

        self._process = subprocess.Popen(
            list(argv),
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            pass_fds=keeps,
            preexec_fn=prepare,  # noqa: PLW1509 - the processes that start children have one thread
        )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def ended(self) -> int | None:
        """The exit code (negative: the signal that killed it), or None while it runs."""
        return self._process.poll()

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill it and its process group; nothing happens when it has ended (its process id may be another's by then)."""
        if self._process.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()


def reap_strangers(children: Sequence[Child]) -> None:
    """Collect ended processes that nobody else waits for: PID 1 inherits every orphan of its container.

    :param children: our own, which are left for :meth:`Child.ended`.
    """
    own = {child.pid for child in children if child.ended() is None}
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid in own:
            return
        os.waitpid(found.si_pid, os.WNOHANG)


def describe_end(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"signal {-code}"
