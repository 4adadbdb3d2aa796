"""Rules about keys alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.keys import after_folded, fold, upper_bound


@pytest.mark.parametrize(
    ("prefix", "bound"),
    [(b"", None), (b"\xff\xff", None), (b"a", b"b"), (b"a\xff", b"b"), (b"a/", b"a0"), (b"\x00", b"\x01"), (b"\xfe\xff", b"\xff")],
)
def test_upper_bound(prefix: bytes, bound: bytes | None) -> None:
    """The bound is the next prefix in byte order; there is none behind nothing but 0xff."""
    assert upper_bound(prefix) == bound


@given(prefix=st.binary(max_size=3), key=st.binary(max_size=5))
def test_upper_bound_parts_keys(prefix: bytes, key: bytes) -> None:
    """A key lies in the range exactly when it begins with the prefix."""
    bound = upper_bound(prefix)
    assert (prefix <= key and (bound is None or key < bound)) == key.startswith(prefix)


@pytest.mark.parametrize(
    ("key", "prefix", "separator", "folded"),
    [
        (b"a/b/c", b"", b"/", b"a/"),
        (b"a/b/c", b"a", b"/", b"a/"),
        (b"a/b/c", b"a/", b"/", b"a/b/"),
        (b"a/b", b"a/", b"/", b"a/b"),
        (b"a/", b"a/", b"/", b"a/"),
        (b"a/", b"a", b"/", b"a/"),
        (b"a--b--c", b"", b"--", b"a--"),
        (b"a--b", b"a-", b"--", b"a--b"),
        (b"a/b", b"", b"", b"a/b"),
        (b"ab", b"", b"/", b"ab"),
    ],
)
def test_fold(key: bytes, prefix: bytes, separator: bytes, folded: bytes) -> None:
    """A key is cut after the first separator that lies wholly behind the prefix; without one it stays."""
    assert fold(key, prefix, separator) == folded


def test_where_a_listing_goes_on() -> None:
    """Behind a folder nothing of it is visited again; behind a plain key the very next one is."""
    assert after_folded(b"a/b/c", b"a/") == b"a0"
    assert after_folded(b"ab", b"ab") == b"ab\x00"
    assert after_folded(b"\xffx", b"\xff") is None
