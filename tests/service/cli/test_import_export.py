"""``kvorum kv import|export``: real trees and files, counts, faults."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
Spawn = Callable[..., subprocess.Popen[bytes]]


def tree(root: Path) -> dict[str, bytes]:
    """Every regular file below a directory."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file() and not path.is_symlink()}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A directory with text, bytes, an empty file, a hard name, a link and a pipe."""
    root = tmp_path / "files"
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "text.conf").write_text("a = 1\n")
    (root / "sub" / "bytes").write_bytes(bytes(range(256)) * 40)
    (root / "sub" / "deep" / "empty").touch()
    (root / "sub" / "a b?c#d%ä").write_text("hard")
    (root / "link").symlink_to("text.conf")
    os.mkfifo(root / "pipe")
    return root


def test_a_directory_goes_in_and_comes_out_the_same(node: Any, kvorum: Run, files: Path, tmp_path: Path) -> None:
    """Every regular file becomes a key, byte for byte; links and pipes are told; the export makes the same files."""
    ran = kvorum("kv", "import", str(files), "--prefix", "etc")
    assert ran.code == 0
    assert "2 links and special files left out" in ran.err
    assert "4 keys: 4 written, 0 unchanged, 0 rejected, 0 unknown" in ran.err
    assert {key.decode(): stored.value for key, stored in node.data.items()} == {f"etc/{name}": value for name, value in tree(files).items()}
    assert kvorum("kv", "export", "etc/", "--format", "dir", "--to", str(tmp_path / "out")).code == 0
    assert tree(tmp_path / "out") == tree(files)


@pytest.mark.parametrize("form", ["consul", "json", "yaml", "env"])
def test_every_form_can_be_read_back(node: Any, kvorum: Run, tmp_path: Path, form: str) -> None:
    """Export, delete, import: the same keys and values."""
    values = {
        "p/host": b"db one",
        "p/port": b"0123",
        "p/empty": b"",
        "p/quoted": b"a'b\"c\\d\n#e",
        "p/utf8": "ä😀".encode(),
        "p/yes": b"yes",
        "p/null": b"null",
    }
    if form in {"consul", "yaml"}:
        values["p/binary"] = b"\x00\xff"
    if form != "env":
        values["p/sub/deep"] = b"1.10"
    for key, value in values.items():
        node.store(key, value)
    target = tmp_path / ("export." + {"consul": "json"}.get(form, form))
    assert kvorum("kv", "export", "p/", "--format", form, "--to", str(target)).code == 0
    node.data.clear()
    prefix = () if form == "consul" else ("--prefix", "p")
    assert kvorum("kv", "import", str(target), *prefix).code == 0
    assert {key.decode(): stored.value for key, stored in node.data.items()} == values


def test_consuls_own_export_is_understood(node: Any, kvorum: Run, tmp_path: Path) -> None:
    """The form that the Consul command line writes, with flags; ours is the same on standard output."""
    content = [{"key": "a/b", "flags": 42, "value": "aGVsbG8="}, {"key": "c", "flags": 0, "value": ""}]
    file = tmp_path / "consul.json"
    file.write_text(json.dumps(content, indent="\t"))
    assert kvorum("kv", "import", str(file)).code == 0
    assert node.data[b"a/b"][:2] == (b"hello", 42)
    assert json.loads(kvorum("kv", "export").out) == content


def test_an_export_of_nothing_is_an_empty_list(node: Any, kvorum: Run) -> None:
    """No keys are no error."""
    assert json.loads(kvorum("kv", "export", "absent").out) == []
    assert node.requests


def test_only_what_differs_is_written(node: Any, kvorum: Run, files: Path) -> None:
    """--skip-unchanged counts equal keys and sends no PUT for them."""
    kvorum("kv", "import", str(files), "--prefix", "p/")
    (files / "text.conf").write_text("a = 2\n")
    node.requests.clear()
    ran = kvorum("kv", "import", str(files), "--prefix", "p/", "--skip-unchanged", "-o", "json")
    counts = json.loads(ran.out)
    assert (counts["written"], counts["unchanged"]) == (1, 3)
    assert [method for method, _path in node.requests].count("PUT") == 1


def test_a_passing_refusal_is_tried_again(node: Any, kvorum: Run, files: Path) -> None:
    """While there is no leader the refused writes are repeated, and nothing is lost."""
    node.fail(500, "No cluster leader", "rejected", times=6)
    ran = kvorum("kv", "import", str(files), "-o", "json")
    assert (ran.code, json.loads(ran.out)["written"], len(node.data)) == (0, 4, 4)


def puts(node: Any) -> list[dict[str, str]]:
    """The headers of the writes."""
    return [headers for (method, _path), headers in zip(node.requests, node.headers, strict=True) if method == "PUT"]


def test_an_unknown_write_to_a_consul_is_counted_and_never_repeated(node: Any, kvorum: Run, files: Path) -> None:
    """Where keys of requests mean nothing, a write whose outcome is unknown is sent once, named, and makes the exit code 9."""
    node.fail(0, times=1, method="PUT")
    ran = kvorum("kv", "import", str(files), "--parallel", "1", "-o", "json")
    counts = json.loads(ran.out)
    assert (ran.code, counts["unknown"], counts["written"]) == (9, 1, 3)
    assert ["Idempotency-Key" in headers for headers in puts(node)] == [False] * 4
    assert "the connection to" in ran.err


