"""The writing end of the cache, with a real Redis that is frozen, killed, and brought back with older data."""

import logging
import shutil
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from service.agent import cache_writer
from service.cache import entry_key, floor_key, namespace, now_ms
from service.domain.commands import KvDelete, KvDeleteTree, KvPut, ReapTombstones

pytestmark = [pytest.mark.processes]

SPACE = namespace("c1")
TTL_MS = 60_000


def until(condition: Callable[[], Any], what: str) -> Any:
    """Ask again and again until the answer is true."""
    deadline = time.monotonic() + 15
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"not within 15 s: {what}"
        time.sleep(0.005)
    return answer


def test_values_and_tombstones(state: Any, redis_server: Any) -> None:
    """A new value, its successor and its deletion arrive with all their fields, the state's index, and an age counted from the leader's stamp."""
    stamp_ms = now_ms() - 5_000
    index = state.apply(KvPut(b"a", b"1", flags=2**64 - 1), stamp_ms=stamp_ms)
    entry = until(lambda: redis_server.ask(b"a"), "the value arrived")
    assert (entry.row, entry.as_of, entry.written_ms) == ((b"1", 2**64 - 1, 0, None, index, index), index, stamp_ms)
    assert 0 < redis_server.client.pttl(entry_key(SPACE, b"a")) <= TTL_MS - 5_000
    state.apply(KvPut(b"a", b"2"))
    until(lambda: redis_server.value(b"a") == b"2", "the successor arrived")
    deleted = state.apply(KvDelete(b"a"))
    until(lambda: redis_server.ask(b"a").row is None, "the tombstone arrived")
    assert redis_server.ask(b"a").as_of == deleted


def test_whole_prefixes(state: Any, redis_server: Any) -> None:
    """What can't be said key by key (a deleted prefix, more than a thousand keys, a restored snapshot) hides everything read before."""
    keys = [b"t/%d" % number for number in range(3)]
    state.apply(*(KvPut(key, b"x") for key in keys), KvPut(b"other", b"x"))
    until(lambda: all(map(redis_server.value, [*keys, b"other"])), "the values arrived")
    index = state.apply(KvDeleteTree(b"t/"))
    until(lambda: redis_server.ask(b"t/0") is None, "the prefix is hidden")
    assert redis_server.client.hget(floor_key(SPACE), "index") == b"%d" % index
    assert redis_server.ask(b"other") is None
    state.apply(KvPut(b"other", b"y"))
    until(lambda: redis_server.value(b"other") == b"y", "later values are served")
    state.apply(*(KvPut(b"many/%d" % number, b"") for number in range(1_001)))
    until(lambda: redis_server.ask(b"other") is None, "a thousand changes hide the rest")


def test_a_restored_snapshot_hides_everything(state: Any, make_state: Any, redis_server: Any) -> None:
    """After a snapshot was installed nothing is served that this node wrote before it."""
    state.apply(KvPut(b"a", b"old"))
    until(lambda: redis_server.value(b"a"), "the value arrived")
    ahead = make_state()
    for number in range(5):
        ahead.apply(KvPut(b"a", b"new%d" % number))
    capture = ahead.machine.capture()
    pieces: list[bytes] = []
    capture.write(lambda piece: pieces.append(bytes(piece)))
    capture.close()
    picture = b"".join(pieces)
    position = 0

    def read(count: int) -> bytes:
        nonlocal position
        position += count
        return picture[position - count : position]

    state.machine.restore(capture.index, capture.term, read)
    until(lambda: redis_server.ask(b"a") is None, "the old value is hidden")
    state.apply(KvPut(b"b", b"1"))
    assert until(lambda: redis_server.ask(b"b"), "a write after it arrives").as_of == 6


def test_nothing_from_before_the_start(make_state: Any, redis_server: Any) -> None:
    """A writer that begins hides what was written before: its predecessor may have been killed before it wrote everything."""
    first = make_state()
    first.writer.start()
    first.apply(KvPut(b"a", b"1"))
    until(lambda: redis_server.value(b"a"), "the value arrived")
    second = make_state()
    second.apply(KvPut(b"a", b"1"))
    second.apply(KvPut(b"a", b"2"))
    second.writer = cache_writer.CacheWriter(second.settings, "c1")
    second.writer.start()
    until(lambda: redis_server.ask(b"a") is None, "it is hidden")


