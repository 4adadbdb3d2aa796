"""A transaction that only reads, against one moment of the local state."""

from sqlite3 import Connection

from service.domain.entries import Row
from service.domain.keys import upper_bound
from service.store import statements
from service.store.schema import to_unsigned


class Moment:
    """The state as one read transaction sees it; fulfils :class:`service.domain.txn.Base`.

    :param connection: in a read transaction.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def row(self, key: bytes) -> Row | None:
        """One key."""
        found = self._connection.execute(statements.ROW, (key,)).fetchone()
        return _row(found) if found else None

    def value(self, key: bytes) -> bytes:
        """The value of a key that exists."""
        found: bytes = self._connection.execute(statements.VALUE, (key,)).fetchone()[0]
        return found

    def tree(self, prefix: bytes) -> list[Row]:
        """All keys with a prefix."""
        end = upper_bound(prefix)
        bounds = (prefix,) if end is None else (prefix, end)
        return list(map(_row, self._connection.execute(statements.rows_in_range(end is not None), bounds).fetchall()))

    def session_problem(self, _session: str) -> str:
        """Nothing that only reads locks a key."""
        return ""

    def is_delayed(self, _key: bytes) -> bool:
        """Nothing that only reads locks a key."""
        return False


def _row(columns: tuple[bytes, bytes, int, int, str | None, int, int]) -> Row:
    row = Row(*columns)
    return row if row.flags >= 0 else row._replace(flags=to_unsigned(row.flags))
