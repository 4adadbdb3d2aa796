"""The command line, and what is kept from one run to the next."""

import json
import re
from argparse import Namespace
from pathlib import Path
from random import Random

import pytest

from raft.testing import explore_table
from raft.testing.explore import main, plan
from raft.testing.explore_search import Fingerprints
from raft.testing.explore_starts import PARTS
from raft.testing.explore_table import Table


def test_fingerprints_are_a_set() -> None:
    """The flat table knows exactly what was added, through many enlargements."""
    rng, table, known = Random(7), Fingerprints(), set()
    for _ in range(10_000):
        value = rng.choice((rng.getrandbits(64), rng.getrandbits(9) << 50)) or 1
        assert table.add(value) == (value not in known)
        known.add(value)
    assert set(table) == known
    assert len(table) == len(known)


def test_zero_is_a_fingerprint_too() -> None:
    """The value that marks a free slot can be added, once."""
    table = Fingerprints()
    assert table.add(0)
    assert not table.add(0)
    assert len(table) == 1


def test_a_clean_run(capsys: pytest.CaptureFixture[str]) -> None:
    """The wanted number of distinct states is seen, every move is counted, the exit status is 0."""
    assert main(["--states", "2000"]) == 0
    text = capsys.readouterr().out
    counts = dict(re.findall(r"^  (\w+) +([\d,]+)$", text, re.MULTILINE))
    assert {"deliver", "drop", "duplicate", "timeout", "propose", "crash", "persist", "apply", "compact", "change"} <= set(counts)
    assert sum(int(count.replace(",", "")) for count in counts.values()) > 2_000
    new = re.search(r"^([\d,]+) new distinct states", text, re.MULTILINE)
    assert new is not None
    assert int(new[1].replace(",", "")) >= 2_000


def test_too_few_states_are_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    """Time that is up before the wanted states were seen makes the exit status 1."""
    assert main(["--states", "10000000", "--variant", "plain", "--seconds", "0.2"]) == 1
    assert re.search(r"^only [\d,]+ of 10,000,000 states were seen, and there are more$", capsys.readouterr().out, re.MULTILINE)


def test_all_there_are_is_enough(capsys: pytest.CaptureFixture[str]) -> None:
    """A space that has fewer states than wanted is no failure once all were seen."""
    bounds = "terms=1,commands=0,crashes=0,drops=0,duplicates=0,slow=0,heartbeats=0,compactions=0"
    assert main(["--states", "1000000", "--variant", "snapshot", "--bounds", bounds]) == 0
    assert ", all there are" in capsys.readouterr().out


def test_a_violation_can_be_seen_again(capsys: pytest.CaptureFixture[str]) -> None:
    """A broken rule makes the exit status 1; the printed command makes the same moves and breaks the same rule."""
    assert main(["--states", "30000", "--variant", "plain", "--mutant", "vote forgotten", "--bounds", "drops=0,duplicates=0"]) == 1
    text = capsys.readouterr().out
    found = re.search(r"^(monotonic: .*)\n(\d+) moves from the start .*:\n((?:  .*\n)+)replay: .*--bounds (\S+) --replay (\S+)$", text, re.MULTILINE)
    assert found is not None
    rule, count, moves, bounds, numbers = found.groups()
    assert moves.count("\n") == int(count)
    assert main(["--mutant", "vote forgotten", "--bounds", bounds, "--replay", numbers]) == 1
    assert capsys.readouterr().out == "".join(line[2:] + "\n" for line in moves.splitlines()) + rule + "\n"
    assert main(["--bounds", bounds, "--replay", numbers]) == 0
    assert capsys.readouterr().out.endswith("no rule was broken\n")


