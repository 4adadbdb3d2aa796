"""A fingerprint of everything that was replicated, taken of one moment while the writer goes on.

The rows are put into text by SQLite itself, some dozens a statement, and hashed in one piece: both happen outside of Python's interpreter
lock, so a digest of a million keys costs a processor some seconds and holds up nobody. (Row by row in Python it would ask for the lock
a million times, beside a loop that has heartbeats to send.)
"""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from sqlite3 import Connection
from typing import NamedTuple

from service.store import engine, statements

ROWS_A_STEP = 64
"""Rows of one statement. Part of the digest: two nodes agree only when they cut alike."""


class Digest(NamedTuple):
    """A state's fingerprint.

    :param index: of the last entry whose effects the state holds.
    :param term: of that entry.
    :param keys: how many there are.
    :param sha256: in hexadecimal. Two nodes with the same index must have the same.
    """

    index: int  # type: ignore[assignment]  # the field's word; tuple.index is of no use here
    term: int
    keys: int
    sha256: str


class Held:
    """The state of one moment, held by a read transaction until it is closed. Any thread, one at a time.

    While it is held the write-ahead log can't start anew.

    :param path: the live state file.
    :raises StateUnreadable: when it can't be opened.
    """

    def __init__(self, path: Path) -> None:
        self._connection = engine.open_reader(path)
        try:
            self._connection.execute("BEGIN")
            self.index, self.term = self._connection.execute(statements.META).fetchone()[:2]
        except engine.DATABASE_ERRORS as error:
            self.close()
            raise engine.failure(f"{path} can't be read", error) from error

    def digest(self, go_on: Callable[[], bool] = lambda: True) -> Digest | None:
        """Read the whole of it.

        :param go_on: asked every some dozens of rows.
        :returns: None when ``go_on`` said no.
        :raises StateUnreadable: when a page can't be read.
        """
        try:
            return digest(self._connection, go_on)
        except engine.DATABASE_ERRORS as error:
            raise engine.failure("the state can't be read", error) from error

    def close(self) -> None:
        """End the transaction. Idempotent."""
        self._connection.close()


def digest(connection: Connection, go_on: Callable[[], bool] = lambda: True) -> Digest | None:
    """Read everything through a connection that sees one moment; see :meth:`Held.digest`."""
    index, term, kv_index, _ = connection.execute(statements.META).fetchone()
    total = hashlib.sha256(repr((index, term, kv_index)).encode())
    keys = 0
    for number, (first, following) in enumerate(statements.DIGESTED):
        for count, text in _steps(connection, first, following):
            if not go_on():
                return None
            total.update(text)
            keys += count if number == 0 else 0
        total.update(b"\0")
    return Digest(index, term, keys, total.hexdigest())


def _steps(connection: Connection, first: str, following: str) -> Iterator[tuple[int, bytes]]:
    """How many rows, and their text, step by step in the order of the keys."""
    count, last, text = connection.execute(first, (ROWS_A_STEP,)).fetchone()
    while count:
        yield count, text
        if count < ROWS_A_STEP:
            return
        count, last, text = connection.execute(following, (last, ROWS_A_STEP)).fetchone()
