"""The scripts of this folder give the answers that stand in them; and the tool that runs them says clearly what is wrong with one."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from raft.testing.script_cluster import NAMES
from raft.testing.scripts import ScriptFailed, difference, main, run

FILES = sorted(Path(__file__).parent.glob("*.txt"))
SHORT = "Two servers.\n\n> cluster a b\n> elect a\n> logs\n"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_script_gives_its_answers(file: Path) -> None:
    """Each command leads to exactly the messages, roles and logs that stand behind it; ``python -m raft.testing.scripts --update`` rewrites them."""
    different = difference(file.read_text(encoding="utf-8"), file.name)
    assert not different, f"\n{different}\n\nif that is right: python -m raft.testing.scripts --update {file.name}"


def test_the_scripts_use_the_whole_language() -> None:
    """Every command occurs in a script, so none can rot; and there are scripts."""
    used = set(re.findall(r"^> (?:quietly )?([a-z-]+)", "\n".join(file.read_text(encoding="utf-8") for file in FILES), re.MULTILINE))
    assert used == set(NAMES)
    assert len(FILES) >= 12


def test_running_twice_changes_nothing() -> None:
    """The answers of a run are those of the next: nothing depends on time or chance, and prose and empty lines stay where they are."""
    once = run(SHORT)
    assert run(once) == once
    assert once.startswith("Two servers.\n\n> cluster a b\n> elect a\n  a: pre-candidate of term 0 (nothing heard of a leader)\n")
    assert once.endswith("> logs\n  a: 1 |\n  b: | 1\n")


@pytest.mark.parametrize(
    ("commands", "text"),
    [
        ("elekt a", "script:1: elekt a: no such command; there are disk, cluster,"),
        ("elect a", "script:1: elect a: there is no cluster yet; begin with: cluster a b c"),
        ("cluster a b\n> propose", "script:2: propose: missing a required argument: 'node'; it goes like this: ``propose NODE COMMAND"),
        ("cluster a b\n> status z", "script:2: status z: there is no server z"),
        ("cluster a b\n> tick a soon", "script:2: tick a soon: soon is no number"),
        ("cluster a b colour=blue", "script:1: cluster a b colour=blue: no such option: colour; there are learners, tick_ms,"),
        ("cluster a b heartbeat_ms=1000", "script:1: .*election_timeout_ms 100 must be at least three times heartbeat_ms 1000"),
        ("cluster a b\n> hide Gossip", "script:2: hide Gossip: no such message: Gossip"),
        ("cluster a b\n> elect a\n> change a marry b", "script:3: change a marry b: no such step: marry b"),
        ("cluster a b\n> by-hand\n> deliver", "script:3: deliver: there are 1 messages too few under way"),
        ("cluster a b\n> crash a\n> propose a x", "script:3: propose a x: a is down"),
        ("", "script:1: : no such command"),
    ],
)
def test_a_command_that_is_none_is_named(commands: str, text: str) -> None:
    """A script that can't be carried out fails with its file, its line and what would be right."""
    with pytest.raises(ScriptFailed, match=text):
        run(f"> {commands}\n")


def test_a_difference_is_shown_and_written_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the flag the tool shows the difference, fails and touches nothing; with it, it writes the answers that are right now."""
    file = tmp_path / "short.txt"
    wrong = run(SHORT).replace("  b: | 1\n", "  b: 1 |\n")
    file.write_text(wrong, encoding="utf-8")
    assert main([str(file)]) == 1
    shown = capsys.readouterr().out
    assert "-  b: 1 |\n+  b: | 1\n" in shown
    assert file.read_text(encoding="utf-8") == wrong
    assert main(["--update", str(file)]) == 0
    assert file.read_text(encoding="utf-8") == run(SHORT)
    capsys.readouterr()
    assert main([str(file)]) == 0
    assert capsys.readouterr().out == ""


def test_a_broken_script_is_never_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A script with an error stays as it is, even with the flag; so does one that is not there, and neither ends in a traceback."""
    file = tmp_path / "broken.txt"
    file.write_text("> cluster a b\n  an answer\n> elekt a\n", encoding="utf-8")
    assert main(["--update", str(file), str(tmp_path / "absent.txt")]) == 1
    shown = capsys.readouterr().out
    assert "broken.txt:3: elekt a: no such command" in shown
    assert "absent.txt" in shown
    assert file.read_text(encoding="utf-8") == "> cluster a b\n  an answer\n> elekt a\n"


def test_it_runs_from_the_command_line() -> None:
    """``--help`` lists every command of the language."""
    done = subprocess.run([sys.executable, "-m", "raft.testing.scripts", "--help"], capture_output=True, text=True, timeout=60, check=True)
    assert [name for name in NAMES if f"  {name}" not in done.stdout] == []
