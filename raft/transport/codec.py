"""Messages to bytes and back: MessagePack, positional, versioned.

A body is ``[version, cluster, sender, recipient, [message, ...]]`` and a message ``[kind, term, field, ...]``: the fields of the
message's class in their order, without sender and recipient, which the envelope says once for all. A kind is a number of
:data:`KINDS`; numbers are never used again for something else.

What arrives is data of a stranger. Size comes first, then version, cluster and recipient, then types, then sense; the first thing
that is wrong decides the error, every error is a :class:`~raft.errors.MessageRefused`, and nothing is handed on from a body of which
any part is wrong.
"""

from collections.abc import Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Annotated, Any, Union, get_type_hints
from zlib import crc32

import msgspec
from msgspec import Meta, Raw, Struct
from msgspec.structs import astuple

from raft.core.membership import check_configuration
from raft.core.messages import (
    AppendAccepted,
    AppendRejected,
    AppendRequest,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    Message,
    PreVoteRequest,
    PreVoteResponse,
    ProposeRequest,
    ProposeResponse,
    ReadIndexRequest,
    ReadIndexResponse,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from raft.core.model import Boundary, NodeId
from raft.errors import MalformedMessage, UnsupportedVersion, WrongCluster, WrongRecipient

PROTOCOL_VERSION = 1
"""The only version that this code speaks."""

BATCH_MESSAGES_MAX = 4_096
"""Messages in one body; bounds what a small body can cost the receiver."""

KINDS: dict[int, type[Message]] = {
    1: PreVoteRequest,
    2: PreVoteResponse,
    3: VoteRequest,
    4: VoteResponse,
    5: AppendRequest,
    6: AppendAccepted,
    7: AppendRejected,
    8: Heartbeat,
    9: HeartbeatResponse,
    10: InstallSnapshot,
    11: TimeoutNow,
    12: ProposeRequest,
    13: ProposeResponse,
    14: ReadIndexRequest,
    15: ReadIndexResponse,
}

_Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]
"""Terms, indexes, rounds and contexts: what a signed 64-bit column of a log holds, and never negative."""


class _Version(Struct, array_like=True):
    """The only part of a body whose place no version may change."""

    version: int


class _Envelope(Struct, array_like=True, forbid_unknown_fields=True):
    version: int
    cluster: str
    sender: str
    recipient: str
    messages: list[Raw]


class _PieceEnvelope(Struct, array_like=True, forbid_unknown_fields=True):
    version: int
    cluster: str
    sender: str
    recipient: str
    message: Raw
    size: _Number
    checksum: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    offset: _Number
    data_crc32: _Number
    data: bytes


class SnapshotPiece(Struct, frozen=True):
    """A part of a snapshot on its way.

    :param message: what the recipient's core is told once the snapshot is whole.
    :param size: length of the whole in bytes.
    :param checksum: SHA-256 of the whole, in hexadecimal.
    :param offset: where in the whole ``data`` begins.
    """

    message: InstallSnapshot
    size: int
    checksum: str
    offset: int
    data: bytes

    @property
    def is_last(self) -> bool:
        """Whether the snapshot ends with this piece."""
        return self.offset + len(self.data) == self.size


def _payload_fields(message_class: type[Message]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(message_class) if field.name not in {"sender", "to"})


def _wire_class(kind: int, message_class: type[Message]) -> type[Struct]:
    """What a message of this class looks like between the brackets: its kind as the tag, then its own fields."""
    hints = get_type_hints(message_class)
    columns = [(name, _Number if hints[name] is int else hints[name]) for name in _payload_fields(message_class)]
    return msgspec.defstruct(message_class.__name__, columns, array_like=True, tag=kind, forbid_unknown_fields=True)


_GETTERS = {message_class: (kind, attrgetter("sender", *_payload_fields(message_class))) for kind, message_class in KINDS.items()}
_CLASSES: dict[type, type[Message]] = {_wire_class(kind, message_class): message_class for kind, message_class in KINDS.items()}

_encode = msgspec.msgpack.Encoder().encode
_decode_version = msgspec.msgpack.Decoder(_Version).decode
_decode_envelope = msgspec.msgpack.Decoder(_Envelope).decode
_decode_piece = msgspec.msgpack.Decoder(_PieceEnvelope).decode
_decode_message = msgspec.msgpack.Decoder(Union[tuple(_CLASSES)]).decode  # noqa: UP007  # the members come from the table


def encode_message(message: Message) -> bytes:
    """One message, without sender and recipient, ready for :func:`encode_batch`."""
    kind, getter = _GETTERS[type(message)]
    _, *values = getter(message)
    return _encode((kind, *values))


def encode_batch(cluster: str, sender: NodeId, recipient: NodeId, encoded: Sequence[bytes]) -> bytes:
    """A body that holds messages which :func:`encode_message` made; all are of that sender and for that recipient."""
    return _encode((PROTOCOL_VERSION, cluster, sender, recipient, [Raw(message) for message in encoded]))


