"""The tables of ``state.db``, declared once.

``kv`` keeps its rowid and finds keys through a unique index. Measured on 100,000 keys with SQLite 3.53 (batches of 64 puts, in µs for one key;
the alternatives are a table WITHOUT ROWID, and a second index that covers ``?keys`` listings):

====================  ======  ============  ===============
128-byte values       rowid   without       covering index
====================  ======  ============  ===============
put of a new key      12.5    18.5          21.9
put of a known key    13.5    13.8          24.8
get                   7.1     6.2           6.5
listing keys          1.0     0.4           0.3
4 KiB: put, known     32      37            37
4 KiB: get            6.9     13.8          6.6
====================  ======  ============  ===============

Without a rowid, values live in the tree of the keys: new keys at random places dirty many more pages, and a value beyond 1,002 bytes is torn onto
overflow pages. The covering index makes every change dirty a page more. Writes cost the cluster most, so the plain layout wins; a listing of
1,000 keys costs it half a millisecond.

The triggers carry the applied index along with each change of a key. That makes a batch of plain puts one statement outside a transaction: effects
and applied index move together, and the interpreter lock is handed over once instead of four times. The index a change happens at is the
index of its log entry, so a row's ModifyIndex *is* the applied index at that moment, and everything behind the last effective entry of
the statement had no effect.

SQLite keeps no checksums; those of a file's pages lie beside it (:mod:`service.store.sums`).
"""

from sqlalchemy import DDL, CheckConstraint, Column, Index, Integer, LargeBinary, MetaData, Table, Text, UniqueConstraint, event

from service.errors import StateUnreadable

APPLICATION_ID = 0x6B766F72
"""The letters ``kvor``, in the header of every state file."""

FORMAT_VERSION = 2
"""The format these tables are; a file of a higher one is refused."""

UNSUMMED_VERSION = 1
"""The same tables before their pages had sums; the writer verifies such a file and gives it some (:mod:`service.store.upgrade`)."""

metadata = MetaData()

kv = Table(
    "kv",
    metadata,
    Column("key", LargeBinary, nullable=False, unique=True),
    Column("flags", Integer, nullable=False),  # unsigned 64-bit, stored as the signed number of the same bits
    Column("lock_index", Integer, nullable=False),
    Column("session", Text),
    Column("create_index", Integer, nullable=False),
    Column("modify_index", Integer, nullable=False),
    Column("value", LargeBinary, nullable=False),  # last: reading the columns before it touches no overflow page
    sqlite_strict=True,
)

tombstones = Table(
    "tombstones",
    metadata,
    Column("key", LargeBinary, primary_key=True),
    Column("modify_index", Integer, nullable=False),
    Column("deleted_at_ms", Integer, nullable=False),  # the leader's clock, since 1970
    sqlite_with_rowid=False,
    sqlite_strict=True,
)

events = Table(
    "events",
    metadata,
    Column("ltime", Integer, primary_key=True),
    Column("id", Text, nullable=False),
    Column("name", LargeBinary, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("node_filter", LargeBinary, nullable=False),
    Column("service_filter", LargeBinary, nullable=False),
    Column("tag_filter", LargeBinary, nullable=False),
    sqlite_strict=True,
)

servers = Table(
    "servers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("voter", Integer, nullable=False),
    Column("alive", Integer, nullable=False),
    Column("create_index", Integer, nullable=False),
    Column("modify_index", Integer, nullable=False),
    Column("check_index", Integer, nullable=False),
    sqlite_with_rowid=False,
    sqlite_strict=True,
)

autopilot = Table(
    "autopilot",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1"), primary_key=True),
    Column("configuration", LargeBinary, nullable=False),  # service.domain.commands.AutopilotConfiguration in msgpack
    Column("create_index", Integer, nullable=False),
    Column("modify_index", Integer, nullable=False),
    sqlite_strict=True,
)

table_indexes = Table(
    "table_indexes",
    metadata,
    Column("name", Text, primary_key=True),
    Column("modify_index", Integer, nullable=False),  # of the last change of anything in what the name stands for, deletions too
    sqlite_with_rowid=False,
    sqlite_strict=True,
)

meta = Table(
    "meta",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1"), primary_key=True),
    Column("applied_index", Integer, nullable=False),
    Column("applied_term", Integer, nullable=False),
    Column("kv_index", Integer, nullable=False),  # the highest index of any effective change of a key
    Column("superseded_by", Integer, nullable=False),  # the generation that took this file's place; 0 while it is the live one
    sqlite_strict=True,
)

kv_sessions = Index("kv_sessions", kv.c.session.collate("NOCASE"), sqlite_where=kv.c.session.is_not(None))
"""Finds the keys that a session holds. A key that nobody holds is not in it, so a plain put does not touch it."""

sessions = Table(
    "sessions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", LargeBinary, nullable=False),  # whatever the client sent, in UTF-8
    Column("node", Text, nullable=False),
    Column("lock_delay_ns", Integer, nullable=False),
    Column("behavior", Text, nullable=False),
    Column("ttl", Text, nullable=False),  # as the client wrote it
    Column("ttl_ns", Integer, nullable=False),  # 0 for none
    Column("checks", LargeBinary, nullable=False),  # msgpack: those of the node, those of services
    Column("create_index", Integer, nullable=False),
    Column("renewed_index", Integer, nullable=False),  # the entry of the last renewal, or of the creation
    sqlite_with_rowid=False,
    sqlite_strict=True,
)

