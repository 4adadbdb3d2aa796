"""``kvorum kv get|put|delete|list``: data, words, exit codes."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


class Input(io.TextIOWrapper):
    """Standard input that is, or is not, a terminal."""

    def __init__(self, content: bytes, terminal: bool = False) -> None:
        super().__init__(io.BytesIO(content))
        self._terminal = terminal

    def isatty(self) -> bool:
        """As it was told."""
        return self._terminal


def test_get_writes_the_bytes_and_nothing_else(node: Any, kvorum: Run) -> None:
    """Standard output holds the value byte for byte, standard error nothing."""
    node.store("bin", b"\x00\xff\r\n")
    assert kvorum("kv", "get", "bin") == (0, b"\x00\xff\r\n", "")


def test_get_of_a_missing_key_is_exit_code_1(node: Any, kvorum: Run) -> None:
    """The message names the key."""
    ran = kvorum("kv", "get", "absent", "--consistent")
    assert (ran.code, ran.out) == (1, b"")
    assert "no such key: absent" in ran.err
    assert node.requests == [("GET", "/v1/kv/absent?consistent")]


def test_a_write_under_a_key(node: Any, kvorum: Run) -> None:
    """--idempotency-key goes with a put and with both kinds of delete; one that can't be is refused before anything is sent."""
    assert kvorum("kv", "put", "k", "1", "--idempotency-key", "one").code == 0
    assert kvorum("kv", "delete", "k", "--idempotency-key", "two").code == 0
    node.store("t/1", b"")
    assert kvorum("kv", "delete", "t/", "--recurse", "--yes", "--idempotency-key", "three").code == 0
    assert [headers["Idempotency-Key"] for headers in node.headers if "Idempotency-Key" in headers] == ["one", "two", "three"]
    sent = len(node.requests)
    ran = kvorum("kv", "put", "k", "2", "--idempotency-key", "")
    assert (ran.code, "can't be an Idempotency-Key" in ran.err, len(node.requests)) == (1, True, sent)