def test_a_node_that_lags_replaces_nothing(make_state: Any, redis_server: Any) -> None:
    """A node that applies the same commits later replaces nothing that the first wrote; where nothing is, what it writes is as old as its stamp."""
    first, late = make_state(), make_state()
    for state in (first, late):
        state.writer.start()
        until(lambda state=state: redis_server.ask(b"a") is None and not state.writer._doubtful, "the floor is raised")
    before = now_ms() - 30_000
    first.apply(KvPut(b"a", b"1"), KvPut(b"b", b"1"), stamp_ms=before)
    newest = first.apply(KvPut(b"a", b"2"))
    until(lambda: redis_server.value(b"a") == b"2", "the newest value arrived")
    redis_server.client.delete(entry_key(SPACE, b"b"))
    late.apply(KvPut(b"a", b"1"), KvPut(b"b", b"1"), stamp_ms=before)
    assert until(lambda: redis_server.ask(b"b"), "the late node has written").written_ms == before
    assert (redis_server.value(b"a"), redis_server.ask(b"a").as_of) == (b"2", newest)
    assert redis_server.ask(b"b", ttl_ms=29_000) is None


def test_too_old_to_be_stored(state: Any, redis_server: Any) -> None:
    """A change that has outlived its time to live before it is written is not stored, and what it replaces is not served either."""
    state.apply(KvPut(b"a", b"1"))
    until(lambda: redis_server.value(b"a"), "the value arrived")
    state.apply(KvPut(b"a", b"2"), stamp_ms=now_ms() - TTL_MS - 1)
    until(lambda: redis_server.ask(b"a") is None, "the old value is hidden")
    assert redis_server.client.hget(entry_key(SPACE, b"a"), "value") == b"1"


def test_entries_of_no_key_are_not_passed_on(state: Any) -> None:
    """Entries that change no key, Raft's own and reaped tombstones, do not even wake the thread."""
    until(lambda: not state.writer._due.is_set(), "the thread sleeps")
    index = state.apply(ReapTombstones(1))
    state.machine.apply([(index + 1, 1, None)])
    assert not state.writer._due.is_set()
    assert not state.writer._batches


def test_frozen_redis(state: Any, redis_server: Any, caplog: pytest.LogCaptureFixture) -> None:
    """While Redis is frozen publishing never waits; afterwards nothing older is served. One warning, one word when it works again."""
    caplog.set_level(logging.INFO)
    state.apply(KvPut(b"a", b"0"), KvPut(b"still", b"0"))
    until(lambda: redis_server.value(b"a") == b"0", "the value arrived")
    redis_server.freeze()
    slowest = 0.0
    for number in range(1, 301):
        changes_began = time.monotonic()
        state.apply(KvPut(b"a", b"%d" % number))
        slowest = max(slowest, time.monotonic() - changes_began)
    until(lambda: "the cache is not told of changes" in caplog.text, "the warning")
    assert slowest < 1.0
    until(lambda: not state.writer._batches, "what could not be written is dropped")
    redis_server.thaw()
    until(lambda: "told of changes again" in caplog.text, "it works again")
    assert redis_server.value(b"a") in {None, b"300"}
    assert redis_server.ask(b"still") is None
    state.apply(KvPut(b"a", b"end"))
    until(lambda: redis_server.value(b"a") == b"end", "the cache is written again")
    assert caplog.text.count("not told of changes") == caplog.text.count("told of changes again") == 1


