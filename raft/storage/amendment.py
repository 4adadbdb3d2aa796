"""One change of a log and its records from outside, for tools that mend a cluster while its nodes stand still.

A running node writes batches and records at different times (:class:`raft.storage.sqlite.SqliteLog`). Who rewrites a node's place in the world must
not leave a half of that behind: here both are one transaction, so that a crash leaves the old or the new.
"""

from collections.abc import Mapping
from pathlib import Path

from sqlalchemy import Connection
from sqlalchemy.dialects.sqlite import insert

from raft.errors import StorageFailed
from raft.ports.storage import WriteBatch
from raft.storage import reading, schema
from raft.storage.checksums import record_checksum
from raft.storage.driver_failures import DRIVER_ERRORS, from_driver
from raft.storage.engine import open_engine
from raft.storage.format import check_file, is_fresh
from raft.storage.rows import VALUES_A_ROW, batch_values, tail_values
from raft.storage.rules import check_entries
from raft.storage.sqlite import FILE_NAME
from raft.storage.wal import check_wal
from raft.storage.witness import read_number

_OPERATION = "amend the log"


def amend(directory: Path, batch: WriteBatch, records: Mapping[str, bytes]) -> None:
    """Append entries, set the hard state and put records, all or nothing. Durable on return.

    The witness is not told: until a node has written again, a copy of the file as it was may take its place.

    :param directory: whose ``log.db`` is changed; the caller owns it (:class:`raft.storage.directory.DirectoryLock`).
    :param batch: at most 256 rows; its entries follow the last one of the log.
    :raises InvariantViolation: when the entries do not follow; nothing is changed then.
    :raises StorageError: when the log can't be read or written.
    """
    path = directory / FILE_NAME
    engine = open_engine(path)
    try:
        check_file(path)
        check_wal(path.with_name(path.name + "-wal"))
        with engine.connect() as connection:
            if is_fresh(connection, path):
                raise StorageFailed(_OPERATION, f"{path} holds no log")
            _amend(connection, batch, records, read_number(directory))
    except DRIVER_ERRORS as error:
        raise from_driver(_OPERATION, error, path, opening=True) from error
    finally:
        engine.dispose()


def _amend(connection: Connection, batch: WriteBatch, records: Mapping[str, bytes], acknowledged: int) -> None:
    boundary = reading.read_boundary(connection)
    last = connection.exec_driver_sql(schema.FIRST_AND_LAST).one()[1]
    last_index = max(last or 0, boundary.index)
    check_entries(batch.entries, last_index, last_index)
    number = reading.read_tail(connection, acknowledged, last_index) + 1
    values = batch_values(batch.hard_state, batch.entries)
    values += tail_values(number, batch.entries[-1].index if batch.entries else last_index)
    # No rollback: an open transaction ends with the connection.
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    connection.exec_driver_sql(schema.insert_rows(len(values) // VALUES_A_ROW), tuple(values))
    for name, value in records.items():
        row = {"value": value, "checksum": record_checksum(name, value)}
        connection.execute(insert(schema.records).values(name=name, **row).on_conflict_do_update(index_elements=["name"], set_=row))
    connection.exec_driver_sql("COMMIT")
