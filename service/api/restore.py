"""Restoring an archive: what ``PUT /v1/snapshot`` does.

The archive is taken apart while it arrives, and turned into commands that wait in an unnamed file. Only when all of it has proven sound are they
proposed, one after another: they lay the parts aside on every node, and the last one puts them into the place of the state
(:mod:`service.store.apply.archive`). Each may be proposed again when its answer was lost, so a change of the leader in between is waited out.
"""

import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from typing import IO

import gevent

from service.api import params as parameters
from service.api.archived_acl import AclOfArchive
from service.api.errors import Answer, RequestRefused
from service.api.go import parse_duration
from service.api.kv import Environ, KeyValue
from service.api.save import open_spool
from service.archive import acl_records, records
from service.archive.container import Reader
from service.archive.errors import ArchiveInvalid, unreadable
from service.archive.msgpack import Unpacker
from service.archive.records import Record
from service.domain.commands import Origin, RestoreAbandon, RestoreBegin, RestoreCommand, RestoreCommit, RestorePart, encode
from service.domain.entries import Row
from service.domain.results import decode
from service.domain.sessions import SessionIdRefused, canonical_id
from service.errors import BackendError, OutcomeUnknown, RequestRejected
from service.ipc.client import AgentClient
from service.reloading import Live
from service.store import restored

log = logging.getLogger(__name__)

PART_BYTES = 256 * 1024
PART_ROWS = 1_024
ROW_OVERHEAD_BYTES = 64
RECORDS_A_SLICE = 128
"""After so many the other requests of the worker have their turn."""
STEP_SECONDS_MAX = 30.0
"""How long a step is tried again, of which nobody knows whether it was done."""
COMMIT_SECONDS_MAX = 600.0
RETRY_SECONDS = 0.25
SKIPPED = "X-Kvorum-Skipped"
_FAILED = 500
_LENGTH_BYTES = 4
_BEHAVIORS = ("release", "delete")


class Restoring:
    """The archives that one worker restores."""

    def __init__(self, backend: AgentClient, kv: KeyValue, live: Live) -> None:
        self._backend = backend
        self._kv = kv
        self._live = live

    def restore(self, environ: Environ) -> Answer:
        """PUT: nothing when it is done. What the archive held and no table here can hold is counted in a header."""
        params = parameters.parse_for_write(environ["QUERY_STRING"])
        self._kv.check_datacenter(params)
        with open_spool(self._live.now.data_dir) as spool:
            now = self._live.now
            parts = Parts(spool, str(uuid.uuid4()), now.kv_value_bytes_max, keep_secrets=now.acl_secrets == "shown")
            try:
                Reader(body_reader(environ)).read_all(parts.take)
                parts.flush()
            except ArchiveInvalid as error:
                raise RequestRefused(_FAILED, str(error)) from error
            except OSError as error:
                raise RequestRejected(f"the archive can't be kept while it is looked through: {error.strerror}") from error
            _Restore(self._backend, parts).carry_out(parameters.origin(environ))
        skipped = ", ".join(f"{count} {name}" for (_, name), count in sorted(parts.skipped.items()))
        log.info("an archive was restored: %s; passed over: %s", parts.summary, skipped or "nothing")
        return 200, [(SKIPPED, skipped)] if skipped else [], b""


def body_reader(environ: Environ) -> Callable[[int], bytes]:
    """Reads the body of a request, however it is sent.

    :returns: a function that gives at most that many bytes, and none at the end.
    """
    stream = environ["wsgi.input"]
    if "CONTENT_LENGTH" not in environ or not environ["CONTENT_LENGTH"]:
        chunked: Callable[[int], bytes] = stream.read
        return chunked if "HTTP_TRANSFER_ENCODING" in environ else lambda _: b""
    left = int(environ["CONTENT_LENGTH"])

    def read(count: int) -> bytes:
        nonlocal left
        piece: bytes = stream.read(min(count, left))
        left -= len(piece)
        return piece

    return read