def encode(cluster: str, messages: Sequence[Message]) -> bytes:
    """A body from messages.

    :raises MalformedMessage: when there is none, or when they differ in sender or recipient.
    """
    parties = {(message.sender, message.to) for message in messages}
    if len(parties) != 1:
        raise MalformedMessage(f"a body holds messages of one sender for one recipient; these have {len(parties)}: {sorted(parties)}")
    ((sender, recipient),) = parties
    return encode_batch(cluster, sender, recipient, [encode_message(message) for message in messages])


def decode(body: bytes, cluster: str, recipient: NodeId, body_bytes_max: int) -> tuple[Message, ...]:
    """The messages of a body, in order.

    :param cluster: the cluster of this node.
    :param recipient: this node.
    :param body_bytes_max: longest body that is looked at, in bytes.
    :raises MalformedMessage: for what is too long, cut off, of wrong types or can't be.
    :raises UnsupportedVersion: for another version of the protocol.
    :raises WrongCluster: for a message of another cluster.
    :raises WrongRecipient: for a message to another node.
    """
    envelope = _open(_decode_envelope, body, body_bytes_max)
    _check_parties(envelope, cluster, recipient)
    if not 0 < len(envelope.messages) <= BATCH_MESSAGES_MAX:
        raise MalformedMessage(f"a body of {len(envelope.messages)} messages; it must hold 1 to {BATCH_MESSAGES_MAX}")
    return tuple([_message(raw, envelope.sender, recipient) for raw in envelope.messages])


def encode_piece(cluster: str, piece: SnapshotPiece) -> bytes:
    """A body that holds one piece of a snapshot."""
    message = piece.message
    envelope = (PROTOCOL_VERSION, cluster, message.sender, message.to, Raw(encode_message(message)))
    return _encode((*envelope, piece.size, piece.checksum, piece.offset, crc32(piece.data), piece.data))


def decode_piece(body: bytes, cluster: str, recipient: NodeId, body_bytes_max: int) -> SnapshotPiece:
    """The piece in a body; parameters and errors as for :func:`decode`."""
    envelope = _open(_decode_piece, body, body_bytes_max)
    _check_parties(envelope, cluster, recipient)
    message = _message(envelope.message, envelope.sender, recipient)
    if not isinstance(message, InstallSnapshot):
        raise MalformedMessage(f"a piece of a snapshot under a {type(message).__name__}")
    if envelope.offset + len(envelope.data) > envelope.size:
        raise MalformedMessage(f"a piece that ends at byte {envelope.offset + len(envelope.data)} of a snapshot of {envelope.size} bytes")
    if crc32(envelope.data) != envelope.data_crc32:
        raise MalformedMessage(f"the piece at byte {envelope.offset} was damaged on its way")
    return SnapshotPiece(message, envelope.size, envelope.checksum, envelope.offset, envelope.data)


def _open(decoder: Any, body: bytes, body_bytes_max: int) -> Any:
    if len(body) > body_bytes_max:
        raise MalformedMessage(f"a body of {len(body)} bytes is over the limit of {body_bytes_max} bytes (body_bytes_max)")
    try:
        envelope = decoder(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        _check_version(_version_of(body))
        raise MalformedMessage(f"a body that can't be read: {error}") from error
    _check_version(envelope.version)
    return envelope


def _version_of(body: bytes) -> int:
    """The version of a body that is otherwise not understood; a body without one counts as ours."""
    try:
        return _decode_version(body).version
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return PROTOCOL_VERSION


def _check_version(version: int) -> None:
    if version != PROTOCOL_VERSION:
        raise UnsupportedVersion(f"protocol version {version}; this node speaks version {PROTOCOL_VERSION}")


def _check_parties(envelope: _Envelope | _PieceEnvelope, cluster: str, recipient: NodeId) -> None:
    if envelope.cluster != cluster:
        raise WrongCluster(f"a message of cluster {envelope.cluster!r}; this node belongs to {cluster!r}")
    if envelope.recipient != recipient:
        raise WrongRecipient(f"a message for node {envelope.recipient!r}; this node is {recipient!r}")
    if envelope.sender == recipient:
        raise MalformedMessage(f"a message that node {recipient!r} is said to have sent to itself")


def _message(raw: Raw, sender: NodeId, recipient: NodeId) -> Message:
    try:
        wire = _decode_message(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedMessage(f"a message that can't be read: {error}") from error
    message: Message = _CLASSES[type(wire)](sender, recipient, *astuple(wire))
    if isinstance(message, AppendRequest):
        # Terms don't fall within a message (its constructor checks), so the first entry speaks for all.
        if message.entries and message.entries[0].term < 1:
            raise MalformedMessage(f"AppendRequest with entry {message.entries[0].index} of term 0")
    elif isinstance(message, InstallSnapshot):
        _check_boundary(message.boundary)
    return message


def _check_boundary(boundary: Boundary) -> None:
    if not (1 <= boundary.index < 2**63 and 1 <= boundary.term < 2**63):
        raise MalformedMessage(f"InstallSnapshot at index {boundary.index} of term {boundary.term}")
    try:
        check_configuration(boundary.configuration)
    except MalformedMessage as error:
        raise MalformedMessage(f"InstallSnapshot with {error}") from error
