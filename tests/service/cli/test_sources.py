"""What import reads: each format, and each way in which a file can be bad."""

from pathlib import Path

import pytest

from service.cli.sources import open_source
from service.errors import ImportInvalid


def read(tmp_path: Path, name: str, content: str | bytes, form: str = "auto") -> dict[str, bytes]:
    """Write a file and read it as a source."""
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return {record.key: record.read() for record in open_source(path, form, lambda: b"").records}


def test_nested_json_becomes_keys(tmp_path: Path) -> None:
    """Levels are joined by "/", numbers keep their digits, lists their positions."""
    content = '{"db": {"host": "h", "port": 5432, "ratio": 1.10, "on": true, "none": null, "list": ["a", {"b": 1e3}]}, "": 1, "x": {}}'
    with pytest.raises(ImportInvalid, match="an empty key"):
        read(tmp_path, "a.json", content)
    assert read(tmp_path, "a.json", content.replace('"": 1, ', "")) == {
        "db/host": b"h",
        "db/port": b"5432",
        "db/ratio": b"1.10",
        "db/on": b"true",
        "db/none": b"",
        "db/list/0": b"a",
        "db/list/1/b": b"1e3",
    }


def test_yaml_scalars_stay_as_they_are_written(tmp_path: Path) -> None:
    """No number or word is reinterpreted; null is empty, !!binary is bytes, anchors and merges work."""
    content = """
    base: &base {host: h, port: 0x10}
    other: {<<: *base, port: 99}
    again: {<<: *base}
    twice: *base
    version: 1.10
    octal: 0123
    on: yes
    nothing: ~
    quoted: "null"
    when: 2026-01-02
    bytes: !!binary AP8=
    text: |
      two
      lines
    """
    assert read(tmp_path, "a.yaml", content) == {
        "base/host": b"h",
        "base/port": b"0x10",
        "other/host": b"h",
        "other/port": b"99",
        "again/host": b"h",
        "again/port": b"0x10",
        "twice/host": b"h",
        "twice/port": b"0x10",
        "version": b"1.10",
        "octal": b"0123",
        "on": b"yes",
        "nothing": b"",
        "quoted": b"null",
        "when": b"2026-01-02",
        "bytes": b"\x00\xff",
        "text": b"two\nlines\n",
    }


def test_toml_becomes_keys(tmp_path: Path) -> None:
    """Tables nest, numbers with a point keep their digits, dates are ISO 8601."""
    content = 'a = 1\nb = 1.10\n[t]\non = false\nwhen = 2026-01-02T03:04:05Z\n[[t.list]]\nx = "y"\n'
    assert read(tmp_path, "a.toml", content) == {
        "a": b"1",
        "b": b"1.10",
        "t/on": b"false",
        "t/when": b"2026-01-02T03:04:05+00:00",
        "t/list/0/x": b"y",
    }


def test_env_lines_become_keys(tmp_path: Path) -> None:
    """Comments, export, both kinds of quotes and escapes."""
    content = '# c\n\nexport A=1 # c\nB=\'a # b\'\nC="x\\ny \\"q\\"" # c\nD=\nE=a#b\nF = spaced \n'
    assert read(tmp_path, ".env", content) == {"A": b"1", "B": b"a # b", "C": b'x\ny "q"', "D": b"", "E": b"a#b", "F": b"spaced"}


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.json", '{"a": 1,}', "a.json: line 1, column"),
        ("a.json", '{"a": 1, "a": 2}', "'a' appears twice"),
        ("a.json", '{"a": {"b": 1}, "a/b": 2}', "the key 'a/b' appears twice"),
        ("a.json", "5", "neither an object nor a list"),
        ("a.json", '["a"]', "entry 1"),
        ("a.json", '[{"key": "a", "value": "?"}]', "entry 1: the value is no base64"),
        ("a.json", '[{"key": "a", "flags": -1}]', "flags '-1'"),
        ("a.json", '[{"key": "", "value": ""}]', "an empty key"),
        ("a.json", '{"a":' * 150 + "1" + "}" * 150, "levels deep"),
        ("a.json", "[" * 100_000, "a.json"),
        ("a.yaml", "a: [", "a.yaml: line 1"),
        ("a.yaml", "a: 1\nb: 2\na: 3\n", "line 3, column 1: the key 'a' appears twice"),
        ("a.yaml", "- a\n", "a map is expected"),
        ("a.yaml", "a: 1\n---\nb: 2\n", "line 2"),
        ("a.yaml", "? [a]\n: b\n", "must be plain text"),
        ("a.yaml", "a: &a\n  b: *a\n", "levels deep"),
        ("a.yaml", "a: !!binary '?'\n", "no base64"),
        ("a.yaml", "a: \x01\n", "a.yaml"),
        ("a.toml", "a = \n", "a.toml"),
        (".env", "A=1\nnonsense\n", ".env: line 2: NAME=VALUE"),
        (".env", 'A="open\n', "line 1: the quotation does not end"),
        (".env", "A=1\nA=2\n", "the key 'A' appears twice"),
        ("a.json", b"\xff", "byte 0 is no UTF-8"),
        ("a.conf", "a", "--format names it"),
    ],
)
def test_a_bad_file_is_named_with_the_place(tmp_path: Path, name: str, content: str | bytes, expected: str) -> None:
    """The message names the file and what is wrong where."""
    with pytest.raises(ImportInvalid) as caught:
        read(tmp_path, name, content)
    assert expected in str(caught.value)
    assert name in str(caught.value)


def test_an_alias_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Aliases that multiply end at the limit of keys instead of filling the memory."""
    lines = ["a0: &a0 {x0: 1, x1: 1, x2: 1, x3: 1, x4: 1, x5: 1, x6: 1, x7: 1, x8: 1, x9: 1}"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 7)]
    monkeypatch.setattr("service.cli.sources.KEYS_MAX", 10_000)
    with pytest.raises(ImportInvalid, match="more than 10000 keys"):
        read(tmp_path, "bomb.yaml", "\n".join(lines))


def test_a_missing_file_and_a_missing_format_are_named(tmp_path: Path) -> None:
    """Neither is a traceback."""
    with pytest.raises(ImportInvalid, match=r"absent\.json: No such file"):
        open_source(tmp_path / "absent.json", "auto", lambda: b"")
    with pytest.raises(ImportInvalid, match="is no directory"):
        open_source(tmp_path / "absent", "dir", lambda: b"")
    with pytest.raises(ImportInvalid, match="standard input: the name does not tell the format"):
        open_source(Path("-"), "auto", lambda: b"")
    assert open_source(Path("-"), "env", lambda: b"A=1").records[0].key == "A"
