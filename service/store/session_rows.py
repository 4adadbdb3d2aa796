"""The rows of sessions and of lock-delays: every statement about them.

They are few, and change seldom beside keys, so each command runs its own statements.
"""

from sqlite3 import Connection
from typing import Any

import msgspec

from service.domain.entries import ServiceCheck, Session
from service.store.changes import Timer

TABLE = "sessions"
_MOVE = "INSERT INTO table_indexes VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET modify_index = excluded.modify_index"
_COLUMNS = "id, name, node, lock_delay_ns, behavior, ttl, ttl_ns, checks, create_index"
_HOLDS = "session = ? COLLATE NOCASE AND session IS NOT NULL"

_Checks = tuple[list[str] | None, list[ServiceCheck] | None]
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Checks)


def find(connection: Connection, id_: str) -> Session | None:
    """One session."""
    found = connection.execute(f"SELECT {_COLUMNS} FROM sessions WHERE id = ?", (id_,)).fetchone()  # noqa: S608  # text of ours
    return _session(found) if found else None


def find_all(connection: Connection, node: str | None) -> list[Session]:
    """Sessions in the order of their ids.

    :param node: only those of this node, whatever the case.
    """
    condition, parameters = ("", ()) if node is None else ("WHERE node = ? COLLATE NOCASE", (node,))
    statement = f"SELECT {_COLUMNS} FROM sessions {condition} ORDER BY id"  # noqa: S608  # text of ours
    return list(map(_session, connection.execute(statement, parameters).fetchall()))


def table_index(connection: Connection) -> int:
    """The highest index at which any session was created or destroyed; at least 1."""
    found = connection.execute("SELECT modify_index FROM table_indexes WHERE name = ?", (TABLE,)).fetchone()
    return found[0] if found else 1


def insert(connection: Connection, index: int, session: Session) -> None:
    """Begin a session."""
    checks = _encoder.encode((session.node_checks, session.service_checks))
    given = (session.name.encode(), session.node, session.lock_delay_ns, session.behavior, session.ttl, session.ttl_ns)
    connection.execute("INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (session.id, *given, checks, index, index))
    _move(connection, index)


def renew(connection: Connection, index: int, id_: str) -> None:
    """Note the entry of a renewal."""
    connection.execute("UPDATE sessions SET renewed_index = ? WHERE id = ?", (index, id_))


def renewed_index(connection: Connection, id_: str) -> int:
    """The entry of the last renewal; 0 when there is no such session."""
    found = connection.execute("SELECT renewed_index FROM sessions WHERE id = ?", (id_,)).fetchone()
    return found[0] if found else 0


def delete(connection: Connection, index: int, id_: str) -> None:
    """End a session."""
    connection.execute("DELETE FROM sessions WHERE id = ?", (id_,))
    _move(connection, index)


def held_keys(connection: Connection, id_: str) -> list[bytes]:
    """The keys that a session holds, in byte order."""
    return [key for (key,) in connection.execute(f"SELECT key FROM kv WHERE {_HOLDS} ORDER BY key", (id_,)).fetchall()]  # noqa: S608  # text of ours


def release(connection: Connection, index: int, id_: str) -> None:
    """Let go of all the keys that a session holds; values and LockIndex stay."""
    connection.execute(f"UPDATE kv SET session = NULL, modify_index = ? WHERE {_HOLDS}", (index, id_))  # noqa: S608  # text of ours


def delay(connection: Connection, index: int, key: bytes, duration_ns: int) -> None:
    """Note that a key can't be locked for a while."""
    connection.execute("INSERT OR REPLACE INTO lock_delays (key, since_index, duration_ns) VALUES (?, ?, ?)", (key, index, duration_ns))


def end_delay(connection: Connection, key: bytes, since_index: int) -> bool:
    """Forget a delay, if it is the one that began then."""
    return connection.execute("DELETE FROM lock_delays WHERE key = ? AND since_index = ?", (key, since_index)).rowcount > 0


def is_delayed(connection: Connection, key: bytes) -> bool:
    """Whether a key can't be locked yet."""
    return connection.execute("SELECT 1 FROM lock_delays WHERE key = ?", (key,)).fetchone() is not None


def timers(connection: Connection) -> list[Timer]:
    """Everything that ends when its time is up."""
    timed = connection.execute("SELECT id, renewed_index, ttl_ns FROM sessions WHERE ttl_ns > 0").fetchall()
    timed += connection.execute("SELECT key, since_index, duration_ns FROM lock_delays").fetchall()
    return [Timer(*row) for row in timed]


def set_table_index(connection: Connection, index: int) -> None:
    """Let the sessions have this index, also when it is a lower one."""
    _move(connection, index)


def _move(connection: Connection, index: int) -> None:
    connection.execute(_MOVE, (TABLE, index))


def _session(columns: tuple[Any, ...]) -> Session:
    id_, name, node, lock_delay_ns, behavior, ttl, ttl_ns, checks, created = columns
    node_checks, service_checks = _decoder.decode(checks)
    return Session(id_, name.decode(), node, lock_delay_ns, behavior, ttl, ttl_ns, node_checks, service_checks, created, created)
