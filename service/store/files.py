"""Which file holds the state: generations.

``CURRENT`` in the data directory names ``state-<generation>.db``. A restored snapshot becomes the next generation under a name that was never used,
then CURRENT moves: a name that lives is never renamed over, because a write-ahead log beside it would be read as belonging to the new file.
"""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.errors import StateDamaged, StateUnreadable

CURRENT = "CURRENT"
_STATE_FILE = re.compile(r"state-([1-9][0-9]{0,17})\.db")
_LEFTOVER = re.compile(r"(state-[0-9]+\.db(\.new)?|capture-[0-9a-z_]+\.tmp)(-wal|-shm|-journal|-sums(\.new)?)?|CURRENT\.new")
_COMPANIONS = ("", "-wal", "-shm", "-journal", "-sums")


@contextmanager
def explained(problem: str) -> Iterator[None]:
    """Say what could not be done when the disk refuses.

    :raises StateUnreadable: in place of the system's error: ``problem``, then the system's reason.
    """
    try:
        yield
    except OSError as error:
        raise StateUnreadable(f"{problem}: {error.strerror}") from error


def state_path(data_dir: Path, generation: int) -> Path:
    """Where the state of a generation lies."""
    return data_dir / f"state-{generation}.db"


def sums_path(state: Path) -> Path:
    """Where the checksums of a state file's pages lie."""
    return state.with_name(state.name + "-sums")


def read_current(data_dir: Path) -> int | None:
    """The generation that CURRENT names, or None when there is no CURRENT.

    :raises StateUnreadable: when CURRENT holds anything but the name of a state file, or can't be read.
    """
    try:
        text = (data_dir / CURRENT).read_bytes()[:64].decode("ascii", "replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateUnreadable(f"{data_dir / CURRENT} can't be read: {error.strerror}") from error
    match = _STATE_FILE.fullmatch(text)
    if match is None:
        raise StateDamaged(f"{data_dir / CURRENT} holds {text!r}, not the name of a state file such as state-1.db")
    return int(match[1])


def write_current(data_dir: Path, generation: int) -> None:
    """Make a generation the current one: after a crash CURRENT names the old or the new one. Durable on return."""
    new = data_dir / f"{CURRENT}.new"
    new.write_text(state_path(data_dir, generation).name + "\n", encoding="ascii")
    sync(new)
    new.replace(data_dir / CURRENT)
    sync(data_dir)


def publish(new: Path, path: Path) -> None:
    """Give a finished file its name, durably. What an interrupted attempt left under that name goes first."""
    sync(new)
    remove(path)
    new.rename(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Make a file's bytes, or a directory's names, survive a power loss.

    :raises OSError: EIO whatever the reason was, also for want of space: nobody knows what the disk holds then, so it is nothing to be waited out as
        a full disk is (decision 12).
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        raise OSError(errno.EIO, f"the sync failed: {error.strerror}", str(path)) from error
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a database file and what SQLite keeps beside it; the file first, so that nobody opens it without its log."""
    for suffix in _COMPANIONS:
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def remove_leftovers(data_dir: Path, generation: int) -> None:
    """Remove what interrupted work left behind: other generations and temporary files. For the writer, at its start, alone."""
    keep = {state_path(data_dir, generation).name + suffix for suffix in _COMPANIONS}
    for path in sorted(data_dir.iterdir()):
        if _LEFTOVER.fullmatch(path.name) and path.name not in keep:
            path.unlink(missing_ok=True)


def generations(data_dir: Path) -> list[int]:
    """Generations whose files lie in the directory, whether current or not, in order."""
    return sorted(int(match[1]) for path in data_dir.iterdir() if (match := _STATE_FILE.fullmatch(path.name)))
