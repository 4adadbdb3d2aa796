"""Every sample of the guide runs, in the order in which it stands there, and prints what the comment behind it says."""

import ast
import asyncio
import builtins
import importlib.util
import inspect
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import raft
from raft.testing.machine_conformance import StateMachineContract

pytest.importorskip("pysqlite3")
pytest.importorskip("httptools")

PAGES = [Path(raft.__file__).parent / name for name in ("README.md", "DESIGN.md", "DIVERGENCES.md")]
PAGE = PAGES[0]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PROMISE = re.compile(r"^(?P<indent> *)print\(.*\)  # (?P<expected>.*)$", re.MULTILINE)
PORTS = range(7101, 7106)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at, below those that the system gives to clients; another process of the tests begins its search elsewhere."""
    found: list[int] = []
    for port in range(10_000 + os.getpid() * 50 % 20_000, 32_000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) and len(found) < count:
                found.append(port)
        if len(found) == count:
            return found
    raise OSError("no free ports")


@pytest.fixture
def blocks() -> list[str]:
    """The samples, with free ports in place of the told ones."""
    found = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    for told, free in zip(PORTS, free_ports(len(PORTS)), strict=True):
        found = [block.replace(str(told), str(free)) for block in found]
    return found


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The lines that samples print."""
    lines: list[str] = []
    monkeypatch.setattr(builtins, "print", lambda *values: lines.append(" ".join(map(str, values))))
    return lines


@pytest.mark.timeout(60)
def test_the_samples_run(blocks: list[str], printed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All the samples, in one session: each print gives what its comment promises, and every class of tests among them passes."""
    monkeypatch.chdir(tmp_path)
    session: dict[str, Any] = {"__name__": "guide"}

    async def run() -> None:
        for number, block in enumerate(blocks):
            del printed[:]
            code = compile(block, f"sample {number}", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            result = eval(code, session)
            if inspect.isawaitable(result):
                await result
            assert printed == [promise["expected"].strip() for promise in PROMISE.finditer(block)], block

    asyncio.run(run())
    suites = [
        value
        for value in session.values()
        if inspect.isclass(value) and issubclass(value, StateMachineContract) and value is not StateMachineContract
    ]
    ran = 0
    for suite in suites:
        for name in dir(suite):
            if name.startswith("test_"):
                getattr(suite(), name)()
                ran += 1
    assert ran >= 6


def test_every_print_promises_something(blocks: list[str]) -> None:
    """No sample prints without saying what, and there are many of them."""
    prints = sum(len(re.findall(r"\bprint\(", block)) for block in blocks)
    assert prints == sum(len(PROMISE.findall(block)) for block in blocks)
    assert (len(blocks) >= 10, prints >= 15) == (True, True)


def test_the_named_programs_exist() -> None:
    """Every ``python -m …`` that a page of the library names can be run."""
    named = {name for page in PAGES for name in re.findall(r"python -m (raft[\w.]*)", page.read_text(encoding="utf-8"))}
    assert {name for name in named if importlib.util.find_spec(name) is None} == set()
    assert named >= {"raft.examples.counter", "raft.testing.pages", "raft.testing.scripts", "raft.testing.sim"}


def test_the_pages_go_with_the_package() -> None:
    """The three pages lie beside the code, in the wheel too, and so does the mark of being typed."""
    assert [page.name for page in PAGES if not page.exists()] == []
    assert (PAGE.parent / "py.typed").exists()
