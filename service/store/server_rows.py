"""The rows of the table of servers, written and read."""

from sqlite3 import Connection
from typing import NamedTuple

from service.domain.servers import Server

TABLE = "servers"
_MOVE = "INSERT INTO table_indexes VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET modify_index = excluded.modify_index"


class Servers(NamedTuple):
    """All members in the order of their names, and what Consul's index is for answers about nodes and about checks; at least 1."""

    servers: list[Server]
    nodes_index: int
    checks_index: int


def every(connection: Connection) -> Servers:
    """All of them."""
    rows = connection.execute("SELECT * FROM servers ORDER BY name, id").fetchall()
    indexes = dict(connection.execute("SELECT name, modify_index FROM table_indexes WHERE name IN ('nodes', 'checks')").fetchall())
    servers = [Server(id_, name, address, bool(voter), bool(alive), *rest) for id_, name, address, voter, alive, *rest in rows]
    return Servers(servers, indexes.get("nodes", 1), indexes.get("checks", 1))


def put(connection: Connection, server: Server) -> None:
    """Keep one, in the place of an older record."""
    connection.execute("INSERT OR REPLACE INTO servers VALUES (?, ?, ?, ?, ?, ?, ?, ?)", server)


def delete(connection: Connection, server_id: str) -> None:
    """Forget one."""
    connection.execute("DELETE FROM servers WHERE id = ?", (server_id,))


def move_indexes(connection: Connection, index: int, *, nodes: bool, checks: bool) -> None:
    """Note at which entry what changed."""
    for name, moved in (("nodes", nodes), ("checks", checks)):
        if moved:
            connection.execute(_MOVE, (name, index))
