"""What a batch changed, for those who wait."""

from collections.abc import Iterable
from typing import NamedTuple

REPLACED = "*"
"""The table whose change stands for another state in the place of the whole one: indexes may have gone back."""

KEYS_MAX = 1_000
"""More keys than this are not named one by one: everything may have changed."""


class Timer(NamedTuple):
    """Something in the state that ends when its time is up: the leader has to propose that.

    :param name: the id of a session; of a lock-delay the key.
    :param index: of the entry from which on the time counts.
    :param duration_ns: 0 when it has ended otherwise.
    """

    name: str | bytes
    index: int  # type: ignore[assignment]  # the field's word; tuple.index is of no use here
    duration_ns: int


class Changes(NamedTuple):
    """What became different up to ``index``. A write that changed nothing is not in it.

    :param keys: set or deleted one by one.
    :param prefixes: deleted whole.
    :param everything: anything may have changed; the others are empty then, but for ``timers``.
    :param tables: tables other than that of the keys and of the sessions (their names in :mod:`service.store.schema`).
    :param sessions: ids of those that were created or destroyed.
    :param timers: those that began or ended, in order; complete unless a snapshot was installed.
    """

    index: int  # type: ignore[assignment]  # the field's word; tuple.index is of no use here
    keys: list[bytes]
    prefixes: list[bytes]
    everything: bool
    tables: list[str] = []  # noqa: RUF012 - nobody changes it
    sessions: tuple[str, ...] = ()
    timers: tuple[Timer, ...] = ()

    @property
    def nothing(self) -> bool:
        """Whether there is nothing to tell clients."""
        return not (self.keys or self.prefixes or self.everything or self.tables or self.sessions)


class ChangeLog:
    """Gathers changes until somebody takes them."""

    def __init__(self) -> None:
        self._keys: dict[bytes, None] = {}
        self._prefixes: dict[bytes, None] = {}
        self._tables: dict[str, None] = {}
        self._everything = False
        self._sessions: dict[str, None] = {}
        self._timers: list[Timer] = []

    def add(self, keys: Iterable[bytes], prefixes: Iterable[bytes], tables: Iterable[str] = ()) -> None:
        """Remember keys, prefixes and tables, each once."""
        if self._everything:
            return
        self._tables.update(dict.fromkeys(tables))
        self._keys.update(dict.fromkeys(keys))
        self._prefixes.update(dict.fromkeys(prefixes))
        if len(self._keys) + len(self._prefixes) > KEYS_MAX:
            self.add_everything()

    def add_sessions(self, sessions: Iterable[str], timers: Iterable[Timer]) -> None:
        """Remember sessions and timers."""
        self._timers += timers
        if not self._everything:
            self._sessions.update(dict.fromkeys(sessions))

    def add_everything(self) -> None:
        """Remember that anything may have changed."""
        self._keys.clear()
        self._prefixes.clear()
        self._tables.clear()
        self._sessions.clear()
        self._everything = True

    def add_replaced(self) -> None:
        """Remember that another state took the place of the whole one."""
        self.add_everything()
        self._tables[REPLACED] = None

    def take(self, index: int) -> Changes:
        """All that was gathered since the last call; ``index`` is passed through."""
        sessions, timers = tuple(self._sessions), tuple(self._timers)
        changes = Changes(index, list(self._keys), list(self._prefixes), self._everything, list(self._tables), sessions, timers)
        self._keys, self._prefixes, self._tables, self._everything = {}, {}, {}, False
        self._sessions, self._timers = {}, []
        return changes
