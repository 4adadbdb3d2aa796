"""From what the database driver raises to what this library raises."""

from pathlib import Path

from pysqlite3 import dbapi2
from sqlalchemy.exc import DBAPIError

from raft.errors import DirectoryLocked, StorageCorrupt, StorageError, StorageFailed
from raft.storage.failures import DISK_HINT, RESTORE_HINT, access_hint, from_os, space_hint

_ERROR, _PERM, _BUSY, _LOCKED, _READONLY, _CORRUPT, _FULL, _CANTOPEN, _NOTADB = 1, 3, 5, 6, 8, 11, 13, 14, 26
"""Primary result codes of SQLite (https://www.sqlite.org/rescode.html)."""

DRIVER_ERRORS: tuple[type[Exception], ...] = (DBAPIError, dbapi2.Error, OSError, UnicodeDecodeError)
"""What a call into the database may raise because of the disk; the last when a text that was read, of a row or of an error, is none."""


def from_driver(operation: str, error: Exception, path: Path, *, opening: bool) -> StorageError:
    """The library's error for one of :data:`DRIVER_ERRORS`.

    :param operation: what was being done.
    :param path: the database file.
    :param opening: whether the store was being opened or read, when damage and foreign locks have names of their own; later
        on every error is final and its outcome unknown.
    """
    if isinstance(error, OSError):
        return from_os(operation, error, path)
    original = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    code = getattr(original, "sqlite_errorcode", 0) & 0xFF
    name = getattr(original, "sqlite_errorname", "")
    cause = f"{path}: {original}" + (f" [{name}]" if name else "")
    if opening and (code in {_ERROR, _CORRUPT, _NOTADB} or isinstance(error, UnicodeDecodeError)):  # _ERROR: other tables or columns than ours
        return StorageCorrupt(operation, cause, RESTORE_HINT)
    if opening and code in {_BUSY, _LOCKED}:
        return DirectoryLocked(operation, cause, "another process has the file open; stop it first")
    if code == _FULL:
        return StorageFailed(operation, cause, space_hint(path))
    if code in {_PERM, _READONLY, _CANTOPEN}:
        return StorageFailed(operation, cause, access_hint(path))
    return StorageFailed(operation, cause, DISK_HINT)
