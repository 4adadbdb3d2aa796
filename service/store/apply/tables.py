"""What commands that are not about keys need of the state."""

from sqlite3 import Connection
from typing import Protocol


class Tables(Protocol):
    """The tables beside that of the keys, as the entry at hand finds them, with the effects of those before it."""

    def open(self) -> Connection:
        """The connection, inside the transaction of the batch."""
        ...

    def changed(self, table: str) -> None:
        """Note that something in a table became different, for those who wait."""
        ...
