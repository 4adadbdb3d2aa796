"""One owner a directory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from raft.errors import DirectoryLocked, StorageFailed
from raft.storage.directory import DirectoryLock
from raft.testing.conformance import raised

HOLDER = """
import sys
from pathlib import Path
from raft.storage.directory import DirectoryLock
lock = DirectoryLock(Path(sys.argv[1]))
print("locked", flush=True)
sys.stdin.read()
"""


def test_the_directory_is_made_with_its_parents(tmp_path: Path) -> None:
    """An absent directory is made, readable by its owner alone."""
    with DirectoryLock(tmp_path / "one" / "two"):
        assert (tmp_path / "one" / "two").stat().st_mode & 0o777 == 0o700


def test_a_second_lock_is_refused_until_release(tmp_path: Path) -> None:
    """Even in the same process; releasing twice does no harm."""
    lock = DirectoryLock(tmp_path)
    error = raised(DirectoryLocked, lambda: DirectoryLock(tmp_path))
    assert str(tmp_path) in str(error)
    assert f"process {os.getpid()}" in str(error)
    lock.release()
    lock.release()
    DirectoryLock(tmp_path).release()


@pytest.mark.processes
def test_a_lock_of_another_process(tmp_path: Path) -> None:
    """The error names the directory and the holder; a holder killed by signal 9 leaves no lock."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        error = raised(DirectoryLocked, lambda: DirectoryLock(tmp_path))
        assert str(tmp_path) in str(error)
        assert f"process {holder.pid} on " in str(error)
        assert error.hint
        holder.kill()
    DirectoryLock(tmp_path).release()


def test_a_file_in_the_directory_s_place(tmp_path: Path) -> None:
    """The error names the path."""
    (tmp_path / "file").touch()
    error = raised(StorageFailed, lambda: DirectoryLock(tmp_path / "file"))
    assert str(tmp_path / "file") in str(error)
