"""Reading ``state.db`` in the web workers: read-only, without the library.

Every answer carries three things from one moment: the rows, the index that Consul puts beside them, and the applied index, by which a caller who
needs a certain freshness sees whether the state has it.

:meth:`Reader.get` belongs to one thread, a worker's hub. It uses one connection and never leaves a statement half-read: that would pin the moment,
and later reads would be older than acknowledged writes. Everything else may be called from any thread; it takes a connection of its own.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from sqlite3 import Connection
from threading import Lock
from time import monotonic
from typing import Any, NamedTuple, TypeVar

from service.domain.commands import TxnOperation
from service.domain.entries import Row, Session
from service.domain.keys import after_folded, fold, upper_bound
from service.domain.txn import Outcome, evaluate
from service.errors import StateUnreadable
from service.store import engine, files, session_rows, statements
from service.store.schema import to_unsigned
from service.store.txn_reads import Moment

_ROWS_A_PAGE = 512
_KEPT_CONNECTIONS_MAX = 4

Result = TypeVar("Result")


_row_of = partial(tuple.__new__, Row)
"""A row from its columns in order, without the cost of the named constructor."""


class Found(NamedTuple):
    """One key, or its absence.

    :param row: None when there is no such key.
    :param index: Consul's index: the row's ModifyIndex, or that of the whole table when there is no row; at least 1.
    :param applied: the index of the last entry that the answer knows of.
    """

    row: Row | None
    index: int  # type: ignore[assignment]  # the field's word; tuple.index is of no use here
    applied: int


class Listing(NamedTuple):
    """The keys with a prefix, in byte order; ``index`` and ``applied`` as in :class:`Found`."""

    rows: list[Row]
    index: int  # type: ignore[assignment]  # the field's word; tuple.index is of no use here
    applied: int


class Keys(NamedTuple):
    """Names only, folders folded; ``index`` and ``applied`` as in :class:`Found`."""

    keys: list[bytes]
    index: int  # type: ignore[assignment]  # the field's word; tuple.index is of no use here
    applied: int


class Sessions(NamedTuple):
    """Sessions in the order of their ids; ``index`` is the highest at which any was created or destroyed, at least 1."""

    sessions: list[Session]
    index: int  # type: ignore[assignment]  # the field's word; tuple.index is of no use here
    applied: int


class Totals(NamedTuple):
    """For metrics: how many keys there are, and how many bytes the file and its write-ahead log take."""

    keys: int
    file_bytes: int
    log_bytes: int


class _Superseded(Exception):
    """The file that was read has a successor."""


_FAILURES: tuple[type[Exception], ...] = (_Superseded, StateUnreadable, *engine.DATABASE_ERRORS)


class _Connections:
    """What is open of one generation. Connections may be used by any thread, by one at a time."""

    def __init__(self, path: Path, generation: int) -> None:
        self.path = path
        self.generation = generation
        self.hot = engine.open_reader(path)
        self.point = self.hot.cursor()
        self._idle: deque[Connection] = deque()
        self._closed = False

    @contextmanager
    def borrow(self) -> Iterator[Connection]:
        """A connection in a read transaction, for one listing."""
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = engine.open_reader(self.path)
        try:
            connection.execute("BEGIN")
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        if self._closed or len(self._idle) >= _KEPT_CONNECTIONS_MAX:
            connection.close()
        else:
            self._idle.append(connection)

    def retire(self) -> None:
        """Close what is idle. What is borrowed is closed when it comes back, and the hot connection when the thread that reads with it lets go."""
        self._closed = True
        with suppress(IndexError):
            while True:
                self._idle.pop().close()


class Reader:
    """The local state, as far as it has been applied.

    Nothing is opened before the first read, so a worker may start before the agent has made its files.

    :param data_dir: the node's directory.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._connections: _Connections | None = None
        self._lock = Lock()

    def get(self, key: bytes) -> Found:
        """One key; a few microseconds.

        :raises StateUnreadable: when the state can't be opened or read.
        """
        connections = self._connections
        if connections is not None:
            try:
                row = connections.point.execute(statements.POINT_READ, (key,)).fetchone()
            except engine.DATABASE_ERRORS:
                row = None
            if row is not None and row[2] == 0:
                return _found(row)
        return self._retry(connections, lambda opened: _point_read(opened, key))

    def list(self, prefix: bytes, *, seconds_max: float = 30.0) -> Listing:
        """All keys with the prefix and their values.

        :param seconds_max: after that it gives up, for it keeps the write-ahead log from starting anew.
        :raises TimeoutError: when it took longer.
        :raises StateUnreadable: when the state can't be opened or read.
        """
        return self._retry(self._connections, lambda opened: _list(opened, prefix, monotonic() + seconds_max))

    def keys(self, prefix: bytes, separator: bytes = b"", *, seconds_max: float = 30.0) -> Keys:
        """The names of all keys with the prefix, each cut after the first separator behind it, neighbours that are alike once.

        :param seconds_max: as in :meth:`list`.
        :raises TimeoutError: when it took longer.
        :raises StateUnreadable: when the state can't be opened or read.
        """
        return self._retry(self._connections, lambda opened: _keys(opened, prefix, separator, monotonic() + seconds_max))

    def sessions(self, id_: str | None = None, node: str | None = None) -> Sessions:
        """All sessions, that with an id, or those of a node.

        :raises StateUnreadable: when the state can't be opened or read.
        """
        return self._retry(self._connections, partial(_sessions, id_, node))

    def transaction(self, operations: Sequence[TxnOperation]) -> tuple[Outcome, int]:
        """Evaluate operations that only read, at one moment.

        :returns: what they found, and the index of the last entry that they know of.
        :raises StateUnreadable: when the state can't be opened or read.
        """
        return self._retry(self._connections, partial(_transaction, operations))

    def tables(self, read: Callable[[Connection], Result]) -> tuple[Result, int]:
        """Read something other than keys, at one moment.

        :param read: is given a connection in a read transaction.
        :returns: what it returned, and the index of the last entry that it could see.
        :raises StateUnreadable: when the state can't be opened or read.
        """
        return self._retry(self._connections, partial(_read_tables, read))

    def totals(self) -> Totals:
        """How much there is. Counting visits every key: call it seldom, from a thread."""
        return self._retry(self._connections, _totals)

    def applied(self) -> int:
        """The index of the last entry that reads know of now."""
        return self._retry(self._connections, _applied)

    def generation(self) -> int:
        """The number of the state file that is open; opens it when none is."""
        connections = self._connections
        return (connections or self._replace(None)).generation

    def reopen(self) -> int:
        """Open the file that CURRENT names now, if it is another one.

        :returns: its generation.
        """
        connections = self._connections
        if connections is not None and connections.generation == files.read_current(self._data_dir):
            return connections.generation
        return self._replace(connections).generation

    def close(self) -> None:
        """Release the files; nobody may be reading. The next read opens them again."""
        with self._lock:
            if self._connections is not None:
                self._connections.retire()
                self._connections.hot.close()
                self._connections = None

    def _retry(self, connections: _Connections | None, read: Callable[[_Connections], Result]) -> Result:
        """Read; after a failure open anew and read again, for as long as each attempt meets a newer file than the last.

        However many restores overtake a slow reader, it goes on: each of them brought a new generation. A file that fails twice is unreadable.
        """
        failed: int | None = None
        while True:
            opened = connections or self._replace(None)
            try:
                return read(opened)
            except _FAILURES as error:
                if opened.generation == failed:
                    raise engine.failure(f"the state in {self._data_dir} can't be read", error) from error
            failed = opened.generation
            connections = self._replace(opened)

    def _replace(self, old: _Connections | None) -> _Connections:
        """Open what CURRENT names. When another thread has replaced ``old`` already, its work is taken."""
        with self._lock:
            if self._connections is not None and self._connections is not old:
                return self._connections
            opened = _open_current(self._data_dir)
            self._connections = opened
            if old is not None:
                old.retire()
            return opened


