"""kill -9 of a real process that applies entries: what is found afterwards is the state at exactly the applied index."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest

from service.domain.commands import Command, KvDelete, KvDeleteTree, KvPut, ReapTombstones, encode, stamp
from service.store.machine import KvMachine

ROUNDS = 6
SEED = 20_261


def command_at(index: int) -> Command | None:
    """The entry of that index, always the same: a counter that every batch moves, and everything else that can happen."""
    chosen = random.Random(SEED * 1_000_003 + index)
    kind = chosen.randrange(20)
    key = b"key/%d/%d" % (chosen.randrange(5), chosen.randrange(40))
    if kind == 0:
        return None
    if kind <= 4:
        rare = (KvDelete(key), KvDelete(key, cas=index - 2), KvDeleteTree(b"key/1/"), ReapTombstones(index - 50))
        return chosen.choice((*rare, KvPut(key, b"cas", cas=0), KvPut(b"counter", b"cas", cas=index - 1)))
    if kind < 12:
        return KvPut(b"counter", b"%d" % index)
    return KvPut(key, chosen.randbytes(chosen.choice([1, 100, 6_000])), chosen.randrange(3))


def entries(first: int, last: int) -> list[tuple[int, int, bytes | None]]:
    """Entries of the log, both ends included."""
    made = [(index, command_at(index)) for index in range(first, last + 1)]
    return [(index, 1 + index // 300, None if command is None else stamp(encode(command), index)) for index, command in made]


def apply_for_ever(directory: Path) -> None:
    """The process that gets killed: batches of all sizes, a checkpoint now and then, and a line for each batch."""
    machine = KvMachine(directory)
    sizes = random.Random(SEED)
    for turn in count():
        first = machine.applied()[0] + 1
        machine.apply(entries(first, first + sizes.choice([0, 0, 3, 15, 63, 200])))
        if turn % 7 == 0:
            machine.checkpoint()
        sys.stdout.write(f"{machine.applied()[0]}\n")
        sys.stdout.flush()


@pytest.mark.processes
def test_kill_amid_applying(tmp_path: Path) -> None:
    """After each kill the machine opens by itself at or behind the last index that was reported, and its digest is that of a machine never killed."""
    directory = tmp_path / "killed"
    directory.mkdir()
    never_killed = tmp_path / "whole"
    never_killed.mkdir()
    whole = KvMachine(never_killed)
    pauses = random.Random(SEED)
    for _ in range(ROUNDS):
        with subprocess.Popen(
            [sys.executable, __file__, str(directory)], stdout=subprocess.PIPE, cwd=Path.cwd(), env={**os.environ, "PYTHONPATH": str(Path.cwd())}
        ) as child:
            lines = [int(child.stdout.readline()) for _ in range(pauses.randrange(3, 25))]
            child.send_signal(signal.SIGKILL)
            lines += [int(line) for line in child.stdout.read().split(b"\n")[:-1] if line]
        machine = KvMachine(directory)
        applied, term = machine.applied()
        assert applied >= lines[-1]
        assert term == 1 + applied // 300
        whole.apply(entries(whole.applied()[0] + 1, applied))
        assert machine.digest() == whole.digest()
        machine.close()
    whole.close()


if __name__ == "__main__":
    apply_for_ever(Path(sys.argv[1]))
