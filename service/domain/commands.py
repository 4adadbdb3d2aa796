"""What can be asked of the replicated state, as values.

A command becomes the bytes of one log entry: ``version (1 byte) | msgpack``. The leader puts a stamp of eight bytes before it
(milliseconds since 1970, big-endian) when it appends the entry, so that applying needs no clock. A command carries everything else that
is not a function of the state: who asked, under which request id, and why.

Adding a command is adding a class with a new tag and the version that knows it; a field is only ever added at the end, with a default.
"""

import msgspec

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


Command = KvPut | KvDelete | KvDeleteTree | ReapTombstones | CheckState

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
