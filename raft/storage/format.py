"""Whose file ``log.db`` is, and of which format: asked of its bytes before SQLite opens it, and of SQLite afterwards.

The first question comes before the first connection because opening a file with our pragmas changes it, and a file that is not
ours must stay as it is. The second is needed because the newest header may still be in the write-ahead log.
"""

from pathlib import Path
from struct import Struct

from sqlalchemy import Connection

from raft.errors import IdentityMismatch, StorageCorrupt, StorageVersion
from raft.storage.failures import RESTORE_HINT
from raft.storage.schema import APPLICATION_ID, FORMAT_VERSION

_OPERATION = "open the log"
_MAGIC = b"SQLite format 3\x00"
_JOURNAL_MAGIC = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"
_HEADER_BYTES = 100
_PAGE_BYTES = 4096
_USER_VERSION_AT, _APPLICATION_ID_AT = 60, 68
_NUMBER = Struct(">i")


def check_file(path: Path) -> None:
    """Refuse a file that is certainly not ours. An absent or empty one may become ours.

    :raises StorageCorrupt: when it is no SQLite file.
    :raises IdentityMismatch: when it belongs to another program.
    :raises StorageVersion: when a newer version wrote it.
    :raises OSError: when it can't be read.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    if not header:
        return
    if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC):
        if _is_torn_beginning(path):
            return
        raise StorageCorrupt(_OPERATION, f"{path} is not a SQLite file", RESTORE_HINT)
    application_id = _NUMBER.unpack_from(header, _APPLICATION_ID_AT)[0]
    if application_id == APPLICATION_ID:
        _check_version(path, _NUMBER.unpack_from(header, _USER_VERSION_AT)[0])
    elif application_id != 0 or not _may_be_unfinished(path):
        raise _foreign(path, application_id)


def is_fresh(connection: Connection, path: Path) -> bool:
    """Whether the tables are still to be made.

    :raises IdentityMismatch: when the file belongs to another program.
    :raises StorageVersion: when a newer version wrote it.
    """
    application_id = connection.exec_driver_sql("PRAGMA application_id").scalar_one()
    if application_id == APPLICATION_ID:
        _check_version(path, connection.exec_driver_sql("PRAGMA user_version").scalar_one())
        return False
    if application_id != 0 or connection.exec_driver_sql("SELECT count(*) FROM sqlite_schema").scalar_one():
        raise _foreign(path, application_id)
    return True


def _is_torn_beginning(path: Path) -> bool:
    """Whether a power loss in the middle of the very first write can have left this: by the journal beside it, SQLite makes the file empty again.

    Later there is never such a journal: the log is in WAL mode.
    """
    journal = path.with_name(path.name + "-journal")
    if path.stat().st_size > _PAGE_BYTES or not journal.exists():
        return False
    with journal.open("rb") as file:
        return file.read(len(_JOURNAL_MAGIC)) == _JOURNAL_MAGIC


def _may_be_unfinished(path: Path) -> bool:
    """Whether a crash while our file was being made can have left this: one empty page, or all the rest still in the write-ahead log."""
    return path.stat().st_size <= 2 * _PAGE_BYTES or path.with_name(path.name + "-wal").exists()


def _check_version(path: Path, version: int) -> None:
    if version > FORMAT_VERSION:
        raise StorageVersion(
            _OPERATION, f"{path} is of format {version}; this version reads up to {FORMAT_VERSION}", "start the version that wrote it, or a newer one"
        )
    if version < 1:
        raise StorageCorrupt(_OPERATION, f"{path} says that it is of format {version}, which never was", RESTORE_HINT)


def _foreign(path: Path, application_id: int) -> IdentityMismatch:
    return IdentityMismatch(_OPERATION, f"{path} is no Raft log: its application id is {application_id}", "give the node a directory of its own")