def _open_current(data_dir: Path) -> _Connections:
    """Open what CURRENT names, and read it once.

    The writer may remove the file in between. SQLite then refuses it rather than read it without its log, and CURRENT names another.
    """
    generation = files.read_current(data_dir)
    while generation is not None:
        try:
            opened = _Connections(files.state_path(data_dir, generation), generation)
            opened.point.execute(statements.META).fetchone()
        except _FAILURES as error:
            failed, generation = generation, files.read_current(data_dir)
            if generation == failed:
                raise engine.failure(f"the state in {data_dir} can't be read", error) from error
        else:
            return opened
    raise StateUnreadable(f"there is no state in {data_dir} yet: {files.CURRENT} is missing")


def _point_read(opened: _Connections, key: bytes) -> Found:
    row = opened.point.execute(statements.POINT_READ, (key,)).fetchone()
    if row is None or row[2] != 0:
        raise _Superseded(f"{opened.path} has a successor")
    return _found(row)


def _found(columns: tuple[Any, ...]) -> Found:
    """The columns of :data:`service.store.statements.POINT_READ`: three of the state, then those of a :class:`Row`."""
    if columns[3] is None:
        return Found(None, columns[1] or 1, columns[0])
    row: Row = _row_of(columns[3:])
    return Found(row if columns[5] >= 0 else _unsigned(row), columns[9], columns[0])