def test_overflow(state: Any, redis_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """When more gathers than the queue holds the rest is dropped, and what it should have replaced is hidden."""
    state.apply(KvPut(b"a", b"old"), KvPut(b"b", b"old"))
    until(lambda: redis_server.value(b"b"), "the values arrived")
    monkeypatch.setattr(cache_writer, "BATCHES_MAX", 0)
    state.apply(KvPut(b"b", b"new"))
    until(lambda: redis_server.ask(b"b") is None, "the old value is hidden")
    assert not state.writer._batches


def test_an_older_dump(state: Any, redis_server: Any) -> None:
    """A Redis that is restarted with an older dump serves nothing of it; new values are written to it again."""
    state.apply(KvPut(b"a", b"old"), KvPut(b"b", b"old"))
    until(lambda: redis_server.value(b"b"), "the values arrived")
    redis_server.client.save()
    dump = redis_server.directory / "dump.rdb"
    shutil.copy(dump, redis_server.directory / "aside.rdb")
    state.apply(KvPut(b"a", b"new"))
    until(lambda: redis_server.value(b"a") == b"new", "the new value arrived")
    redis_server.client.save()
    redis_server.kill()
    shutil.copy(redis_server.directory / "aside.rdb", dump)
    redis_server.start()
    assert redis_server.client.hget(entry_key(SPACE, b"a"), "value") == b"old"
    assert (redis_server.ask(b"a"), redis_server.ask(b"b")) == (None, None)
    until(lambda: state.apply(KvPut(b"c", b"%d" % time.monotonic_ns())) and redis_server.value(b"c"), "new values are written")
    assert (redis_server.ask(b"a"), redis_server.ask(b"b")) == (None, None)


def test_redis_comes_later(make_state: Any, redis_server: Any) -> None:
    """A Redis that is not there at the start costs nothing, and is used from when it is; the times between the attempts don't grow."""
    redis_server.kill()
    state = make_state()
    state.writer.start()
    state.apply(KvPut(b"a", b"1"))
    until(lambda: state.writer._failing, "it failed")
    assert state.writer._links._pause_seconds <= cache_writer.RETRY_SECONDS
    redis_server.start()
    until(lambda: not state.writer._failing, "it works")
    assert redis_server.ask(b"a") is None
    state.apply(KvPut(b"a", b"2"))
    until(lambda: redis_server.value(b"a") == b"2", "the value arrived")


def test_somebody_elses_data(state: Any, redis_server: Any) -> None:
    """A key of ours that somebody made a string of fails its own write only; the next changes arrive."""
    redis_server.client.set(entry_key(SPACE, b"a"), "a string")
    state.apply(KvPut(b"a", b"1"))
    until(lambda: state.writer._failing, "it failed")
    until(lambda: not state.writer._failing, "it works again")
    state.apply(KvPut(b"b", b"1"))
    until(lambda: redis_server.value(b"b") == b"1", "the value arrived")


def test_large_values(make_state: Any, redis_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many or large values travel in several round trips, each within its limits, and all arrive."""
    state = make_state()
    trips: list[int] = []
    ask_all = cache_writer.Link.ask_all

    def counted(link: Any, commands: Any) -> Any:
        if threading.current_thread() is state.writer._thread:
            trips.append(len(commands))
        return ask_all(link, commands)

    monkeypatch.setattr(cache_writer.Link, "ask_all", counted)
    large = {b"large/%d" % number: b"%d" % number * 400_000 for number in range(5)}
    small = {b"small/%d" % number: b"%d" % number for number in range(300)}
    state.apply(*(KvPut(key, value) for key, value in (large | small).items()))
    state.writer.start()
    until(lambda: redis_server.value(b"small/299"), "the last value arrived")
    assert all(redis_server.value(key) == value for key, value in large.items())
    several = [count for count in trips if count > 1]  # the greeting and the floor are commands of their own
    assert several[:2] == [3, cache_writer.KEYS_A_ROUND_TRIP]
    assert max(trips) <= cache_writer.KEYS_A_ROUND_TRIP


def test_stopping(make_state: Any, redis_server: Any) -> None:
    """What waits is written at the stop; a frozen Redis does not hold the stop up."""
    state = make_state()
    state.writer.start()
    until(lambda: not state.writer._doubtful, "the floor is raised")
    state.apply(KvPut(b"a", b"1"))
    state.writer.stop(5.0)
    assert redis_server.value(b"a") == b"1"
    frozen = make_state()
    frozen.writer.start()
    until(lambda: not frozen.writer._doubtful, "the floor is raised")
    redis_server.freeze()
    frozen.apply(KvPut(b"a", b"1"))
    began = time.monotonic()
    frozen.writer.stop(0.1)
    assert time.monotonic() - began < 0.9
