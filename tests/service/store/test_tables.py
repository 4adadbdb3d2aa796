"""The tables beside that of the keys: events, servers, the autopilot's configuration."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from service.domain import autopilot
from service.domain.commands import AutopilotConfiguration, FireEvent, KvPut, RecordServers, ServerRecord, SetAutopilot
from service.domain.events import KEPT
from service.domain.servers import Server
from service.store import autopilot_rows, engine, event_rows, files, server_rows
from service.store.changes import Changes
from service.store.sums import seal

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.service.store.conftest import Node


def test_events_share_a_batch_with_keys(node: Node) -> None:
    """An event inside a batch comes in its order, moves no index of the keys, and is told to those who wait."""
    assert node.apply(KvPut(b"a", b"1"), FireEvent("i1", b"one", b"\x00"), KvPut(b"b", b"2"), FireEvent("i2", b"two", node_filter="n")) == [True] * 4
    assert [row.modify_index for row in node.reader.list(b"").rows] == [1, 3]
    assert node.machine.take_changes() == Changes(4, [b"a", b"b"], [], False, ["events"])
    node.apply(FireEvent("i3", b"three"))
    assert node.reader.list(b"").index == 3
    events, applied = node.reader.tables(event_rows.every)
    assert [(event.ltime, event.id, event.name, event.payload, event.node_filter) for event in events] == [
        (2, "i1", b"one", b"\x00", ""),
        (3, "i2", b"two", b"", "n"),
        (4, "i3", b"three", b"", ""),
    ]
    assert applied == 5


def test_events_are_bounded(node: Node) -> None:
    """The oldest makes room for the newest; their numbers go on."""
    node.apply(*(FireEvent(str(number), b"e") for number in range(KEPT + 1)))
    events, _ = node.reader.tables(event_rows.every)
    assert (len(events), events[0].id, events[-1].ltime) == (KEPT, "1", KEPT + 2)


def test_servers(node: Node) -> None:
    """A record moves the indexes of what differs and of nothing else; the same record again changes nothing."""
    one, two = ServerRecord("i1", "n1", "a:1", True, True), ServerRecord("i2", "n2", "a:2", True, True)
    node.apply(RecordServers([two, one]))
    assert node.machine.take_changes().tables == ["servers"]
    node.apply(RecordServers([one, two]), KvPut(b"k", b"v"))
    assert node.machine.take_changes() == Changes(3, [b"k"], [], everything=False)
    node.apply(RecordServers([one, ServerRecord("i2", "n2", "a:2", True, False)]))
    found, _ = node.reader.tables(server_rows.every)
    assert found == ([Server("i1", "n1", "a:1", True, True, 1, 1, 1), Server("i2", "n2", "a:2", True, False, 1, 1, 4)], 1, 4)
    node.apply(RecordServers([ServerRecord("i1", "n1", "b:1", False, True)]))
    found, _ = node.reader.tables(server_rows.every)
    assert found == ([Server("i1", "n1", "b:1", False, True, 1, 5, 1)], 5, 5)


def test_autopilot(node: Node) -> None:
    """The record is replaced whole; a condition that does not hold changes nothing."""
    assert node.reader.tables(autopilot_rows.find)[0] is None
    new = AutopilotConfiguration(cleanup_dead_servers=True, max_trailing_logs=2**64 - 1)
    default = autopilot.DEFAULT
    assert node.apply(SetAutopilot(default, cas=5), SetAutopilot(default, cas=0), SetAutopilot(new, cas=0)) == [False, True, False]
    assert node.reader.tables(autopilot_rows.find)[0] == (autopilot.DEFAULT, 2, 2)
    assert node.apply(SetAutopilot(new, cas=2), SetAutopilot(autopilot.DEFAULT, cas=2)) == [True, False]
    assert node.reader.tables(autopilot_rows.find)[0] == (new, 2, 4)


def test_digest_covers_every_table(make_node: Callable[[str], Node]) -> None:
    """Two nodes agree exactly when these tables agree, too."""
    seen = set()
    batches = [
        (None, None),
        (FireEvent("i", b"e"), None),
        (FireEvent("i", b"f"), None),
        (RecordServers([ServerRecord("i", "n", "a", True, True)]), None),
        (SetAutopilot(autopilot.DEFAULT), None),
    ]
    for number, batch in enumerate(batches):
        one, other = make_node(f"a{number}"), make_node(f"b{number}")
        for node in (one, other):
            node.apply(*batch)
        assert one.machine.digest() == other.machine.digest()
        seen.add(one.machine.digest().sha256)
    assert len(seen) == len(batches)


def test_file_of_an_earlier_version(make_node: Callable[[str], Node]) -> None:
    """A file that lacks these tables gets them when it is opened, exactly as a new file has them."""
    old = make_node("old")
    old.apply(KvPut(b"k", b"v"))
    old.close()
    path = files.state_path(old.directory, 1)
    with sqlite3.connect(path) as connection:
        for table in ("events", "servers", "autopilot", "table_indexes", "sessions", "lock_delays"):
            connection.execute(f"DROP TABLE {table}")
        connection.execute("DROP INDEX kv_sessions")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    seal(path, 1)
    old.machine = type(old.machine)(old.directory)
    assert old.apply(FireEvent("i", b"e")) == [True]
    with_reader = engine.open_reader(path)
    fresh = engine.open_reader(files.state_path(make_node("new").directory, 1))
    assert engine.schema_text(with_reader) == engine.schema_text(fresh)
    with_reader.close()
    fresh.close()


def test_snapshots_carry_the_tables(make_node: Callable[[str], Node]) -> None:
    """A node that is given a picture of another one shows the same events and servers."""
    source, target = make_node("source"), make_node("target")
    source.apply(FireEvent("i", b"e"), RecordServers([ServerRecord("i", "n", "a", True, True)]), SetAutopilot(autopilot.DEFAULT))
    picture = bytearray()
    capture = source.machine.capture()
    capture.write(picture.extend)
    capture.close()
    stream = memoryview(picture)
    position = 0

    def read(size: int) -> bytes:
        nonlocal position
        piece = bytes(stream[position : position + size])
        position += len(piece)
        return piece

    target.machine.restore(*source.machine.applied(), read)
    assert target.machine.digest() == source.machine.digest()
    assert target.reader.tables(event_rows.every)[0][0].name == b"e"
