"""A small file system of its own for a node's data, and a ballast that takes all that is free on it."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PIECE = 64 * 1024


@contextmanager
def small_disk(place: Path, mebibytes: int) -> Iterator[Path]:
    """Mount a file system in memory; skips the test where that is not permitted."""
    place.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(place)], capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"a small file system can't be mounted here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(place: Path) -> Path:
    """Take every free byte.

    :returns: the ballast, to be deleted.
    """
    ballast = place / "ballast"
    with ballast.open("ab", buffering=0) as file:
        for size in (PIECE, os.statvfs(place).f_frsize):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue
    return ballast


def leave(place: Path, mebibytes: int) -> Path:
    """Take what is free, but for so much.

    :returns: the ballast, to be deleted.
    """
    ballast = place / "ballast"
    found = os.statvfs(place)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, found.f_bavail * found.f_frsize - mebibytes * 1024 * 1024)
    return ballast
