"""The container of an archive: gzip, tar, and the list of digests.

Written, it is three gzip members in a row, which readers take for one stream: the length of ``state.bin`` stands before it in a tar, and is known
only after it. So ``state.bin`` is compressed into a file first, which then goes out between the two others. The tar ends right after its two empty
blocks: Consul's command line refuses anything behind them.
"""

import hashlib
import tarfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any

import msgspec

from service.archive.errors import ArchiveInvalid, unreadable

META, STATE, SUMS = "meta.json", "state.bin", "SHA256SUMS"
CONTENT_TYPE = "application/x-gzip"
SMALL_BYTES_MAX = 1024 * 1024
"""How long anything but ``state.bin`` may be."""
VERSION = 1
PIECE_BYTES = 64 * 1024
_BLOCK = tarfile.BLOCKSIZE
_GZIP = zlib.MAX_WBITS | 16
_LEVEL = 1  # a state is compressed in passing; the highest level halves the rest and takes ten times as long
_GZIP_HEADER_BYTES = 10
_MODE = 0o600


class Meta(msgspec.Struct, frozen=True, rename="pascal"):
    """What ``meta.json`` says: the fields of a Raft snapshot's, as a Consul writes them.

    :param id: ``term-index-milliseconds``.
    :param size: of ``state.bin``.
    """

    version: int
    id: str = msgspec.field(name="ID")
    index: int
    term: int
    peers: str | None = None
    configuration: dict[str, Any] = msgspec.field(default_factory=lambda: {"Servers": []})
    configuration_index: int = 0
    size: int = 0


class Writer:
    """Takes ``state.bin`` piece by piece and then gives the archive.

    :param spool: an empty file that may be read again.
    """

    def __init__(self, spool: IO[bytes]) -> None:
        self._spool = spool
        self._sha = hashlib.sha256()
        self._compressor = zlib.compressobj(_LEVEL, wbits=_GZIP)
        self._size = 0

    def write(self, data: bytes) -> None:
        """The next bytes of ``state.bin``."""
        self._sha.update(data)
        self._size += len(data)
        self._spool.write(self._compressor.compress(data))

    def finish(self, index: int, term: int, now_ms: int) -> Iterator[bytes]:
        """End ``state.bin``.

        :param index: of the last entry that it holds, and ``term`` of that.
        :param now_ms: the time, since 1970.
        :returns: the archive, piece by piece.
        """
        self._spool.write(self._compressor.flush())
        self._spool.seek(0)
        meta = msgspec.json.encode(Meta(VERSION, f"{term}-{index}-{now_ms}", index, term, size=self._size))
        sums = f"{self._sha.hexdigest()}  {STATE}\n{hashlib.sha256(meta).hexdigest()}  {META}\n".encode()
        seconds = now_ms // 1000
        head = _entry(META, len(meta), seconds) + _padded(meta) + _entry(STATE, self._size, seconds)
        tail = b"\0" * (-self._size % _BLOCK) + _entry(SUMS, len(sums), seconds) + _padded(sums) + b"\0" * (2 * _BLOCK)
        return self._pieces(head, tail)

    def _pieces(self, head: bytes, tail: bytes) -> Iterator[bytes]:
        yield zlib.compress(head, wbits=_GZIP)
        while piece := self._spool.read(PIECE_BYTES):
            yield piece
        yield zlib.compress(tail, wbits=_GZIP)


def _entry(name: str, size: int, seconds: int) -> bytes:
    found = tarfile.TarInfo(name)
    found.size, found.mtime, found.mode = size, seconds, _MODE
    return found.tobuf(tarfile.GNU_FORMAT)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % _BLOCK)


