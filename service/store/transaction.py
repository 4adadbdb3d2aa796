"""One batch of entries against ``state.db``, in as few statements as the batch allows.

Each statement hands the interpreter lock to the agent's event loop and has to win it back, which costs far more than the statement. So:

* puts wait in a list and become one multi-row upsert. SQLite itself leaves out the rows that change nothing, in order, so the old rows are
  never read; the number of rows that it counts tells whether any was left out.
* conditions (cas) of the whole batch are looked up by one statement, before the first entry.
* when one upsert is all there is to write, it runs outside a transaction: the triggers of the schema move the applied index along with the
  rows. Entries behind the last row that counted had no effect, so the state is exact at every index in between.
* deletions come one by one, in order, and first send the waiting puts on their way.
"""

from collections.abc import Mapping, Sequence
from sqlite3 import Connection

import msgspec

from service.domain.commands import TxnOperation
from service.domain.entries import Row, Session
from service.domain.keys import upper_bound
from service.store import acl_rows, session_rows, statements
from service.store.changes import Timer
from service.store.schema import to_signed, to_unsigned

ROWS_MAX = 128
"""Rows of one upsert; also how many different upsert texts SQLite has to keep prepared."""

_LOOKUPS_MAX = 400
"""Keys of one lookup: SQLite allows 500 rows of VALUES."""

_columns = msgspec.json.Decoder(list[tuple[int, int, int, str | None, int, int]]).decode
"""Of :func:`service.store.statements.rows_without_values`."""

_kept_columns = msgspec.json.Decoder(list[tuple[int, int, str | None]]).decode
"""Of :func:`service.store.statements.kept_columns`."""


