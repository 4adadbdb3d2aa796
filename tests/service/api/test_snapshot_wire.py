"""``/v1/snapshot`` on the wire: what is saved can be restored, also what a Consul saved, and what can't be is refused and changes nothing."""

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import gevent
import pytest

from service.api import restore
from service.archive import msgpack, records
from service.archive.container import META, SUMS, Writer
from service.domain.commands import Command, RestoreCommit, RestorePart
from service.domain.entries import Row, Session

REAL = Path(__file__).parents[1] / "archive" / "consul-1.8.7.tgz"
SNAPSHOT = "/v1/snapshot"
TEXT = "text/plain; charset=utf-8"


def archive(*packed: bytes, index: int = 3) -> bytes:
    """An archive of some records."""
    spool = io.BytesIO()
    writer = Writer(spool)
    writer.write(records.pack_header(index) + b"".join(packed))
    return b"".join(writer.finish(index, 1, 0))


def state(worker: Any) -> tuple[Any, Any]:
    """All keys and sessions."""
    return worker.reader.list(b"").rows, worker.reader.sessions().sessions


def test_saved_and_restored(worker: Any) -> None:
    """The answer's headers are Consul's; a restore brings back what was changed since, with every index, lock and flag."""
    session = json.loads(worker.call("PUT", "/v1/session/create", b'{"TTL":"10s","Name":"\xc3\xbc"}').body)["ID"]
    worker.call("PUT", f"/v1/kv/lock?acquire={session}", b"held")
    worker.call("PUT", "/v1/kv/flags?flags=18446744073709551615", bytes(range(256)) * 300)
    worker.put("gone")
    worker.call("DELETE", "/v1/kv/gone")
    before = state(worker)
    index = worker.agent.machine.applied_index
    saved = worker.call("GET", SNAPSHOT)
    assert saved.status == 200
    assert saved.headers["Content-Type"] == "application/x-gzip"
    assert {name: saved.headers[name] for name in ("X-Consul-Index", "X-Consul-Knownleader", "X-Consul-Lastcontact")} == {
        "X-Consul-Index": str(index),
        "X-Consul-Knownleader": "true",
        "X-Consul-Lastcontact": "0",
    }
    worker.call("DELETE", "/v1/kv/?recurse")
    worker.call("PUT", f"/v1/session/destroy/{session}")
    worker.put("since")
    assert worker.call("PUT", SNAPSHOT, saved.body)[::2] == (200, b"")
    assert state(worker) == before
    assert worker.reader.list(b"gone").index == index


def test_of_a_consul(worker: Any) -> None:
    """The archive of a real Consul: keys with flags, the lock with its session, a deletion; what has no place here is counted in a header."""
    for _ in range(30):
        worker.put("x")
    worker.agent.machine.apply([(worker.agent.machine.applied_index + 1 + offset, 1, None) for offset in range(40)])
    reply = worker.call("PUT", SNAPSHOT, REAL.read_bytes())
    assert (reply.status, reply.body) == (200, b"")
    assert reply.headers["X-Kvorum-Skipped"] == "5 registrations, 1 coordinates, 1 prepared queries, 1 chunks of commands, 1 federation states"
    rows, sessions = state(worker)
    assert [(row.key.decode(), row.flags, row.create_index, row.modify_index) for row in rows] == [
        ("app/bin", 0, 9, 25),
        ("app/empty", 0, 10, 10),
        ("app/flags", (1 << 64) - 1, 8, 8),
        ("app/lock", 0, 15, 15),
        ("app/ü", 0, 13, 13),
    ]
    assert [(one.ttl, one.ttl_ns, one.behavior) for one in sessions] == [("60s", 60 * 10**9, "delete"), ("", 0, "release")]
    assert worker.index("/v1/kv/gone?recurse") == 12
    assert worker.call("PUT", f"/v1/kv/app/lock?release={sessions[0].id}", b"2").body == b"true"


@pytest.mark.parametrize("uri", ["/v1/kv/a", "/v1/kv/none", "/v1/kv/?recurse", "/v1/session/list"])
def test_who_waits_is_answered(worker: Any, uri: str) -> None:
    """Also when the index of the result goes back: a client that waits for a higher one would otherwise wait for ever."""
    worker.put("a")
    worker.call("PUT", "/v1/session/create")
    saved = worker.call("GET", SNAPSHOT).body
    worker.put("a", b"newer")
    worker.call("PUT", "/v1/session/create")
    index = worker.index(uri)
    before = worker.blocking.waiting
    job = gevent.spawn(worker.call, "GET", f"{uri}{'&' if '?' in uri else '?'}index={index + 100}&wait=60s")
    worker.until(lambda: worker.blocking.waiting > before)
    worker.client.barrier()
    gevent.sleep(0.01)
    assert not job.ready()
    assert worker.call("PUT", SNAPSHOT, saved).status == 200
    assert int(job.get(timeout=10).headers["X-Consul-Index"]) <= index


def test_large(worker: Any) -> None:
    """More than one part: many keys, and values that fill a part each."""
    rows = [Row(b"k%05d" % number, b"v" * (number % 50), number, 0, None, 1, 2) for number in range(3000)]
    rows += [Row(b"large%d" % number, b"x" * 500_000, 0, 0, None, 1, 2) for number in range(3)]
    commands: list[Command] = []
    worker.agent.on_command = commands.append
    body = archive(*map(records.pack_key, rows), *(records.pack_tombstone(b"t%d" % number, 2) for number in range(3000)))
    for _ in range(2):
        assert worker.call("PUT", SNAPSHOT, body, Transfer_Encoding="chunked").status == 200
        assert state(worker)[0] == rows
    parts = [command for command in commands if isinstance(command, RestorePart)]
    assert len(parts) > 10
    assert max(sum(len(row.key) + len(row.value) for row in part.rows) for part in parts) <= 500_000 + restore.PART_BYTES
    assert max(len(part.rows) for part in parts) <= restore.PART_ROWS