class _Gunzip:
    """What a gzipped stream holds; all its members, one after another."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._member: Any = None
        self._waiting = b""
        self._first()

    def read(self, count: int) -> bytes:
        """At most that many bytes; empty at the end.

        :raises ArchiveInvalid: when the stream is damaged or cut off.
        """
        while True:
            if self._member.eof and not self._next():
                return b""
            data = self._waiting or self._read(PIECE_BYTES)
            try:
                found: bytes = self._member.decompress(data, count)
            except zlib.error as error:
                raise unreadable(f"gzip: {error}") from error
            self._waiting = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            if found:
                return found
            if not data and not self._member.eof:
                raise unreadable("unexpected EOF")

    def _first(self) -> None:
        """Consul has words of its own for a stream that does not begin like one."""
        while len(self._waiting) < _GZIP_HEADER_BYTES and (piece := self._read(PIECE_BYTES)):
            self._waiting += piece
        problem = "EOF" if not self._waiting else "unexpected EOF" if len(self._waiting) < _GZIP_HEADER_BYTES else ""
        if not problem and not self._waiting.startswith(b"\x1f\x8b\x08"):
            problem = "gzip: invalid header"
        if problem:
            raise ArchiveInvalid(f"failed to decompress snapshot: {problem}")
        self._member = zlib.decompressobj(_GZIP)

    def _next(self) -> bool:
        if not self._waiting:
            self._waiting = self._read(PIECE_BYTES)
        if not self._waiting:
            return False
        self._member = zlib.decompressobj(_GZIP)
        return True


class Reader:
    """Takes an archive apart as it arrives.

    :param read: gives at most that many of the next bytes of the archive; empty at the end.
    :raises ArchiveInvalid: in Consul's words: no gzip stream.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._stream = _Gunzip(read)
        self._left = 0
        self._found: dict[str, str] = {}
        self._small: dict[str, bytes] = {}

    def read_all(self, take_state: Callable[[Callable[[int], bytes]], None]) -> Meta:
        """Go through the whole archive.

        :param take_state: is called once, with a function that reads ``state.bin`` to its end. An :class:`ArchiveInvalid` of its own is raised only
            when the digests are right: else they are what is wrong.
        :raises ArchiveInvalid: when the archive is cut off, damaged, incomplete, or holds anything else.
        """
        problem: ArchiveInvalid | None = None
        while (entry := self._entry()) is not None:
            name, size = entry
            sha = hashlib.sha256()
            self._left = size
            if name == STATE:
                problem = self._pass_on(take_state, sha)
            else:
                self._small[name] = self._all(name, size)
                sha.update(self._small[name])
            self._found[name] = sha.hexdigest()
            self._skip(-size % _BLOCK)
        self._check_end()
        self._check_sums()
        if problem is not None:
            raise problem
        return self._meta()

    def _pass_on(self, take_state: Callable[[Callable[[int], bytes]], None], sha: Any) -> ArchiveInvalid | None:
        def read(count: int) -> bytes:
            piece = self._some(count)
            sha.update(piece)
            return piece

        problem = None
        try:
            take_state(read)
        except ArchiveInvalid as error:
            problem = error
        while read(PIECE_BYTES):
            pass
        return problem

    def _entry(self) -> tuple[str, int] | None:
        """Name and length of the next file; None at the end of the tar."""
        block = self._exactly(_BLOCK)
        if block.count(0) == _BLOCK:
            self._exactly(_BLOCK)
            return None
        try:
            found = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise unreadable(f"failed reading snapshot: archive/tar: {error}") from error
        if found.name not in {META, STATE, SUMS} or not found.isreg():
            raise unreadable(f'unexpected file "{found.name}" in snapshot')
        if found.name in self._found:
            raise unreadable(f'the file "{found.name}" is there twice')
        return found.name, found.size

    def _all(self, name: str, size: int) -> bytes:
        if size > SMALL_BYTES_MAX:
            raise unreadable(f'the file "{name}" is {size} bytes long, more than {SMALL_BYTES_MAX}')
        return self._exactly(size)

    def _exactly(self, count: int) -> bytes:
        self._left = count
        parts = []
        while piece := self._some(self._left):
            parts.append(piece)
        return b"".join(parts)

    def _skip(self, count: int) -> None:
        self._exactly(count)

    def _some(self, count: int) -> bytes:
        if not self._left or not count:
            return b""
        piece = self._stream.read(min(count, self._left))
        if not piece:
            raise unreadable("failed reading snapshot: unexpected EOF")
        self._left -= len(piece)
        return piece

    def _check_end(self) -> None:
        remaining = 0
        while piece := self._stream.read(PIECE_BYTES):
            remaining += len(piece)
        if remaining:
            raise ArchiveInvalid(f"failed to read snapshot file: {remaining} unread uncompressed bytes remain")

    def _check_sums(self) -> None:
        for name in (META, STATE, SUMS):
            if name not in self._found:
                raise unreadable(f'the file "{name}" is missing')
        lines = [line.partition("  ") for line in self._small[SUMS].decode("utf-8", "replace").splitlines()]
        listed = {name: digest for digest, _, name in lines}
        for name in (META, STATE):
            if listed.get(name) != self._found[name]:
                reason = "hash check failed for" if name in listed else "list missing hash for"
                raise unreadable(f'failed checking integrity of snapshot: {reason} "{name}"')

    def _meta(self) -> Meta:
        try:
            meta = msgspec.json.decode(self._small[META], type=Meta)
        except msgspec.MsgspecError as error:
            raise unreadable(f'failed decoding "{META}": {error}') from error
        if meta.version != VERSION:
            raise unreadable(f'"{META}" says version {meta.version}; known is {VERSION}')
        return meta
