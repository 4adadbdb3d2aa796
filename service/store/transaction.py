"""One batch of entries against ``state.db``, in as few statements as the batch allows.

Each statement hands the interpreter lock to the agent's event loop and has to win it back, which costs far more than the statement. So:

* puts wait in a list and become one multi-row upsert. SQLite itself leaves out the rows that change nothing, in order, so the old rows are
  never read; the number of rows that it counts tells whether any was left out.
* conditions (cas) of the whole batch are looked up by one statement, before the first entry.
* when one upsert is all there is to write, it runs outside a transaction: the triggers of the schema move the applied index along with the
  rows. Entries behind the last row that counted had no effect, so the state is exact at every index in between.
* deletions come one by one, in order, and first send the waiting puts on their way.
"""

from collections.abc import Sequence
from sqlite3 import Connection

from service.domain.keys import upper_bound
from service.store import statements
from service.store.schema import to_signed

ROWS_MAX = 128
"""Rows of one upsert; also how many different upsert texts SQLite has to keep prepared."""

_LOOKUPS_MAX = 400
"""Keys of one lookup: SQLite allows 500 rows of VALUES."""


class Transaction:
    """A batch under way; fulfils :class:`service.store.apply.kv.View`.

    :param connection: the writer's, outside a transaction.
    :param term: the term of the last applied entry, as the file holds it.
    """

    def __init__(self, connection: Connection, term: int) -> None:
        self.keys: list[bytes] = []
        self.prefixes: list[bytes] = []
        self._connection = connection
        self._term = term
        self._begun = False
        self._known: dict[bytes, int] = {}
        self._waiting: list[bytes] = []
        self._parameters: list[object] = []
        self._first_waiting = 0
        self._last_waiting = 0
        self._moved = 0
        self._kv_index = 0

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

    def put(self, index: int, key: bytes, value: bytes, flags: int) -> None:
        """Let an upsert wait; whether it changes anything is SQLite's to tell."""
        if len(self._waiting) == ROWS_MAX:
            self._flush_inside()
        if not self._waiting:
            self._first_waiting = index
        self._last_waiting = index
        self._known.pop(key, None)
        self._waiting.append(key)
        self._parameters += (key, to_signed(flags), 0, None, index, index, value)

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

    def reap(self, up_to: int) -> None:
        """Forget tombstones."""
        self._flush_inside()
        self._begin()
        self._connection.execute(statements.REAP, (up_to,))

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
        elif counted:
            changed = self._connection.execute(statements.changed_since(len(keys)), (self._first_waiting, *keys)).fetchall()
            self.keys += [key for (key,) in changed]
        self._waiting = []
        self._parameters = []
