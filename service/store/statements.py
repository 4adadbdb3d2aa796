"""The text of every hot statement, compiled once from the tables of :mod:`service.store.schema`.

They run on the driver's connection: SQLAlchemy's own execution costs several times what SQLite needs for a row.
"""

from functools import cache

from sqlalchemy import ClauseElement, ColumnElement, Table, bindparam, literal_column, null, or_, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.sqlite import insert

from service.store.schema import (
    acl_records,
    autopilot,
    events,
    kv,
    lock_delays,
    meta,
    requests,
    restoring,
    restoring_kv,
    restoring_records,
    servers,
    sessions,
    table_indexes,
    tombstones,
)

_dialect = sqlite.dialect(paramstyle="qmark")


def _text(statement: ClauseElement) -> str:
    return " ".join(str(statement.compile(dialect=_dialect)).split())


def _upsert_one() -> str:
    columns: dict[str, ColumnElement[object]] = {column.name: bindparam(column.name) for column in kv.columns}
    statement = insert(kv).values(columns | {"lock_index": literal_column("0"), "session": null()})
    new = statement.excluded
    return _text(
        statement.on_conflict_do_update(
            index_elements=[kv.c.key],
            set_={"flags": new.flags, "lock_index": new.lock_index, "modify_index": new.modify_index, "value": new.value},
            where=or_(kv.c.value != new.value, kv.c.flags != new.flags, kv.c.lock_index != new.lock_index),
        )
    )


_UPSERT = _upsert_one()
_UPSERT_ROW = "(?, ?, 0, NULL, ?, ?, ?)"


@cache
def upsert(rows: int) -> str:
    """Set ``rows`` keys, one after another. The parameters of a row: key, flags, CreateIndex, ModifyIndex, value.

    A row that would change nothing is passed over and not counted. Session and CreateIndex stay.
    """
    return _UPSERT.replace(_UPSERT_ROW, ", ".join([_UPSERT_ROW] * rows), 1)


@cache
def modify_indexes(keys: int) -> str:
    """One row, one string: ``position:ModifyIndex`` of each key that exists, joined by commas; NULL when none does.

    A row for each key would hand the interpreter lock over for each key.
    """
    wanted = ", ".join(f"({position}, ?)" for position in range(keys))
    return (
        f"WITH wanted (position, key) AS (VALUES {wanted}) "  # noqa: S608  # numbers of ours and placeholders
        "SELECT group_concat(position || ':' || modify_index) FROM wanted CROSS JOIN kv ON kv.key = wanted.key"
    )


@cache
def compared_rows(keys: int) -> str:
    """One row, one text: each key that exists, joined by commas, as ``position:flags:LockIndex:session:CreateIndex:ModifyIndex:same``.

    The parameters are pairs of a key and a value (or NULL); ``same`` tells whether the key has that value. A session holds neither ``:`` nor ``,``.
    """
    wanted = ", ".join(f"({position}, ?, ?)" for position in range(keys))
    fields = ("position", "flags", "lock_index", "coalesce(session, '')", "create_index", "modify_index", "(kv.value IS wanted.value)")
    row = " || ':' || ".join(fields)
    return (
        f"WITH wanted (position, key, value) AS (VALUES {wanted}) "  # noqa: S608  # numbers of ours and placeholders
        f"SELECT group_concat({row}) FROM wanted CROSS JOIN kv ON kv.key = wanted.key"
    )


@cache
def rows_without_values(keys: int) -> str:
    """One row, one text: each key that exists, as a JSON array of its position, flags, LockIndex, session, CreateIndex and ModifyIndex, in an array.

    A session needs no escapes.
    """
    wanted = ", ".join(f"({position}, ?)" for position in range(keys))
    fields = ("position", "flags", "lock_index", "coalesce('\"' || session || '\"', 'null')", "create_index", "modify_index")
    row = " || ',' || ".join(fields)
    return (
        f"WITH wanted (position, key) AS (VALUES {wanted}) "  # noqa: S608  # numbers of ours and placeholders
        f"SELECT '[' || group_concat('[' || {row} || ']') || ']' FROM wanted CROSS JOIN kv ON kv.key = wanted.key"
    )


@cache
def kept_columns(keys: int) -> str:
    """Like :func:`rows_without_values`, of what an upsert leaves as it is: position, CreateIndex and session. It takes half as long."""
    wanted = ", ".join(f"({position}, ?)" for position in range(keys))
    row = "position || ',' || create_index || coalesce(',\"' || session || '\"', ',null')"
    return (
        f"WITH wanted (position, key) AS (VALUES {wanted}) "  # noqa: S608  # numbers of ours and placeholders
        f"SELECT '[[' || group_concat({row}, '],[') || ']]' FROM wanted CROSS JOIN kv ON kv.key = wanted.key"
    )


POINT_READ = _text(
    select(
        meta.c.applied_index,
        meta.c.kv_index,
        meta.c.superseded_by,
        kv.c.key,
        kv.c.value,
        kv.c.flags,
        kv.c.lock_index,
        kv.c.session,
        kv.c.create_index,
        kv.c.modify_index,
    )
    .select_from(meta.outerjoin(kv, kv.c.key == bindparam("key")))
    .where(meta.c.id == literal_column("1"))
)
"""A row in any case: where the state stands, and the key's columns or NULLs. One statement, so one moment."""

