"""The commands that are not about keys, and how every command ends."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
Spawn = Callable[..., subprocess.Popen[bytes]]
STATUS = {
    "node": {
        "name": "n1",
        "id": "inc-1",
        "role": "leader",
        "term": 3,
        "lease": True,
        "vote": "inc-1",
        "leader": "inc-1",
        "leader_name": "n1",
        "first_index": 1,
        "last_index": 42,
        "commit_index": 42,
        "applied_index": 41,
        "snapshot_index": 0,
        "generation": 1,
        "cluster_id": "c-1",
        "version": "0.1.0",
        "uptime_seconds": 12.5,
    },
    "peers": [
        {
            "id": "inc-2",
            "name": "n2",
            "address": "h2:8300",
            "voter": True,
            "match_index": 40,
            "next_index": 43,
            "state": "replicate",
            "inflight": 2,
            "last_contact_ms": 7.4,
        },
        {"id": "inc-3", "name": "n3", "address": "h3:8300", "voter": False},
    ],
}


def test_status_shows_node_and_peers(node: Any, kvorum: Run) -> None:
    """Every documented field is in the table; what is not known is a dash."""
    node.status = STATUS
    lines = kvorum("status").out.decode().splitlines()
    shown = dict(line.rsplit("  ", 1) for line in lines[:15])
    assert {name.strip(): text for name, text in shown.items()}["leader"] == "n1 (inc-1)"
    assert {name.strip(): text for name, text in shown.items()}["lease"] == "held"
    for name in ("role", "term", "vote", "first index", "last index", "commit index", "applied index", "snapshot index"):
        assert any(line.startswith(name) for line in lines), name
    assert lines[16].split() == ["PEER", "ADDRESS", "VOTER", "MATCH", "NEXT", "STATE", "IN", "FLIGHT", "LAST", "CONTACT"]
    assert lines[17].split() == ["n2", "h2:8300", "yes", "40", "43", "replicate", "2", "7", "ms", "ago"]
    assert lines[18].split() == ["n3", "h3:8300", "no", "-", "-", "-", "-", "-"]


def test_status_as_json_is_what_the_node_said(node: Any, kvorum: Run) -> None:
    """No field is lost or renamed."""
    node.status = STATUS
    assert json.loads(kvorum("status", "-o", "json").out) == STATUS


def test_status_of_a_node_without_a_leader(node: Any, kvorum: Run) -> None:
    """Missing fields are no crash, and a missing leader is said in words."""
    node.status = {"node": {"name": "n1", "role": "follower", "leader": ""}, "peers": []}
    assert b"none known" in kvorum("status").out


@pytest.mark.parametrize(("ready", "code"), [((200, "ok"), 0), ((503, "no leader"), 1)])
def test_healthcheck_is_told_by_the_exit_code(node: Any, kvorum: Run, ready: tuple[int, str], code: int) -> None:
    """0 or 1 for the container's engine, the reason for people."""
    node.ready = ready
    for arguments, path in (((), "/livez"), (("--ready",), "/readyz")):
        ran = kvorum("healthcheck", "--http-addr", node.address, *arguments)
        assert ran.code == code
        assert ready[1] in ran.err
        assert node.requests[-1] == ("GET", path)


