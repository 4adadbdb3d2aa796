"""Conditions on what a key is, as ``If-Match`` and ``If-None-Match`` state them; evaluated where a command is applied, never before."""

from typing import Self

import msgspec

ABSENT = 0
"""Stands for the ModifyIndex of a key that does not exist."""


class Condition(msgspec.Struct, array_like=True, frozen=True):
    """What the ModifyIndex of a key must be; :data:`ABSENT` for a key that does not exist.

    :param one_of: one of these; None for any, an empty list for one that can't be.
    :param none_of: none of these.
    """

    one_of: list[int] | None = None
    none_of: list[int] = []

    def holds(self, modify_index: int) -> bool:
        """Whether a key with this ModifyIndex is as it must be."""
        return (self.one_of is None or modify_index in self.one_of) and modify_index not in self.none_of

    def both(self, other: Self) -> "Condition":
        """That both hold."""
        if self.one_of is None or other.one_of is None:
            one_of = other.one_of if self.one_of is None else self.one_of
        else:
            one_of = [index for index in self.one_of if index in other.one_of]
        return Condition(one_of, self.none_of + other.none_of)
