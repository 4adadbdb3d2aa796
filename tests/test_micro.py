"""The micro benchmarks can be run: nobody wants to find out otherwise when something has become slow."""

import re
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
ROWS = 21


def test_every_row_can_be_measured(tmp_path: Path) -> None:
    """Each case runs, has a row with a cost, and leaves nothing behind."""
    argv = [sys.executable, "benchmarks/micro.py", "--runs", "1", "--milliseconds", "0", "--beside", str(tmp_path)]
    done = subprocess.run(argv, cwd=TOP, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    costs = [float(found) for found in re.findall(r"^\S.* (\d+\.\d\d) +\(\d+\.\d\d\.\.\d+\.\d\d\) +1$", done.stdout, re.MULTILINE)]
    assert len(costs) == ROWS
    assert min(costs) > 0
    assert list(tmp_path.iterdir()) == []
    assert done.stderr == ""
