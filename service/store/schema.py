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

Page checksums are left out: SQLite has none of its own, and a column for them can be added later.
"""

from sqlalchemy import DDL, CheckConstraint, Column, Integer, LargeBinary, MetaData, Table, Text, event

from service.errors import StateUnreadable

APPLICATION_ID = 0x6B766F72
"""The letters ``kvor``, in the header of every state file."""

FORMAT_VERSION = 1
"""The format these tables are; a file of a higher one is refused."""

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
