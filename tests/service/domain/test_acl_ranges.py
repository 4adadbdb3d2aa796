"""The ranges of keys that may be read: exactly those of which the rules say so one by one."""

from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain.acl.authorizer import EVERYTHING, Authorizer, Range
from service.domain.acl.rules import LEVELS, READ, Rule

LETTERS = (b"a", b"b", b"\x7f")
KEYS = [b"".join(letters) for length in range(5) for letters in product(LETTERS, repeat=length)]
"""All that are short."""

names = st.lists(st.sampled_from("ab\x7f"), max_size=3).map("".join)
rules = st.builds(Rule, st.just("key"), names, st.booleans(), st.sampled_from(sorted(LEVELS)))


@settings(max_examples=300, deadline=None, derandomize=True, print_blob=True)
@given(rules=st.lists(rules, max_size=6), default=st.booleans(), prefix=names)
def test_ranges_are_the_readable_keys(rules: list[Rule], default: bool, prefix: str) -> None:
    """Each key is in a range if and only if it may be read; ranges are in order, and no two touch."""
    who = Authorizer(rules, default_allows=default)
    found = who.ranges(prefix.encode())
    assert all(one.end is not None and one.end < following.first for one, following in pairwise(found))
    for key in KEYS:
        inside = any(one.first <= key and (one.end is None or key < one.end) for one in found)
        assert inside == (key.startswith(prefix.encode()) and who.may(READ, "key", key)), key


@pytest.mark.parametrize("prefix", [b"", b"a", b"a/", b"\xff"])
def test_whoever_may_read_everything(prefix: bytes) -> None:
    """There is one range, that of the prefix."""
    assert EVERYTHING.ranges(prefix) == [Range(prefix, {b"": None, b"a": b"b", b"a/": b"a0", b"\xff": None}[prefix])]
    assert Authorizer([], default_allows=False).ranges(prefix) == []
