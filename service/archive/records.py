"""The records of ``state.bin``: a header, then for each record one byte that says what it is, and a map, as a Consul 1.8 writes and reads them.

Consul refuses a record whose number it does not know, so what only this store has can't be a record of its own; a field more in the header is passed
over. The names of fields stand in alphabetical order, as Consul's encoder puts them.
"""

from collections.abc import Iterator
from typing import NamedTuple

from service.archive.errors import ArchiveInvalid, unreadable
from service.archive.msgpack import FALSE, NIL, TRUE, Unpacker, Value, integer, mapping, sequence, text
from service.domain.commands import AutopilotConfiguration
from service.domain.entries import Row, ServiceCheck, Session

REGISTRATION, KEY, SESSION, TOMBSTONE, AUTOPILOT, INDEX = 0, 2, 3, 5, 9, 16
ACL_TOKEN, ACL_POLICY, ACL_ROLE = 17, 19, 23
NAMES = {
    REGISTRATION: "registrations",
    KEY: "keys",
    SESSION: "sessions",
    4: "legacy ACLs",
    TOMBSTONE: "tombstones",
    6: "coordinates",
    7: "prepared queries",
    AUTOPILOT: "autopilot configurations",
    12: "intentions",
    13: "certificate authorities",
    14: "certificate authority states",
    15: "certificate authority configurations",
    INDEX: "indexes",
    ACL_TOKEN: "ACL tokens",
    ACL_POLICY: "ACL policies",
    22: "configuration entries",
    ACL_ROLE: "ACL roles",
    25: "ACL binding rules",
    27: "ACL auth methods",
    29: "chunks of commands",
    30: "federation states",
    31: "system metadata",
}
"""What the numbers stand for that a Consul writes."""

RESTORED_ACL = frozenset((ACL_TOKEN, ACL_POLICY, ACL_ROLE))
RESTORED = RESTORED_ACL | {KEY, SESSION, TOMBSTONE, AUTOPILOT, INDEX}
"""Those that a restore takes; the others are passed over."""

KVS_INDEX, SESSIONS_INDEX, TOMBSTONES_INDEX = b"kvs", b"sessions", b"tombstones"
_LEFT_OUT = b"KvorumLeftOut"
_UNSIGNED_MAX = (1 << 64) - 1
_INDEX_MAX = (1 << 63) - 1
Fields = dict[bytes, Value]


class Record(NamedTuple):
    """One record, not yet understood.

    :param position: of its first byte in ``state.bin``.
    """

    number: int
    fields: Fields
    position: int


class Header(NamedTuple):
    """What ``state.bin`` begins with.

    :param last_index: of the last entry that it holds.
    :param left_out: what the state had and the archive has not, in words; a Consul passes over it.
    """

    last_index: int
    left_out: str = ""


def pack_header(last_index: int, left_out: str = "") -> bytes:
    """See :class:`Header`."""
    told = [(_LEFT_OUT, text(left_out.encode()))] if left_out else []
    return mapping([*told, (b"LastIndex", integer(last_index))])


_CREATE, _FLAGS, _KEY = text(b"CreateIndex"), text(b"Flags"), text(b"Key")
_LOCK, _MODIFY, _SESSION, _VALUE = text(b"LockIndex"), text(b"ModifyIndex"), text(b"Session"), text(b"Value")


def pack_key(row: Row, number: int = KEY) -> bytes:
    """A key; by the other number the tombstone of one."""
    return b"%c\x87%b%b%b%b%b%b%b%b%b%b%b%b%b%b" % (
        number,
        _CREATE,
        integer(row.create_index),
        _FLAGS,
        integer(row.flags),
        _KEY,
        text(row.key),
        _LOCK,
        integer(row.lock_index),
        _MODIFY,
        integer(row.modify_index),
        _SESSION,
        text((row.session or "").encode()),
        _VALUE,
        text(row.value) if row.value else NIL,
    )


def pack_tombstone(key: bytes, index: int) -> bytes:
    """A key that was deleted at an index."""
    return pack_key(Row(key, b"", 0, 0, None, 0, index), TOMBSTONE)


