"""The container: what is written can be read, also by others, and whatever is wrong with one is named."""

import gzip
import hashlib
import io
import tarfile
from collections.abc import Callable
from tempfile import TemporaryFile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.archive.container import META, STATE, SUMS, Meta, Reader, Writer
from service.archive.errors import ArchiveInvalid

DATA = bytes(range(256)) * 300
NOW_MS = 1_700_000_000_123


def written(data: bytes) -> bytes:
    """An archive of some bytes."""
    with TemporaryFile() as spool:
        writer = Writer(spool)
        for start in range(0, len(data), 1000):
            writer.write(data[start : start + 1000])
        return b"".join(writer.finish(57, 3, NOW_MS))


def read(archive: bytes, piece: int = 1 << 20) -> tuple[Meta, bytes]:
    """What an archive says and holds."""
    stream, found = io.BytesIO(archive), bytearray()

    def take(read_state: Callable[[int], bytes]) -> None:
        while data := read_state(piece):
            found.extend(data)

    return Reader(lambda count: stream.read(min(count, piece))).read_all(take), bytes(found)


def made(files: dict[str, bytes], *, plain: bool = False, kind: bytes = tarfile.REGTYPE) -> bytes:
    """An archive of any files; ``plain`` leaves the end of the tar as Python's library makes it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.type = len(data), kind
            tar.addfile(entry, io.BytesIO(data))
        end = out.tell() + 1024
    return gzip.compress(out.getvalue() if plain else out.getvalue()[:end], mtime=0)


def sums(files: dict[str, bytes]) -> bytes:
    """The list of digests."""
    return "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items()).encode()


GOOD = {META: b'{"Version":1,"ID":"3-57-1","Index":57,"Term":3,"Unknown":[1]}', STATE: DATA}


@given(st.binary(max_size=5000), st.integers(1, 5000))
def test_what_is_written_can_be_read(data: bytes, piece: int) -> None:
    """However the stream is cut into pieces."""
    meta, found = read(written(data), piece)
    assert (meta.index, meta.term, meta.id, meta.size, found) == (57, 3, f"3-57-{NOW_MS}", len(data), data)


def test_others_can_read_it() -> None:
    """Python's own gzip and tar find three files that only their owner may read, and digests that are right."""
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(written(DATA)))) as tar:
        found = {entry.name: tar.extractfile(entry).read() for entry in tar}  # type: ignore[union-attr]  # all are regular
        assert {entry.mode for entry in tar} == {0o600}
    assert list(found) == [META, STATE, SUMS]
    assert found[STATE] == DATA
    assert found[SUMS] == sums({STATE: DATA, META: found[META]})


@pytest.mark.parametrize("order", [(META, STATE, SUMS), (SUMS, STATE, META), (STATE, SUMS, META)])
def test_any_order(order: tuple[str, ...]) -> None:
    """The order of the files does not matter, and unknown fields are passed over."""
    files = GOOD | {SUMS: sums(GOOD)}
    meta, found = read(made({name: files[name] for name in order}))
    assert (meta.index, found) == (57, DATA)


def test_cut_off() -> None:
    """An archive is refused wherever it ends early."""
    archive = written(DATA[:2000])
    for end in range(len(archive)):
        with pytest.raises(ArchiveInvalid):
            read(archive[:end])


def test_flipped() -> None:
    """A flipped bit is noticed, or is one that means nothing (the time in a header of gzip, say)."""
    archive = written(b"some state" * 5)
    for at in range(len(archive)):
        damaged = bytearray(archive)
        damaged[at] ^= 0x10
        try:
            meta, found = read(bytes(damaged))
        except ArchiveInvalid:
            continue
        assert (meta.index, found) == (57, b"some state" * 5)


@pytest.mark.parametrize(
    ("archive", "text"),
    [
        (b"", "failed to decompress snapshot: EOF"),
        (b"garbage", "failed to decompress snapshot: unexpected EOF"),
        (b"more than ten bytes", "failed to decompress snapshot: gzip: invalid header"),
        (made(GOOD | {SUMS: sums(GOOD)}, plain=True), "unread uncompressed bytes remain"),
        (made(GOOD | {SUMS: sums(GOOD), "x": b""}), 'unexpected file "x" in snapshot'),
        (made({"../" + META: b""}), 'unexpected file "../meta.json" in snapshot'),
        (made({STATE: b""}, kind=tarfile.SYMTYPE), 'unexpected file "state.bin" in snapshot'),
        (made(GOOD), 'the file "SHA256SUMS" is missing'),
        (made({STATE: DATA, SUMS: sums({STATE: DATA})}), 'the file "meta.json" is missing'),
        (made(GOOD | {SUMS: sums(GOOD | {STATE: b"other"})}), 'failed checking integrity of snapshot: hash check failed for "state.bin"'),
        (made(GOOD | {SUMS: sums(GOOD | {META: b"other"})}), 'failed checking integrity of snapshot: hash check failed for "meta.json"'),
        (made(GOOD | {SUMS: sums({STATE: DATA})}), 'list missing hash for "meta.json"'),
        (made({STATE: DATA, META: b" " * (1 << 20) + b"x"}), 'the file "meta.json" is 1048577 bytes long, more than 1048576'),
    ],
)
def test_refused(archive: bytes, text: str) -> None:
    """Consul's words where it has some."""
    with pytest.raises(ArchiveInvalid) as refused:
        read(archive)
    assert text in str(refused.value)


@pytest.mark.parametrize(
    ("meta", "text"), [(b"{}", 'failed decoding "meta.json"'), (b'{"Version":2,"ID":"","Index":1,"Term":1}', "says version 2; known is 1")]
)
def test_refused_meta(meta: bytes, text: str) -> None:
    """The digest may be right and the text still say something else."""
    files = {STATE: DATA, META: meta}
    with pytest.raises(ArchiveInvalid) as refused:
        read(made(files | {SUMS: sums(files)}))
    assert text in str(refused.value)


def test_wrong_digest_is_told_first() -> None:
    """When the digest says that the state is damaged, that is the reason, whatever else is found wrong in it."""

    def take(_read: Callable[[int], bytes]) -> None:
        raise ArchiveInvalid("a consequence of the damage")

    archive = made(GOOD | {SUMS: sums(GOOD | {STATE: b"other"})})
    with pytest.raises(ArchiveInvalid, match="hash check failed"):
        Reader(io.BytesIO(archive).read).read_all(take)
    with pytest.raises(ArchiveInvalid, match="a consequence"):
        Reader(io.BytesIO(made(GOOD | {SUMS: sums(GOOD)})).read).read_all(take)
