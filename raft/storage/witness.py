"""A witness of the last acknowledged write, beside the log: tells a damaged end of the log from one that was never reached.

SQLite forgets the last transaction of its write-ahead log when one bit of it is wrong, as it must forget one that the power cut short; the log
alone can't tell the two apart, and a lost last transaction is a lost vote or a lost acknowledgement. So the log numbers its writes, and
the number of each is put down here once it is durable there. A log that holds less than its witness has lost something, or is an older copy.

The file is mapped into memory: to put a number down takes no call of the system, and costs a microsecond. It survives the end of the process, and
is written to disk when the system sees fit. After a power loss the number may thus be an old one; it is never one too many, for
the log is synced first. A witness that is absent, or does not know its own checksum, says nothing.
"""

import mmap
import os
from pathlib import Path
from struct import Struct
from zlib import crc32

from raft.storage.directory import sync_directory
from raft.storage.failures import sync

FILE_NAME = "log.witness"
_BYTES = 4096
_NUMBER = Struct(">Q")
_RECORD = Struct(">QI")


class Witness:
    """The file in a directory; made, durably, when absent.

    :param number: of the last acknowledged write; 0 when nothing is known.
    :raises OSError: when it can't be made, read or mapped.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE_NAME
        if not self.path.exists() or self.path.stat().st_size != _BYTES:
            _make(self.path)
        file = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._memory = mmap.mmap(file, _BYTES)
        finally:
            os.close(file)
        number, checksum = _RECORD.unpack_from(self._memory)
        self.number: int = number if checksum == _checksum(number) else 0

    def acknowledge(self, number: int) -> None:
        """A write is durable. Nothing here waits for the disk."""
        self.number = number
        self._memory[: _RECORD.size] = encode(number)

    def close(self) -> None:
        """Release the file. Idempotent."""
        self._memory.close()


def read_number(directory: Path) -> int:
    """The number of the last acknowledged write as a directory that stands still tells it; 0 when nothing is known. Changes nothing.

    :raises OSError: when the file is there and can't be read.
    """
    path = directory / FILE_NAME
    content = path.read_bytes() if path.exists() else b""
    number = int.from_bytes(content[: _NUMBER.size], "big")
    return number if content.startswith(encode(number)) else 0


def encode(number: int) -> bytes:
    """What the file begins with."""
    return _RECORD.pack(number, _checksum(number))


def _make(path: Path) -> None:
    """All its bytes are there before it is mapped: a write to memory can't say that the disk is full."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, bytes(_BYTES))
        sync(file)
    finally:
        os.close(file)
    sync_directory(path.parent)


def _checksum(number: int) -> int:
    return crc32(_NUMBER.pack(number), 1)
