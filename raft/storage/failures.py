"""From what the operating system raises to what this library raises, and the hints that go with it."""

import errno
import os
from pathlib import Path

from raft.errors import StorageFailed, StorageFull

RESTORE_HINT = "the node must not run on these data: set the directory aside and let the node join again with an empty one, or restore a backup"
DISK_HINT = "look for messages of the disk in the system's log"


class SyncFailed(OSError):
    """A sync that failed, whatever its reason: never a matter of waiting, not even for space."""


def sync(descriptor: int) -> None:
    """Make a file's bytes, or a directory's names, survive a power loss.

    :raises SyncFailed: when that fails; nobody knows what the disk holds then.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        raise SyncFailed(error.errno, f"the sync failed: {error.strerror}") from error


def from_os(operation: str, error: OSError, path: Path) -> StorageFailed:
    """The library's error for one of the operating system; ``path`` is the file concerned."""
    cause = f"{error.filename or path}: {error.strerror or error}"
    if isinstance(error, SyncFailed):
        return StorageFailed(operation, cause, DISK_HINT)
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StorageFull(operation, cause, space_hint(path))
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR}:
        return StorageFailed(operation, cause, access_hint(path))
    return StorageFailed(operation, cause, DISK_HINT)


def space_hint(path: Path) -> str:
    """What to do when the disk that holds the file is full."""
    return f"free space, or raise the quota, of the file system that holds {path.parent}"


def access_hint(path: Path) -> str:
    """What to do when the file can't be made or written."""
    return f"check that {path.parent} exists and that this user may write to it"
