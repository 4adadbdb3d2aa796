"""The commands of README.md do what it says, typed as they stand there."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "processes"))

from cluster import Cluster

TOP = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.processes,
    pytest.mark.timeout(120),
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed: the commands of README.md can't be typed"),
]

MARK = "-- done --"
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Three nodes in place of those of `make run`."""
    made = Cluster(tmp_path)
    try:
        made.start_all()
        yield made
    finally:
        made.stop_all()


def test_the_first_commands(cluster: Cluster, tmp_path: Path) -> None:
    """Each command of the second block succeeds and prints what the comment behind it says; the imported files can be read."""
    text = (TOP / "README.md").read_text(encoding="utf-8")
    block = next(found for found in BLOCK.findall(text) if "curl" in found)
    for number, node in enumerate(cluster.nodes):
        block = block.replace(f"127.0.0.1:{8501 + number}", node.url.removeprefix("http://"))
    block = block.replace(".venv/bin/kvorum", f"{sys.executable} -P -m service.cli")
    folder = tmp_path / "here" / "my-configuration" / "db"
    folder.mkdir(parents=True)
    (folder / "host").write_bytes(b"\xff\x00 binary")
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("KVORUM_", "CONSUL_"))}
    lines = [line.partition("  #") for line in block.splitlines()]
    script = "set -e\n" + "\n".join(f"{command}\necho {MARK}" for command, _, _ in lines)
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path / "here", env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    answers = [(answer.strip(), expected.strip()) for answer, (_, _, expected) in zip(done.stdout.split(MARK), lines, strict=False)]
    curls = [answers[number] for number, (command, _, _) in enumerate(lines) if command.startswith("curl")]
    assert len(curls) >= 2
    assert [answer for answer, _ in curls] == [expected for _, expected in curls]
    assert cluster.nodes[2].get("app/db/host").content == b"\xff\x00 binary"
