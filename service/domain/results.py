"""What the state machine answers to a command."""

from enum import IntEnum

import msgspec

from service.domain.entries import Row, Session


class WriteResult(msgspec.Struct, array_like=True, frozen=True):
    """What became of a write.

    :param ok: False when a condition (cas) did not hold; nothing was changed then.
    :param index: the log index at which the command was applied.
    :param error: why it can't be meant so, in Consul's words; empty when only a condition did not hold.
    :param modify_index: that of the key afterwards; 0 when there is no such key, when several are meant, or when it can't be told.
    :param unmet: the condition that did not hold is a :class:`service.domain.conditions.Condition`.
    """

    ok: bool
    index: int
    error: str = ""
    modify_index: int = 0
    unmet: bool = False


class SessionResult(msgspec.Struct, array_like=True, frozen=True):
    """The session that a command was about, as it is now.

    :param session: None when there is none.
    """

    index: int
    session: Session | None = None


class AclResult(msgspec.Struct, array_like=True, frozen=True):
    """What became of a change of the ACL.

    :param ok: False when it has changed since it was looked at; nothing was changed then.
    :param stamp_ms: the leader's time of the entry.
    """

    ok: bool
    index: int
    stamp_ms: int


class TxnResult(msgspec.Struct, array_like=True, frozen=True):
    """What became of a transaction.

    :param failures: (number of the operation, why) for each that failed; nothing was changed unless this is empty.
    :param rows: what the operations give back, in their order; a value only where it was asked for. Empty after a failure.
    """

    index: int
    failures: list[tuple[int, str]] = []
    rows: list[Row] = []


class Verdict(IntEnum):
    """What a :class:`service.domain.commands.Once` came upon."""

    FIRST = 0
    AGAIN = 1
    OTHER = 2
    FORGOTTEN = 3


class OnceResult(msgspec.Struct, array_like=True, frozen=True):
    """What became of a command that is carried out once.

    :param result: the encoded result of the command, when it was carried out now or before; else empty.
    :param memo: that of the attempt that was carried out.
    :param first_index: of the entry by which it was carried out, or by which the key was taken for something else; 0 when neither.
    """

    index: int
    verdict: Verdict
    result: bytes = b""
    memo: bytes = b""
    first_index: int = 0


class AclMoved(msgspec.Struct, array_like=True, frozen=True):
    """The answer to a :class:`service.domain.commands.Permitted` that came too late: nothing was done. It will never have a field."""


Result = WriteResult | SessionResult | TxnResult | OnceResult | AclResult | AclMoved

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(WriteResult)
_session_decoder = msgspec.msgpack.Decoder(SessionResult)
_once_decoder = msgspec.msgpack.Decoder(OnceResult)
_acl_decoder = msgspec.msgpack.Decoder(AclResult)
_txn_decoder = msgspec.msgpack.Decoder(TxnResult)


def encode(result: Result) -> bytes:
    """The bytes that travel back to the worker."""
    return _encoder.encode(result)


_ACL_MOVED = _encoder.encode(AclMoved())


def acl_moved(data: bytes) -> bool:
    """Whether an encoded result is an :class:`AclMoved`: of no other one it may be known what it is."""
    return data == _ACL_MOVED


def decode(data: bytes) -> WriteResult:
    """The inverse of :func:`encode` for all commands but those below."""
    return _decoder.decode(data)


def decode_session(data: bytes) -> SessionResult:
    """The inverse of :func:`encode` for a :class:`service.domain.commands.SessionRenew`."""
    return _session_decoder.decode(data)


def decode_txn(data: bytes) -> TxnResult:
    """The inverse of :func:`encode` for a :class:`service.domain.commands.Txn`."""
    return _txn_decoder.decode(data)


def decode_once(data: bytes) -> OnceResult:
    """The inverse of :func:`encode` for a :class:`service.domain.commands.Once`."""
    return _once_decoder.decode(data)


def decode_acl(data: bytes) -> AclResult:
    """The inverse of :func:`encode` for a :class:`service.domain.commands.AclChange`."""
    return _acl_decoder.decode(data)
