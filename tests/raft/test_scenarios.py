"""The catalogue of scenarios and the tests agree, and the program that counts them counts right."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from scenarios import Level, NamedTest, catalogue, find_tests, main, missing, unknown, verdicts

AWAITED = {"ST-07", "ST-11"}
"""Scenarios that may lack a test for now; the program names them and fails all the same."""
LEVELS_OF_THE_SERVICE = ("CL-", "SL-", "WA-")
"""Their tests start nodes, and don't come along where the library is tested alone."""
ALONE = not (Path(__file__).parents[1] / "service").is_dir()

TESTED = NamedTest("EL-01", "tests/raft/core/test_election.py", "test_el_01_first_election")
REPORT = """<testsuites><testsuite name="pytest">
<testcase classname="tests.raft.core.test_election" name="test_el_01_first_election[1]"/>
<testcase classname="tests.raft.core.test_election" name="test_el_01_first_election[2]">{outcome}</testcase>
</testsuite></testsuites>"""


def test_every_scenario_has_a_test() -> None:
    """No scenario of the catalogue is without a test that is named after it."""
    without = set(missing(catalogue(), find_tests())) - AWAITED
    assert {scenario for scenario in without if not (ALONE and scenario.startswith(LEVELS_OF_THE_SERVICE))} == set()


def test_no_test_claims_a_number_that_does_not_exist() -> None:
    """Numbers in the names of tests are those of the catalogue."""
    assert unknown(catalogue(), find_tests()) == []


def test_titles_are_whole_lines() -> None:
    """Each scenario has a title of its own, on one line, without a full stop."""
    titles = [title for level in catalogue() for title in level.titles.values()]
    assert len(set(titles)) == len(titles) > 60
    assert [title for title in titles if not title or "\n" in title or title.endswith(".")] == []


def test_tests_are_found_by_their_names(tmp_path: Path) -> None:
    """A function is found with its number and its file, in a class too; other functions are passed over."""
    folder = tmp_path / "tests" / "raft"
    folder.mkdir(parents=True)
    text = "def test_el_01_x(): ...\nclass C:\n    async def test_st_99_y(self): ...\ndef test_el_1_z(): ...\ndef test_other(): ...\n"
    (folder / "test_some.py").write_text(text, encoding="utf-8")
    found = find_tests(tmp_path / "tests")
    assert found == [NamedTest("EL-01", "tests/raft/test_some.py", "test_el_01_x"), NamedTest("ST-99", "tests/raft/test_some.py", "test_st_99_y")]
    levels = [Level("EL", "elections", {"EL-01": "one", "EL-02": "two"}), Level("ST", "storage", {})]
    assert missing(levels, found) == ["EL-02"]
    assert [test.name for test in unknown(levels, found)] == ["test_st_99_y"]


@pytest.mark.parametrize(
    ("outcome", "verdict"), [("", "passed"), ("<failure/>", "failed"), ("<error/>", "failed"), ("<skipped/>", "passed"), (None, "not run")]
)
def test_one_failed_case_fails_its_scenario(tmp_path: Path, outcome: str | None, verdict: str) -> None:
    """A scenario passes when its tests ran and none failed; one of whose tests the report says nothing has not been run."""
    report = tmp_path / "report.xml"
    report.write_text("<testsuites/>" if outcome is None else REPORT.format(outcome=outcome), encoding="utf-8")
    assert verdicts(report, [TESTED]) == {"EL-01": verdict}


def test_the_program_says_what_is_lacking(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a report in which only one scenario passed the others are named, and the exit status is 1."""
    report = tmp_path / "report.xml"
    report.write_text(REPORT.format(outcome=""), encoding="utf-8")
    assert main(["--level", "EL", "--results", str(report)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:4] == ["EL", "10", "10", "1"]
    assert lines[-1].startswith("not run: EL-02, EL-04,")


def test_the_program_runs_the_tests(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a report it runs the scenarios itself; when all pass the exit status is 0."""
    assert main(["--level", "LR"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:4] == ["LR", "5", "5", "5"]


def test_a_wrong_level_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """A level that the catalogue does not have is refused with those that it has."""
    with pytest.raises(SystemExit):
        main(["--level", "ZZ"])
    assert "no level ZZ; there are EL, RE," in capsys.readouterr().err


def test_numbers_have_two_digits(tmp_path: Path) -> None:
    """A catalogue with another kind of number is refused."""
    broken = tmp_path / "broken.toml"
    broken.write_text('[EL]\nabout = "elections"\n1 = "one"\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"EL has .*1.*; numbers have two digits"):
        catalogue(broken)