META = "SELECT applied_index, applied_term, kv_index, superseded_by FROM meta WHERE id = 1"
SET_APPLIED_INDEX = "UPDATE meta SET applied_index = ? WHERE id = 1"
SET_META = "UPDATE meta SET applied_index = ?, applied_term = ?, kv_index = max(kv_index, ?) WHERE id = 1"
SUPERSEDE = "UPDATE meta SET superseded_by = ? WHERE id = 1"


def _digest_step(table: Table, condition: str) -> str:
    """How many rows, the last key, and the rows as one text in the order of the keys; numbers and text quoted as SQLite does it."""
    key = "key" if "key" in table.columns else table.primary_key.columns[0].name
    row = " || ',' || ".join(f"quote({column.name})" for column in table.columns)
    rows = f"SELECT * FROM {table.name} {condition.format(key=key)} ORDER BY {key} LIMIT ?"  # noqa: S608  # text of ours
    return f"SELECT count(*), max({key}), CAST(group_concat({row}, x'0a' ORDER BY {key}) AS BLOB) FROM ({rows})"  # noqa: S608  # text of ours


_REPLICATED = (
    kv,
    tombstones,
    events,
    servers,
    autopilot,
    table_indexes,
    sessions,
    lock_delays,
    restoring,
    restoring_kv,
    restoring_records,
    requests,
    acl_records,
)
DIGESTED = tuple((_digest_step(table, ""), _digest_step(table, "WHERE {key} > ?")) for table in _REPLICATED)
"""Everything that was replicated, in an order that does not depend on how it came about: for each table the first step, and one that goes on."""

DELETE = "DELETE FROM kv WHERE key = ?"
BURY = (
    "INSERT INTO tombstones (key, modify_index, deleted_at_ms) VALUES (?, ?, ?)"
    " ON CONFLICT (key) DO UPDATE SET modify_index = excluded.modify_index, deleted_at_ms = excluded.deleted_at_ms"
)
REAP = "DELETE FROM tombstones WHERE modify_index <= ?"


def delete_range(bounded: bool) -> str:
    """Delete from a key on, up to and without another when ``bounded``."""
    return f"DELETE FROM kv WHERE {_range(bounded)}"  # noqa: S608  # text of ours


def bury_range(bounded: bool) -> str:
    """A tombstone for each key that :func:`delete_range` would delete. Parameters: index, ms, then the range."""
    return (
        f"INSERT INTO tombstones (key, modify_index, deleted_at_ms) SELECT key, ?, ? FROM kv WHERE {_range(bounded)}"  # noqa: S608  # text of ours
        " ON CONFLICT (key) DO UPDATE SET modify_index = excluded.modify_index, deleted_at_ms = excluded.deleted_at_ms"
    )


_ROW_COLUMNS = "key, value, flags, lock_index, session, create_index, modify_index"
ROW = f"SELECT {_ROW_COLUMNS} FROM kv WHERE key = ?"  # noqa: S608  # text of ours
"""One key, in the order of :class:`service.domain.entries.Row`."""
VALUE = "SELECT value FROM kv WHERE key = ?"
PUT_LOCK = (
    "INSERT INTO kv (key, flags, lock_index, session, create_index, modify_index, value) VALUES (?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (key) DO UPDATE SET flags = excluded.flags, lock_index = excluded.lock_index, session = excluded.session,"
    " modify_index = excluded.modify_index, value = excluded.value"
)
"""Every column of a key, in the order of :class:`service.domain.entries.Row` but for the value, which comes last. CreateIndex stays."""


def bytes_in_range(bounded: bool) -> str:
    """How long the keys and values of a range are together; values are not read for that."""
    return f"SELECT coalesce(sum(length(key) + length(value)), 0) FROM kv WHERE {_range(bounded)}"  # noqa: S608  # text of ours


def rows_in_range(bounded: bool) -> str:
    """Whole rows, in byte order, in the order of :class:`service.domain.entries.Row`."""
    return f"SELECT {_ROW_COLUMNS} FROM kv WHERE {_range(bounded)} ORDER BY key"  # noqa: S608 - the names are ours


def keys_in_range(bounded: bool) -> str:
    """The next keys in byte order; the last parameter is how many at most."""
    return f"SELECT key FROM kv WHERE {_range(bounded)} ORDER BY key LIMIT ?"  # noqa: S608  # text of ours


def newest_in_range(bounded: bool) -> str:
    """The highest ModifyIndex of a key in the range, or NULL."""
    return f"SELECT max(modify_index) FROM kv WHERE {_range(bounded)}"  # noqa: S608  # text of ours


def newest_tombstone_in_range(bounded: bool) -> str:
    """The highest index of a deletion in the range, or NULL."""
    return f"SELECT max(modify_index) FROM tombstones WHERE {_range(bounded)}"  # noqa: S608  # text of ours


def _range(bounded: bool) -> str:
    return "key >= ? AND key < ?" if bounded else "key >= ?"
