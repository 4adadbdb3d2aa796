"""What was run is added up over many runs, and nothing is counted that was not: seeds once, cores apart, other versions apart."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from raft.testing import records, sim, sim_record
from raft.testing.markers import MARKERS
from raft.testing.mutants import MUTANTS
from raft.testing.records import RecordRefused
from raft.testing.sim import Summary, main


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where a record is to be."""
    return tmp_path / "schedules.json"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Schedules that do nothing but count. :returns: the seeds that were run."""
    ran: list[int] = []

    def run_seeds(seeds: range, *, digest: bool = False) -> Summary:
        del digest
        ran.extend(seeds)
        return Summary(schedules=len(seeds), steps=10 * len(seeds), cpu_s=0.5)

    monkeypatch.setattr(sim, "run_seeds", run_seeds)
    return ran


def parts(file: Path) -> list[dict[str, Any]]:
    """The parts of the latest record."""
    found: list[dict[str, Any]] = json.loads(file.read_text())["records"][-1]["parts"]
    return found


def record(file: Path, until: int, *more: str) -> int:
    """Run until so many are recorded."""
    return main(["--record", str(file), "--until", str(until), *more])


def test_seeds_follow_on_each_other(file: Path, quick: list[int]) -> None:
    """Each run goes on where the last one ended; when enough are recorded nothing is run."""
    assert [record(file, until) for until in (25, 40, 40, 10)] == [0] * 4
    assert quick == list(range(1, 41))
    (part,) = parts(file)
    assert part["seeds"] == [[1, 40]]
    assert (part["schedules"], part["steps"], part["cpu_s"]) == (40, 400, 2.5)


def test_a_range_of_its_own(file: Path, quick: list[int]) -> None:
    """A run may begin elsewhere; started again with the same words it goes on there, around what is recorded already."""
    record(file, 10, "--start", "101")
    record(file, 15, "--start", "101")
    record(file, 20, "--start", "98")
    assert sorted(quick) == list(range(98, 118))
    assert len(set(quick)) == 20
    assert parts(file)[0]["seeds"] == [[98, 117]]


def test_real_schedules_are_recorded(file: Path) -> None:
    """What a schedule did and reached is in the record, and is the sum of single runs."""
    assert record(file, 2) == 0
    (part,) = parts(file)
    alone = Summary()
    for seed in (1, 2):
        alone.add(sim.run_seed(seed))
    assert part["counts"] == dict(+alone.counts)
    assert (part["committed"], part["reads"], part["simulated_ms"]) == (alone.committed, alone.reads, alone.simulated_ms)
    assert part["cpu_s"] > 0
    assert part["python"] == ".".join(map(str, sys.version_info[:3]))


def test_another_core_begins_anew(file: Path, quick: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Schedules of another core count for that one only, from the first seed on; the old record stays as it was."""
    record(file, 12)
    before = parts(file)
    monkeypatch.setattr(records, "core_digest", lambda: "another")
    record(file, 5)
    assert quick == [*range(1, 13), *range(1, 6)]
    first, second = json.loads(file.read_text())["records"]
    assert first["parts"] == before
    assert (second["core"], second["parts"][0]["schedules"]) == ("another", 5)


