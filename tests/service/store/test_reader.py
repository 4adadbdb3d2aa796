"""Reading: indexes, listings, freshness, and files that come, go and are no good."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from service.domain.commands import KvDelete, KvDeleteTree, KvPut
from service.errors import StateUnreadable
from service.store import reader as reader_module
from service.store.reader import Reader, Totals

if TYPE_CHECKING:
    from pathlib import Path

    from tests.service.store.conftest import Node


def test_index_is_never_zero(node: Node) -> None:
    """Before anything was written every read carries index 1 and applied 0."""
    assert node.reader.get(b"k") == (None, 1, 0)
    assert node.reader.list(b"k") == ([], 1, 0)
    assert node.reader.keys(b"") == ([], 1, 0)
    node.apply(None)
    assert node.reader.get(b"k") == (None, 1, 1)


def test_indexes(node: Node) -> None:
    """Consul's table: a key has its own index, a missing one the table's, a prefix the highest below it, an emptied one its last deletion's."""
    node.apply(KvPut(b"a/1", b"v"), KvPut(b"a/2", b"v"), KvPut(b"b/1", b"v"), KvDelete(b"a/2"), KvPut(b"c", b"v"), KvDeleteTree(b"b/"), None)
    read = node.reader
    assert [read.get(key).index for key in (b"a/1", b"c", b"a/2", b"never")] == [1, 5, 6, 6]
    assert [read.list(prefix).index for prefix in (b"a/", b"c", b"b/", b"never", b"")] == [4, 5, 6, 6, 6]
    assert [read.keys(prefix).index for prefix in (b"a/", b"c", b"b/", b"never", b"")] == [4, 5, 6, 6, 6]
    node.apply(KvPut(b"d", b"v"))
    assert [read.list(prefix).index for prefix in (b"a/", b"b/", b"never")] == [4, 6, 8]


@pytest.mark.parametrize(
    ("prefix", "separator", "expected"),
    [
        (b"", b"", [b"a", b"a/", b"a/b/c", b"a/b/d", b"a/e", b"b--c--d", b"b--e"]),
        (b"", b"/", [b"a", b"a/", b"b--c--d", b"b--e"]),
        (b"a", b"/", [b"a", b"a/"]),
        (b"a/", b"/", [b"a/", b"a/b/", b"a/e"]),
        (b"a/b/", b"/", [b"a/b/c", b"a/b/d"]),
        (b"", b"--", [b"a", b"a/", b"a/b/c", b"a/b/d", b"a/e", b"b--"]),
        (b"b--", b"--", [b"b--c--", b"b--e"]),
        (b"never", b"/", []),
    ],
)
def test_folding_in_listings(node: Node, prefix: bytes, separator: bytes, expected: list[bytes]) -> None:
    """Names are cut after the first separator behind the prefix and neighbours that are alike are shown once."""
    node.apply(*(KvPut(key, b"v") for key in (b"a", b"a/", b"a/b/c", b"a/b/d", b"a/e", b"b--c--d", b"b--e")))
    assert node.reader.keys(prefix, separator).keys == expected