class Transaction:
    """A batch under way; fulfils :class:`service.store.apply.txn.View`.

    :param connection: the writer's, outside a transaction.
    :param term: the term of the last applied entry, as the file holds it.
    :param last: index and term of the last entry of the batch.
    :param answering: whether somebody waits for the results.
    :ivar unmoved: for each put that did not give its key its own index: the key's ModifyIndex after it, or 0 when a later put hides that. Complete
        once everything was committed.
    """

    def __init__(self, connection: Connection, term: int, last: tuple[int, int], *, answering: bool = True) -> None:
        self.keys: list[bytes] = []
        self.prefixes: list[bytes] = []
        self.tables: list[str] = []
        self.sessions: list[str] = []
        self.timers: list[Timer] = []
        self.replaced = False
        self._connection = connection
        self._term = term
        self._last = last
        self._answering = answering
        self._begun = False
        self._known: dict[bytes, int] = {}
        self._acl_index: int | None = None
        self._waiting: list[bytes] = []
        self._indexes: list[int] = []
        self._parameters: list[object] = []
        self._first_waiting = 0
        self._last_waiting = 0
        self._moved = 0
        self._kv_index = 0
        self.unmoved: dict[int, int] = {}

    def look_up(self, keys: Sequence[bytes]) -> None:
        """Learn the ModifyIndex of each key by as few statements as possible, before the first entry."""
        for start in range(0, len(keys), _LOOKUPS_MAX):
            chunk = keys[start : start + _LOOKUPS_MAX]
            self._known.update(dict.fromkeys(chunk, 0))
            found = self._connection.execute(statements.modify_indexes(len(chunk)), chunk).fetchone()[0]
            for pair in found.split(",") if found else ():
                position, _, index = pair.partition(":")
                self._known[chunk[int(position)]] = int(index)

    def modify_index(self, key: bytes) -> int:
        """The key's ModifyIndex after the entries so far; 0 when it does not exist."""
        if key not in self._known:
            self._flush_inside()
            self.look_up([key])
        return self._known[key]

    def acl_index(self) -> int:
        """The index of the ACL's last change, after the entries so far."""
        if self._acl_index is None:
            self._acl_index = acl_rows.indexes(self._connection).get(acl_rows.TABLE, 0)
        return self._acl_index

    def rows(self, wanted: Mapping[bytes, bytes | None]) -> dict[bytes, Row]:
        """Those of some keys that exist; see :class:`service.store.apply.txn.View`."""
        self._flush_inside()
        found: dict[bytes, Row] = {}
        keys = list(wanted)
        for start in range(0, len(keys), _LOOKUPS_MAX):
            chunk = keys[start : start + _LOOKUPS_MAX]
            parameters = [parameter for key in chunk for parameter in (key, wanted[key])]
            text = self._connection.execute(statements.compared_rows(len(chunk)), parameters).fetchone()[0]
            for item in text.split(",") if text else ():
                position, flags, lock_index, session, created, modified, same = item.split(":")
                key = chunk[int(position)]
                written = wanted[key]
                value = (written or b"") if same == "1" else b"" if written else b"?"
                found[key] = Row(key, value, to_unsigned(int(flags)), int(lock_index), session or None, int(created), int(modified))
        return found

    def value(self, key: bytes) -> bytes:
        """The value of a key that exists; to be called right after :meth:`rows`."""
        found: bytes = self._connection.execute(statements.VALUE, (key,)).fetchone()[0]
        return found

    def tree(self, prefix: bytes, bytes_max: int) -> list[Row] | None:
        """All keys with a prefix, unless they are longer than allowed; to be called right after :meth:`rows`."""
        end = upper_bound(prefix)
        bounds = (prefix,) if end is None else (prefix, end)
        if self._connection.execute(statements.bytes_in_range(end is not None), bounds).fetchone()[0] > bytes_max:
            return None
        rows = self._connection.execute(statements.rows_in_range(end is not None), bounds).fetchall()
        return [Row(key, value, to_unsigned(flags), *rest) for key, value, flags, *rest in rows]

    def put_lock(self, index: int, row: Row) -> None:
        """Set every column of a key but its CreateIndex, which stays."""
        self._flush_inside()
        self._begin()
        columns = (row.key, to_signed(row.flags), row.lock_index, row.session, row.create_index, index, row.value)
        self._connection.execute(statements.PUT_LOCK, columns)
        self._known.pop(row.key, None)
        self.keys.append(row.key)

    def put(self, index: int, key: bytes, value: bytes, flags: int) -> None:
        """Let an upsert wait; whether it changes anything is SQLite's to tell."""
        if len(self._waiting) == ROWS_MAX:
            self._flush_inside()
        if not self._waiting:
            self._first_waiting = index
        self._last_waiting = index
        self._known.pop(key, None)
        self._waiting.append(key)
        self._indexes.append(index)
        self._parameters += (key, to_signed(flags), index, index, value)

    def keep_results(self) -> None:
        """One of the results is about to become a part of the state, whether or not anybody waits for it."""
        self._answering = True

    def set_all(self, index: int, operations: Sequence[TxnOperation]) -> list[Row]:
        """Set keys that differ; see :class:`service.store.apply.txn.View`. What became of them is asked for afterwards, all at once."""
        if not self._answering:
            for operation in operations:
                self.put(index, operation.key, operation.value, operation.flags)
            return []
        self._flush_inside()
        for operation in operations:
            self.put(index, operation.key, operation.value, operation.flags)
        before = len(self.keys)
        if (index, self._term) == self._last:
            self._flush()  # the end of the batch: it need not wait for anything to become visible with it
        else:
            self._flush_inside()
        find = self._found_moved if len(self.keys) - before == len(operations) else self._found
        rows: list[Row] = []
        for start in range(0, len(operations), _LOOKUPS_MAX):
            rows += find(index, operations[start : start + _LOOKUPS_MAX])
        return rows

    def _found_moved(self, index: int, operations: Sequence[TxnOperation]) -> list[Row]:
        """The keys that were all set at ``index``, without their values."""
        text = self._connection.execute(statements.kept_columns(len(operations)), [operation.key for operation in operations]).fetchone()[0]
        rows: list[Row] = []
        for position, created, session in sorted(_kept_columns(text)):
            operation = operations[position]
            rows.append(Row(operation.key, b"", operation.flags, 0, session, created, index))
        return rows

    def _found(self, _index: int, operations: Sequence[TxnOperation]) -> list[Row]:
        """Some keys, without their values."""
        text = self._connection.execute(statements.rows_without_values(len(operations)), [operation.key for operation in operations]).fetchone()[0]
        return [
            Row(operations[position].key, b"", to_unsigned(flags), lock_index, session, created, modified)
            for position, flags, lock_index, session, created, modified in sorted(_columns(text))
        ]

    def delete(self, index: int, stamp_ms: int, key: bytes) -> None:
        """Delete one key and bury it, if it exists."""
        if self._known.get(key) == 0:
            return
        self._flush_inside()
        self._begin()
        if self._connection.execute(statements.DELETE, (key,)).rowcount:
            self._connection.execute(statements.BURY, (key, index, stamp_ms))
            self.keys.append(key)
            self._kv_index = index
        self._known[key] = 0

    def delete_prefix(self, index: int, stamp_ms: int, prefix: bytes) -> None:
        """Bury and delete a range of keys; two statements however many there are."""
        self._flush_inside()
        self._begin()
        end = upper_bound(prefix)
        bounds = (prefix,) if end is None else (prefix, end)
        if self._connection.execute(statements.bury_range(end is not None), (index, stamp_ms, *bounds)).rowcount:
            self._connection.execute(statements.delete_range(end is not None), bounds)
            self.prefixes.append(prefix)
            self._kv_index = index
        self._known.clear()

    def session(self, id_: str) -> Session | None:
        """One session."""
        return session_rows.find(self._connection, id_)

    def is_delayed(self, key: bytes) -> bool:
        """Whether a key can't be locked yet."""
        return session_rows.is_delayed(self._connection, key)

    def held_keys(self, id_: str) -> list[bytes]:
        """The keys that a session holds, in byte order."""
        self._flush_inside()
        return session_rows.held_keys(self._connection, id_)

    def release_keys(self, index: int, id_: str, keys: list[bytes]) -> None:
        """Let go of all the keys that a session holds.

        :param keys: those of :meth:`held_keys`.
        """
        self._begin()
        session_rows.release(self._connection, index, id_)
        self.keys += keys
        for key in keys:
            self._known.pop(key, None)

    def add_session(self, index: int, session: Session) -> None:
        """Begin a session."""
        self._flush_inside()
        self._begin()
        session_rows.insert(self._connection, index, session)
        self.sessions.append(session.id)
        self._time(session.id, index, session.ttl_ns)

    def renew_session(self, index: int, session: Session) -> None:
        """Let the time of a session begin anew."""
        if session.ttl_ns:
            self._flush_inside()
            self._begin()
            session_rows.renew(self._connection, index, session.id)
            self._time(session.id, index, session.ttl_ns)

    def renewed_index(self, id_: str) -> int:
        """The entry of a session's last renewal; 0 when there is no such session."""
        return session_rows.renewed_index(self._connection, id_)

    def remove_session(self, index: int, id_: str) -> None:
        """End a session that holds nothing any more."""
        self._begin()
        session_rows.delete(self._connection, index, id_)
        self.sessions.append(id_)
        self.timers.append(Timer(id_, index, 0))

    def delay_lock(self, index: int, key: bytes, duration_ns: int) -> None:
        """Let nobody lock a key for a while."""
        self._begin()
        session_rows.delay(self._connection, index, key, duration_ns)
        self._time(key, index, duration_ns)

    def end_delay(self, index: int, key: bytes, since_index: int) -> None:
        """Let a key be locked again, unless a later delay holds."""
        self._flush_inside()
        self._begin()
        if session_rows.end_delay(self._connection, key, since_index):
            self.timers.append(Timer(key, index, 0))

    def reap(self, up_to: int) -> None:
        """Forget tombstones."""
        self._flush_inside()
        self._begin()
        self._connection.execute(statements.REAP, (up_to,))

    def open(self) -> Connection:
        """For tables other than that of the keys: the connection, inside the transaction."""
        self._flush_inside()
        self._begin()
        return self._connection

    def changed(self, table: str) -> None:
        """Note that something in a table became different, for those who wait."""
        self.tables.append(table)
        self._acl_index = None

    def replace_all(self, timers: Sequence[Timer]) -> None:
        """Note that another state took the place of the whole one.

        :param timers: those that ended and those that began.
        """
        self.replaced = True
        self.timers += timers
        self._known.clear()
        self._acl_index = None
        self._kv_index = 0

    def commit(self, index: int, term: int) -> None:
        """Make everything visible at once, together with the index and term of the last entry."""
        if self._begun or term != self._term:
            self._flush_inside()
            self._begin()
            self._connection.execute(statements.SET_META, (index, term, self._kv_index))
            self._connection.execute("COMMIT")
            self._begun = False
            return
        self._flush()
        if self._moved != index:
            self._connection.execute(statements.SET_APPLIED_INDEX, (index,))

    def roll_back(self) -> None:
        """Take everything back. Safe at any time."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _time(self, name: str | bytes, index: int, duration_ns: int) -> None:
        if duration_ns:
            self.timers.append(Timer(name, index, duration_ns))

    def _begin(self) -> None:
        if not self._begun:
            self._connection.execute("BEGIN IMMEDIATE")
            self._begun = True

    def _flush_inside(self) -> None:
        """Write the waiting puts as a part of something larger."""
        if self._waiting:
            self._begin()
            self._flush()

    def _flush(self) -> None:
        keys = self._waiting
        if not keys:
            return
        counted = self._connection.execute(statements.upsert(len(keys)), self._parameters).rowcount
        if counted == len(keys):
            self._moved = self._last_waiting
            self.keys += keys
        else:
            self._note_unmoved(keys)
        self._waiting = []
        self._indexes = []
        self._parameters = []

    def _note_unmoved(self, keys: list[bytes]) -> None:
        """Some of the puts changed nothing: find out which, and what is there instead."""
        found: str = self._connection.execute(statements.modify_indexes(len(keys)), keys).fetchone()[0]
        for pair in found.split(","):
            position, _, modify_index = pair.partition(":")
            index, moved = self._indexes[int(position)], int(modify_index)
            if moved >= self._first_waiting:
                self.keys.append(keys[int(position)])
            if moved != index:
                self.unmoved[index] = moved if moved < index else 0
