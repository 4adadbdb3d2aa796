"""The records of a real Consul 1.8.7, in an archive that its command line saved, and the same ones written by us."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from service.archive import msgpack, records
from service.archive.container import Reader
from service.archive.errors import ArchiveInvalid
from service.archive.msgpack import Unpacker
from service.domain.entries import Row, ServiceCheck, Session

if TYPE_CHECKING:
    from collections.abc import Callable

REAL = Path(__file__).with_name("consul-1.8.7.tgz")
"""Saved from a fresh `consul agent -dev` without Connect: six kinds of keys, two sessions, a deleted key, a service, a prepared query."""

SESSION = "49ff4eb1-6505-4c87-97ce-812a8467e1aa"


def state() -> bytes:
    """The ``state.bin`` of the real archive."""
    found = bytearray()

    def take(read: Callable[[int], bytes]) -> None:
        while data := read(1 << 16):
            found.extend(data)

    with REAL.open("rb") as archive:
        assert Reader(archive.read).read_all(take).index == 25
    return bytes(found)


def split(data: bytes) -> list[tuple[records.Record, bytes]]:
    """Each record with the bytes that it is made of."""
    _, found = records.read(Unpacker(io.BytesIO(data).read))
    listed = list(found)
    ends = [record.position for record in listed[1:]] + [len(data)]
    return [(record, data[record.position : end]) for record, end in zip(listed, ends, strict=True)]


def test_what_it_holds() -> None:
    """Every record is known, and keys, sessions and the rest mean what they did in that Consul."""
    found = [record for record, _ in split(state())]
    assert Counter(record.number for record in found) == {0: 5, 2: 5, 3: 2, 5: 1, 6: 1, 7: 1, 9: 1, 16: 12, 29: 1, 30: 1}
    keys = {row.key: row for row in (records.key_of(record) for record in found if record.number == records.KEY)}
    assert keys[b"app/flags"] == Row(b"app/flags", b"hello", (1 << 64) - 1, 0, None, 8, 8)
    assert keys[b"app/bin"] == Row(b"app/bin", bytes(range(256)) * 275, 0, 0, None, 9, 25)
    assert keys[b"app/empty"] == Row(b"app/empty", b"", 0, 0, None, 10, 10)
    assert keys["app/ü".encode()].value == b"\xff\xfe\x00raw"
    assert keys[b"app/lock"] == Row(b"app/lock", b"held", 0, 1, SESSION, 15, 15)
    sessions = [records.session_of(record) for record in found if record.number == records.SESSION]
    assert sessions[0] == Session(SESSION, "worker", "real", 5 * 10**9, "delete", "60s", 0, ["serfHealth"], None, 14, 14)
    assert (sessions[1].node_checks, sessions[1].ttl, sessions[1].create_index) == ([], "", 16)
    (buried,) = (records.key_of(record) for record in found if record.number == records.TOMBSTONE)
    assert (buried.key, buried.modify_index) == (b"gone/a", 12)
    (autopilot,) = (records.autopilot_of(record) for record in found if record.number == records.AUTOPILOT)
    assert (autopilot[0].max_trailing_logs, autopilot[0].server_stabilization_time_ns, *autopilot[1:]) == (250, 10 * 10**9, 4, 4)
    assert dict(records.index_of(record) for record in found if record.number == records.INDEX)[records.KVS_INDEX] == 25


def test_written_by_us_they_are_the_same_bytes() -> None:
    """Byte for byte what a Consul writes; so a Consul reads ours as it reads its own."""
    data = state()
    assert data.startswith(records.pack_header(25))
    compared = 0
    for record, original in split(data):
        written: Any = None
        if record.number == records.KEY:
            written = records.pack_key(records.key_of(record))
        elif record.number == records.TOMBSTONE:
            found = records.key_of(record)
            written = records.pack_tombstone(found.key, found.modify_index)
        elif record.number == records.SESSION:
            written = records.pack_session(records.session_of(record))
        elif record.number == records.AUTOPILOT:
            written = records.pack_autopilot(*records.autopilot_of(record))
        elif record.number == records.INDEX:
            written = records.pack_index(*records.index_of(record))
        if written is not None:
            compared += 1
            assert written == original
    assert compared == 21


def test_checks_of_services() -> None:
    """A session's checks of services come back."""
    session = Session(SESSION, "n", "a", 0, "release", "", 0, None, [ServiceCheck("c", "ns"), ServiceCheck("d", "")], 3, 3)
    data = records.pack_header(1) + records.pack_session(session)
    ((record, _),) = split(data)
    assert records.session_of(record) == session


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "cut off"),
        (msgpack.integer(3), "does not begin with the header of a Consul"),
        (msgpack.mapping([]), "does not begin with the header of a Consul"),
        (records.pack_header(1) + b"\x7f\x80", "Unrecognized msg type 127 at byte 12"),
        (records.pack_header(1) + b"\x02\x01", "the record at byte 12"),
    ],
)
def test_refused(data: bytes, text: str) -> None:
    """What is no state of a Consul is named."""
    with pytest.raises(ArchiveInvalid, match=text):
        split(data)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        (b"Key", msgpack.integer(5), "Key is 5, no text, in a record of keys at byte 12"),
        (b"Flags", msgpack.integer(-1), "Flags is -1, no number from 0 to"),
        (b"ModifyIndex", msgpack.integer((1 << 64) - 1), "ModifyIndex is 18446744073709551615, no number from 0 to"),
        (b"Session", msgpack.text(b"\xff"), "no UTF-8"),
    ],
)
def test_refused_fields(name: bytes, value: bytes, text: str) -> None:
    """A field of another type is named, with its value and where it stands."""
    ((record, _),) = split(records.pack_header(1) + b"\x02" + msgpack.mapping([(name, value)]))
    with pytest.raises(ArchiveInvalid, match=text):
        records.key_of(record)
