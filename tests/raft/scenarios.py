"""Which scenarios of the catalogue have a test, and do they pass? ``python -m tests.raft.scenarios``.

The catalogue is ``scenarios.toml``. A scenario's tests are found by their names alone, so a test can stand wherever it fits best.
"""

import argparse
import ast
import re
import subprocess
import sys
import tempfile
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent
CATALOGUE = HERE / "scenarios.toml"

NUMBERED = re.compile(r"test_([a-z]{2})_(\d\d)_")
NUMBER = re.compile(r"\d\d")


@dataclass(frozen=True, slots=True)
class Level:
    """One level of the catalogue.

    :ivar about: what it is about.
    :ivar titles: the scenarios by id, such as ``EL-01``.
    """

    name: str
    about: str
    titles: dict[str, str]


@dataclass(frozen=True, slots=True)
class NamedTest:
    """One test function.

    :ivar scenario: the id in its name; it need not be in the catalogue.
    :ivar path: the file, relative to the top of the project.
    """

    scenario: str
    path: str
    name: str


def catalogue(path: Path = CATALOGUE) -> list[Level]:
    """Read the catalogue.

    :raises ValueError: for a key that is neither a number of two digits nor ``about``.
    """
    levels = []
    for name, rows in tomllib.loads(path.read_text(encoding="utf-8")).items():
        about = rows.pop("about")
        if odd := [key for key in rows if not NUMBER.fullmatch(key)]:
            raise ValueError(f"{path.name}: {name} has {odd}; numbers have two digits")
        levels.append(Level(name, about, {f"{name}-{number}": title for number, title in rows.items()}))
    return levels


def find_tests(below: Path = TESTS) -> list[NamedTest]:
    """Every test function that is named after a scenario, whether or not there is such a scenario."""
    found = []
    for path in sorted(below.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), path.name)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (match := NUMBERED.match(node.name)):
                level, number = match.groups()
                found.append(NamedTest(f"{level.upper()}-{number}", path.relative_to(below.parent).as_posix(), node.name))
    return found


def missing(levels: Iterable[Level], tests: Iterable[NamedTest]) -> list[str]:
    """Scenarios without a test."""
    tested = {test.scenario for test in tests}
    return [scenario for level in levels for scenario in level.titles if scenario not in tested]


def unknown(levels: Iterable[Level], tests: Iterable[NamedTest]) -> list[NamedTest]:
    """Tests that claim a number which their level does not have. Other levels are none of the catalogue's business."""
    titles = {level.name: level.titles for level in levels}
    return [test for test in tests if test.scenario not in titles.get(test.scenario[:2], {test.scenario: ""})]


def verdicts(report: Path, tests: Iterable[NamedTest]) -> dict[str, str]:
    """What became of each scenario: ``passed``, ``failed``, or ``not run`` when none of its tests ran to its end.

    :param report: JUnit XML, as ``pytest --junitxml`` writes it.
    """
    outcomes: dict[tuple[str, str], set[str]] = {}
    for case in ET.parse(report).iter("testcase"):
        outcome = next((child.tag for child in case if child.tag in {"failure", "error", "skipped"}), "passed")
        outcomes.setdefault((case.get("classname", ""), case.get("name", "").partition("[")[0]), set()).add(outcome)
    gathered: dict[str, set[str]] = {}
    for test in tests:
        module = test.path.removesuffix(".py").replace("/", ".")
        gathered.setdefault(test.scenario, set()).update(outcomes.get((module, test.name), {"absent"}))
    return {scenario: _verdict(found) for scenario, found in gathered.items()}


def _verdict(outcomes: set[str]) -> str:
    if outcomes & {"failure", "error"}:
        return "failed"
    return "passed" if "passed" in outcomes and "absent" not in outcomes else "not run"


def run(tests: Iterable[NamedTest], report: Path) -> None:
    """Run the tests with pytest; its output goes through, the outcomes into ``report``."""
    names = sorted({f"{test.path}::{test.name}" for test in tests})
    subprocess.run([sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *names], cwd=TESTS.parent, check=False)


def main(arguments: list[str] | None = None) -> int:
    """Count the scenarios; the exit status is 0 when each of them has a test and passed."""
    parser = argparse.ArgumentParser(prog="python -m tests.raft.scenarios", description="Count the scenarios that are tested and pass.")
    parser.add_argument("--level", action="append", metavar="EL", help="only this level (may be given several times)")
    parser.add_argument("--list", action="store_true", help="run nothing: list the scenarios with their tests")
    parser.add_argument("--results", type=Path, metavar="FILE", help="run nothing: read the outcomes from this JUnit XML file")
    options = parser.parse_args(arguments)
    every = catalogue()
    levels = [level for level in every if not options.level or level.name in options.level]
    if strange := set(options.level or ()) - {level.name for level in every}:
        parser.error(f"no level {', '.join(sorted(strange))}; there are {', '.join(level.name for level in every)}")
    tests = [test for test in find_tests() if test.scenario[:2] in {level.name for level in levels}]
    if options.list:
        return _list(levels, tests)
    if options.results:
        return _count(levels, tests, options.results)
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory, "report.xml")
        run(tests, report)
        return _count(levels, tests, report)


def _list(levels: list[Level], tests: list[NamedTest]) -> int:
    for level in levels:
        for scenario, title in level.titles.items():
            sys.stdout.write(f"{scenario}  {title}\n")
            sys.stdout.writelines(f"       {test.path}::{test.name}\n" for test in tests if test.scenario == scenario)
    lacking = missing(levels, tests)
    sys.stdout.write(f"without a test: {', '.join(lacking) or 'none'}\n")
    return 1 if lacking else 0


def _count(levels: list[Level], tests: list[NamedTest], report: Path) -> int:
    found = verdicts(report, tests)
    sys.stdout.write("level  scenarios  tested  passed\n")
    for level in levels:
        known = [found[scenario] for scenario in level.titles if scenario in found]
        sys.stdout.write(f"{level.name:<5}  {len(level.titles):>9}  {len(known):>6}  {known.count('passed'):>6}  {level.about}\n")
    titles = [scenario for level in levels for scenario in level.titles]
    passed = [scenario for scenario in titles if found.get(scenario) == "passed"]
    sys.stdout.write(f"all    {len(titles):>9}  {sum(scenario in found for scenario in titles):>6}  {len(passed):>6}\n")
    lacking, strays = missing(levels, tests), unknown(levels, tests)
    for what, ids in (
        ("without a test", lacking),
        ("failed", [scenario for scenario in titles if found.get(scenario) == "failed"]),
        ("not run", [scenario for scenario in titles if found.get(scenario) == "not run"]),
        ("not in the catalogue", [f"{test.path}::{test.name}" for test in strays]),
    ):
        if ids:
            sys.stdout.write(f"{what}: {', '.join(ids)}\n")
    return 0 if len(passed) == len(titles) and not strays else 1


if __name__ == "__main__":
    sys.exit(main())