def test_an_unknown_write_is_made_again_under_its_key(node: Any, kvorum: Run, files: Path) -> None:
    """A connection that breaks does not end an import: the write comes again as the same one, since the same index; no two records share a key."""
    node.status = {"node": {"applied_index": 7}}
    node.fail(0, times=2, method="PUT")
    ran = kvorum("kv", "import", str(files), "--parallel", "1", "-o", "json")
    counts = json.loads(ran.out)
    assert (ran.code, counts["unknown"], counts["written"]) == (0, 0, 4)
    sent = [(headers["Idempotency-Key"], headers["X-Kvorum-Since"]) for headers in puts(node)]
    assert sent[0] == sent[1] == sent[2]
    assert sent[0][1] == "7"
    assert len({key for key, _ in sent}) == 4
    assert kvorum("kv", "import", str(files)).code == 0
    assert not {key for key, _ in sent} & {headers["Idempotency-Key"] for headers in puts(node)[6:]}, "another run is another request"


@pytest.mark.parametrize(
    ("first", "then", "is_made_again"),
    [
        ((500, "the outcome of this write is unknown", "unknown"), None, True),
        ((409, "forgotten", "unknown"), None, False),
        ((0, "", ""), (503, "No cluster leader", "rejected"), True),
    ],
)
def test_what_stays_unknown_is_counted_as_that(
    *, node: Any, kvorum: Run, tmp_path: Path, first: tuple[int, str, str], then: tuple[int, str, str] | None, is_made_again: bool
) -> None:
    """When no attempt has an answer, or the node has forgotten the key, the record is unknown, whatever its last attempt was told."""
    (tmp_path / "one.json").write_text('{"k": "v"}')
    node.status = {"node": {"applied_index": 7}}
    node.fail(*first, method="PUT")
    if then is not None:
        node.on_unknown = lambda: node.fail(*then)
    ran = kvorum("kv", "import", str(tmp_path / "one.json"), "--patience", "2", "-o", "json")
    counts = json.loads(ran.out)
    assert (ran.code, counts["unknown"], counts["rejected"]) == (9, 1, 0)
    assert (len(puts(node)) > 1) is is_made_again
    assert len({headers["Idempotency-Key"] for headers in puts(node)}) == 1


def test_a_final_refusal_is_counted_and_the_rest_goes_on(node: Any, kvorum: Run, files: Path) -> None:
    """A value over the limit is rejected with the node's words; the other keys are written."""
    node.fail(413, "Value exceeds 524288 byte limit", times=1, method="PUT")
    ran = kvorum("kv", "import", str(files), "--parallel", "1", "-o", "json")
    counts = json.loads(ran.out)
    assert (ran.code, counts["rejected"], counts["written"]) == (1, 1, 3)
    assert "524288 byte limit" in ran.err


def test_a_node_that_stays_away_ends_the_import(node: Any, kvorum: Run, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When nothing can be reached the rest is not tried, and the counts add up."""
    monkeypatch.setenv("KVORUM_HTTP_ADDR", "127.0.0.1:1")
    ran = kvorum("kv", "import", str(files), "--patience", "0", "--parallel", "1", "-o", "json")
    counts = json.loads(ran.out)
    assert (ran.code, counts["written"], counts["rejected"] + counts["not_tried"]) == (1, 0, 4)
    assert node.requests == []


def test_ctrl_c_waits_for_what_is_under_way_and_tells_the_counts(node: Any, spawn: Spawn, tmp_path: Path) -> None:
    """SIGINT ends an import with 130, SIGTERM with 143; what was acknowledged is in the counts."""
    for number in range(300):
        (tmp_path / f"f{number:03}").write_text("x")
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        some = threading.Event()
        node.data.clear()

        def slowly(some: threading.Event = some) -> None:
            some.set()
            time.sleep(0.02)

        node.on_put = slowly
        process = spawn("kv", "import", str(tmp_path), "--parallel", "2", "-o", "json")
        assert some.wait(20)
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
        counts = json.loads(out)
        assert process.returncode == code, err
        assert counts["written"] == len(node.data)
        assert 0 < counts["written"] < 300
        assert counts["written"] + counts["not_tried"] == 300


@pytest.mark.parametrize(
    ("form", "keys", "expected"),
    [
        ("json", {"a": b"1", "a/b": b"2"}, "'a/b' is both a value and a folder"),
        ("json", {"a": b"\xff"}, "'a' is no text"),
        ("env", {"1a": b""}, "'1a' can't be the name of a variable"),
        ("env", {"a/b": b"", "a-b": b""}, "both the variable a_b"),
        ("dir", {"../x": b""}, "'../x' can't be a path"),
        ("dir", {"/x": b""}, "'/x' can't be a path"),
        ("dir", {"a": b"1", "a/b": b"2"}, "'a/b' is both a value and a folder"),
    ],
)
def test_a_key_that_a_form_can_not_hold_is_named(*, node: Any, kvorum: Run, tmp_path: Path, form: str, keys: dict[str, bytes], expected: str) -> None:
    """The export fails with the key's name and leaves no half-written file."""
    for key, value in keys.items():
        node.store(key, value)
    ran = kvorum("kv", "export", "--format", form, "--to", str(tmp_path / "out"))
    assert ran.code == 1
    assert expected in ran.err
    assert not (tmp_path / "out").is_file()
    assert not (tmp_path.parent / "x").exists()


def test_an_export_never_overwrites_a_directory(node: Any, kvorum: Run, tmp_path: Path) -> None:
    """A directory with something in it is refused."""
    node.store("k", b"new")
    (tmp_path / "k").write_text("old")
    ran = kvorum("kv", "export", "--format", "dir", "--to", str(tmp_path))
    assert (ran.code, (tmp_path / "k").read_text()) == (1, "old")


def test_a_reader_that_goes_away_is_no_traceback(node: Any, spawn: Spawn) -> None:
    """An export into a closed pipe ends quietly."""
    for number in range(40):
        node.store(f"k{number}", b"x" * 50_000)
    process = spawn("kv", "export")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    process.stderr.close()
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(20) == 1
    assert b"Traceback" not in err
