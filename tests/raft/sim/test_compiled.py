"""The compiled simulator: its steps are those of the sources."""

from pathlib import Path

import pytest

import raft
from raft.testing import compiled


def test_what_is_compiled_exists() -> None:
    """Every module that is named is there, or a rename would leave it interpreted without a word."""
    for name in compiled.SIMULATOR:
        assert (Path(raft.__file__).parent / "testing" / f"{name}.py").is_file()


def test_a_failing_comparison_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Schedules whose steps differ are named, and the exit status says so; so does one that has no digest on either side."""
    digests = {str(compiled.PACKAGE.parent): {1: "a", 2: "b", 3: "c"}, str(tmp_path): {1: "a", 2: "x"}}
    monkeypatch.setattr(compiled, "build", lambda _parent: tmp_path)
    monkeypatch.setattr(compiled, "digests", lambda _start, _count, _jobs, environ: digests[environ["PYTHONPATH"]])
    assert compiled.main(["compare", "--start", "1", "--count", "4"]) == 1
    assert "4 schedules from seed 1 on" in (told := capsys.readouterr().out)
    assert "3 differ [2, 3, 4]" in told
