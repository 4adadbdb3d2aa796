"""MessagePack of the old specification: what is packed comes back, and what is cut off, too long or unknown is refused."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.archive import msgpack
from service.archive.errors import ArchiveInvalid
from service.archive.msgpack import Unpacker, Value

leaves = st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.binary(max_size=300)
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.binary(max_size=40), inner, max_size=4), max_leaves=10)


def pack(value: Value) -> bytes:
    """Any value in the store's own forms."""
    if value is None:
        return msgpack.NIL
    if isinstance(value, bool):
        return msgpack.TRUE if value else msgpack.FALSE
    if isinstance(value, int):
        return msgpack.integer(value)
    if isinstance(value, bytes):
        return msgpack.text(value)
    if isinstance(value, list):
        return msgpack.sequence([pack(item) for item in value])
    assert isinstance(value, dict)
    return msgpack.mapping([(name, pack(item)) for name, item in value.items()])


def unpacker(data: bytes, piece: int = 1 << 20) -> Unpacker:
    """One that gets its bytes in pieces of at most a length."""
    stream = io.BytesIO(data)
    return Unpacker(lambda count: stream.read(min(count, piece)))


@given(st.lists(values, max_size=4), st.integers(1, 64))
def test_what_is_packed_comes_back(given_values: list[Value], piece: int) -> None:
    """Values one after another, however the stream is cut; the position is how far they reach."""
    data = b"".join(map(pack, given_values))
    taking = unpacker(data, piece)
    assert [taking.value() for _ in given_values] == given_values
    assert taking.position == len(data)
    assert taking.byte() is None


@pytest.mark.parametrize("size", [31, 32, 255, 256, 65_535, 65_536, 70_000])
def test_lengths_of_text(size: int) -> None:
    """Every form of a length is read, and none of the forms is written that the old specification does not know."""
    data = msgpack.text(b"x" * size)
    assert data[0] in {0xBF, 0xDA, 0xDB}
    assert unpacker(data).value() == b"x" * size


@given(values)
def test_cut_off(value: Value) -> None:
    """Whatever ends early is refused, wherever it is cut."""
    data = pack(value)
    for end in {0, len(data) // 2, len(data) - 1}:
        with pytest.raises(ArchiveInvalid, match="cut off"):
            unpacker(data[:end]).value()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xc1", "of the unknown kind 0xc1"),
        (b"\xdb\xff\xff\xff\xff", "4294967295 long, more than"),
        (b"\xdf\xff\xff\xff\xff", "4294967295 long, more than"),
        (b"\x91" * 40 + b"\xc0", "nested deeper than 32"),
        (b"\x81\x01\x01", "the name 1, which is no text"),
    ],
)
def test_refused(data: bytes, reason: str) -> None:
    """The reason names what is wrong and where; a length alone takes no memory."""
    with pytest.raises(ArchiveInvalid, match=reason) as refused:
        unpacker(data).value()
    assert "at byte" in str(refused.value)
