"""What the state machine answers to a command."""

import msgspec


class WriteResult(msgspec.Struct, array_like=True, frozen=True):
    """What became of a write.

    :param ok: False when a condition (cas) did not hold; nothing was changed then.
    :param index: the log index at which the command was applied.
    """

    ok: bool
    index: int


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(WriteResult)


def encode(result: WriteResult) -> bytes:
    """The bytes that travel back to the worker."""
    return _encoder.encode(result)


def decode(data: bytes) -> WriteResult:
    """The inverse of :func:`encode`."""
    return _decoder.decode(data)