SESSION = Session("11111111-aaaa-4aaa-8aaa-111111111111", "", "n", 0, "release", "10s", 0, None, None, 1, 1)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "failed to decompress snapshot: EOF"),
        (b"garbage", "failed to decompress snapshot: unexpected EOF"),
        (REAL.read_bytes()[:-100], "unexpected EOF"),
        (REAL.read_bytes() + b"more", "gzip: "),
        (archive(b"\x7f\x80"), "Unrecognized msg type 127"),
        (archive(records.pack_key(Row(b"", b"", 0, 0, None, 1, 1))), "has no name"),
        (archive(records.pack_key(Row(b"big", b"x" * (512 * 1024 + 1), 0, 0, None, 1, 1))), "524289 bytes long; kv_value_bytes_max is 524288"),
        (archive(records.pack_session(SESSION._replace(id="x"))), "the session 'x' at byte 12"),
        (archive(records.pack_session(SESSION._replace(ttl="soon"))), "can't be used: "),
        (archive(records.pack_session(SESSION._replace(behavior="keep"))), "has the behavior 'keep'; known are release, delete"),
        (archive(b"\x02" + msgpack.mapping([(b"Key", msgpack.TRUE)])), "Key is True, no text"),
    ],
)
def test_refused(worker: Any, body: bytes, text: str) -> None:
    """The answer names what is wrong; nothing was proposed, so nothing was changed."""
    worker.put("mine")
    before, index = state(worker), worker.agent.machine.applied_index
    reply = worker.call("PUT", SNAPSHOT, body)
    assert (reply.status, reply.headers["Content-Type"], reply.headers["X-Kvorum-Outcome"]) == (500, TEXT, "rejected")
    assert text in reply.body.decode()
    assert (state(worker), worker.agent.machine.applied_index) == (before, index)


def test_wrong_digest(worker: Any) -> None:
    """A state that is not the one that was saved is told by its digest."""
    files = {META: b'{"Version":1,"ID":"","Index":1,"Term":1}', "state.bin": records.pack_header(1)}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in {**files, SUMS: f"{'0' * 64}  state.bin\n{hashlib.sha256(files[META]).hexdigest()}  {META}\n".encode()}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
        end = out.tell() + 1024
    reply = worker.call("PUT", SNAPSHOT, gzip.compress(out.getvalue()[:end]))
    assert reply.body.decode() == 'failed to read snapshot file: failed checking integrity of snapshot: hash check failed for "state.bin"'


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_another_datacenter(worker: Any, method: str) -> None:
    """As everywhere."""
    reply = worker.call(method, SNAPSHOT + "?dc=nope", b"")
    assert (reply.status, reply.body) == (500, b"No path to datacenter")


@pytest.mark.parametrize("kind", [RestorePart, RestoreCommit])
def test_a_lost_answer_is_asked_for_again(worker: Any, kind: type[Command]) -> None:
    """The connection to the agent breaks after a command was carried out: it is proposed again, and has its effect once."""
    worker.put("a", b"saved")
    saved = worker.call("GET", SNAPSHOT).body
    worker.put("a", b"newer")
    seen: list[Command] = []

    def watch(command: Command) -> None:
        seen.append(command)
        worker.agent.drop_on_propose = isinstance(command, kind) and not any(isinstance(one, kind) for one in seen[:-1])

    worker.agent.on_command = watch
    assert worker.call("PUT", SNAPSHOT, saved).status == 200
    assert len([command for command in seen if isinstance(command, kind)]) == 2
    assert worker.call("GET", "/v1/kv/a?raw").body == b"saved"


@pytest.mark.parametrize(("kind", "outcome"), [(RestorePart, "rejected"), (RestoreCommit, "unknown")])
def test_no_answer_at_all(worker: Any, monkeypatch: pytest.MonkeyPatch, kind: type[Command], outcome: str) -> None:
    """Before the last command nothing can have happened; of the last one nobody knows, and that is said."""
    monkeypatch.setattr(restore, "STEP_SECONDS_MAX", 0.2)
    monkeypatch.setattr(restore, "COMMIT_SECONDS_MAX", 0.2)
    worker.put("a", b"saved")
    saved = worker.call("GET", SNAPSHOT).body
    worker.agent.on_command = lambda command: setattr(worker.agent, "drop_on_propose", isinstance(command, kind))
    reply = worker.call("PUT", SNAPSHOT, saved)
    assert (reply.status, reply.headers["X-Kvorum-Outcome"]) == (500, outcome)


def test_without_a_leader(worker: Any) -> None:
    """A restore is refused, and so is a save that wants to be fresh; a stale one is sent."""
    saved = worker.call("GET", SNAPSHOT).body
    worker.agent.failing = "no-leader"
    for method, body in (("PUT", saved), ("GET", None)):
        reply = worker.call(method, SNAPSHOT, body)
        assert (reply.status, reply.body) == (500, b"No cluster leader")
    assert worker.call("GET", SNAPSHOT + "?stale").status == 200


def test_others_have_their_turn(worker: Any) -> None:
    """While a large archive is looked through, other requests of the worker are answered."""
    body = archive(*(records.pack_key(Row(b"k%06d" % number, b"v", 0, 0, None, 1, 2)) for number in range(20_000)))
    worker.put("a")
    job = gevent.spawn(worker.call, "PUT", SNAPSHOT, body)
    turns = 0
    while not job.ready():
        gevent.sleep(0)
        turns += 1
    assert job.get().status == 200
    assert turns > 100
