"""The rows of the ACL: tokens, policies and roles in one table, and the indexes of their changes."""

from sqlite3 import Connection
from typing import Any, NamedTuple

import msgspec

from service.domain.acl.records import POLICIES, ROLES, TOKENS, Policy, Record, Role, Token, kind_of, row_id_of

TABLE = "acl"
"""Stands for all of it; :func:`index` is that of its last change."""
BOOTSTRAP = "acl-bootstrap"
CLEAR_INDEXES = "DELETE FROM table_indexes WHERE name = 'acl' OR name LIKE 'acl-%'"
_NANOSECONDS = 1_000_000
_MOVE = "INSERT INTO table_indexes VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET modify_index = excluded.modify_index"
_decoder = msgspec.msgpack.Decoder(Record)


class Everything(NamedTuple):
    """The whole ACL at one moment: records by their ids, and indexes by the names above; 0 for what never changed."""

    tokens: dict[str, Token]
    policies: dict[str, Policy]
    roles: dict[str, Role]
    indexes: dict[str, int]

    @property
    def last_index(self) -> int:
        """Of the last change of anything."""
        return self.indexes.get(TABLE, 0)

    def add(self, record: Record) -> None:
        """Have one more of them, or another in the place of one."""
        match record:
            case Token():
                self.tokens[record.accessor] = record
            case Policy():
                self.policies[record.id] = record
            case Role():
                self.roles[record.id] = record


def everything(connection: Connection) -> Everything:
    """All of it. Expired tokens that nobody has removed yet are among it."""
    found: dict[str, dict[str, Any]] = {TOKENS: {}, POLICIES: {}, ROLES: {}}
    for id_, kind, record in connection.execute("SELECT id, kind, record FROM acl_records ORDER BY id").fetchall():
        found[kind][id_.removeprefix(kind + "/")] = _decoder.decode(record)
    return Everything(found[TOKENS], found[POLICIES], found[ROLES], indexes(connection))


def indexes(connection: Connection) -> dict[str, int]:
    """Of the last change of each kind, and of the bootstrap."""
    return dict(connection.execute("SELECT name, modify_index FROM table_indexes WHERE name = ? OR name LIKE 'acl-%'", (TABLE,)).fetchall())


def find(connection: Connection, id_: str) -> Record | None:
    """One record.

    :param id_: as :func:`service.domain.acl.records.row_id` makes it.
    """
    found = connection.execute("SELECT record FROM acl_records WHERE id = ?", (id_,)).fetchone()
    return _decoder.decode(found[0]) if found else None


def find_token(connection: Connection, secret_hash: bytes) -> Token | None:
    """The token with a secret, by the hash of it."""
    found = connection.execute("SELECT record FROM acl_records WHERE kind = ? AND name = ?", (TOKENS, secret_hash)).fetchone()
    record = _decoder.decode(found[0]) if found else None
    return record if isinstance(record, Token) else None


def put(connection: Connection, record: Record) -> str:
    """Keep a record, in the place of the one with its id.

    :returns: its kind.
    """
    kind = kind_of(record)
    if isinstance(record, Token):
        name, expires_ms = record.secret_hash, -(-record.expires_ns // _NANOSECONDS)
    else:
        name, expires_ms = record.name.encode("utf-8", "surrogateescape"), 0
    row = (row_id_of(record), kind, name, expires_ms, msgspec.msgpack.encode(record))
    connection.execute("INSERT OR REPLACE INTO acl_records VALUES (?, ?, ?, ?, ?)", row)
    return kind


def delete(connection: Connection, id_: str) -> str:
    """Forget a record.

    :returns: its kind; empty when there was none.
    """
    found = connection.execute("DELETE FROM acl_records WHERE id = ? RETURNING kind", (id_,)).fetchone()
    return found[0] if found else ""


def expired(connection: Connection, now_ms: int) -> list[str]:
    """The tokens whose time is up."""
    found = connection.execute("SELECT id FROM acl_records WHERE expires_ms > 0 AND expires_ms <= ? ORDER BY id", (now_ms,)).fetchall()
    return [id_ for (id_,) in found]


def move_indexes(connection: Connection, index: int, names: set[str]) -> None:
    """Note at which entry what changed."""
    for name in sorted(names):
        connection.execute(_MOVE, (name, index))
