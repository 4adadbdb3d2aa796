"""The command line on a real terminal."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ON_A_TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
COLOUR = re.compile(rb"\x1b\[[0-9;]*3[0-9][0-9;]*m")


def on_a_terminal(*arguments: str, **environ: str) -> subprocess.Popen[bytes]:
    """Start a command whose standard streams are a terminal; what is written to the pipe is typed there."""
    return subprocess.Popen(
        [sys.executable, "-c", ON_A_TERMINAL, sys.executable, "-m", "service.cli", *arguments],
        env={**os.environ, "TERM": "xterm-256color", **environ},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


@pytest.mark.parametrize("colours", [True, False])
def test_progress_is_shown_on_a_terminal(node: Any, tmp_path: Path, colours: bool) -> None:
    """An import shows a bar and then the counts; with NO_COLOR nothing is coloured."""
    for number in range(30):
        (tmp_path / f"f{number}").write_text("x")
    process = on_a_terminal("kv", "import", str(tmp_path), **({} if colours else {"NO_COLOR": "1"}))
    output, _err = process.communicate(timeout=30)
    assert process.returncode == 0, output
    assert b"importing" in output
    assert b"30 keys: 30 written" in output
    assert bool(COLOUR.search(output)) == colours
    assert len(node.data) == 30


def test_a_value_without_a_line_end_gets_one_on_a_terminal(node: Any) -> None:
    """The prompt does not stick to the value; a pipe gets the bytes alone (see test_kv)."""
    node.store("k", b"value")
    output, _err = on_a_terminal("kv", "get", "k").communicate(timeout=30)
    assert output == b"value\r\n"


@pytest.mark.processes
def test_ctrl_c_stops_a_cluster_cleanly(node: Any, tmp_path: Path) -> None:
    """Typing Ctrl-C, which reaches the whole foreground group, stops the cluster in order with exit code 0."""
    environ = {name: "" for name in os.environ if name.startswith("KVORUM_")}
    port = 31_300 + os.getpid() * 37 % 60 * 20
    process = on_a_terminal("dev", "--nodes", "1", "--data-dir", str(tmp_path / "cluster"), "--port", str(port), **environ)
    assert process.stdout is not None
    seen = b""
    while b"Ctrl-C stops them" not in seen:
        line = process.stdout.readline()
        assert line, seen
        seen += line
    assert f"KVORUM_HTTP_ADDR=http://127.0.0.1:{port}".encode() in seen
    output, _err = process.communicate(b"\x03", timeout=30)
    assert process.returncode == 0, output
    assert b"stopped" in output
    log = (tmp_path / "cluster" / "n1" / "node.log").read_text()
    assert log.rstrip().endswith('"msg": "node stopped", "node": "n1"}')
    assert node.requests == []
