"""The table of planted faults of the service fits the code, and the hunt tells a fault that is noticed from one that is not."""

import ast
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from mutants_service import MUTANTS, TOP, Mutant, hunt

PATHS = ("tests/service/settings/test_reloading.py",)
HARMLESS = Mutant("harmless", "nothing", "service/errors.py", 'REJECTED = "rejected"', 'REJECTED = "reject" + "ed"', PATHS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_each_fault_can_be_planted(mutant: Mutant) -> None:
    """Its text stands in the file once, what replaces it is Python and something else, and its tests exist."""
    text = (TOP / mutant.path).read_text(encoding="utf-8")
    assert text.count(mutant.before) == 1
    assert ast.dump(ast.parse(text.replace(mutant.before, mutant.after))) != ast.dump(ast.parse(text))
    for test in mutant.tests:
        path, _, name = test.partition("::")
        assert f"def {name}" in (TOP / path).read_text(encoding="utf-8")


def test_the_catalogue_of_faults_is_whole() -> None:
    """Each fault of the service that the catalogue of scenarios numbers is planted."""
    assert {"M30", "M31", "M32", "M34", "M40"} <= {mutant.name.split()[0] for mutant in MUTANTS}
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_hunt_tells_them_apart() -> None:
    """A change that means the same survives; a text that is not there, and tests that can't run, are problems and no kills."""
    assert hunt(HARMLESS)[1:3] == ((), "")
    assert "'no such text' 0 times" in hunt(HARMLESS._replace(before="no such text")).problem
    assert "pytest ended with" in hunt(HARMLESS._replace(tests=("tests/service/settings/test_none.py",))).problem
    verdict = hunt(HARMLESS._replace(path="service/reloading.py", before="class Live", after="class Dead"))
    assert (verdict.killed_by, bool(verdict.problem)) == ((), True), "what can't be imported was not noticed by a test"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_fault_is_noticed() -> None:
    """One of the table is killed by the test that stands beside it."""
    mutant = next(one for one in MUTANTS if one.name == "M32 any node")
    assert hunt(mutant).killed_by == (mutant.tests[0].partition("::")[2],)
