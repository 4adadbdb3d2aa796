"""``kvorum check``: a table, and an exit code of 0 only when every node has the same digest."""

import json
from typing import Any

import pytest

from service.cli.main import run
from service.client import Client


def node(name: str, stage: str = "done", sha256: str = "a" * 64, problem: str = "") -> dict[str, Any]:
    """A row of the answer."""
    return {"name": name, "voter": True, "stage": stage, "keys": 3, "sha256": sha256, "problem": problem}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the node answers, one after the other; the last again and again."""
    given: list[dict[str, Any]] = []
    monkeypatch.setattr(Client, "begin_check", lambda _: 17)
    monkeypatch.setattr(Client, "check", lambda _, index: given.pop(0) | {"index": index} if len(given) > 1 else given[0] | {"index": index})
    return given


def test_equal(answers: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    """It waits for those that still compute, prints every node, and ends with 0."""
    answers += [
        {"verdict": "computing", "nodes": [node("n1"), node("n2", "computing")]},
        {"verdict": "equal", "nodes": [node("n1"), node("n2")]},
    ]
    assert run(["check"]) == 0
    told = capsys.readouterr()
    assert [line.split()[:3] for line in told.out.splitlines()] == [["NODE", "VOTER", "STAGE"], ["n1", "yes", "done"], ["n2", "yes", "done"]]
    assert "all 2 nodes hold the same state at index 17" in told.err


@pytest.mark.parametrize(
    ("verdict", "rows", "due"),
    [
        ("different", [node("n1"), node("n2", sha256="b" * 64)], "DIFFERENT"),
        ("incomplete", [node("n1"), node("n2", "unreachable", problem="refused")], "those that have agree"),
        ("computing", [node("n1"), node("n2", "behind")], "within 1 s; so far none differs"),
    ],
)
def test_anything_else(answers: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], verdict: str, rows: list[dict[str, Any]], due: str) -> None:
    """A difference, a node that can't answer and one that is too slow end with 1, each in words of its own."""
    answers.append({"verdict": verdict, "nodes": rows})
    assert run(["check", "--timeout", "1"]) == 1
    assert due in capsys.readouterr().err


def test_json(answers: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    """With -o json the answer is passed on as it is."""
    answers.append({"verdict": "different", "nodes": [node("n1"), node("n2", sha256="b" * 64)]})
    assert run(["check", "-o", "json"]) == 1
    assert json.loads(capsys.readouterr().out) == {"index": 17, **answers[0]}