@pytest.mark.parametrize("source", ["argument", "file", "standard input"])
def test_put_takes_the_value_from_three_places(node: Any, kvorum: Run, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The value comes as an argument, from @file or from standard input, unchanged."""
    (tmp_path / "value").write_bytes(b"line\n")
    monkeypatch.setattr(sys, "stdin", Input(b"line\n"))
    argument = {"argument": "line\n", "file": f"@{tmp_path / 'value'}", "standard input": "-"}[source]
    ran = kvorum("kv", "put", "k", argument, "--flags", "42")
    assert ran.code == 0
    assert node.data[b"k"][:2] == (b"line\n", 42)


def test_a_lost_condition_has_its_own_exit_code(node: Any, kvorum: Run) -> None:
    """--cas that does not hold is exit code 8, and nothing was changed."""
    assert kvorum("kv", "put", "k", "1", "--cas", "0").code == 0
    ran = kvorum("kv", "put", "k", "2", "--cas", "0")
    assert (ran.code, node.data[b"k"].value) == (8, b"1")
    assert "the key exists" in ran.err
    assert kvorum("kv", "delete", "k", "--cas", "3").code == 8
    assert kvorum("kv", "delete", "k", "--cas", str(node.data[b"k"].modify_index)).code == 0
    assert not node.data


def test_an_unknown_outcome_has_its_own_exit_code(node: Any, kvorum: Run) -> None:
    """A write that may have happened is exit code 9, one that did not is 1; the message is the node's."""
    node.fail(500, "no answer within 7 s", "unknown", times=1)
    ran = kvorum("kv", "put", "k", "v")
    assert (ran.code, "no answer within 7 s" in ran.err) == (9, True)
    node.fail(500, "No cluster leader", "rejected", times=1)
    assert kvorum("kv", "put", "k", "v").code == 1


def test_delete_recurse_prints_the_count(node: Any, kvorum: Run) -> None:
    """The number of keys goes to standard output; keys outside the prefix stay."""
    for key in ("app/a", "app/b", "other"):
        node.store(key, b"")
    ran = kvorum("kv", "delete", "app/", "--recurse", "--yes")
    assert (ran.code, ran.out, list(node.data)) == (0, b"2\n", [b"other"])
    assert kvorum("kv", "delete", "app/", "--recurse", "--yes").out == b"0\n"


def test_delete_recurse_asks_and_tells_of_strays(node: Any, kvorum: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal it asks, naming keys that merely begin alike; without one it refuses; "no" changes nothing."""
    node.store("foo/a", b"")
    node.store("food", b"")
    monkeypatch.setattr(sys, "stdin", Input(b""))
    ran = kvorum("kv", "delete", "foo", "--recurse")
    assert (ran.code, "--yes" in ran.err, len(node.data)) == (2, True, 2)
    monkeypatch.setattr(sys, "stdin", Input(b"n\n", terminal=True))
    ran = kvorum("kv", "delete", "foo", "--recurse")
    assert (ran.code, len(node.data)) == (130, 2)
    assert "1 of them are not below foo/: food" in ran.err
    monkeypatch.setattr(sys, "stdin", Input(b"y\n", terminal=True))
    assert kvorum("kv", "delete", "foo", "--recurse").code == 0
    assert not node.data


def test_list_shows_keys_or_rows(node: Any, kvorum: Run) -> None:
    """Names alone, an aligned table, or JSON; control characters never reach the terminal raw."""
    node.store("a/x", b"12345", flags=7)
    node.store("a/\x1b[31m", b"")
    assert kvorum("kv", "list", "a/", "--keys").out == b"a/\\x1b[31m\na/x\n"
    table = kvorum("kv", "list").out.decode().splitlines()
    assert table[0].split() == ["KEY", "BYTES", "FLAGS", "MODIFY", "INDEX"]
    assert table[2].split() == ["a/x", "5", "7", "11"]
    rows = json.loads(kvorum("kv", "list", "a/x", "-o", "json").out)
    assert [(row["key"], row["value"], row["flags"]) for row in rows] == [("a/x", "MTIzNDU=", 7)]
    assert json.loads(kvorum("kv", "list", "--keys", "-o", "json").out) == ["a/\x1b[31m", "a/x"]
    assert "no keys" in kvorum("kv", "list", "zzz").err


@pytest.mark.parametrize(
    "arguments",
    [
        ("kv", "get"),
        ("kv", "get", ""),
        ("kv", "put", "k"),
        ("kv", "put", "k", "v", "--cas", "-1"),
        ("kv", "put", "k", "v", "--flags", str(2**64)),
        ("kv", "put", "k", "@/nonexistent/file"),
        ("kv", "delete", "", "--recurse", "--yes"),
        ("kv", "delete", "k", "--recurse", "--cas", "1"),
        ("kv", "fetch", "k"),
        ("kv", "get", "k", "--http-addr", "h:99999"),
        ("kv", "export", "--format", "dir"),
        ("nonsense",),
        ("--nonsense",),
    ],
)
def test_bad_usage_is_exit_code_2_and_sends_nothing(node: Any, kvorum: Run, arguments: tuple[str, ...]) -> None:
    """The message is for people, without a traceback, and no request was made."""
    ran = kvorum(*arguments)
    assert ran.code == 2
    assert ran.err
    assert "Traceback" not in ran.err
    assert node.requests == []


def test_an_unreachable_node_is_told_with_its_address(node: Any, kvorum: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command says where it tried and what the system said, with exit code 1."""
    monkeypatch.setenv("KVORUM_HTTP_ADDR", "127.0.0.1:1")
    for arguments in (("kv", "get", "k"), ("kv", "put", "k", "v"), ("kv", "list"), ("kv", "export"), ("status",)):
        ran = kvorum(*arguments)
        assert ran.code == 1, arguments
        assert "http://127.0.0.1:1 can't be reached: Connection refused" in ran.err
    assert kvorum("kv", "put", "k", "v", "--addr", node.address).code == 0


@pytest.mark.parametrize("page", ["1", "2", "100"])
def test_scan_follows_the_pages(node: Any, kvorum: Run, page: str) -> None:
    """All keys below the prefix in order, however they are cut into pages; JSON is one array."""
    for key in ("a/1", "a/ü&?", "a/2", "b"):
        node.store(key, key.encode())
    ran = kvorum("kv", "scan", "a/", "--page", page, "-o", "json")
    assert [entry["key"] for entry in json.loads(ran.out)] == ["a/1", "a/2", "a/ü&?"]
    table = kvorum("kv", "scan", "a/", "--page", page, "--available").out.decode().splitlines()
    assert [line.split()[0] for line in table] == ["KEY", "a/1", "a/2", "a/ü&?"]
    assert "consistency=available" in node.requests[-1][1]


def test_scan_ends_at_its_limit(node: Any, kvorum: Run) -> None:
    """--limit counts over pages; the key to go on with is told, and --start takes it."""
    for number in range(5):
        node.store(f"k{number}", b"v")
    ran = kvorum("kv", "scan", "--limit", "3", "--page", "2", "-o", "json")
    assert ([entry["key"] for entry in json.loads(ran.out)], ran.err) == (["k0", "k1", "k2"], "there is more: --start k3\n")
    ran = kvorum("kv", "scan", "--start", "k3", "-o", "json")
    assert ([entry["key"] for entry in json.loads(ran.out)], ran.err) == (["k3", "k4"], "")
    assert kvorum("kv", "scan", "--limit", "0", "-o", "json").out == b"[]\n"
    assert kvorum("kv", "scan", "none").err == "no keys\n"
