"""The row of the autopilot's configuration, written and read."""

from sqlite3 import Connection

import msgspec

from service.domain.autopilot import Stored
from service.domain.commands import AutopilotConfiguration

TABLE = "autopilot"


def find(connection: Connection) -> Stored | None:
    """The configuration in force; None when nobody has made one."""
    row = connection.execute("SELECT configuration, create_index, modify_index FROM autopilot").fetchone()
    return None if row is None else Stored(msgspec.msgpack.decode(row[0], type=AutopilotConfiguration), row[1], row[2])


def put(connection: Connection, stored: Stored) -> None:
    """Keep it, in the place of the one before."""
    row = (msgspec.msgpack.encode(stored.configuration), stored.create_index, stored.modify_index)
    connection.execute("INSERT OR REPLACE INTO autopilot VALUES (1, ?, ?, ?)", row)
