"""State files of earlier formats, brought to the present one before the writer opens them."""

from contextlib import closing
from pathlib import Path
from sqlite3 import Connection
from struct import Struct

from service.errors import StateDamaged, StateUnreadable
from service.store import engine, files, statements, sums
from service.store.schema import APPLICATION_ID, FORMAT_VERSION, UNSUMMED_VERSION

_VERSIONS_AT = 60
_VERSIONS = Struct(">i4xi")  # user version, and the application id behind a number of SQLite's
_FINDINGS_MAX = 3


def upgrade(path: Path) -> None:
    """Give a file of format 1 the sums that it lacks, once SQLite finds nothing wrong with it. Any other file is left alone.

    Its number is moved by whoever opens it then, with the sums in force: a crash before that leaves a file that is verified again.

    :raises StateDamaged: when it is damaged; nothing was changed.
    :raises StateUnreadable: when the disk refuses, or somebody reads the file.
    """
    if not _may_lack_sums(path):
        return
    try:
        if files.sums_path(path).exists():
            with closing(engine.open_reader(path)) as reader:
                if _version_of(reader) != UNSUMMED_VERSION:
                    return  # the new number is still in the write-ahead log
        with closing(engine.open_writer(path)) as connection:
            problems = [row[0] for row in connection.execute(f"PRAGMA integrity_check({_FINDINGS_MAX})")]
            if problems != ["ok"]:
                raise StateDamaged(f"{path} is damaged: {'; '.join(problems)}")
            found = connection.execute(statements.META).fetchone()
            busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    except engine.DATABASE_ERRORS as error:
        raise engine.failure(f"{path} can't be brought to format {FORMAT_VERSION}", error) from error
    if busy or found is None:
        reason = "somebody reads it" if busy else "it was never completed"
        raise StateUnreadable(f"{path} can't be brought to format {FORMAT_VERSION}: {reason}")
    sums.seal(path, found[0])


def finish(connection: Connection) -> None:
    """Write the present format's number into a file that has all the format asks for."""
    if _version_of(connection) != FORMAT_VERSION:
        connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")


def _version_of(connection: Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def _may_lack_sums(path: Path) -> bool:
    """Asked of the file's bytes: to open it changes it."""
    with files.explained(f"{path} can't be read"):
        if not path.exists():
            return False
        with path.open("rb") as file:
            file.seek(_VERSIONS_AT)
            header = file.read(_VERSIONS.size)
    return len(header) == _VERSIONS.size and _VERSIONS.unpack(header) == (UNSUMMED_VERSION, APPLICATION_ID)
