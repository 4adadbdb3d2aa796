"""What the core may use: an allow-list, so that a clock or a socket can't slip in."""

import ast
from pathlib import Path

import pytest

import raft.core

ALLOWED = {"collections", "collections.abc", "dataclasses", "enum", "json", "typing"}
OWN = ("raft.core", "raft.config", "raft.errors")
FILES = sorted(Path(raft.core.__path__[0]).glob("*.py"))


def imported(file: Path) -> set[str]:
    """Every module that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_core_imports_the_allowed_only(file: Path) -> None:
    """No time, randomness, system, event loop, log or codec: standard modules from a short list, and the library's own values."""
    foreign = {name for name in imported(file) if name not in ALLOWED and not name.startswith(OWN)}
    assert foreign == set()


def test_quorum_imports_nothing_of_ours() -> None:
    """The arithmetic stands alone."""
    (file,) = [file for file in FILES if file.stem == "quorum"]
    assert imported(file) <= ALLOWED


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_core_calls_no_builtin_that_reaches_out(file: Path) -> None:
    """No files, no printing, no evaluation, no hash whose value depends on the process."""
    names = {node.func.id for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert names.isdisjoint({"open", "print", "input", "eval", "exec", "hash", "id", "__import__", "vars", "globals"})