def test_another_simulator_is_a_part_of_its_own(file: Path, quick: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of the test code takes nothing from the core's record, and its seeds are told apart; none is used twice."""
    record(file, 12)
    monkeypatch.setattr(sim_record, "simulator_digest", lambda: "another")
    record(file, 20)
    assert quick == list(range(1, 21))
    assert [part["seeds"] for part in parts(file)] == [[[1, 12]], [[13, 20]]]


def test_the_digest_is_of_the_core() -> None:
    """Any change of a file of the core, of its name or of their number changes the digest; the order of reading does not."""
    core = records.PACKAGE / "core"
    files = sorted(core.glob("*.py"))
    assert records.core_digest() == records.digest(reversed(files))
    assert records.core_digest() != records.digest(files[1:])
    assert len(records.core_digest()) == records.DIGITS


def test_the_digest_sees_every_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One character more is another digest, and so is one that moves from a file to the next."""
    monkeypatch.setattr(records, "PACKAGE", tmp_path)
    one, two = tmp_path / "one.py", tmp_path / "two.py"
    seen = set()
    for texts in (("a", "b"), ("ab", ""), ("a", "b ")):
        one.write_text(texts[0])
        two.write_text(texts[1])
        seen.add(records.digest([one, two]))
    assert len(seen) == 3


def test_the_surroundings_are_complete() -> None:
    """All modules that a simulation loads besides the core are in the simulator's digest, but for those that only the library's package needs."""
    program = "import sys, raft; before = set(sys.modules); import raft.testing.world; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    loaded = {name for name in done.stdout.split() if name.startswith("raft.testing.")}
    assert loaded
    assert loaded <= {"raft." + name.removesuffix(".py").replace("/", ".") for name in sim_record.SURROUNDINGS}


def test_a_violation_is_kept(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A seed that failed stays in the record with its rule, and makes every later run of the record fail."""
    mutant = next(mutant for mutant in MUTANTS if mutant.name == "M05 early replies")
    with mutant.planted():
        assert record(file, 1) == 1
    assert parts(file)[0]["violations"] == [{"seed": 1, "rule": "durability"}]
    capsys.readouterr()
    assert record(file, 1) == 1
    assert "failed (durability): python -m raft.testing.sim --seed 1" in capsys.readouterr().out


def test_markers_can_be_required(file: Path, quick: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    """A record that did not reach the rare branches is void: each is named, and the exit status says so; without the flag it is not asked."""
    assert record(file, 100) == 0
    assert record(file, 100, "--require-markers") == 1
    common = [marker.name for marker in MARKERS if marker.common]
    missed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("marker reached 0 times in 100 schedules, at least 1")]
    assert len(missed) == len(common)
    assert main(["--start", "1", "--count", "100", "--require-markers"]) == 1
    assert main(["--start", "1", "--count", "20", "--require-markers"]) == 0
    assert quick


def test_a_run_ends_in_time(file: Path, quick: list[int]) -> None:
    """With a time limit a run stops, keeps what it did and is no failure; nothing is begun when the time is up."""
    assert record(file, 1_000_000, "--seconds", "0") == 0
    assert quick == []
    assert not file.exists()


def test_one_run_at_a_time(file: Path, quick: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    """A second run on the same file is refused, and told who holds it; it changes nothing."""
    with records.held(file, sim_record.KIND), pytest.raises(SystemExit):
        record(file, 5)
    assert f"{file} is held by process {os.getpid()}" in capsys.readouterr().err
    assert quick == []
    assert record(file, 5) == 0


def test_two_files_are_merged(tmp_path: Path, quick: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    """Ranges that two runs made apart become one record; a seed that both have is refused, and nothing changes."""
    here, there = tmp_path / "here.json", tmp_path / "there.json"
    record(here, 10)
    record(there, 20, "--start", "11")
    assert main(["--record", str(here), "--merge", str(there)]) == 0
    assert parts(here)[0]["seeds"] == [[1, 30]]
    assert (parts(here)[0]["schedules"], parts(here)[0]["cpu_s"]) == (30, 1.5)
    before = here.read_bytes()
    with pytest.raises(SystemExit):
        main(["--record", str(here), "--merge", str(there)])
    assert "seeds 11 to 30 are recorded twice" in capsys.readouterr().err
    assert here.read_bytes() == before
    assert len(quick) == 30


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "can't be read as a record"),
        ("[]", "is no record of schedules; its kind is None"),
        ('{"kind": "states", "records": []}', "is no record of schedules; its kind is 'states'"),
        ('{"kind": "schedules", "records": [1]}', "are not a list of cores"),
    ],
)
def test_other_files_are_refused(file: Path, content: str, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is no record is refused with the reason, and stays as it is."""
    file.write_text(content)
    with pytest.raises(SystemExit):
        record(file, 5)
    assert why in capsys.readouterr().err
    assert file.read_text() == content


@pytest.mark.parametrize(
    "arguments", [["--until", "5"], ["--seconds", "5"], ["--count", "0"], ["--record", "x.json"], ["--record", "/no/such/x", "--until", "1"]]
)
def test_flags_that_make_no_sense(arguments: list[str]) -> None:
    """Flags without what they belong to are an error of usage."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_ranges_grow_together() -> None:
    """Neighbouring ranges become one, whatever their order; a seed in two of them is an error."""
    assert sim_record.merged([(11, 20), (1, 10), (31, 40)]) == [(1, 20), (31, 40)]
    with pytest.raises(RecordRefused, match="seeds 10 to 10 are recorded twice"):
        sim_record.merged([(1, 10), (10, 20)])


def until_it_works(process: int) -> None:
    """Wait until the first work has been handed to a process of the pool."""
    children, deadline = Path(f"/proc/{process}/task/{process}/children"), time.monotonic() + 60
    while not children.read_text():
        assert time.monotonic() < deadline, "no process of the pool was started"
        threading.Event().wait(0.01)


def test_a_run_that_is_told_to_stop_keeps_its_work(file: Path) -> None:
    """On SIGTERM what has been run so far is written, and no process is left behind."""
    argv = [sys.executable, "-m", "raft.testing.sim", "--record", str(file), "--until", "1000000", "--jobs", "2"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert "0 schedules of core" in run.stdout.readline()
        until_it_works(run.pid)
        run.send_signal(signal.SIGTERM)
        told, _ = run.communicate(timeout=120)
    assert "stopped" in told
    (part,) = parts(file)
    assert part["schedules"] >= sim.SEEDS_A_TASK
    assert part["seeds"] == [[1, part["schedules"]]]
