"""``kvorum dev``: a cluster of real processes on loopback, in the foreground.

Node i listens for clients on port P + i - 1 and for its peers 200 below that, and keeps its data in ``DIR/n<i>``, its log lines in
``DIR/n<i>/node.log``. Each node is a supervisor of its own, a child of this process: none of them outlives it. A node that ends is left dead.
``DIR/cluster.json`` remembers the shape of the cluster, so that the same data are not started as another one.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.addresses import Address
from service.errors import KvorumError
from service.settings import Settings, load, to_environ
from service.supervisor.child import Child, describe_end
from service.supervisor.listening import require_free
from service.supervisor.processes import children_of
from service.supervisor.server import STOP_SIGNALS

NODES_MAX = 9
PEER_PORT_DISTANCE = 200
PORT_MIN = 1024 + PEER_PORT_DISTANCE
READY_SECONDS = 40.0
NODE_ARGV = (sys.executable, "-P", "-m", "service.cli", "server")

_HOST = "127.0.0.1"
_STOP_SIGNALS = STOP_SIGNALS | {signal.SIGHUP}  # the terminal has gone
_TAKEN = _STOP_SIGNALS | {signal.SIGCHLD}
_POLL_SECONDS = 0.1
_EXTRA_STOP_SECONDS = 2.0
_LOG_TAIL_LINES = 12
_SHAPE_FILE = "cluster.json"
# What a node started by hand needs beside its settings.
_PASSED_ON = ("PATH", "PYTHONPATH", "HOME", "LANG", "LD_LIBRARY_PATH", "TMPDIR", "TZ", "VIRTUAL_ENV")


class PlanInvalid(KvorumError):
    """A number out of range; the text names it and what is allowed."""

    exit_code = 2


class ClusterFailed(KvorumError):
    """The cluster can't be started; the text says which node and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A cluster that is to run.

    :param settings: one for each node, in order.
    :param data_dir: the directory that holds the nodes' directories.
    :param argv: how to start a node; its environment tells it the rest.
    """

    settings: tuple[Settings, ...]
    data_dir: Path
    argv: Sequence[str] = NODE_ARGV


def plan_cluster(nodes: int, data_dir: Path, port: int, environ: Mapping[str, str], argv: Sequence[str] = NODE_ARGV) -> Plan:
    """Lay out a cluster and check that it can be started.

    :param nodes: how many, 1 to 9.
    :param port: the client port of the first node.
    :param environ: further settings for all nodes (``KVORUM_…``).
    :raises PlanInvalid: when a number can't be used.
    :raises ClusterFailed: when ``data_dir`` holds a cluster of another shape.
    :raises SettingsInvalid: when ``environ`` holds unusable settings.
    :raises AddressTaken: when a port is in use; nothing was started or written then.
    """
    if not 1 <= nodes <= NODES_MAX:
        raise PlanInvalid(f"a cluster of {nodes} nodes: 1 to {NODES_MAX} are possible")
    if not PORT_MIN <= port <= 65_536 - nodes:
        raise PlanInvalid(f"port {port}: the first node's port lies in {PORT_MIN} to {65_536 - nodes}")
    root = data_dir.absolute()
    _check_shape(root, nodes, port)
    # One path can't be the socket of several nodes.
    shared = {name: value for name, value in environ.items() if name != "KVORUM_SOCKET_PATH"}
    members = ",".join(f"n{i + 1}=http://{_HOST}:{port - PEER_PORT_DISTANCE + i}" for i in range(nodes))
    settings = tuple(
        load(
            shared,
            flags={
                "name": f"n{i + 1}",
                "data_dir": str(root / f"n{i + 1}"),
                "api_bind": f"{_HOST}:{port + i}",
                "peer_bind": f"{_HOST}:{port - PEER_PORT_DISTANCE + i}",
                "api_advertise": f"{_HOST}:{port + i}",
                "peer_advertise": f"{_HOST}:{port - PEER_PORT_DISTANCE + i}",
                "initial_cluster": members,
            },
        )
        for i in range(nodes)
    )
    for i in range(nodes):
        require_free(Address(_HOST, port + i), f"clients of n{i + 1}")
        require_free(Address(_HOST, port - PEER_PORT_DISTANCE + i), f"peers of n{i + 1}")
    return Plan(settings=settings, data_dir=root, argv=argv)


def _check_shape(root: Path, nodes: int, port: int) -> None:
    try:
        known = json.loads((root / _SHAPE_FILE).read_text(encoding="utf-8"))
        found = (int(known["nodes"]), int(known["port"]))
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ClusterFailed(f"{root / _SHAPE_FILE} can't be read ({error}); use another data directory, or delete this one") from error
    if found != (nodes, port):
        raise ClusterFailed(
            f"{root} holds a cluster of {found[0]} nodes from port {found[1]}, not of {nodes} from port {port}; "
            f"start it as it was (--nodes {found[0]} --port {found[1]}), use another --data-dir, or delete it"
        )


class LoopbackCluster:
    """Runs the nodes of a plan.

    :param ready: whether a node is ready, and its reason when not.
    :param tell: where lines for people go.
    """

    def __init__(self, plan: Plan, ready: Callable[[Settings], tuple[bool, str]], tell: Callable[[str], None]) -> None:
        self._plan = plan
        self._ready = ready
        self._tell = tell
        self._nodes: dict[str, Child] = {}
        self._told_dead: set[str] = set()

    def run(self, when_ready: Callable[[Sequence[dict[str, Any]]], None]) -> int:
        """Start all nodes, wait until all are ready, report, and stay until told to stop or all have ended.

        :param when_ready: called once with the description of each node.
        :returns: 0 after a stop that was asked for, 1 when every node had ended by itself.
        :raises ClusterFailed: when a node does not become ready.
        """
        previous = signal.pthread_sigmask(signal.SIG_BLOCK, _TAKEN)
        try:
            self._start()
            if self._await_ready():
                when_ready([self._describe(settings) for settings in self._plan.settings])
                code = self._watch()
            else:
                code = 0
        except ClusterFailed:
            self._stop()
            raise
        else:
            self._stop()
            return code
        finally:
            for child in self._nodes.values():
                child.kill()
            signal.pthread_sigmask(signal.SIG_SETMASK, previous)

    def _start(self) -> None:
        for settings in self._plan.settings:
            try:
                settings.data_dir.mkdir(parents=True, exist_ok=True)
                with (settings.data_dir / "node.log").open("ab") as output:
                    self._nodes[settings.name] = Child(settings.name, self._plan.argv, _environ(settings), output)
            except OSError as error:
                raise ClusterFailed(f"{settings.name} can't be started in {settings.data_dir}: {error.strerror}") from error
        shape = {"nodes": len(self._plan.settings), "port": int(self._plan.settings[0].api_bind.rpartition(":")[2])}
        (self._plan.data_dir / _SHAPE_FILE).write_text(json.dumps(shape) + "\n", encoding="utf-8")

    def _await_ready(self) -> bool:
        """Whether all nodes became ready; False when a signal to stop came first."""
        deadline = time.monotonic() + READY_SECONDS
        waiting = {settings.name: (settings, "") for settings in self._plan.settings}
        while waiting:
            if self._stop_asked(_POLL_SECONDS):
                return False
            for name, (settings, _reason) in list(waiting.items()):
                code = self._nodes[name].ended()
                if code is not None:
                    raise ClusterFailed(f"{name} ended with {describe_end(code)} before it was ready\n{_log_tail(settings)}")
                is_ready, reason = self._ready(settings)
                if is_ready:
                    del waiting[name]
                else:
                    waiting[name] = (settings, reason)
            if waiting and time.monotonic() > deadline:
                reasons = "; ".join(f"{name}: {reason or 'no answer'}" for name, (_settings, reason) in waiting.items())
                raise ClusterFailed(f"not ready within {READY_SECONDS:g} s: {reasons}\n{_log_tail(next(iter(waiting.values()))[0])}")
        return True

    def _watch(self) -> int:
        while True:
            # Of two signals that wait, the one to stop is taken first; who had ended before it is told all the same.
            stopping = self._stop_asked(None)
            for name, child in self._nodes.items():
                code = child.ended()
                if code is not None and name not in self._told_dead:
                    self._told_dead.add(name)
                    self._tell(f"{name} ended with {describe_end(code)}; it is left dead")
            if stopping:
                return 0
            if len(self._told_dead) == len(self._nodes):
                self._tell("no node is left")
                return 1

    def _stop_asked(self, seconds: float | None) -> bool:
        taken = signal.sigwaitinfo(_TAKEN) if seconds is None else signal.sigtimedwait(_TAKEN, seconds)
        return taken is not None and taken.si_signo in _STOP_SIGNALS

    def _stop(self) -> None:
        """Stop all nodes at the same time; whatever is left at the deadline or at a second signal is killed by the caller."""
        alive = [child for child in self._nodes.values() if child.ended() is None]
        if alive:
            self._tell(f"stopping {', '.join(child.name for child in alive)} (once more to kill)")
        for child in alive:
            child.send(signal.SIGTERM)
        deadline = time.monotonic() + max(s.stop_deadline_ms for s in self._plan.settings) / 1000 + _EXTRA_STOP_SECONDS
        while any(child.ended() is None for child in alive):
            left = deadline - time.monotonic()
            if left <= 0 or self._stop_asked(left):
                self._tell("killing what is left")
                return
        if alive:
            self._tell("stopped")

    def _describe(self, settings: Settings) -> dict[str, Any]:
        supervisor = self._nodes[settings.name].pid
        below = children_of(supervisor)
        agent = below[0] if below else None
        workers = [worker for server in below[1:] for worker in children_of(server)]
        return {
            "name": settings.name,
            "api": f"http://{settings.api_advertise}",
            "peer": f"http://{settings.peer_advertise}",
            "data_dir": str(settings.data_dir),
            "argv": list(self._plan.argv),
            "env": _environ(settings),
            "pids": {"supervisor": supervisor, "agent": agent, "workers": workers},
        }


def _environ(settings: Settings) -> dict[str, str]:
    return {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | to_environ(settings)


def _log_tail(settings: Settings) -> str:
    path = settings.data_dir / "node.log"
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return f"(no log at {path})"
    return f"the end of {path}:\n" + "\n".join("  " + line for line in lines[-_LOG_TAIL_LINES:])
