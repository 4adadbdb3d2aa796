"""MessagePack as Consul writes it: of the old specification, in which text and bytes are one type.

``msgspec`` can't be used here: it takes that type for text and refuses bytes that are no UTF-8, and it wants each message in one piece.
"""

from collections.abc import Callable
from struct import Struct

from service.archive.errors import ArchiveInvalid, unreadable

NIL, FALSE, TRUE = b"\xc0", b"\xc2", b"\xc3"
BYTES_MAX = 64 * 1024 * 1024
"""The longest value that is read into memory; no value of a store is as long."""
DEPTH_MAX = 32
PIECE_BYTES = 64 * 1024

Value = None | bool | int | float | bytes | list["Value"] | dict[bytes, "Value"]

_NUMBERS = {
    0xCA: Struct(">f"),
    0xCB: Struct(">d"),
    0xCC: Struct(">B"),
    0xCD: Struct(">H"),
    0xCE: Struct(">I"),
    0xCF: Struct(">Q"),
    0xD0: Struct(">b"),
    0xD1: Struct(">h"),
    0xD2: Struct(">i"),
    0xD3: Struct(">q"),
}
_TEXT_LENGTHS = {0xD9: 1, 0xDA: 2, 0xDB: 4, 0xC4: 1, 0xC5: 2, 0xC6: 4}
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
_LIST, _MAP = {0xDC: 2, 0xDD: 4}, {0xDE: 2, 0xDF: 4}


def integer(number: int) -> bytes:
    """A number in as few bytes as it needs."""
    if number < 0:
        return b"\xd3" + number.to_bytes(8, "big", signed=True)
    if number < 0x80:
        return bytes((number,))
    for first, size in ((0xCC, 1), (0xCD, 2), (0xCE, 4)):
        if number < 1 << 8 * size:
            return bytes((first,)) + number.to_bytes(size, "big")
    return b"\xcf" + number.to_bytes(8, "big")


def text(data: bytes) -> bytes:
    """Text or bytes."""
    size = len(data)
    if size < 0x20:
        return bytes((0xA0 | size,)) + data
    if size < 1 << 16:
        return b"\xda" + size.to_bytes(2, "big") + data
    return b"\xdb" + size.to_bytes(4, "big") + data


def sequence(items: list[bytes]) -> bytes:
    """A list of packed values."""
    if len(items) < 0x10:
        return bytes((0x90 | len(items),)) + b"".join(items)
    return b"\xdc" + len(items).to_bytes(2, "big") + b"".join(items)


def mapping(fields: list[tuple[bytes, bytes]]) -> bytes:
    """A map from names to packed values, in the given order."""
    start = bytes((0x80 | len(fields),)) if len(fields) < 0x10 else b"\xde" + len(fields).to_bytes(2, "big")
    return start + b"".join(text(name) + value for name, value in fields)


class Unpacker:
    """Takes values one after another from a stream; memory holds the value at hand and one piece of the stream.

    :param read: gives at most that many of the next bytes; empty at the end.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._buffer = b""
        self._at = 0
        self._before = 0

    @property
    def position(self) -> int:
        """How many bytes were taken."""
        return self._before + self._at

    def byte(self) -> int | None:
        """The next byte; None at the end of the stream."""
        if self._at == len(self._buffer) and not self._fill(1):
            return None
        self._at += 1
        return self._buffer[self._at - 1]

    def value(self, depth: int = 0) -> Value:
        """The next value.

        :raises ArchiveInvalid: when the stream ends in it, or it is too long, too deep or nothing that is known.
        """
        first = self._take(1)[0]
        if first < 0x80:
            return first
        if first >= 0xE0:
            return first - 0x100
        if 0xA0 <= first < 0xC0:
            return self._take(first & 0x1F)
        if first in _TEXT_LENGTHS:
            return self._take(self._length(_TEXT_LENGTHS[first]))
        return self._number_or_nested(first, depth)

    def _number_or_nested(self, first: int, depth: int) -> Value:
        if number := _NUMBERS.get(first):
            found: int | float = number.unpack(self._take(number.size))[0]
            return found
        if first in _CONSTANTS:
            return _CONSTANTS[first]
        return self._nested(first, depth)

    def _nested(self, first: int, depth: int) -> Value:
        if depth == DEPTH_MAX:
            raise self._wrong(f"is nested deeper than {DEPTH_MAX}")
        if first < 0x90 or first in _MAP:
            count = first & 0x0F if first < 0x90 else self._length(_MAP[first])
            return {self._name(depth): self.value(depth + 1) for _ in range(count)}
        if first < 0xA0 or first in _LIST:
            count = first & 0x0F if first < 0xA0 else self._length(_LIST[first])
            return [self.value(depth + 1) for _ in range(count)]
        raise self._wrong(f"is of the unknown kind 0x{first:02x}")

    def _name(self, depth: int) -> bytes:
        name = self.value(depth + 1)
        if not isinstance(name, bytes):
            raise self._wrong(f"has the name {name!r}, which is no text")
        return name

    def _length(self, size: int) -> int:
        length = int.from_bytes(self._take(size), "big")
        if length > BYTES_MAX:
            raise self._wrong(f"is {length} long, more than {BYTES_MAX}")
        return length

    def _take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._buffer):
            if not self._fill(count):
                raise self._wrong("is cut off")
            end = self._at + count
        taken = self._buffer[self._at : end]
        self._at = end
        return taken

    def _fill(self, count: int) -> bool:
        """Read until that many bytes are there; False when the stream ends before."""
        parts = [self._buffer[self._at :]]
        missing = count - len(parts[0])
        while missing > 0:
            piece = self._read(max(missing, PIECE_BYTES))
            if not piece:
                break
            parts.append(piece)
            missing -= len(piece)
        self._before += self._at
        self._buffer, self._at = b"".join(parts), 0
        return missing <= 0

    def _wrong(self, problem: str) -> ArchiveInvalid:
        return unreadable(f'the value at byte {self.position} of "state.bin" {problem}')