def _list(opened: _Connections, prefix: bytes, deadline: float) -> Listing:
    bounded, bounds = _bounds(prefix)
    with opened.borrow() as connection:
        applied, kv_index = _position(opened, connection)
        rows: list[Row] = []
        cursor = connection.execute(statements.rows_in_range(bounded), bounds)
        while page := cursor.fetchmany(_ROWS_A_PAGE):
            rows += [_row_of(row) if row[2] >= 0 else _unsigned(_row_of(row)) for row in page]
            _check_deadline(deadline)
        newest = max((row.modify_index for row in rows), default=0)
        buried = _buried(connection, bounded, bounds)
    return Listing(rows, max(newest, buried) or kv_index or 1, applied)


def _keys(opened: _Connections, prefix: bytes, separator: bytes, deadline: float) -> Keys:
    bounded, bounds = _bounds(prefix)
    with opened.borrow() as connection:
        applied, kv_index = _position(opened, connection)
        newest = connection.execute(statements.newest_in_range(bounded), bounds).fetchone()[0] or 0
        buried = _buried(connection, bounded, bounds)
        names = _folded(connection, prefix, separator, deadline) if newest else []
    return Keys(names, max(newest, buried) or kv_index or 1, applied)


def _folded(connection: Connection, prefix: bytes, separator: bytes, deadline: float) -> list[bytes]:
    """Page by page. A folder that ends a page is left by a seek behind it, so what is deep inside large folders is never visited."""
    names: list[bytes] = []
    end = upper_bound(prefix)
    statement = statements.keys_in_range(end is not None)
    start: bytes | None = prefix
    while start is not None:
        bounds = (start,) if end is None else (start, end)
        page = connection.execute(statement, (*bounds, _ROWS_A_PAGE)).fetchall()
        for (key,) in page:
            name = fold(key, prefix, separator)
            if not names or names[-1] != name:
                names.append(name)
        start = after_folded(page[-1][0], names[-1]) if len(page) == _ROWS_A_PAGE else None
        _check_deadline(deadline)
    return names


def _sessions(id_: str | None, node: str | None, opened: _Connections) -> Sessions:
    with opened.borrow() as connection:
        applied, _ = _position(opened, connection)
        index = session_rows.table_index(connection)
        if id_ is None:
            found = session_rows.find_all(connection, node)
        else:
            one = session_rows.find(connection, id_)
            found = [] if one is None else [one]
    return Sessions(found, index, applied)


def _transaction(operations: Sequence[TxnOperation], opened: _Connections) -> tuple[Outcome, int]:
    with opened.borrow() as connection:
        applied, _ = _position(opened, connection)
        return evaluate(Moment(connection), 0, operations), applied


def _read_tables(read: Callable[[Connection], Result], opened: _Connections) -> tuple[Result, int]:
    with opened.borrow() as connection:
        applied, _ = _position(opened, connection)
        return read(connection), applied


def _totals(opened: _Connections) -> Totals:
    with opened.borrow() as connection:
        _position(opened, connection)
        keys = connection.execute("SELECT count(*) FROM kv").fetchone()[0]
    log = opened.path.with_name(opened.path.name + "-wal")
    return Totals(keys, opened.path.stat().st_size, log.stat().st_size if log.exists() else 0)


def _applied(opened: _Connections) -> int:
    with opened.borrow() as connection:
        return _position(opened, connection)[0]


def _position(opened: _Connections, connection: Connection) -> tuple[int, int]:
    """Applied index and index of the whole table, at the moment that the transaction reads."""
    applied, _, kv_index, superseded_by = connection.execute(statements.META).fetchone()
    if superseded_by:
        raise _Superseded(f"{opened.path} has a successor")
    return applied, kv_index


def _buried(connection: Connection, bounded: bool, bounds: tuple[bytes, ...]) -> int:
    newest: int | None = connection.execute(statements.newest_tombstone_in_range(bounded), bounds).fetchone()[0]
    return newest or 0


def _bounds(prefix: bytes) -> tuple[bool, tuple[bytes, ...]]:
    end = upper_bound(prefix)
    return (False, (prefix,)) if end is None else (True, (prefix, end))


def _unsigned(row: Row) -> Row:
    return row._replace(flags=to_unsigned(row.flags))


def _check_deadline(deadline: float) -> None:
    if monotonic() > deadline:
        raise TimeoutError("the listing took too long and was given up")
