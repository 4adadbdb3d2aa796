"""The decision: what somebody with certain rules may do, where the rules say nothing by the default policy.

An exact rule beats every prefix, a longer prefix a shorter one. Where several rules speak of the same name (of one policy or of several), deny beats
write, write beats list, list beats read.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

from service.domain.acl.rules import DENY, LEVELS, LIST, NAMED, READ, SCALARS, WRITE, Rule
from service.domain.keys import upper_bound

_ENOUGH = {READ: (READ, LIST, WRITE), LIST: (LIST, WRITE), WRITE: (WRITE,)}
_MANAGED = ("acl", "snapshot")
"""What the default policy never allows."""


class Range(NamedTuple):
    """Names from the first on, up to and without the end; None: to the last there is."""

    first: bytes
    end: bytes | None


class _Table:
    """The rules about one resource."""

    __slots__ = ("exact", "lengths", "prefixes")

    def __init__(self) -> None:
        self.exact: dict[bytes, str] = {}
        self.prefixes: dict[bytes, str] = {}
        self.lengths: tuple[int, ...] = ()

    def add(self, rule: Rule) -> None:
        """Take a rule in; the stricter of two about one name stays."""
        table = self.prefixes if rule.is_prefix else self.exact
        name = rule.name.encode("utf-8", "surrogateescape")
        table[name] = max(rule.policy, table.get(name, READ), key=LEVELS.__getitem__)

    def finish(self) -> None:
        """Note the lengths of prefixes, the longest first."""
        self.lengths = tuple(sorted({len(prefix) for prefix in self.prefixes}, reverse=True))

    def find(self, name: bytes) -> str | None:
        """The rule about a name."""
        return self.exact.get(name) or self.find_prefix(name)

    def find_prefix(self, name: bytes) -> str | None:
        """The rule about the longest prefix of a name that there is one about."""
        for length in self.lengths:
            if length <= len(name) and (found := self.prefixes.get(name[:length])):
                return found
        return None

    def below(self, prefix: bytes) -> Iterable[str]:
        """All rules about names that begin so."""
        for table in (self.exact, self.prefixes):
            yield from (policy for name, policy in table.items() if name.startswith(prefix))

    def borders(self) -> Iterator[bytes | None]:
        """Where one rule ends to hold and another begins, in no order; None stands for the end of all names."""
        for name in self.exact:
            yield from (name, name + b"\0")
        for prefix in self.prefixes:
            yield from (prefix, upper_bound(prefix))


class Authorizer:
    """What may be done; immutable.

    :param accessor: of the token; empty for whoever has everything because nobody is asked.
    :param default_allows: the default policy.
    """

    def __init__(self, rules: Iterable[Rule], *, default_allows: bool, accessor: str = "") -> None:
        self.accessor = accessor
        self._default = default_allows
        self._tables = {resource: _Table() for resource in (*NAMED, *SCALARS)}
        for rule in rules:
            self._tables[rule.resource].add(rule)
        for table in self._tables.values():
            table.finish()

    def may(self, level: str, resource: str, name: str | bytes = b"") -> bool:
        """Whether a resource may be read, listed or written.

        :param level: ``read``, ``list`` or ``write``.
        :param name: of what is to be used; the resources in :data:`SCALARS` have none.
        """
        raw = name.encode("utf-8", "surrogateescape") if isinstance(name, str) else name
        found = self._tables[resource].find(raw)
        if found is None:
            return self._default and resource not in _MANAGED
        return found in _ENOUGH[level]

    def may_manage(self) -> bool:
        """Whether everything may be had at once: the ACL itself, snapshots."""
        return self.may(WRITE, "acl")

    def may_on_all(self, level: str, prefix: bytes) -> bool:
        """Whether a level is allowed on every key that begins with a prefix, those that do not exist yet too."""
        table = self._tables["key"]
        above = table.find_prefix(prefix)
        if above is not None and above not in _ENOUGH[level]:
            return False
        if any(policy not in _ENOUGH[level] for policy in table.below(prefix)):
            return False
        return self._default if above is None else True

    def keys(self, prefix: bytes) -> Callable[[bytes], bool] | None:
        """Which of the keys with a prefix may be seen; None for all."""
        if self.may_on_all(READ, prefix):
            return None
        find = self._tables["key"].find

        def may_see(key: bytes) -> bool:
            found = find(key)
            return self._default if found is None else found != DENY

        return may_see

    def ranges(self, prefix: bytes) -> list[Range]:
        """The keys with a prefix that may be seen, in byte order, as few ranges as possible."""
        end, may_see = upper_bound(prefix), self.keys(prefix)
        if may_see is None:
            return [Range(prefix, end)]
        inside = {at for at in self._tables["key"].borders() if at is not None and at > prefix and (end is None or at < end)}
        found: list[Range] = []
        # Between two borders the same rule holds for all keys, so the first one speaks for them.
        for first, following in pairwise([prefix, *sorted(inside), end]):
            if first is None or not may_see(first):
                continue
            joined = found.pop().first if found and found[-1].end == first else first
            found.append(Range(joined, following))
        return found


EVERYTHING = Authorizer(
    [Rule(resource, "", is_prefix=True, policy=WRITE) for resource in (*NAMED, *SCALARS)],
    default_allows=True,
)
"""For whoever is not asked: the ACL is off."""
