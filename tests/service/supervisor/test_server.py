"""One node: start, watch, stop, and every way to die, over stand-ins for agent and gunicorn."""

import json
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.processes
Start = Callable[..., Any]
Wait = Callable[..., None]
Alive = Callable[[int], bool]
STOPPED_IN_ORDER = ["web SIGTERM", "web ended", "agent SIGTERM", "agent ended"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_node_in_order(start_node: Start, number: signal.Signals) -> None:
    """Waiting requests are answered, the web server ends, then the agent; the exit code is 0."""
    node = start_node()
    node.wait_started()
    node.send(number)
    assert node.wait_code() == 0
    # SIGUSR2 and the first SIGTERM go to two processes, which write them down in any order.
    assert [event for event in node.signals() if event != "agent SIGUSR2"] == STOPPED_IN_ORDER
    assert node.signals().index("agent SIGUSR2") < node.signals().index("agent SIGTERM")


def test_a_hangup_is_passed_on_to_the_agent(start_node: Start, wait_for: Wait) -> None:
    """SIGHUP stops nothing: the agent is told to read the settings again, each time."""
    node = start_node()
    node.wait_started()
    for times in (1, 2):
        node.send(signal.SIGHUP)
        wait_for(lambda times=times: node.signals() == ["agent SIGHUP"] * times, "the agent's signal")
    node.send(signal.SIGTERM)
    assert node.wait_code() == 0


def test_a_hangup_before_the_agent_can_take_it_is_kept(start_node: Start, wait_for: Wait) -> None:
    """One that comes while the agent starts would kill it; it is sent once the agent's socket accepts, and the log says so."""
    node = start_node(STAND_IN_AGENT="waits for SIGUSR1")
    wait_for(lambda: node.events, "the agent")
    node.send(signal.SIGHUP)
    wait_for(lambda: "SIGHUP: the agent is starting" in node.log, "the line in the log")
    assert node.signals() == []
    os.kill(node.pid_of("agent pid"), signal.SIGUSR1)
    wait_for(lambda: node.signals() == ["agent SIGUSR1", "agent SIGHUP"], "the agent's signal")


def test_a_hangup_while_the_node_stops_changes_nothing(start_node: Start, wait_for: Wait) -> None:
    """It neither reaches the agent nor counts as a second signal to stop; the log says so."""
    node = start_node(STAND_IN_WEB="stubborn", KVORUM_STOP_DEADLINE_MS="60000")
    node.wait_started()
    node.send(signal.SIGTERM)
    wait_for(lambda: "web SIGTERM" in node.events, "the first signal's effect")
    node.send(signal.SIGHUP)
    wait_for(lambda: "SIGHUP: the node is stopping" in node.log, "the line in the log")
    assert "agent SIGHUP" not in node.events
    assert node.process.poll() is None
    node.send(signal.SIGTERM)
    assert node.wait_code() == 1


def test_settings_that_the_agent_tells_are_in_force_here_too(start_node: Start, wait_for: Wait) -> None:
    """The time to stop is what the agent told last, and the level of the log: of the lines about the stop only the errors are written."""
    node = start_node(STAND_IN_WEB="stubborn", STAND_IN_AGENT="tells on SIGHUP", KVORUM_STOP_DEADLINE_MS="60000")
    node.wait_started()
    node.send(signal.SIGHUP)
    wait_for(lambda: "agent told" in node.events, "the agent to tell")
    node.send(signal.SIGTERM)
    assert node.wait_code() == 1
    after = [json.loads(line) for line in node.log.splitlines()]
    assert [line["msg"] for line in after if line["level"] != "info"] == ["not ended within 700 ms: web server and all that is left are killed"]
    assert not any("stopping" in line["msg"] for line in after)


def test_the_agent_runs_before_the_web_server(start_node: Start) -> None:
    """The web server is started once the agent's socket accepts."""
    node = start_node()
    node.wait_started()
    assert [line.rsplit(maxsplit=1)[0] for line in node.events] == ["agent pid", "web worker", "web pid"]


def test_a_node_whose_agent_never_listens_can_be_stopped(start_node: Start, wait_for: Wait) -> None:
    """Before its socket accepts the agent gets SIGTERM alone, and no web server was started."""
    node = start_node(STAND_IN_AGENT="never listens")
    wait_for(lambda: node.events, "the agent")
    node.send(signal.SIGTERM)
    assert node.wait_code() == 0
    assert node.signals() == ["agent SIGTERM", "agent ended"]


def test_a_killed_agent_takes_the_node_down(start_node: Start, alive: Alive) -> None:
    """The exit code is 5, the web server was told to stop, and nothing is left."""
    node = start_node()
    node.wait_started()
    os.kill(node.pid_of("agent pid"), signal.SIGKILL)
    assert node.wait_code() == 5
    assert node.signals() == ["web SIGTERM", "web ended"]
    assert "the agent ended unasked with signal 9 (SIGKILL)" in node.log
    assert not alive(node.pid_of("web worker"))


@pytest.mark.parametrize(("own", "expected"), [(2, 2), (3, 3), (4, 4), (7, 7), (0, 5), (1, 5), (9, 5)])
def test_an_agent_that_refuses_to_start_decides_the_exit_code(start_node: Start, own: int, expected: int) -> None:
    """Codes that tell the operator what to mend are passed on; every other end of the agent is 5."""
    node = start_node(STAND_IN_AGENT=f"exit {own}")
    assert node.wait_code() == expected
    assert not any(line.startswith("web") for line in node.events)


def test_a_killed_web_server_takes_the_node_down(start_node: Start, wait_for: Wait, alive: Alive) -> None:
    """The exit code is 6, the agent hands over and ends, and the worker is gone."""
    node = start_node()
    node.wait_started()
    os.kill(node.pid_of("web pid"), signal.SIGKILL)
    assert node.wait_code() == 6
    assert node.signals() == ["agent SIGUSR2", "agent SIGTERM", "agent ended"]
    wait_for(lambda: not alive(node.pid_of("web worker")), "the worker's end")


def test_what_does_not_stop_is_killed_at_the_deadline(start_node: Start, wait_for: Wait, alive: Alive) -> None:
    """A web server that ignores SIGTERM costs the deadline, not more, and the exit code says that it was not clean."""
    node = start_node(STAND_IN_WEB="stubborn", KVORUM_STOP_DEADLINE_MS="700")
    node.wait_started()
    started = time.monotonic()
    node.send(signal.SIGTERM)
    assert node.wait_code() == 1
    assert 0.7 <= time.monotonic() - started < 5
    assert "not ended within 700 ms" in node.log
    for process in ("agent pid", "web pid", "web worker"):
        wait_for(lambda process=process: not alive(node.pid_of(process)), f"the end of the {process}")


def test_a_second_signal_kills_at_once(start_node: Start, wait_for: Wait, alive: Alive) -> None:
    """Whoever sends a second signal does not wait for the deadline of 60 s."""
    node = start_node(STAND_IN_WEB="stubborn", KVORUM_STOP_DEADLINE_MS="60000")
    node.wait_started()
    node.send(signal.SIGTERM)
    wait_for(lambda: "web SIGTERM" in node.events, "the first signal's effect")
    node.send(signal.SIGINT)
    assert node.wait_code() == 1
    wait_for(lambda: not alive(node.pid_of("web worker")), "the worker's end")


def test_no_process_outlives_a_killed_supervisor(start_node: Start, wait_for: Wait, alive: Alive) -> None:
    """After kill -9 of the supervisor the kernel ends agent, web server and its worker."""
    node = start_node()
    node.wait_started()
    pids = [node.pid_of(what) for what in ("agent pid", "web pid", "web worker")]
    assert all(alive(pid) for pid in pids)
    node.send(signal.SIGKILL)
    node.wait_code()
    for pid in pids:
        wait_for(lambda pid=pid: not alive(pid), f"the end of {pid}")
    assert node.signals() == []


@pytest.mark.parametrize("which", ["KVORUM_API_BIND", "KVORUM_PEER_BIND"])
def test_an_address_in_use_is_told_before_anything_starts(start_node: Start, port: int, which: str) -> None:
    """The exit code is 7, the message names the address, and no child was started."""
    with socket.create_server(("127.0.0.1", port)):
        node = start_node(**{which: f"127.0.0.1:{port}"})
        assert node.wait_code() == 7
    assert f"127.0.0.1:{port} can't be listened on: Address already in use" in node.log
    assert node.events == []


def test_orphans_are_collected(start_node: Start, wait_for: Wait) -> None:
    """A process whose parent has gone leaves no zombie under the supervisor."""
    node = start_node(STAND_IN_AGENT="orphan", STAND_IN_SUBREAPER="1")
    node.wait_started()
    orphan = node.pid_of("agent orphan")
    wait_for(lambda: not os.path.exists(f"/proc/{orphan}"), "the orphan's end")  # noqa: PTH110 - a path of /proc


def test_log_lines_are_json_away_from_a_terminal(start_node: Start) -> None:
    """Every line is one JSON object with the documented keys, and the start is announced."""
    node = start_node()
    node.wait_started()
    node.send(signal.SIGTERM)
    node.wait_code()
    lines = [json.loads(line) for line in node.log.splitlines()]
    assert all(list(line)[:5] == ["ts", "level", "logger", "msg", "node"] for line in lines)
    assert {line["node"] for line in lines} == {"n1"}
    assert lines[0]["msg"].startswith("kvorum ")
    assert lines[-1]["msg"] == "node stopped"
