"""The rows of the table of events, written and read."""

from sqlite3 import Connection

from service.domain.events import Event

TABLE = "events"
FIRST_LTIME = 2  # as the first event of a Consul has


def newest(connection: Connection) -> int:
    """The LTime of the newest event; the one before the first when there is none."""
    found: int | None = connection.execute("SELECT max(ltime) FROM events").fetchone()[0]
    return FIRST_LTIME - 1 if found is None else found


def add(connection: Connection, event: Event) -> None:
    """Keep an event."""
    filters = [text.encode("utf-8", "surrogateescape") for text in event[4:]]
    connection.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", (*event[:4], *filters))


def forget(connection: Connection, up_to: int) -> None:
    """Drop the events up to and including that LTime."""
    connection.execute("DELETE FROM events WHERE ltime <= ?", (up_to,))


def every(connection: Connection) -> list[Event]:
    """All events, the oldest first."""
    rows = connection.execute("SELECT * FROM events ORDER BY ltime").fetchall()
    return [Event(*row[:4], *(text.decode("utf-8", "surrogateescape") for text in row[4:])) for row in rows]
