"""What a batch changed, for those who wait."""

from collections.abc import Iterable
from typing import NamedTuple

KEYS_MAX = 1_000
"""More keys than this are not named one by one: everything may have changed."""


class Changes(NamedTuple):
    """What became different up to ``index``. A write that changed nothing is not in it.

    :param keys: set or deleted one by one.
    :param prefixes: deleted whole.
    :param everything: anything may have changed; ``keys`` and ``prefixes`` are empty then.
    """

    index: int  # type: ignore[assignment]  # the field's word; tuple.index is of no use here
    keys: list[bytes]
    prefixes: list[bytes]
    everything: bool


class ChangeLog:
    """Gathers changes until somebody takes them."""

    def __init__(self) -> None:
        self._keys: dict[bytes, None] = {}
        self._prefixes: dict[bytes, None] = {}
        self._everything = False

    def add(self, keys: Iterable[bytes], prefixes: Iterable[bytes]) -> None:
        """Remember keys and prefixes, each once."""
        if self._everything:
            return
        self._keys.update(dict.fromkeys(keys))
        self._prefixes.update(dict.fromkeys(prefixes))
        if len(self._keys) + len(self._prefixes) > KEYS_MAX:
            self.add_everything()

    def add_everything(self) -> None:
        """Remember that anything may have changed."""
        self._keys.clear()
        self._prefixes.clear()
        self._everything = True

    def take(self, index: int) -> Changes:
        """All that was gathered since the last call; ``index`` is passed through."""
        changes = Changes(index, list(self._keys), list(self._prefixes), self._everything)
        self._keys, self._prefixes, self._everything = {}, {}, False
        return changes
