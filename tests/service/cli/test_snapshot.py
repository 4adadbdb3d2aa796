"""``kvorum snapshot``: a file that is whole or not there, private, verified; words for what it holds."""

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from service.archive import records
from service.archive.container import Writer
from service.cli.main import run
from service.client import Client, ClientError
from service.domain.entries import Row

REAL = Path(__file__).parents[1] / "archive" / "consul-1.8.7.tgz"
REAL_ACL = REAL.with_name("consul-1.8.7-acl.tgz")


def archive(left_out: str = "") -> bytes:
    """One with a key."""
    writer = Writer(spool := io.BytesIO())
    writer.write(records.pack_header(9, left_out) + records.pack_key(Row(b"a", b"1", 0, 0, None, 4, 4)))
    assert spool
    return b"".join(writer.finish(9, 2, 0))


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What the node sends, and what it is sent."""
    pieces: list[bytes] = []

    def save(_self: Client, _consistency: str) -> Iterator[bytes]:
        yield from pieces

    def restore(_self: Client, stream: BinaryIO) -> str:
        pieces.append(stream.read())
        return "3 registrations"

    monkeypatch.setattr(Client, "save_snapshot", save)
    monkeypatch.setattr(Client, "restore_snapshot", restore)
    return pieces


def test_save(sent: list[bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file is what the node sent, in place of an older one, and nobody but its owner may read it, whatever the umask is."""
    sent += [archive()[:50], archive()[50:]]
    path = tmp_path / "state.tgz"
    path.write_bytes(b"older")
    before = os.umask(0)
    try:
        assert run(["snapshot", "save", str(path)]) == 0
    finally:
        os.umask(before)
    assert path.read_bytes() == archive()
    assert path.stat().st_mode & 0o777 == 0o600
    assert "saved: 1 keys at index 9" in capsys.readouterr().err


@pytest.mark.parametrize("cut", [0, 10, 200])
def test_save_that_breaks(sent: list[bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str], cut: int) -> None:
    """What did not come whole takes no name, and leaves what was there as it was."""
    sent += [archive()[:cut]]
    path = tmp_path / "state.tgz"
    path.write_bytes(b"older")
    assert run(["snapshot", "save", str(path)]) == 1
    assert "kvorum: error: failed to" in capsys.readouterr().err
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("state.tgz", b"older")]


def test_inspect(capsys: pytest.CaptureFixture[str]) -> None:
    """What a Consul's archive holds, and what of it a restore would pass over."""
    assert run(["snapshot", "inspect", str(REAL), "-o", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["index"], found["term"], found["version"]) == (25, 2, 1)
    assert (found["records"]["keys"], found["records"]["sessions"], found["records"]["tombstones"]) == (5, 2, 1)
    assert "prepared queries" in found["not_restored"]
    assert run(["snapshot", "inspect", str(REAL)]) == 0
    told = capsys.readouterr()
    assert "keys" in told.out
    assert "passes over: registrations" in told.err


def test_an_acl_is_told_of(sent: list[bytes], capsys: pytest.CaptureFixture[str]) -> None:
    """What an archive holds of an ACL, which tokens a restore would pass over, and that it would replace the ACL."""
    assert run(["snapshot", "inspect", str(REAL_ACL), "-o", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {name: count for name, count in found["records"].items() if "ACL" in name} == {"ACL tokens": 7, "ACL policies": 3, "ACL roles": 2}
    assert found["not_restored"][-1] == "ACL tokens of a login or of the ACL before Consul 1.4"
    assert found["left_out"] == ""
    assert run(["snapshot", "restore", str(REAL_ACL)]) == 2
    assert "by 1 keys of index 22, and all tokens, policies and roles by its own; give --yes" in capsys.readouterr().err
    assert sent == []


def test_what_was_left_out(sent: list[bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Saving tells of it, and so does the file from then on."""
    sent += [archive("3 ACL tokens")]
    path = tmp_path / "state.tgz"
    assert run(["snapshot", "save", str(path)]) == 0
    assert f"to {path}; left out, for the secrets are not kept: 3 ACL tokens" in capsys.readouterr().err
    assert run(["snapshot", "inspect", str(path)]) == 0
    assert "left out when it was saved: 3 ACL tokens" in capsys.readouterr().err


def test_restore(sent: list[bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is sent as it is, after somebody said yes."""
    path = tmp_path / "state.tgz"
    path.write_bytes(archive())
    assert run(["snapshot", "restore", str(path)]) == 2
    assert "would replace the whole state by 1 keys of index 9; give --yes" in capsys.readouterr().err
    assert sent == []
    assert run(["snapshot", "restore", str(path), "--yes"]) == 0
    assert sent == [archive()]
    assert "passed over: 3 registrations" in capsys.readouterr().err


def test_restore_of_a_damaged_file(sent: list[bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is noticed before anything is sent."""
    path = tmp_path / "state.tgz"
    path.write_bytes(archive()[:-30])
    assert run(["snapshot", "restore", str(path), "--yes"]) == 1
    assert "unexpected EOF" in capsys.readouterr().err
    assert sent == []


def test_a_node_that_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The node's words, and an exit code of its own when nobody knows what happened."""

    def restore(_self: Client, _stream: BinaryIO) -> str:
        raise ClientError("the outcome is unknown", "unknown", 500)

    monkeypatch.setattr(Client, "restore_snapshot", restore)
    path = tmp_path / "state.tgz"
    path.write_bytes(archive())
    assert run(["snapshot", "restore", str(path), "--yes"]) == 9
    assert "the outcome is unknown" in capsys.readouterr().err