lock_delays = Table(
    "lock_delays",
    metadata,
    Column("key", LargeBinary, primary_key=True),
    Column("since_index", Integer, nullable=False),  # the entry by which the lock was lost
    Column("duration_ns", Integer, nullable=False),
    sqlite_with_rowid=False,
    sqlite_strict=True,
)

restoring = Table(
    "restoring",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1"), primary_key=True),
    Column("restore", Text, nullable=False),  # whose parts are laid aside; empty when none are
    Column("parts", Integer, nullable=False),
    Column("touched_at_ms", Integer, nullable=False),  # the leader's clock, since 1970
    Column("committed", Text, nullable=False),  # the restore that was committed last
    sqlite_strict=True,
)

restoring_kv = Table(
    "restoring_kv",
    metadata,
    Column("key", LargeBinary, primary_key=True),
    *(Column(column.name, column.type, nullable=column.nullable) for column in kv.columns if column is not kv.c.key),
    sqlite_strict=True,
)
"""Keys of an archive that are laid aside, in the columns of ``kv``."""

restoring_records = Table(
    "restoring_records",
    metadata,
    Column("position", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    sqlite_strict=True,
)

requests = Table(
    "requests",
    metadata,
    Column("first_index", Integer, primary_key=True),  # the entry by which it was carried out
    Column("id", Text, nullable=False, unique=True),  # the client's key
    Column("digest", LargeBinary, nullable=False),  # of what was asked
    Column("result", LargeBinary, nullable=False),  # service.domain.results
    Column("memo", LargeBinary, nullable=False),
    Column("end_bytes", Integer, nullable=False),  # what had been kept up to and with this row
    sqlite_strict=True,
)

acl_records = Table(
    "acl_records",
    metadata,
    Column("id", Text, primary_key=True),  # with the kind before it
    Column("kind", Text, nullable=False),
    Column("name", LargeBinary, nullable=False),  # by which it is found besides: of a token the hash of its secret
    Column("expires_ms", Integer, nullable=False),  # since 1970, rounded up; 0 for never
    Column("record", LargeBinary, nullable=False),  # service.domain.acl.records in msgpack
    UniqueConstraint("kind", "name"),
    sqlite_with_rowid=False,
    sqlite_strict=True,
)

for _event in ("INSERT", "UPDATE OF modify_index"):
    event.listen(
        metadata,
        "after_create",
        DDL(  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
            f"CREATE TRIGGER kv_{_event.split()[0].lower()} AFTER {_event} ON kv BEGIN"  # noqa: S608  # text of ours
            " UPDATE meta SET applied_index = NEW.modify_index, kv_index = NEW.modify_index WHERE id = 1; END"
        ),
    )

INTEGER_MODULUS = 1 << 64
INTEGER_SIGNED_MAX = (1 << 63) - 1


def to_signed(number: int) -> int:
    """An unsigned 64-bit number as the signed one of the same bits: SQLite knows no other."""
    return number - INTEGER_MODULUS if number > INTEGER_SIGNED_MAX else number


def to_unsigned(number: int) -> int:
    """The inverse of :func:`to_signed`."""
    return number + INTEGER_MODULUS if number < 0 else number


def check_version(path: str, application_id: int, version: int) -> None:
    """Refuse a file that is not ours or is newer than we are.

    :raises StateUnreadable: naming the file, what was found and what to do.
    """
    if application_id != APPLICATION_ID:
        raise StateUnreadable(f"{path} is no state file of kvorum: its application id is {application_id:#x}, not {APPLICATION_ID:#x}")
    if version > FORMAT_VERSION:
        raise StateUnreadable(
            f"{path} has format version {version}, this program knows up to {FORMAT_VERSION}: start the newer version that wrote it, "
            "or move the data directory away and let the node join again"
        )
    if version < 1:
        raise StateUnreadable(f"{path} has format version {version}: it was never completed")