def test_a_fault_on_the_way_to_the_starts(capsys: pytest.CaptureFixture[str]) -> None:
    """A rule that breaks before a search can begin is reported and replayed like any other."""
    assert main(["--states", "100", "--variant", "plain", "--mutant", "M05 early replies"]) == 1
    found = re.search(r"^(durability: .*)\nbefore the starts of plain were reached\nreplay: .*--replay (\S+)$", capsys.readouterr().out, re.MULTILINE)
    assert found is not None
    assert main(["--mutant", "M05 early replies", "--replay", found[2]]) == 1
    assert capsys.readouterr().out == found[1] + "\n"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--bounds", "terms=x"], "'terms=x' is no bound; one looks like terms=3"),
        (["--bounds", "terms=0"], "terms is 0; it must be 1 or more"),
        (["--bounds", "lives=9"], "'lives=9' is no bound"),
        (["--replay", "plain"], "'plain' is no run; one looks like plain/elected/3.0.1"),
        (["--replay", "plain/nowhere/1"], "'plain/nowhere/1' is no run"),
        (["--replay", "plain/elected/1000"], "move 1 is to be number 1000"),
        (["--states", "0"], "0 is not 1 or more"),
    ],
)
def test_bad_arguments(arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong argument is named, with what would be right."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert problem in capsys.readouterr().err


def test_runs_add_up(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A second run on the same table goes on with other walks, counts only what is new, and keeps both; for other code the table is empty."""
    arguments = ["--states", "1000", "--variant", "snapshot", "--table", str(tmp_path)]
    assert main(arguments) == 0
    first = Table(str(tmp_path))
    assert main(arguments) == 0
    assert "breadth" not in capsys.readouterr().out.split("new distinct")[1]
    second = Table(str(tmp_path))
    assert [run["seed"] for run in second.runs] == [1, 1001]
    assert set(first.seen) < set(second.seen)
    assert sum(run["states"] for run in second.runs) == len(second.seen) >= 2_000
    monkeypatch.setattr(explore_table, "code_digest", lambda: "0" * 12)
    assert len(Table(str(tmp_path)).seen) == 0


def test_explored_states_are_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Runs on one table add up in a record, each goes on until the table has what is wanted, and a run with enough does nothing."""
    file, table = tmp_path / "states.json", tmp_path / "table"
    for until in ("2000", "3000", "3000"):
        assert main(["--record", str(file), "--table", str(table), "--until", until]) == 0
    (part,) = json.loads(file.read_text())["records"][0]["parts"]
    assert part["states"] == len(Table(str(table)).seen) >= 3_000
    assert set(part["breadth"]) == set(PARTS)
    assert sum(part["moves"].values()) > part["states"]
    assert part["violations"] == []
    assert part["cpu_s"] > 0
    capsys.readouterr()


def test_a_record_needs_its_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A table with fewer states than were recorded is refused: nothing would tell which states are new. Neither is a part of the space recorded."""
    file = tmp_path / "states.json"
    assert main(["--record", str(file), "--table", str(tmp_path / "one"), "--until", "1000"]) == 0
    before = file.read_bytes()
    for more, why in (
        (["--table", str(tmp_path / "two"), "--until", "2000"], "the table has 0 states, the record"),
        (["--until", "2000"], "--record needs --table and --until"),
        (["--table", str(tmp_path / "one"), "--until", "2000", "--mutant", "votes twice"], "takes neither --mutant"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["--record", str(file), *more])
        assert ended.value.code == 2
        assert why in capsys.readouterr().err
    assert file.read_bytes() == before


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    """What the legs that had ended found is in the table; the others are done by the next run, the breadth-first ones among them."""
    first = Table(str(tmp_path))
    first.seen.add(7)
    first.save(states=1, seconds=1.0, breadth=["plain"])
    first.save(states=1, seconds=2.0, breadth=["snapshot"])
    second = Table(str(tmp_path))
    assert (len(second.seen), len(second.runs), second.breadth) == (1, 1, {"plain", "snapshot"})
    legs = list(plan(Namespace(variant="all", bounds={}, mutant=""), 1_000, second, first=True))
    assert {leg.part for leg in legs if not leg.seed} == set(PARTS) - {"plain", "snapshot"}
    assert {leg.part for leg in legs if leg.seed} == set(PARTS)
