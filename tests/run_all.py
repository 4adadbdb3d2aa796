"""Run every test in stages, say what really ran, and fail where that is nothing.

The stages differ in what they need: pure ones share the processors, those that start real processes run two at a time
(they wait most of the time), those in containers one at a time, where a Docker engine answers. Usage:

    python tests/run_all.py [--without-docker | --require-docker] [--without-slow] [ARGUMENT OF pytest ...]
"""

# ruff: noqa: T201  (the output on the terminal is what this program is for)

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree as ET

TOP = Path(__file__).resolve().parent.parent
CONSUL_FOLDER = TOP / ".consul" / "usr" / "bin"
"""Where ``make consul`` puts a real Consul, which some tests compare with."""
NO_TESTS_COLLECTED = 5
"""What pytest exits with when a selection matches nothing (pytest, "Exit codes")."""


@dataclass(frozen=True)
class Stage:
    """A part of the tests, by marker expression."""

    name: str
    markers: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What pytest reports of a stage; `passed` counts what really ran and held."""

    stage: str
    passed: int
    failed: int
    skipped: int
    duration_seconds: float
    exit_code: int

    @property
    def good(self) -> bool:
        """Whether something ran and nothing failed."""
        return self.exit_code == 0 and self.failed == 0 and self.passed > 0


STAGES = (
    Stage("unit", "not processes and not docker", ("-n", "auto")),
    Stage("processes", "processes and not docker", ("-n", "2", "--dist", "worksteal")),
    Stage("docker", "docker"),
)


def counts(report: Path) -> tuple[int, int, int]:
    """Passed, failed and skipped tests of a JUnit report; zeros when pytest could not write one."""
    if not report.exists():
        return 0, 0, 0
    suites = ET.parse(report).getroot().iter("testsuite")
    total = failed = skipped = 0
    for suite in suites:
        total += int(suite.get("tests", "0"))
        failed += int(suite.get("failures", "0")) + int(suite.get("errors", "0"))
        skipped += int(suite.get("skipped", "0"))
    return max(total - failed - skipped, 0), failed, skipped


def run(stage: Stage, extra: Sequence[str]) -> Outcome:
    """Run one stage in a process of its own, with its output on this terminal."""
    print(f"\n=== {stage.name}: pytest -m {stage.markers!r}", flush=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        argv = [sys.executable, "-m", "pytest", "-q", "-m", stage.markers, f"--junit-xml={report}", *stage.options, *extra]
        exit_code = subprocess.run(argv, cwd=TOP, check=False).returncode
        passed, failed, skipped = counts(report)
    return Outcome(stage.name, passed, failed, skipped, time.monotonic() - started, exit_code)


def engine_answers() -> bool:
    """Whether a Docker engine can be used from here."""
    try:
        return subprocess.run(["docker", "version"], capture_output=True, timeout=20, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def verdict(outcome: Outcome) -> str:
    """The last word on a stage."""
    if outcome.good:
        return "ok"
    if outcome.failed == 0 and outcome.exit_code in {0, NO_TESTS_COLLECTED}:
        return "NOTHING RAN"
    return f"FAILED (exit code {outcome.exit_code})"


def main() -> int:
    """Run the stages, print the table, and give 0 only when each of them ran and held."""
    parser = argparse.ArgumentParser(description="Run every test in stages.")
    docker = parser.add_mutually_exclusive_group()
    docker.add_argument("--without-docker", action="store_true", help="leave out what needs a Docker engine")
    docker.add_argument("--require-docker", action="store_true", help="a missing Docker engine is a failure")
    parser.add_argument("--without-slow", action="store_true", help="leave out what takes more than ten seconds")
    arguments, extra = parser.parse_known_args()

    left_out = ""
    if arguments.without_docker:
        left_out = "docker: left out as asked"
    elif not engine_answers():
        left_out = "docker: left out, no Docker engine answers on this machine"
    if left_out and arguments.require_docker:
        print(left_out)
        return 1

    if CONSUL_FOLDER.is_dir():
        os.environ["PATH"] = f"{CONSUL_FOLDER}{os.pathsep}{os.environ['PATH']}"
    consul = shutil.which("consul")
    print(f"Consul: {consul or 'none (make consul)'}")

    stages = [replace(stage, markers=f"{stage.markers} and not slow") if arguments.without_slow else stage for stage in STAGES]
    outcomes = [run(stage, extra) for stage in stages if not (left_out and stage.name == "docker")]
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"\nWhat ran, on Python {version}:")
    print(f"  {'stage':<10} {'passed':>7} {'failed':>7} {'skipped':>8} {'seconds':>8}")
    for one in outcomes:
        print(f"  {one.stage:<10} {one.passed:>7} {one.failed:>7} {one.skipped:>8} {one.duration_seconds:>8.1f}  {verdict(one)}")
    if left_out:
        print(f"  {left_out}")
    return 0 if all(one.good for one in outcomes) else 1


if __name__ == "__main__":
    raise SystemExit(main())
