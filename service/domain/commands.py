"""What can be asked of the replicated state, as values.

A command becomes the bytes of one log entry: ``version (1 byte) | msgpack``. The leader puts a stamp of eight bytes before it
(milliseconds since 1970, big-endian) when it appends the entry, so that applying needs no clock. A command carries everything else that
is not a function of the state: who asked, under which request id, and why.

Adding a command is adding a class with a new tag and the version that knows it; a field is only ever added at the end, with a default.
"""

import msgspec

from service.domain.acl.records import Record
from service.domain.conditions import Condition
from service.domain.entries import Row, Session
from service.errors import CommandInvalid

VERSION = 1
STAMP_BYTES = 8


class Origin(msgspec.Struct, array_like=True, frozen=True):
    """Who asked for a change, under which request id, and why. Replicated with it, so that every node can tell."""

    actor: str = ""
    request_id: str = ""
    reason: str = ""


NOBODY = Origin()


class KvPut(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """Set a key.

    :param cas: None: always. 0: only when the key is absent. Otherwise only when its ModifyIndex is this.
    :param flags: an unsigned 64-bit number that means something to the client only.
    """

    key: bytes
    value: bytes
    flags: int = 0
    cas: int | None = None
    origin: Origin = NOBODY


class KvDelete(msgspec.Struct, array_like=True, frozen=True, tag=2):
    """Delete one key.

    :param cas: None: always. Otherwise only when its ModifyIndex is this; a missing key counts as deleted, an existing one
        is never deleted with 0.
    """

    key: bytes
    cas: int | None = None
    origin: Origin = NOBODY


class KvDeleteTree(msgspec.Struct, array_like=True, frozen=True, tag=3):
    """Delete every key that begins with ``prefix`` (a prefix of bytes, not of path elements)."""

    prefix: bytes
    origin: Origin = NOBODY


class ReapTombstones(msgspec.Struct, array_like=True, frozen=True, tag=4):
    """Forget deletions up to and including index ``up_to``. Proposed by the leader now and then, never by clients."""

    up_to: int


class CheckState(msgspec.Struct, array_like=True, frozen=True, tag=5):
    """Change nothing; every node takes a digest of its state right here, so that they can be compared. It will never have a field."""


class TxnOperation(msgspec.Struct, array_like=True, frozen=True):
    """One operation of a transaction. Each verb of :mod:`service.domain.txn` looks at what it needs.

    :param verb: as the client wrote it; one that nobody knows fails the transaction.
    """

    verb: str
    key: bytes
    value: bytes = b""
    flags: int = 0
    index: int = 0
    session: str = ""


class Txn(msgspec.Struct, array_like=True, frozen=True, tag=6):
    """Carry out all operations in order at one index, or none."""

    operations: list[TxnOperation]
    origin: Origin = NOBODY


class FireEvent(msgspec.Struct, array_like=True, frozen=True, tag=20):
    """Tell whoever watches; see :mod:`service.domain.events`.

    :param id: a UUID in lower case, drawn by whoever took the request.
    :param node_filter: a regular expression; empty for all nodes. So are the others.
    """

    id: str
    name: bytes
    payload: bytes = b""
    node_filter: str = ""
    service_filter: str = ""
    tag_filter: str = ""
    origin: Origin = NOBODY


class ServerRecord(msgspec.Struct, array_like=True, frozen=True):
    """A member of the cluster as the leader sees it; see :class:`service.domain.servers.Server`."""

    id: str
    name: str
    address: str
    voter: bool
    alive: bool


class RecordServers(msgspec.Struct, array_like=True, frozen=True, tag=21):
    """Note who the members are and which of them are alive. Proposed by the leader when something has changed, never by clients."""

    servers: list[ServerRecord]


class AutopilotConfiguration(msgspec.Struct, array_like=True, frozen=True):
    """The fields of Consul's; durations in nanoseconds."""

    cleanup_dead_servers: bool = False
    last_contact_threshold_ns: int = 0
    max_trailing_logs: int = 0
    min_quorum: int = 0
    server_stabilization_time_ns: int = 0
    redundancy_zone_tag: str = ""
    disable_upgrade_migration: bool = False
    upgrade_version_tag: str = ""


class SetAutopilot(msgspec.Struct, array_like=True, frozen=True, tag=22):
    """Replace the autopilot's configuration.

    :param cas: None: always. Otherwise only when its ModifyIndex is this; 0 when there is none yet.
    """

    configuration: AutopilotConfiguration
    cas: int | None = None
    origin: Origin = NOBODY


class KvLock(msgspec.Struct, array_like=True, frozen=True, tag=7):
    """Set a key and take its lock, or set it and let the lock go.

    :param operation: with the verb ``lock`` or ``unlock``.
    """

    operation: TxnOperation
    origin: Origin = NOBODY


class SessionCreate(msgspec.Struct, array_like=True, frozen=True, tag=8):
    """Begin a session under the id that it brings along."""

    session: Session
    origin: Origin = NOBODY


class SessionDestroy(msgspec.Struct, array_like=True, frozen=True, tag=9):
    """End a session, if it exists; its keys are released or deleted."""

    id: str
    origin: Origin = NOBODY


class SessionRenew(msgspec.Struct, array_like=True, frozen=True, tag=10):
    """Let a session's time begin anew."""

    id: str


class SessionExpire(msgspec.Struct, array_like=True, frozen=True, tag=11):
    """End a session whose time is up. Proposed by the leader, never by clients.

    :param renewed_index: of the renewal (or creation) after which its time was counted; after a later one nothing is done.
    """

    id: str
    renewed_index: int


class EndLockDelay(msgspec.Struct, array_like=True, frozen=True, tag=12):
    """Let a key be locked again. Proposed by the leader, never by clients.

    :param since_index: of the loss that the delay began with; after a later one nothing is done.
    """

    key: bytes
    since_index: int


class AclChange(msgspec.Struct, array_like=True, frozen=True, tag=30):
    """Change the ACL, unless it has changed since it was looked at: so whoever proposes this judges, and applying it does not.

    :param seen_index: of the ACL's last change that the proposer knew of.
    :param puts: tokens, policies and roles, new or in the place of those with the same id.
    :param deletes: of such, as :func:`service.domain.acl.records.row_id` calls them.
    :param bootstraps: this is (or stands for) the bootstrap, of which there is but one.
    """

    seen_index: int
    puts: list[Record] = []
    deletes: list[str] = []
    bootstraps: bool = False
    origin: Origin = NOBODY


class ReapTokens(msgspec.Struct, array_like=True, frozen=True, tag=31):
    """Forget the tokens that have expired by the time of the entry. Proposed by the leader, never by clients."""


class KvConditional(msgspec.Struct, array_like=True, frozen=True, tag=40):
    """Carry out a command about one key if a condition on that key holds. A condition of the command itself (cas) counts after this one."""

    command: KvPut | KvDelete | KvLock
    condition: Condition

    @property
    def key(self) -> bytes:
        """The key that it is about."""
        return self.command.operation.key if isinstance(self.command, KvLock) else self.command.key


class RestoreBegin(msgspec.Struct, array_like=True, frozen=True, tag=60):
    """Make room for the parts of an archive. Those of another restore that is under way are forgotten: that one fails.

    :param id: a new one for each restore.
    """

    id: str


class RestorePart(msgspec.Struct, array_like=True, frozen=True, tag=61):
    """Lay a part of an archive aside. It shows nowhere before :class:`RestoreCommit`.

    :param number: of the part, from 0 on. One that came already is passed over.
    :param rows: keys.
    :param records: anything else: a name of :mod:`service.store.restored`, and what belongs to it in msgpack.
    """

    id: str
    number: int
    rows: list[Row] = []
    records: list[tuple[str, bytes]] = []


class RestoreCommit(msgspec.Struct, array_like=True, frozen=True, tag=62):
    """Put what was laid aside into the place of the whole state, at once.

    :param parts: how many there must be.
    :param kv_index: what a key that does not exist has for an index.
    :param sessions_index: that of the sessions.
    """

    id: str
    parts: int
    kv_index: int
    sessions_index: int
    origin: Origin = NOBODY


class RestoreAbandon(msgspec.Struct, array_like=True, frozen=True, tag=63):
    """Forget what was laid aside."""

    id: str


AclCommand = AclChange | ReapTokens
RestoreCommand = RestoreBegin | RestorePart | RestoreCommit | RestoreAbandon
KeyCommand = KvPut | KvDelete | KvDeleteTree | KvLock | Txn | KvConditional
SessionCommand = SessionCreate | SessionDestroy | SessionRenew | SessionExpire | EndLockDelay


class Once(msgspec.Struct, array_like=True, frozen=True, tag=41):
    """Carry out a command, unless one was carried out under the same key before: then its result is given again.

    :param key: the client's, by which it will ask again.
    :param digest: of what is asked; another one under the same key is refused.
    :param memo: given back with the result, also when another attempt than the first asks.
    :param since: an index that the client had seen before it asked for the first time; None when it says nothing.
    :param entries_max: keys whose entry lies further back are forgotten. It comes with the command, so that every node forgets alike.
    :param bytes_max: what all keys and results together may take; the oldest are forgotten.
    """

    key: str
    digest: bytes
    command: KeyCommand | SessionCreate | SessionDestroy
    memo: bytes
    since: int | None
    entries_max: int
    bytes_max: int


class Permitted(msgspec.Struct, array_like=True, frozen=True, tag=42):
    """Carry out a command, unless the ACL has changed since its sender was found to be permitted: so that needs no barrier.

    :param seen_index: of the ACL's last change by which that was judged.
    """

    seen_index: int
    command: KeyCommand | SessionCreate | SessionDestroy | Once


_OTHERS = ReapTombstones | CheckState | FireEvent | RecordServers | SetAutopilot
Command = KeyCommand | SessionCommand | Once | Permitted | _OTHERS | RestoreCommand | AclCommand

_PREFIX = bytes([VERSION])
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Command)


