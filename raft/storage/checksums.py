"""Checksums of everything that the log store keeps, so that bytes that have changed on disk are noticed before they are used.

CRC-32 it is, of zlib: it finds every flipped bit, every run of up to 32 damaged bits and all but one in four thousand million other
damages, and costs 0.1 µs for an entry of 200 bytes, where a cryptographic digest costs ten times that on the write path. The enemy is a
disk, not an attacker: one who can write the file can write its checksums too. Place and meaning (index, term, kind) are part of the sum,
so that a row that turns up at another place is noticed as well.
"""

from struct import Struct
from zlib import crc32

_ROW = Struct(">qqB")
_PAIR = Struct(">qq")


def row_checksum(index: int, term: int, kind: int, data: bytes) -> int:
    """The checksum of one row of the log.

    :raises struct.error: when index or term do not fit into 63 bits.
    """
    return crc32(data, crc32(_ROW.pack(index, term, kind)))


def boundary_checksum(index: int, term: int, configuration: bytes) -> int:
    """The checksum of the place where the log begins.

    :param configuration: as encoded; the sum is over the stored bytes, so that a later encoder changes nothing.
    :raises struct.error: when index or term do not fit into 63 bits.
    """
    return crc32(configuration, crc32(_PAIR.pack(index, term)))


def record_checksum(name: str, value: bytes) -> int:
    """The checksum of a named record. The name is part of it: a damaged name must not look like an absent record."""
    encoded = name.encode()
    return crc32(value, crc32(encoded, crc32(_PAIR.pack(len(encoded), len(value)))))