def pack_session(session: Session) -> bytes:
    """A session."""
    checks = session.service_checks
    fields = [
        (b"Behavior", text(session.behavior.encode())),
        (b"Checks", NIL),
        (b"CreateIndex", integer(session.create_index)),
        (b"ID", text(session.id.encode())),
        (b"LockDelay", integer(session.lock_delay_ns)),
        (b"ModifyIndex", integer(session.modify_index)),
        (b"Name", text(session.name.encode("utf-8", "surrogateescape"))),
        (b"Node", text(session.node.encode())),
        (b"NodeChecks", NIL if session.node_checks is None else sequence([text(name.encode()) for name in session.node_checks])),
        (b"ServiceChecks", NIL if checks is None else sequence([_pack_check(check) for check in checks])),
        (b"TTL", text(session.ttl.encode())),
    ]
    return bytes((SESSION,)) + mapping(fields)


def _pack_check(check: ServiceCheck) -> bytes:
    return mapping([(b"ID", text(check.id.encode())), (b"Namespace", text(check.namespace.encode()))])


def pack_autopilot(found: AutopilotConfiguration, create_index: int, modify_index: int) -> bytes:
    """The autopilot's configuration."""
    fields = [
        (b"CleanupDeadServers", TRUE if found.cleanup_dead_servers else FALSE),
        (b"CreateIndex", integer(create_index)),
        (b"DisableUpgradeMigration", TRUE if found.disable_upgrade_migration else FALSE),
        (b"LastContactThreshold", integer(found.last_contact_threshold_ns)),
        (b"MaxTrailingLogs", integer(found.max_trailing_logs)),
        (b"MinQuorum", integer(found.min_quorum)),
        (b"ModifyIndex", integer(modify_index)),
        (b"RedundancyZoneTag", text(found.redundancy_zone_tag.encode())),
        (b"ServerStabilizationTime", integer(found.server_stabilization_time_ns)),
        (b"UpgradeVersionTag", text(found.upgrade_version_tag.encode())),
    ]
    return bytes((AUTOPILOT,)) + mapping(fields)


def pack_index(name: bytes, index: int) -> bytes:
    """The index of a whole table."""
    return bytes((INDEX,)) + mapping([(b"Key", text(name)), (b"Value", integer(index))])


def read(unpacker: Unpacker) -> tuple[Header, Iterator[Record]]:
    """Take ``state.bin`` apart.

    :returns: the header, and the records as they come.
    :raises ArchiveInvalid: from the iterator too: what is no record of a Consul.
    """
    header = unpacker.value()
    if not isinstance(header, dict) or b"LastIndex" not in header:
        raise unreadable('"state.bin" does not begin with the header of a Consul')
    given = Given(Record(-1, header, 0))
    return Header(given.number(b"LastIndex", _INDEX_MAX), given.text(_LEFT_OUT)), _records(unpacker)


def _records(unpacker: Unpacker) -> Iterator[Record]:
    while (number := unpacker.byte()) is not None:
        position = unpacker.position - 1
        if number not in NAMES:
            raise unreadable(f'Unrecognized msg type {number} at byte {position} of "state.bin"')
        fields = unpacker.value()
        if isinstance(fields, dict):
            yield Record(number, fields, position)
        elif number in RESTORED:
            raise unreadable(f'the record at byte {position} of "state.bin" is no map')
        else:
            yield Record(number, {}, position)  # coordinates are a list


