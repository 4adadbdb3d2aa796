"""One node: the process that ``kvorum server`` is, PID 1 in a container.

It starts the agent, waits until the agent's socket accepts, starts gunicorn, and watches both. It serves nobody itself and has one thread:
all signals are blocked and taken one by one from :func:`signal.sigtimedwait`, so no handler interrupts anything.

::

    starting ──▶ running ──▶ stopping ──▶ ended
        │  the agent ended: its own code for what an operator must mend (2, 3, 4, 7), else 5
        │  gunicorn ended: 6
        └  SIGTERM or SIGINT: stop in order, 0; a second one: kill at once, 1

Stopping in order, within one deadline: SIGUSR2 to the agent (the workers answer who waits), SIGTERM to gunicorn, and when it has ended SIGTERM to
the agent (it hands its leadership over). What still runs at the deadline is killed. Should the supervisor itself be killed, the kernel kills
its children (:mod:`service.lifetime`).

SIGHUP is passed on to the agent, which reads the settings again (:mod:`service.agent.reloading`) and tells through a pipe what is in force then;
one that comes before the agent can take it is kept for it.
"""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import NamedTuple

from service import logs
from service.addresses import parse_address
from service.given import PREFIX
from service.reloading import REPORT_VARIABLE, Live, Sources
from service.settings import Settings, to_environ
from service.supervisor.child import Child, describe_end, reap_strangers
from service.supervisor.listening import accepts, require_free
from service.supervisor.told import Told

CLEAN = 0
FAILED = 1
AGENT_ENDED = 5
WEB_ENDED = 6
# The agent ends with these for reasons an operator must mend: settings, data directory, formation, listener.
AGENT_OWN_CODES = frozenset({2, 3, 4, 7})

STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})
# SIGIO: the agent has told something.
_TAKEN = STOP_SIGNALS | {signal.SIGCHLD, signal.SIGHUP, signal.SIGIO}
_POLL_SECONDS = 0.02
_STILL_WAITING_SECONDS = 10.0

_log = logging.getLogger(__name__)

# -P: a module in the current directory must not stand in for one of ours.
AGENT_ARGV = (sys.executable, "-P", "-m", "service.agent")
WEB_ARGV = (sys.executable, "-P", "-m", "gunicorn", "--config", "python:service.gunicorn_conf", "service.wsgi:application")


class _End(NamedTuple):
    """That the node must end, and the exit code after a stop in order."""

    code: int


