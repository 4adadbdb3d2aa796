"""``kvorum data inspect``: all that a still directory holds, every damage by name, and nothing changed."""

import json
from pathlib import Path
from typing import Any

import pytest
from data_directories import contents, data_directory
from pysqlite3 import dbapi2

from raft.core.model import Boundary, Configuration
from raft.storage.directory import DirectoryLock
from raft.storage.snapshots import FileSnapshots
from service.cli.main import run
from service.store.machine import KvMachine
from service.store.sums import seal


def inspect(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, Any]:
    """Exit code and the JSON of one inspection."""
    code = run(["data", "inspect", *map(str, arguments), "-o", "json"])
    return code, json.loads(capsys.readouterr().out)


def _sql(path: Path, statement: str) -> None:
    connection = dbapi2.connect(path, isolation_level=None)
    connection.execute(statement)
    connection.close()


def test_whole_directory(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Identity, hard state, log, members and state are told as they are, with exit code 0; no byte changes."""
    machine = KvMachine(directory)
    digest = machine.digest()
    machine.close()
    before = contents(directory)
    code, found = inspect(capsys, directory)
    assert (code, found["whole"], found["damages"], found["notes"]) == (0, True, [], [])
    assert (found["node"]["name"], found["node"]["incarnation"], found["cluster"]["cluster_id"]) == ("n1", "id-of-n1", "c1")
    assert found["hard_state"] == {"term": 2, "vote": None, "commit": 3}
    assert {name: found["log"][name] for name in ("first_index", "last_index", "last_term", "entries")} == {
        "first_index": 1,
        "last_index": 5,
        "last_term": 2,
        "entries": 5,
    }
    assert [member["name"] for member in found["configurations"][0]["voters"]] == ["n1", "n2", "n3"]
    assert (found["state"]["applied_index"], found["state"]["keys"], found["state"]["sha256"]) == (3, 3, digest.sha256)
    assert found["known_commit"] == {"index": 3, "term": 1}
    assert contents(directory) == before


def test_text_for_people(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without -o the same is told in lines that end with the verdict."""
    assert run(["data", "inspect", str(directory)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].split() == ["verdict", "whole"]
    assert any("voters n1=127.0.0.1:9, n2=127.0.0.1:9, n3=127.0.0.1:9" in line for line in lines)


def test_entries(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Entries are listed with what they would do; a value is told by its length alone."""
    _, found = inspect(capsys, directory, "--entries", "4:")
    assert [(entry["index"], entry["term"], entry["kind"], entry["summary"]) for entry in found] == [
        (4, 2, "command", "KvPut key=k4 value=7 bytes"),
        (5, 2, "command", "KvPut key=k5 value=7 bytes"),
    ]
    assert run(["data", "inspect", str(directory), "--entries", "2:3"]) == 0
    assert "KvPut key=k2" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["5", "5:4", "a:b", "-1:2", "1:2:3", ":"])
def test_bad_ranges(directory: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    """A range that is none is refused with exit code 2, naming it."""
    assert run(["data", "inspect", str(directory), f"--entries={text}"]) == 2
    assert repr(text) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "statement", "due"),
    [
        ("log.db", "UPDATE entries SET data = x'00' WHERE log_index = 4", ("entry", 4)),
        ("log.db", "UPDATE records SET value = x'00' WHERE name = 'cluster'", ("record 'cluster'", 0)),
        ("log.db", "DELETE FROM boundary", ("boundary", 0)),
        ("state-1.db", "UPDATE meta SET applied_term = 7", ("state", 3)),
        ("state-1.db", "UPDATE meta SET applied_index = 9", ("state", 9)),
        ("state-1.db", "DELETE FROM meta", ("state-1.db", 0)),
    ],
)
def test_damage(directory: Path, capsys: pytest.CaptureFixture[str], file: str, statement: str, due: tuple[str, int]) -> None:
    """Damage anywhere, or parts that don't fit, gives exit code 1 and is named with its index."""
    _sql(directory / file, statement)
    if file.startswith("state"):
        seal(directory / file, 3)
    code, found = inspect(capsys, directory)
    assert code == 1
    assert due in [(damage["part"], damage["index"]) for damage in found["damages"]]
    assert run(["data", "inspect", str(directory)]) == 1
    assert "DAMAGED" in capsys.readouterr().out


def test_state_that_is_missing(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A state file that CURRENT names but is not there, a CURRENT that is none, and a missing CURRENT are damage."""
    (directory / "state-1.db").rename(directory / "state-2.db")
    assert inspect(capsys, directory)[1]["damages"][0]["problem"] == "state-1.db is missing"
    (directory / "CURRENT").write_text("nonsense")
    assert "nonsense" in inspect(capsys, directory)[1]["damages"][0]["problem"]
    (directory / "CURRENT").unlink()
    assert "CURRENT is missing" in inspect(capsys, directory)[1]["damages"][0]["problem"]


def test_damaged_snapshot(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A snapshot is told with its boundary; one whose bytes have changed is damage."""
    sink = FileSnapshots(directory / "snapshots").create(Boundary(2, 1, Configuration()))
    sink.write(b"state")
    sink.commit()
    code, found = inspect(capsys, directory)
    assert (code, found["snapshots"][0]["index"], found["snapshots"][0]["problem"]) == (0, 2, "")
    next((directory / "snapshots").glob("*.state")).write_bytes(b"other")
    code, found = inspect(capsys, directory)
    assert (code, found["damages"][0]["index"]) == (1, 2)


def test_interrupted_installation_is_no_damage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A snapshot that is to be installed by the next start is a note: nothing is lost."""
    path = data_directory(tmp_path / "n1", terms=(), commit=0)
    sink = FileSnapshots(path / "snapshots").create(Boundary(7, 2, Configuration()))
    sink.commit()
    code, found = inspect(capsys, path)
    assert (code, found["notes"]) == (0, ["the snapshot at index 7 is not installed yet; the next start does it"])


def test_running_node(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A directory in use is refused with exit code 3, naming the process."""
    with DirectoryLock(directory):
        assert run(["data", "inspect", str(directory)]) == 3
    assert "in use by process" in capsys.readouterr().err


def test_no_data_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A path that is none, or without a log, is refused with exit code 3, naming it."""
    for path in (tmp_path / "absent", tmp_path):
        assert run(["data", "inspect", str(path)]) == 3
        assert str(path) in capsys.readouterr().err