class Given:
    """The fields of a record, each asked for by the type that it must have. A missing one counts as empty, as it does in Go."""

    def __init__(self, record: Record) -> None:
        self._record = record

    def data(self, name: bytes) -> bytes:
        """Bytes; null counts as none."""
        found = self._record.fields.get(name)
        if found is None:
            return b""
        if not isinstance(found, bytes):
            raise self._wrong(name, found, "no text")
        return found

    def text(self, name: bytes) -> str:
        """Text in UTF-8."""
        try:
            return self.data(name).decode()
        except UnicodeDecodeError:
            raise self._wrong(name, self.data(name), "no UTF-8") from None

    def number(self, name: bytes, most: int = _INDEX_MAX, least: int = 0) -> int:
        """A number."""
        found = self._record.fields.get(name)
        if found is None:
            return 0
        if not isinstance(found, int) or not least <= found <= most:
            raise self._wrong(name, found, f"no number from {least} to {most}")
        return int(found)

    def flag(self, name: bytes) -> bool:
        """Yes or no."""
        return bool(self._record.fields.get(name))

    def texts(self, name: bytes) -> list[str] | None:
        """A list of texts, or null."""
        found = self._record.fields.get(name)
        if found is None:
            return None
        if not isinstance(found, list) or not all(isinstance(item, bytes) for item in found):
            raise self._wrong(name, found, "no list of texts")
        return [item.decode("utf-8", "replace") for item in found if isinstance(item, bytes)]

    def records(self, name: bytes) -> "list[Given] | None":
        """A list of maps, or null."""
        found = self._record.fields.get(name)
        if found is None:
            return None
        if not isinstance(found, list):
            raise self._wrong(name, found, "no list")
        maps = [item for item in found if isinstance(item, dict)]
        if len(maps) != len(found):
            raise self._wrong(name, found, "no list of maps")
        return [Given(Record(self._record.number, item, self._record.position)) for item in maps]

    def _wrong(self, name: bytes, found: Value, problem: str) -> ArchiveInvalid:
        what = NAMES.get(self._record.number, "the header")
        shown = repr(found)[:60]
        return unreadable(f'{name.decode()} is {shown}, {problem}, in a record of {what} at byte {self._record.position} of "state.bin"')


def key_of(record: Record) -> Row:
    """The key of a record; also that of a tombstone, whose ModifyIndex says when it was deleted."""
    given = Given(record)
    return Row(
        given.data(b"Key"),
        given.data(b"Value"),
        given.number(b"Flags", _UNSIGNED_MAX),
        given.number(b"LockIndex"),
        given.text(b"Session") or None,
        given.number(b"CreateIndex"),
        given.number(b"ModifyIndex"),
    )


def session_of(record: Record) -> Session:
    """The session of a record; what its TTL means is left to the caller."""
    given = Given(record)
    checks = given.records(b"ServiceChecks")
    return Session(
        id=given.text(b"ID"),
        name=given.text(b"Name"),
        node=given.text(b"Node"),
        lock_delay_ns=given.number(b"LockDelay", least=-_INDEX_MAX - 1),
        behavior=given.text(b"Behavior"),
        ttl=given.text(b"TTL"),
        ttl_ns=0,
        node_checks=given.texts(b"NodeChecks"),
        service_checks=None if checks is None else [ServiceCheck(check.text(b"ID"), check.text(b"Namespace")) for check in checks],
        create_index=given.number(b"CreateIndex"),
        modify_index=given.number(b"ModifyIndex"),
    )


def autopilot_of(record: Record) -> tuple[AutopilotConfiguration, int, int]:
    """The autopilot's configuration, its CreateIndex and its ModifyIndex."""
    given = Given(record)
    found = AutopilotConfiguration(
        cleanup_dead_servers=given.flag(b"CleanupDeadServers"),
        last_contact_threshold_ns=given.number(b"LastContactThreshold", least=-_INDEX_MAX - 1),
        max_trailing_logs=given.number(b"MaxTrailingLogs"),
        min_quorum=given.number(b"MinQuorum"),
        server_stabilization_time_ns=given.number(b"ServerStabilizationTime", least=-_INDEX_MAX - 1),
        redundancy_zone_tag=given.text(b"RedundancyZoneTag"),
        disable_upgrade_migration=given.flag(b"DisableUpgradeMigration"),
        upgrade_version_tag=given.text(b"UpgradeVersionTag"),
    )
    return found, given.number(b"CreateIndex"), given.number(b"ModifyIndex")


def index_of(record: Record) -> tuple[bytes, int]:
    """The name of a table and its index."""
    given = Given(record)
    return given.data(b"Key"), given.number(b"Value")
