"""A state machine on disk, as small as one can be that keeps its state itself: numbered cells in a SQLite file, moved along with the applied index.

It follows the rules of :class:`raft.ports.machine.StateMachine` to the letter, for crash images to be made of it: effects and applied index
are one transaction, a checkpoint proves what it reports, a restored picture is one transaction and durable on return.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from hashlib import sha256
from pathlib import Path
from unittest.mock import patch

from pysqlite3 import dbapi2

from raft.errors import StorageFailed

FILE_NAME = "cells.db"
_CELLS = 16
_PIECE_BYTES = 4096


class CellsPicture:
    """The cells of one moment, in memory."""

    def __init__(self, index: int, term: int, cells: list[tuple[int, bytes]]) -> None:
        self.index = index
        self.term = term
        self._content = json.dumps([(number, value.hex()) for number, value in cells]).encode()

    def write(self, sink: Callable[[bytes], object]) -> None:
        """See :class:`raft.ports.machine.Capture`."""
        for start in range(0, len(self._content), _PIECE_BYTES):
            sink(self._content[start : start + _PIECE_BYTES])

    def close(self) -> None:
        """See :class:`raft.ports.machine.Capture`."""


class CellsMachine:
    """An entry changes the cell of its index: the new value is a digest of the old one and the data, so an entry left out or applied twice shows.

    :param directory: where the file lies or will lie.
    """

    def __init__(self, directory: Path) -> None:
        self._connection = dbapi2.connect(directory / FILE_NAME, isolation_level=None)
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "wal_autocheckpoint = 0"):
            self._connection.execute(f"PRAGMA {pragma}").fetchall()
        if not self._connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            self._create()
        self._position: tuple[int, int] = self._connection.execute("SELECT applied, term FROM position").fetchone()
        self._durable = 0

    def applied(self) -> tuple[int, int]:
        """See :class:`raft.ports.machine.StateMachine`."""
        return self._position

    def apply(self, entries: Sequence[tuple[int, int, bytes | None]], *, awaited: bool = True) -> Sequence[bytes]:  # noqa: ARG002  # results cost nothing
        """See :class:`raft.ports.machine.StateMachine`."""
        self._connection.execute("BEGIN IMMEDIATE")
        for index, _, data in entries:
            if data is not None:
                self._change(index % _CELLS, data)
        self.move(entries[-1][:2])
        self._connection.execute("COMMIT")
        return [b""] * len(entries)

    def checkpoint_due(self) -> bool:
        """See :class:`raft.ports.machine.StateMachine`."""
        return False

    def checkpoint(self) -> int:
        """See :class:`raft.ports.machine.StateMachine`."""
        index = self._position[0]
        busy, frames, moved = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if not busy and frames == moved >= 0:
            self._durable = index
        return self._durable

    def capture(self) -> CellsPicture:
        """See :class:`raft.ports.machine.StateMachine`."""
        return CellsPicture(*self._position, self.cells())

    def restore(self, index: int, term: int, read: Callable[[int], bytes]) -> None:
        """See :class:`raft.ports.machine.StateMachine`."""
        content = b"".join(iter(lambda: read(_PIECE_BYTES), b""))
        self._connection.execute("BEGIN IMMEDIATE")
        self._replace([(number, bytes.fromhex(value)) for number, value in json.loads(content)])
        self.move((index, term))
        self._connection.execute("COMMIT")
        if self.checkpoint() != index:
            raise StorageFailed("restore a picture", "the checkpoint did not move all of it")

    def cells(self) -> list[tuple[int, bytes]]:
        """All cells, in order."""
        return self._connection.execute("SELECT number, value FROM cells ORDER BY number").fetchall()  # type: ignore[no-any-return]  # untyped driver

    def move(self, position: tuple[int, int]) -> None:
        """Write down which entry was applied last."""
        self._connection.execute("UPDATE position SET applied = ?, term = ?", position)
        self._position = position

    def close(self) -> None:
        """Release the file."""
        self._connection.close()

    def _create(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.execute("CREATE TABLE cells (number INTEGER PRIMARY KEY, value BLOB NOT NULL)")
        self._connection.execute("CREATE TABLE position (applied INTEGER NOT NULL, term INTEGER NOT NULL)")
        self._connection.execute("INSERT INTO position VALUES (0, 0)")
        self._connection.execute("COMMIT")

    def _change(self, number: int, data: bytes) -> None:
        found = self._connection.execute("SELECT value FROM cells WHERE number = ?", (number,)).fetchone()
        value = sha256((found[0] if found else b"") + data).digest()
        self._connection.execute("INSERT OR REPLACE INTO cells VALUES (?, ?)", (number, value))

    def _replace(self, cells: list[tuple[int, bytes]]) -> None:
        self._connection.execute("DELETE FROM cells")
        self._connection.executemany("INSERT INTO cells VALUES (?, ?)", cells)


class CellsSubject:
    """The machine as crash images want it (:class:`raft.testing.crash_script.Subject`), with the faults that they must notice."""

    def open(self, directory: Path) -> CellsMachine:
        """Open the machine, or make it."""
        return CellsMachine(directory)

    def command(self, index: int, term: int) -> bytes:
        """Short ones, and now and then one that fills pages of its own."""
        return f"{index}/{term};".encode() * (1 + index * 7 % 30 if index % 23 else 900)

    def fingerprint(self, machine: CellsMachine) -> str:
        """A digest of the position and of all cells."""
        return sha256(repr((machine.applied(), machine.cells())).encode()).hexdigest()

    def planted(self, mutant: str) -> AbstractContextManager[object]:
        """``M24``: a picture is put in place by two transactions; ``M25``: effects and position are moved by two. KeyError for any other."""
        split = {"M24": "_replace", "M25": "_change"}[mutant]
        whole = getattr(CellsMachine, split)

        def split_off(machine: CellsMachine, *arguments: object) -> None:
            whole(machine, *arguments)
            machine._connection.execute("COMMIT")  # noqa: SLF001 - a fault has to get inside
            machine._connection.execute("BEGIN IMMEDIATE")  # noqa: SLF001 - as above

        return patch.object(CellsMachine, split, split_off)