class Parts:
    """An archive's records as commands, in a file.

    :param spool: an empty file.
    :param id: of the restore.
    :param value_bytes_max: how long a value may be.
    :param keep_secrets: of tokens, beside their hashes.
    :ivar skipped: how many records no table here can hold, by their number and what they are called.
    """

    def __init__(self, spool: IO[bytes], id: str, value_bytes_max: int, *, keep_secrets: bool) -> None:
        self.id = id
        self.skipped: Counter[tuple[int, str]] = Counter()
        self.count = 0
        self.kv_index = 0
        self.sessions_index = 1
        self._spool = spool
        self._value_bytes_max = value_bytes_max
        self._keys = 0
        self._rows: list[Row] = []
        self._records: list[tuple[str, bytes]] = []
        self._tombstones: restored.Tombstones = []
        self._bytes = 0
        self._acl = AclOfArchive(keep_secrets=keep_secrets)
        self._takers: dict[int, Callable[[Record], None]] = {
            records.KEY: self._take_key,
            records.SESSION: self._take_session,
            records.TOMBSTONE: self._take_tombstone,
            records.AUTOPILOT: self._take_autopilot,
            records.INDEX: self._take_index,
            records.ACL_TOKEN: self._take_token,
            records.ACL_POLICY: lambda record: self._add(restored.ACL, restored.encode(self._acl.policy(record))),
            records.ACL_ROLE: lambda record: self._add(restored.ACL, restored.encode(self._acl.role(record))),
        }

    @property
    def summary(self) -> str:
        """What it holds, for people."""
        return f"{self._keys} keys and {self._acl.count} records of the ACL in {self.count} parts"

    def take(self, read: Callable[[int], bytes]) -> None:
        """Take ``state.bin`` apart.

        :param read: gives at most that many of its next bytes.
        :raises ArchiveInvalid: when it holds what can't be restored.
        """
        _, found = records.read(Unpacker(read))
        for number, record in enumerate(found):
            if taker := self._takers.get(record.number):
                taker(record)
            else:
                self.skipped[record.number, records.NAMES[record.number]] += 1
            if number % RECORDS_A_SLICE == 0:
                gevent.sleep(0)
        if self._acl.count:
            self._add(restored.ACL_INDEXES, restored.encode(self._acl.indexes))

    def flush(self) -> None:
        """Write what has gathered."""
        if self._tombstones:
            self._records.append((restored.TOMBSTONES, restored.encode(self._tombstones)))
        if not self._rows and not self._records:
            return
        data = encode(RestorePart(self.id, self.count, self._rows, self._records))
        self._spool.write(len(data).to_bytes(_LENGTH_BYTES, "big") + data)
        self.count += 1
        self._rows, self._records, self._tombstones, self._bytes = [], [], [], 0

    def written(self) -> Iterator[bytes]:
        """The commands, in order."""
        self._spool.seek(0)
        while length := self._spool.read(_LENGTH_BYTES):
            yield self._spool.read(int.from_bytes(length, "big"))

    def _grow(self, size: int) -> None:
        """Make sure that so much more fits into the part at hand."""
        if self._bytes and (self._bytes + size > PART_BYTES or len(self._rows) + len(self._tombstones) >= PART_ROWS):
            self.flush()
        self._bytes += size

    def _take_key(self, record: Record) -> None:
        row = records.key_of(record)
        if not row.key:
            raise unreadable(f'the key at byte {record.position} of "state.bin" has no name')
        if len(row.value) > self._value_bytes_max:
            raise unreadable(f"the value of {row.key!r} is {len(row.value)} bytes long; kv_value_bytes_max is {self._value_bytes_max}")
        self._grow(len(row.key) + len(row.value) + ROW_OVERHEAD_BYTES)
        self._rows.append(row)
        self._keys += 1
        self.kv_index = max(self.kv_index, row.modify_index)

    def _take_tombstone(self, record: Record) -> None:
        row = records.key_of(record)
        self._grow(len(row.key) + ROW_OVERHEAD_BYTES)
        self._tombstones.append((row.key, row.modify_index))
        self.kv_index = max(self.kv_index, row.modify_index)

    def _take_session(self, record: Record) -> None:
        session = records.session_of(record)
        try:
            session = session._replace(id=canonical_id(session.id), ttl_ns=parse_duration(session.ttl) if session.ttl else 0)
        except (SessionIdRefused, ValueError) as error:
            raise unreadable(f'the session {session.id!r} at byte {record.position} of "state.bin" can\'t be used: {error}') from error
        if session.behavior not in _BEHAVIORS:
            raise unreadable(f"the session {session.id!r} has the behavior {session.behavior!r}; known are {', '.join(_BEHAVIORS)}")
        self._add(restored.SESSION, restored.encode(session))
        self.sessions_index = max(self.sessions_index, session.create_index)

    def _take_autopilot(self, record: Record) -> None:
        self._add(restored.AUTOPILOT, restored.encode(records.autopilot_of(record)))

    def _take_token(self, record: Record) -> None:
        if acl_records.has_no_place(record):
            self.skipped[record.number, acl_records.NO_PLACE] += 1
        else:
            self._add(restored.ACL, restored.encode(self._acl.token(record)))

    def _take_index(self, record: Record) -> None:
        name, index = records.index_of(record)
        self._acl.note_index(name, index)
        if name in (records.KVS_INDEX, records.TOMBSTONES_INDEX):
            self.kv_index = max(self.kv_index, index)
        elif name == records.SESSIONS_INDEX:
            self.sessions_index = max(self.sessions_index, index)

    def _add(self, name: str, body: bytes) -> None:
        self._grow(len(body) + ROW_OVERHEAD_BYTES)
        self._records.append((name, body))


class _Restore:
    """One restore, from the first command to the last."""

    def __init__(self, backend: AgentClient, parts: Parts) -> None:
        self._backend = backend
        self._parts = parts

    def carry_out(self, origin: Origin) -> None:
        """Propose everything.

        :raises RequestRefused: another restore came in between; nothing was changed.
        :raises BackendError: an unknown outcome only when that of the last command is unknown.
        """
        parts = self._parts
        try:
            self._step(encode(RestoreBegin(parts.id)))
            for part in parts.written():
                self._step(part)
        except OutcomeUnknown as error:
            self._abandon()
            raise RequestRejected(f"a part of the archive could not be laid aside, nothing was changed: {error}") from error
        except (BackendError, RequestRefused):
            self._abandon()
            raise
        commit: RestoreCommand = RestoreCommit(parts.id, parts.count, parts.kv_index, parts.sessions_index, origin)
        self._step(encode(commit), COMMIT_SECONDS_MAX)

    def _step(self, command: bytes, timeout: float = STEP_SECONDS_MAX) -> None:
        """Propose a command, again for as long as nobody knows what became of it."""
        deadline = time.monotonic() + timeout
        unknown: OutcomeUnknown | None = None
        while True:
            try:
                result = decode(self._backend.propose(command, timeout))
            except OutcomeUnknown as error:
                unknown = error
            except BackendError as error:
                if unknown is None:
                    raise
                log.info("a step of a restore is tried again: %s", error)
            else:
                if not result.ok:
                    raise RequestRefused(_FAILED, result.error)
                return
            if time.monotonic() > deadline:
                raise unknown
            gevent.sleep(RETRY_SECONDS)

    def _abandon(self) -> None:
        try:
            self._backend.propose(encode(RestoreAbandon(self._parts.id)))
        except BackendError as error:
            log.info("the parts of a restore that failed are kept for a while: %s", error)
