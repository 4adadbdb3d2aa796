"""A picture of the state for a lagging peer or a backup, and the check of one that arrived."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from sqlite3 import Connection
from typing import cast

from pysqlite3 import dbapi2

from service.errors import StateUnreadable
from service.store import engine, files, statements

PIECE_BYTES = 1024 * 1024


class FileCapture:
    """The state of one moment. Taking it opens a read transaction and copies nothing, so it is quick; :meth:`write` copies from that transaction in
    one step (stepped, a copy starts over whenever the writer commits). Until then the write-ahead log can't start anew.

    :param path: the live state file.
    :param check: compares all pages of that file with their sums, and raises when one is not what was written. SQLite copies whatever it finds.
    """

    def __init__(self, path: Path, check: Callable[[], object]) -> None:
        self._directory = path.parent
        self._check = check
        self._connection: Connection | None = engine.open_reader(path)
        self._copy: Path | None = None
        self._connection.execute("BEGIN")
        found = self._connection.execute(statements.META).fetchone()
        self._index: int = found[0]
        self._term: int = found[1]

    @property
    def index(self) -> int:
        """The index of the last entry whose effects the picture holds."""
        return self._index

    @property
    def term(self) -> int:
        """The term of that entry."""
        return self._term

    def write(self, sink: Callable[[bytes], object]) -> None:
        """Copy to a temporary file once, verify that the copy holds what was promised, then hand it to ``sink`` piece by piece.

        :raises StateDamaged: when a page of the state is not what was written; nothing was handed over.
        :raises StateUnreadable: when the copy failed or holds something else.
        """
        if self._copy is None:
            self._copy = self._make_copy()
        with self._copy.open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                sink(piece)

    def close(self) -> None:
        """End the read transaction and remove the copy. Idempotent."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._copy is not None:
            files.remove(self._copy)
            self._copy = None

    def _make_copy(self) -> Path:
        if self._connection is None:
            raise StateUnreadable("the capture is closed")
        self._check()
        with tempfile.NamedTemporaryFile(prefix="capture-", suffix=".tmp", dir=self._directory, delete=False) as file:
            copy = Path(file.name)
        try:
            target = cast("Connection", dbapi2.connect(str(copy), isolation_level=None, check_same_thread=False))
            try:
                target.execute("PRAGMA journal_mode = off").fetchall()
                target.execute("PRAGMA synchronous = off")
                self._connection.backup(target)
                found = tuple(target.execute(statements.META).fetchone()[:2])
            finally:
                target.close()
        except engine.DATABASE_ERRORS as error:
            files.remove(copy)
            raise engine.failure(f"the state can't be copied to {copy}", error) from error
        if found != (self._index, self._term):
            files.remove(copy)
            raise StateUnreadable(f"the copy holds index and term {found}, not {(self._index, self._term)}")
        self._connection.execute("COMMIT")
        return copy


def receive(path: Path, read: Callable[[int], bytes]) -> None:
    """Write a picture that arrives aside. What ``read`` raises passes through.

    :param read: gives at most that many of the next bytes; empty at the end.
    :raises StateUnreadable: when the disk refuses.
    """
    problem = f"the snapshot can't be written to {path}"
    with files.explained(problem):
        files.remove(path)
        path.touch()
    while piece := read(PIECE_BYTES):
        with files.explained(problem), path.open("ab") as file:
            file.write(piece)


def verify(path: Path, index: int, term: int, schema: list[tuple[str, ...]]) -> None:
    """Whether a file is a whole, sound state of exactly that index and term.

    :param schema: what :func:`service.store.engine.schema_text` says of a good file.
    :raises StateUnreadable: naming what is wrong.
    """
    try:
        connection = engine.open_writer(path)
        try:
            problems = [row[0] for row in connection.execute("PRAGMA quick_check(3)").fetchall()]
            if problems != ["ok"]:
                raise StateUnreadable(f"the snapshot is damaged: {'; '.join(problems)}")
            if engine.schema_text(connection) != schema:
                raise StateUnreadable("the snapshot holds other tables than this version writes")
            found = connection.execute(statements.META).fetchone()
        finally:
            connection.close()
    except engine.DATABASE_ERRORS as error:
        raise StateUnreadable(f"the snapshot is damaged: {error}") from error
    if found is None or tuple(found[:2]) != (index, term):
        raise StateUnreadable(f"the snapshot holds index and term {found and tuple(found[:2])}, announced were {(index, term)}")
    if found[3] != 0:
        raise StateUnreadable(f"the snapshot was taken of a state that generation {found[3]} had replaced")