def test_folding_over_many_pages(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing read in pages, with folders smaller and larger than a page, equals the plain rule; deep folders are stepped over."""
    monkeypatch.setattr(reader_module, "_ROWS_A_PAGE", 4)
    names = [b"%c/%d/%d" % (97 + folder, file % 3, file) for folder in range(7) for file in range(folder * 5)] + [
        b"plain%d" % number for number in range(9)
    ]
    node.apply(*(KvPut(name, b"v") for name in names))
    for prefix in (b"", b"c/", b"g/1", b"plain"):
        for separator in (b"", b"/", b"1"):
            folded = [reader_module.fold(name, prefix, separator) for name in sorted(names) if name.startswith(prefix)]
            assert node.reader.keys(prefix, separator).keys == list(dict.fromkeys(folded)), (prefix, separator)


def test_a_point_read_pins_nothing(node: Node) -> None:
    """After a point read the hot connection holds no moment: the next read sees the next write, and the log can start anew."""
    node.apply(KvPut(b"k", b"1"))
    assert node.reader.get(b"k").row is not None
    node.apply(KvPut(b"k", b"2"))
    assert node.reader.get(b"k").row.value == b"2"
    busy, _, _ = node.machine._checkpointer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert busy == 0


def test_a_listing_is_one_moment_and_disturbs_no_point_read(node: Node) -> None:
    """Writes during a listing don't show in it, nor does the half-read listing make point reads old."""
    node.apply(*(KvPut(b"%04d" % number, b"1") for number in range(2_000)))
    connections = node.reader._connections or node.reader._replace(None)
    with connections.borrow() as connection:
        cursor = connection.execute("SELECT key, value FROM kv ORDER BY key")
        cursor.fetchmany(10)
        node.apply(*(KvPut(b"%04d" % number, b"2") for number in range(2_000)))
        assert node.reader.get(b"1999").row.value == b"2"
        assert {value for _, value in cursor.fetchall()} == {b"1"}
    assert {row.value for row in node.reader.list(b"").rows} == {b"2"}


def test_listings_from_many_threads(node: Node) -> None:
    """Listings may run in threads of their own beside writes; each is one moment: all rows of one batch or none."""
    node.apply(*(KvPut(b"%03d" % number, b"0") for number in range(300)))
    problems: list[object] = []
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            listing = node.reader.list(b"")
            values = {row.value for row in listing.rows}
            if len(values) != 1 or len(listing.rows) != 300:
                problems.append(listing)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for turn in range(30):
        node.apply(*(KvPut(b"%03d" % number, b"%d" % turn) for number in range(300)))
    done.set()
    for thread in threads:
        thread.join()
    assert problems == []
    assert len(node.reader._connections._idle) <= 4


def test_listings_have_a_time_limit(node: Node) -> None:
    """A listing that takes too long is given up, and the next one works."""
    node.apply(KvPut(b"k", b"v"))
    with pytest.raises(TimeoutError, match="given up"):
        node.reader.list(b"", seconds_max=-1)
    with pytest.raises(TimeoutError, match="given up"):
        node.reader.keys(b"", b"/", seconds_max=-1)
    assert len(node.reader.list(b"").rows) == 1


def test_totals(node: Node) -> None:
    """Metrics count keys and bytes of the file and of its log."""
    node.apply(KvPut(b"k", b"v"), KvPut(b"l", bytes(100_000)))
    totals = node.reader.totals()
    assert totals.keys == 2
    assert totals.log_bytes > 100_000
    node.machine.checkpoint()
    assert node.reader.totals().file_bytes > 100_000
    assert isinstance(totals, Totals)


def test_applied(node: Node) -> None:
    """The applied index can be asked for by itself."""
    node.apply(None, None)
    assert node.reader.applied() == 2


def test_a_reader_may_be_there_first(tmp_path: Path, make_node: object) -> None:
    """Before the agent has made its files a read says so, and works once they are there."""
    directory = tmp_path / "late"
    directory.mkdir()
    reader = Reader(directory)
    with pytest.raises(StateUnreadable, match=r"no state in .* yet"):
        reader.get(b"k")
    with pytest.raises(StateUnreadable, match=r"no state in .* yet"):
        reader.generation()
    node = make_node("late")
    node.apply(KvPut(b"k", b"v"))
    assert reader.get(b"k").row.value == b"v"
    assert reader.generation() == 1
    reader.close()


def test_a_reader_can_not_write(node: Node) -> None:
    """The reader's connections refuse every write."""
    node.reader.get(b"k")
    with pytest.raises(reader_module.engine.DATABASE_ERRORS, match="readonly"):
        node.reader._connections.hot.execute("DELETE FROM kv")


def test_a_damaged_file_is_named(node: Node) -> None:
    """A read that SQLite can't serve ends in an error that names the state, not in a wrong answer."""
    node.apply(*(KvPut(b"%05d" % number, bytes(200)) for number in range(2_000)))
    node.machine.checkpoint()
    path = node.directory / "state-1.db"
    node.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096 * 2)
        file.write(b"\x5a" * (size - 4096 * 2))
    reader = Reader(node.directory)
    with pytest.raises(StateUnreadable, match="malformed"):
        reader.get(b"00500")
    with pytest.raises(StateUnreadable, match="malformed"):
        reader.list(b"")
    reader.close()