class Supervisor:
    """Runs one node until it is told to stop or a part of it ends.

    :param settings: the node's settings; the children get them by their environment.
    :param sources: where they were read from, for the agent, which reads them again.
    :param agent_argv: how to start the agent.
    :param web_argv: how to start the web server.
    """

    def __init__(self, settings: Settings, sources: Sources, agent_argv: Sequence[str] = AGENT_ARGV, web_argv: Sequence[str] = WEB_ARGV) -> None:
        self._live = Live(settings)
        self._sources = sources
        self._told = Told()
        self._reload_asked = False
        self._agent_argv = agent_argv
        self._web_argv = web_argv
        self._environ = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)} | to_environ(settings)
        self._agent: Child | None = None
        self._web: Child | None = None
        self._agent_ready = False

    def run(self) -> int:
        """Start, watch, stop.

        :returns: the exit code of the node.
        :raises AddressTaken: when another process holds one of the two addresses; nothing was started then.
        """
        previous = signal.pthread_sigmask(signal.SIG_BLOCK, _TAKEN)
        try:
            self._told.begin()
            require_free(parse_address(self._live.now.api_bind), "api_bind")
            require_free(parse_address(self._live.now.peer_bind), "peer_bind")
            self._announce()
            code = self._start() or self._watch()
            return self._stop(code)
        finally:
            self._kill_all()
            self._told.close()
            signal.pthread_sigmask(signal.SIG_SETMASK, previous)

    def _announce(self) -> None:
        s = self._live.now
        members = ", ".join(f"{member.name} at {member.address}" for member in s.members)
        _log.info("kvorum %s, node %s of datacenter %s", version("kvorum"), s.name, s.datacenter)
        _log.info("clients: http://%s (bound to %s); peers: %s (bound to %s)", s.api_advertise, s.api_bind, s.peer_advertise, s.peer_bind)
        _log.info("data: %s; initial members: %s; cache: %s", s.data_dir, members, "Redis" if s.redis_url else "off")

    def _start(self) -> _End | None:
        agent_environ = self._environ | self._sources.to_environ() | {REPORT_VARIABLE: str(self._told.inlet)}
        self._agent = Child("agent", self._agent_argv, agent_environ, keeps=(self._told.inlet,))
        _log.info("agent started (pid %d); waiting for its socket", self._agent.pid)
        ended = self._wait_until(lambda: accepts(self._live.now.socket_path))
        if ended is not None:
            return ended
        self._agent_ready = True
        if self._reload_asked:
            self._agent.send(signal.SIGHUP)
        self._web = Child("web server", self._web_argv, self._environ)
        _log.info("web server started (pid %d)", self._web.pid)
        return None

    def _wait_until(self, condition: Callable[[], bool]) -> _End | None:
        """Wait without limit: an agent may take long to recover. Says now and then that it still waits."""
        remind_at = time.monotonic() + _STILL_WAITING_SECONDS
        while not condition():
            end = self._take_event(_POLL_SECONDS)
            if end is not None:
                return end
            if time.monotonic() >= remind_at:
                _log.warning("the agent does not accept connections on %s yet", self._live.now.socket_path)
                remind_at += _STILL_WAITING_SECONDS
        return None

    def _watch(self) -> _End:
        while True:
            end = self._take_event(None)
            if end is not None:
                return end

    def _take_event(self, seconds: float | None) -> _End | None:
        """Take one signal; says why the node must end, if it must."""
        taken = signal.sigwaitinfo(_TAKEN) if seconds is None else signal.sigtimedwait(_TAKEN, seconds)
        for values in self._told.read():
            self._live.take(values)
        if taken is not None and taken.si_signo == signal.SIGHUP:
            self._ask_reload()
        if taken is not None and taken.si_signo in STOP_SIGNALS:
            _log.info("%s: stopping", signal.Signals(taken.si_signo).name)
            return _End(CLEAN)
        reap_strangers(self._children)
        if self._agent is not None and (code := self._agent.ended()) is not None:
            _log.error("the agent ended unasked with %s: the node stops", describe_end(code))
            return _End(code if code in AGENT_OWN_CODES else AGENT_ENDED)
        if self._web is not None and (code := self._web.ended()) is not None:
            _log.error("the web server ended unasked with %s: the node stops", describe_end(code))
            return _End(WEB_ENDED)
        return None

    def _ask_reload(self) -> None:
        if self._agent is not None and self._agent_ready:
            self._agent.send(signal.SIGHUP)
        else:
            self._reload_asked = True
            _log.info("SIGHUP: the agent is starting; it reads the settings again once it has")

    @property
    def _children(self) -> list[Child]:
        return [child for child in (self._agent, self._web) if child is not None]

    def _stop(self, end: _End) -> int:
        """End what runs, in order; at the deadline or at a second signal by force."""
        deadline = time.monotonic() + self._live.now.stop_deadline_ms / 1000
        if self._agent is not None and self._agent_ready and self._agent.ended() is None:
            self._agent.send(signal.SIGUSR2)
        for child in (self._web, self._agent):
            if child is None or child.ended() is not None:
                continue
            child.send(signal.SIGTERM)
            forced = self._await_end(child, deadline)
            if forced:
                _log.error("%s: %s and all that is left are killed", forced, child.name)
                return end.code or FAILED
            _log.info("%s stopped (%s)", child.name, describe_end(child.ended() or 0))
        _log.info("node stopped")
        return end.code

    def _await_end(self, child: Child, deadline: float) -> str:
        """Wait for one child. Returns why it must be killed, or nothing when it has ended."""
        while child.ended() is None:
            left = deadline - time.monotonic()
            if left <= 0:
                return f"not ended within {self._live.now.stop_deadline_ms} ms"
            taken = signal.sigtimedwait(_TAKEN, left)
            if taken is not None and taken.si_signo in STOP_SIGNALS:
                return "a second signal"
            if taken is not None and taken.si_signo == signal.SIGHUP:
                _log.warning("SIGHUP: the node is stopping; no settings are read")
            reap_strangers(self._children)
        return ""

    def _kill_all(self) -> None:
        for child in self._children:
            child.kill()
        reap_strangers(())


def run_node(sources: Sources) -> int:
    """Run one node in the foreground; the body of ``kvorum server``.

    :returns: the exit code.
    :raises SettingsInvalid: when its settings can't be used.
    """
    settings = sources.read()
    logs.configure(settings.log_level, settings.log_format, settings.name)
    return Supervisor(settings, sources).run()
