"""Turn a node into a value and back: the explorer's way to copy, to compare and to name what it has seen.

A frozen object is a tuple that begins with its class; what is immutable already stands for itself. Every attribute is taken over, one that
is added later too, so that two nodes with equal frozen forms behave alike. Only settings and the source of jitter, which never
change, are left out and put back (``constants``). An attribute of an unknown kind is refused rather than shared.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from enum import Enum
from hashlib import blake2b
from operator import attrgetter
from typing import Any

PLAIN: frozenset[type] = frozenset((int, bool, str, bytes, type(None)))
PACKAGE = "raft."


def fingerprint(value: object) -> int:
    """Eight bytes that name a value, the same in every process; ``repr`` must show all of it."""
    return int.from_bytes(blake2b(repr(value).encode(), digest_size=8).digest(), "big")


class Freezer:
    """See the module's text.

    :param constants: by class: the attributes that are the same in every object, and their values.
    """

    def __init__(self, constants: Mapping[type, Mapping[str, object]]) -> None:
        self._constants = constants
        self._names: dict[type, tuple[str, ...] | None] = dict.fromkeys(PLAIN)
        self._getters: dict[type, Callable[[object], Any]] = {}
        self._fingerprints: dict[object, int] = {}

    def freeze(self, value: Any) -> Any:
        """The value of an object.

        :raises TypeError: for an attribute that is neither immutable nor made of what is known here.
        """
        kind = type(value)
        names = self._names.get(kind, ())
        if names is None:
            return value
        freeze = self.freeze
        if kind is list or kind is deque:
            return (kind, *map(freeze, value))
        if kind is dict:
            return (dict, *[(key, freeze(value[key])) for key in sorted(value)])
        if not names:
            names = self._names[kind] = self._attributes(value)
            if names is None:
                return value
            self._getters[kind] = attrgetter(*names) if len(names) > 1 else lambda value: (getattr(value, names[0]),)
        return (kind, *[part if type(part) in PLAIN else freeze(part) for part in self._getters[kind](value)])

    def thaw(self, frozen: Any) -> Any:
        """A new object of this value."""
        if type(frozen) is not tuple or not frozen or type(frozen[0]) is not type:
            return frozen
        kind = frozen[0]
        if kind is list or kind is deque:
            return kind(map(self.thaw, frozen[1:]))
        if kind is dict:
            return {key: self.thaw(item) for key, item in frozen[1:]}
        new: Any = object.__new__(kind)
        thaw = self.thaw
        for name, part in zip(self._names[kind] or (), frozen[1:], strict=True):
            setattr(new, name, thaw(part) if type(part) is tuple else part)
        for name, constant in self._constants.get(kind, {}).items():
            setattr(new, name, constant)
        return new

    def fingerprint(self, frozen: Any) -> int:
        """Eight bytes that name a frozen object; those of its parts are remembered."""
        known = self._fingerprints.get(frozen)
        if known is None:
            nested = type(frozen) is tuple and frozen and type(frozen[0]) is type
            parts = (frozen[0].__name__, *map(self.fingerprint, frozen[1:])) if nested else frozen
            known = self._fingerprints[frozen] = fingerprint(parts)
        return known

    def _attributes(self, value: object) -> tuple[str, ...] | None:
        """The names of the attributes of a mutable object of the library; None for what is immutable."""
        kind = type(value)
        if isinstance(value, tuple | Enum) or (is_dataclass(kind) and kind.__dataclass_params__.frozen):  # type: ignore[attr-defined]  # of every dataclass
            return None
        if type(kind) is not type or not kind.__module__.startswith(PACKAGE):
            raise TypeError(f"the explorer can't copy a {kind.__module__}.{kind.__qualname__}: {value!r}")
        names = [*getattr(kind, "__slots__", ()), *getattr(value, "__dict__", ())]
        return tuple(name for name in names if name not in self._constants.get(kind, {}))
