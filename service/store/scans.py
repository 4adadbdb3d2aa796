"""Keys and values page by page, in byte order."""

from collections.abc import Sequence
from sqlite3 import Connection
from typing import NamedTuple

from service.domain.acl.authorizer import Range
from service.domain.entries import Row
from service.store import statements
from service.store.schema import to_unsigned

PAGE_BYTES = 4 * 1024 * 1024
"""Keys and values of a page. The row that passes it is the last: every page has one at least."""


class Page(NamedTuple):
    """A part of the keys, as they are at one moment.

    :param next: where the following page starts; None when nothing follows now.
    :param index: the highest index at which any key was changed; at least 1.
    """

    rows: list[Row]
    next: bytes | None
    index: int  # type: ignore[assignment]  # the field's word; tuple.index is of no use here


def read(connection: Connection, ranges: Sequence[Range], start: bytes, limit: int) -> Page:
    """The first rows of some ranges at or behind a key.

    What lies between the ranges is never looked at, however much it is, and shows nowhere, not in ``next`` either.

    :param connection: in a read transaction.
    :param ranges: in byte order.
    :param limit: how many rows at most; 0 asks for nothing and gets nothing.
    """
    kv_index = connection.execute(statements.META).fetchone()[2] or 1
    rows: list[Row] = []
    size = 0
    for first, end in ranges if limit else ():
        bounds = (max(first, start),) if end is None else (max(first, start), end)
        cursor = connection.execute(statements.rows_in_range(end is not None) + " LIMIT ?", (*bounds, limit + 1 - len(rows)))
        for key, value, flags, *rest in cursor:
            if len(rows) == limit or size >= PAGE_BYTES:
                cursor.close()
                return Page(rows, key, kv_index)
            rows.append(Row(key, value, to_unsigned(flags), *rest))
            size += len(key) + len(value)
    return Page(rows, None, kv_index)