def test_healthcheck_asks_the_local_node(node: Any, kvorum: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """KVORUM_API_BIND says where it listens; a wildcard is asked on loopback. Nobody there is exit code 1."""
    monkeypatch.setenv("KVORUM_API_BIND", "0.0.0.0:" + node.address.rpartition(":")[2])
    assert kvorum("healthcheck").code == 0
    ran = kvorum("healthcheck", "--addr", "127.0.0.1:1")
    assert (ran.code, "127.0.0.1:1" in ran.err) == (1, True)
    assert kvorum("healthcheck", "--addr", "h:x").code == 2


def test_version_names_the_product(kvorum: Run) -> None:
    """One line on standard output."""
    ran = kvorum("version")
    assert ran.code == 0
    assert ran.out.startswith(b"kvorum 0.")


@pytest.mark.parametrize("arguments", [(), ("-h",), ("server", "--help"), ("dev", "-h"), ("kv", "-h"), ("kv", "import", "-h"), ("status", "-h")])
def test_help_is_complete(kvorum: Run, arguments: tuple[str, ...]) -> None:
    """Every command explains itself; without arguments the help is shown as a usage error."""
    ran = kvorum(*arguments)
    assert ran.code == (0 if arguments else 2)
    assert "Usage: kvorum" in ran.out.decode() + ran.err


def test_server_prints_its_settings(node: Any, kvorum: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flags win over the environment, the environment over the file; secrets are masked."""
    del node
    (tmp_path / "k.toml").write_text('name = "file"\nworkers = 2\nlog_level = "debug"\n')
    monkeypatch.setenv("KVORUM_WORKERS", "3")
    monkeypatch.setenv("KVORUM_REDIS_URL", "redis://:pa55word@h")
    ran = kvorum("server", "--config-file", str(tmp_path / "k.toml"), "--name", "flag", "--print-config")
    shown = ran.out.decode()
    assert ran.code == 0
    lines = [tuple(line.rsplit("  # ", 1)) for line in shown.splitlines()]
    expected = {
        ('name = "flag"', "--name"),
        ("workers = 3", "KVORUM_WORKERS"),
        ('log_level = "debug"', str(tmp_path / "k.toml")),
        ('redis_url = "********"', "KVORUM_REDIS_URL"),
        ("cache_ttl_seconds = 60", "default"),
    }
    assert expected <= {(text.rstrip(), origin) for text, origin in lines}
    monkeypatch.setenv("KVORUM_CONFIG_FILE", str(tmp_path / "k.toml"))
    assert b'name = "file"' in kvorum("server", "--print-config").out
    assert "pa55word" not in shown


def test_server_refuses_bad_settings(node: Any, kvorum: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 2, every problem on a line of its own, nothing started."""
    del node
    monkeypatch.setenv("KVORUM_SPEED", "9")
    ran = kvorum("server", "--workers", "none", "--initial-cluster", "a=http://h:1,a=http://h:2", "--name", "a")
    assert ran.code == 2
    for expected in ("KVORUM_SPEED", "'none'", "'a' appears 2 times"):
        assert expected in ran.err
    assert len(ran.err.splitlines()) == 4


def test_reload(node: Any, kvorum: Run) -> None:
    """The node is asked as Consul's client asks; every reason why it did not reload is told, however many, and that nothing has changed."""
    ran = kvorum("reload")
    assert (ran.code, ran.out, node.requests) == (0, b"", [("PUT", "/v1/agent/reload")])
    assert node.address in ran.err
    problems = [f"setting_{number}: can't change from 1 to 2 while the node runs; it needs a restart" for number in range(40)]
    node.fail(500, "the settings were not reloaded; nothing has changed:\n" + "\n".join(problems), "rejected")
    ran = kvorum("reload")
    assert ran.code == 1
    assert all(problem in ran.err for problem in problems)
    node.fail(500, "x" * 5_000)
    assert len(kvorum("reload").err) < 1_000
    node.fail(0)
    assert kvorum("reload").code == 9


@pytest.mark.parametrize("arguments", [("--nodes", "0"), ("--port", "80"), ("--nodes", "x")])
def test_dev_refuses_numbers_out_of_range(node: Any, kvorum: Run, tmp_path: Path, arguments: tuple[str, str]) -> None:
    """The value is named and no directory is made."""
    del node
    ran = kvorum("dev", "--data-dir", str(tmp_path / "cluster"), *arguments)
    assert ran.code == 2
    assert arguments[1] in ran.err
    assert not (tmp_path / "cluster").exists()


def test_the_module_can_be_run(node: Any, spawn: Spawn) -> None:
    """``python -m service.cli`` is the same command, and reads the value from a real standard input."""
    process = spawn("kv", "put", "k", "-")
    _out, err = process.communicate(b"from a pipe\n", timeout=20)
    assert process.returncode == 0, err
    assert node.data[b"k"].value == b"from a pipe\n"
