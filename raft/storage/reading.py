"""Reading ``log.db`` back, trusting nothing: every row is held against its checksum before anybody sees it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from struct import error as StructError  # noqa: N812 - the module names its exception in lower case

from sqlalchemy import Connection, select

from raft.core.membership import decode_configuration
from raft.core.model import Boundary, Entry, EntryKind, HardState
from raft.errors import MalformedMessage, StorageCorrupt
from raft.storage import schema
from raft.storage.checksums import boundary_checksum, record_checksum, row_checksum
from raft.storage.failures import RESTORE_HINT
from raft.storage.rows import decode_hard_state, decode_tail

_KINDS = {int(kind): kind for kind in EntryKind}


def check_structure(connection: Connection) -> None:
    """Have SQLite walk its own structure: a lost page loses rows, which no checksum of a row can tell.

    :raises StorageCorrupt: with SQLite's first finding.
    """
    finding = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
    if finding != "ok":
        raise _corrupt("verify the log", f"SQLite finds: {finding}")


def read_boundary(connection: Connection) -> Boundary:
    """Where the log begins.

    :raises StorageCorrupt: when the row is damaged or missing.
    """
    with _damage(lambda: "the boundary"):
        row = connection.execute(select(schema.boundary).where(schema.boundary.c.id == 1)).one_or_none()
        if row is None:
            raise _corrupt("read the boundary", "its row is missing")
        if boundary_checksum(row.log_index, row.term, row.configuration) != row.checksum:
            raise _corrupt("read the boundary", "its checksum is wrong")
        return Boundary(row.log_index, row.term, decode_configuration(row.configuration))


def read_hard_state(connection: Connection) -> HardState:
    """Term, vote and commit.

    :raises StorageCorrupt: when the row is damaged or missing.
    """
    with _damage(lambda: "the hard state"):
        row = connection.execute(select(schema.entries).where(schema.entries.c.log_index == schema.HARD_STATE_ROW)).one_or_none()
        if row is None:
            raise _corrupt("read the hard state", "its row is missing")
        if row_checksum(schema.HARD_STATE_ROW, row.term, row.kind, row.data) != row.checksum:
            raise _corrupt("read the hard state", "its checksum is wrong")
        return decode_hard_state(row.term, row.data)


def read_tail(connection: Connection, acknowledged: int, last_index: int) -> int:
    """The number of the last write.

    :param acknowledged: what the witness knows to have been acknowledged.
    :param last_index: where the rows end.
    :raises StorageCorrupt: when the row is damaged, or the log ends before what it or the witness tells.
    """
    with _damage(lambda: "the tail"):
        row = connection.execute(select(schema.entries).where(schema.entries.c.log_index == schema.TAIL_ROW)).one_or_none()
        if row is None:
            number, due = 0, last_index
        elif row_checksum(schema.TAIL_ROW, row.term, row.kind, row.data) != row.checksum:
            raise _corrupt("read the tail", "its checksum is wrong")
        else:
            number, due = decode_tail(row.term, row.data)
    if due != last_index:
        raise _corrupt("read the tail", f"the log ends with entry {last_index} where its last write ended with {due}")
    if number < acknowledged:
        raise _corrupt("read the tail", f"write {acknowledged} was acknowledged; the log ends with write {number}: it is damaged, or an older copy")
    return number


def read_records(connection: Connection) -> dict[str, bytes]:
    """Every named record.

    :raises StorageCorrupt: when one is damaged.
    """
    with _damage(lambda: "the named records"):
        found = {}
        for name, value, checksum in connection.execute(select(schema.records)):
            if record_checksum(name, value) != checksum:
                raise _corrupt(f"read the record {name!r}", "its checksum is wrong")
            found[name] = value
        return found


def read_entries(connection: Connection, boundary: Boundary) -> tuple[Entry, ...]:
    """The entries after the boundary.

    :raises StorageCorrupt: naming the index of the first that is damaged or missing.
    """
    rows = connection.exec_driver_sql(
        "SELECT log_index, term, kind, data, checksum FROM entries WHERE log_index > ? ORDER BY log_index", (boundary.index,)
    )
    found = []
    due = boundary.index
    with _damage(lambda: f"entry {due}"):
        for due, (index, term, kind, data, checksum) in enumerate(rows, boundary.index + 1):
            if index != due:
                raise _corrupt("read the log", f"entry {due} is missing; entry {index} comes next")
            if row_checksum(index, term, kind, data) != checksum:
                raise _corrupt("read the log", f"the checksum of entry {due} is wrong")
            found.append(Entry(index, term, _KINDS[kind], data))
    return tuple(found)


@contextmanager
def _damage(what: Callable[[], str]) -> Iterator[None]:
    """Values of the wrong type, or text that is none, are damage too."""
    try:
        yield
    except (KeyError, TypeError, ValueError, StructError, MalformedMessage) as error:
        raise _corrupt(f"read {what()}", f"it makes no sense: {error!r}") from error


def _corrupt(operation: str, cause: str) -> StorageCorrupt:
    return StorageCorrupt(operation, cause, RESTORE_HINT)
