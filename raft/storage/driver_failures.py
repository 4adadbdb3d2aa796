"""From what the database driver raises to what this library raises."""

import os
from pathlib import Path

from pysqlite3 import dbapi2
from sqlalchemy.exc import DBAPIError

from raft.errors import DirectoryLocked, StorageCorrupt, StorageError, StorageFailed, StorageFull
from raft.storage.failures import DISK_HINT, RESTORE_HINT, access_hint, from_os, space_hint

_ERROR, _PERM, _BUSY, _LOCKED, _READONLY, _CORRUPT, _FULL, _CANTOPEN, _NOTADB = 1, 3, 5, 6, 8, 11, 13, 14, 26
"""Primary result codes of SQLite (https://www.sqlite.org/rescode.html). FULL is a write without space; a failed sync is always an IOERR."""
_CODES = {"database or disk is full": _FULL, "database disk image is malformed": _CORRUPT, "file is not a database": _NOTADB}
"""Codes by SQLite's own texts: what an online copy raises comes without a code."""
_SHARED_MEMORY_SIZE = 4874
"""The extended code of a -shm file that can't grow. SQLite does not tell why."""
_ROOM_BYTES = 1024 * 1024
"""Less free space than this is why."""

DRIVER_ERRORS: tuple[type[Exception], ...] = (DBAPIError, dbapi2.Error, OSError, UnicodeDecodeError)
"""What a call into the database may raise because of the disk; the last when a text that was read, of a row or of an error, is none."""


def from_driver(operation: str, error: Exception, path: Path, *, opening: bool) -> StorageError:
    """The library's error for one of :data:`DRIVER_ERRORS`.

    :param operation: what was being done.
    :param path: the database file.
    :param opening: whether the store was being opened or read, when other tables than ours are damage and foreign locks have a name of their own.
        Every error is final and, once the store is open, its outcome unknown.
    """
    if isinstance(error, OSError):
        return from_os(operation, error, path)
    original = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    extended_code = getattr(original, "sqlite_errorcode", None) or _CODES.get(str(original), 0)
    code = extended_code & 0xFF
    name = getattr(original, "sqlite_errorname", "")
    cause = f"{path}: {original}" + (f" [{name}]" if name else "")
    if code in {_CORRUPT, _NOTADB} or (opening and (code == _ERROR or isinstance(error, UnicodeDecodeError))):
        return StorageCorrupt(operation, cause, RESTORE_HINT)
    if opening and code in {_BUSY, _LOCKED}:
        return DirectoryLocked(operation, cause, "another process has the file open; stop it first")
    if code == _FULL or (extended_code == _SHARED_MEMORY_SIZE and _is_full(path.parent)):
        return StorageFull(operation, cause, space_hint(path))
    if code in {_PERM, _READONLY, _CANTOPEN}:
        return StorageFailed(operation, cause, access_hint(path))
    return StorageFailed(operation, cause, DISK_HINT)


def _is_full(directory: Path) -> bool:
    """Whether there is next to no space."""
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize < _ROOM_BYTES