def encode(command: Command) -> bytes:
    """The bytes to propose (without the stamp)."""
    return _PREFIX + _encoder.encode(command)


def stamp(data: bytes, milliseconds: int) -> bytes:
    """The bytes of the entry: the leader's time, then what was proposed."""
    return milliseconds.to_bytes(STAMP_BYTES, "big") + data


_CHECK = encode(CheckState())


def is_check(data: bytes) -> bool:
    """Whether the bytes of an entry are a :class:`CheckState`; asked of every entry, so it looks at a few bytes only."""
    return len(data) == STAMP_BYTES + len(_CHECK) and data.endswith(_CHECK)


def decode(data: bytes) -> tuple[int, Command]:
    """Take an entry apart.

    :returns: the leader's stamp in milliseconds since 1970, and the command.
    :raises CommandInvalid: when the bytes are no command that this version knows.
    """
    if len(data) <= STAMP_BYTES or data[STAMP_BYTES] != VERSION:
        found = data[STAMP_BYTES] if len(data) > STAMP_BYTES else None
        raise CommandInvalid(f"a command of version {found!r}; this node knows version {VERSION}")
    try:
        return int.from_bytes(data[:STAMP_BYTES], "big"), _decoder.decode(memoryview(data)[STAMP_BYTES + 1 :])
    except msgspec.MsgspecError as error:
        raise CommandInvalid(f"a command that can't be read: {error}") from error
