"""Saving the state as an archive: what ``GET /v1/snapshot`` answers.

The state is read in one transaction, in a thread, into an unnamed file on the node's own disk, and sent from there: a client that reads slowly would
otherwise keep the write-ahead log from starting anew for as long as it likes. Memory holds a page of keys, however many there are.
"""

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from sqlite3 import Connection
from tempfile import TemporaryFile
from typing import IO, NamedTuple

from service.api import archived_acl
from service.api import params as parameters
from service.api.consistency import evaluate
from service.api.kv import Environ, KeyValue
from service.api.routing import Stream
from service.archive import records
from service.archive.container import CONTENT_TYPE, Writer
from service.errors import RequestRejected
from service.ipc.client import AgentClient
from service.settings import Settings
from service.store import acl_rows, archive_rows, autopilot_rows, session_rows
from service.store.archive_rows import Heads

LEFT_OUT = "X-Kvorum-Left-Out"
_OK = 200


class _Written(NamedTuple):
    """What went into ``state.bin``.

    :ivar left_out: what did not, in words; empty for nothing.
    """

    heads: Heads
    writer: Writer
    left_out: str


class Saving:
    """The archives that one worker sends.

    :param kv: whose reads they share.
    """

    def __init__(self, backend: AgentClient, kv: KeyValue, settings: Settings) -> None:
        self._backend = backend
        self._kv = kv
        self._directory = settings.data_dir
        self._may_tell_secrets = settings.acl_secrets == "shown"

    def save(self, environ: Environ) -> Stream:
        """GET: the archive."""
        params = parameters.parse(environ["QUERY_STRING"])
        self._kv.check_datacenter(params)
        spool = open_spool(self._directory)
        try:
            read = partial(self._kv.reads.look, partial(_write, spool, self._may_tell_secrets))
            (heads, writer, left_out), local = evaluate(self._backend, params, read)
        except BaseException:
            spool.close()
            raise
        headers = [("Content-Type", CONTENT_TYPE), *self._kv.index_headers(heads.index, local)]
        headers += [(LEFT_OUT, left_out)] if left_out else []
        return _OK, headers, _pieces(spool, writer.finish(heads.index, heads.term, int(time.time() * 1000)))


def open_spool(directory: Path) -> IO[bytes]:
    """An unnamed file that is gone when it is closed, or when the process ends.

    :raises RequestRejected: when the disk refuses.
    """
    try:
        return TemporaryFile(prefix="archive-", suffix=".tmp", dir=directory)
    except OSError as error:
        raise RequestRejected(f"no file can be made in {directory} for the archive: {error.strerror}") from error


def _pieces(spool: IO[bytes], archive: Iterator[bytes]) -> Iterator[bytes]:
    with spool:
        yield from archive


def _write(spool: IO[bytes], may_tell_secrets: bool, connection: Connection) -> _Written:
    """Write ``state.bin`` into the file; what an attempt before left there goes first."""
    try:
        spool.seek(0)
        spool.truncate()
        writer = Writer(spool)
        heads, acl = archive_rows.heads(connection), acl_rows.everything(connection)
        left_out = archived_acl.left_out(acl, may_tell_secrets=may_tell_secrets)
        writer.write(records.pack_header(heads.index, left_out))
        for session in session_rows.find_all(connection, None):
            writer.write(records.pack_session(session))
        if not left_out:
            writer.write(b"".join(archived_acl.pack(acl)))
        _write_records(connection, heads, writer)
    except OSError as error:
        raise RequestRejected(f"the archive can't be written aside: {error.strerror}") from error
    return _Written(heads, writer, left_out)


def _write_records(connection: Connection, heads: Heads, writer: Writer) -> None:
    for page in archive_rows.keys(connection):
        writer.write(b"".join(map(records.pack_key, page)))
    for buried in archive_rows.tombstones(connection):
        writer.write(b"".join(records.pack_tombstone(key, index) for key, index in buried))
    if stored := autopilot_rows.find(connection):
        writer.write(records.pack_autopilot(*stored))
    writer.write(records.pack_index(records.KVS_INDEX, heads.kv_index))
    writer.write(records.pack_index(records.SESSIONS_INDEX, heads.sessions_index))
    writer.write(records.pack_index(records.TOMBSTONES_INDEX, heads.tombstones_index))
