"""Entries, hard state and boundary as rows: what the tables of :mod:`raft.storage.schema` hold."""

from struct import Struct
from struct import error as StructError  # noqa: N812 - the module names its exception in lower case
from typing import Any

from raft.core.membership import encode_configuration
from raft.core.model import Boundary, Entry, HardState
from raft.errors import InvariantViolation
from raft.storage.checksums import boundary_checksum, row_checksum
from raft.storage.schema import HARD_STATE_KIND, HARD_STATE_ROW, TAIL_KIND, TAIL_ROW

VALUES_A_ROW = 5

_COMMIT = Struct(">q")
_LAST_INDEX = Struct(">q")


def batch_values(hard_state: HardState | None, entries: tuple[Entry, ...]) -> list[Any]:
    """The values of all rows of a batch, one row after the other.

    :raises InvariantViolation: when a number does not fit into 63 bits.
    """
    values: list[Any] = []
    try:
        for index, term, kind, data in entries:
            values += (index, term, int(kind), data, row_checksum(index, term, kind, data))
    except StructError as error:
        raise InvariantViolation(f"entry {index} of term {term} can't be stored: {error}") from error
    if hard_state is not None:
        values += hard_state_values(hard_state)
    return values


def hard_state_values(state: HardState) -> tuple[Any, ...]:
    """The row of the hard state. Its data: the commit index, then the vote behind a byte, or nothing for no vote.

    :raises InvariantViolation: when a number does not fit into 63 bits.
    """
    try:
        data = _COMMIT.pack(state.commit) + (b"" if state.vote is None else b"=" + state.vote.encode())
        checksum = row_checksum(HARD_STATE_ROW, state.term, HARD_STATE_KIND, data)
    except StructError as error:
        raise InvariantViolation(f"{state} can't be stored: {error}") from error
    return HARD_STATE_ROW, state.term, HARD_STATE_KIND, data, checksum


def decode_hard_state(term: int, data: bytes) -> HardState:
    """The inverse of :func:`hard_state_values`, for a row whose checksum is right.

    :raises struct.error: when the data are too short.
    :raises ValueError: when the vote is no text.
    """
    vote = data[_COMMIT.size :]
    return HardState(term, vote[1:].decode() if vote else None, _COMMIT.unpack_from(data)[0])


def tail_values(number: int, last_index: int) -> tuple[Any, ...]:
    """The row of the tail: the number of a write, and where the log ends after it."""
    data = _LAST_INDEX.pack(last_index)
    return TAIL_ROW, number, TAIL_KIND, data, row_checksum(TAIL_ROW, number, TAIL_KIND, data)


def decode_tail(number: int, data: bytes) -> tuple[int, int]:
    """The inverse of :func:`tail_values`, for a row whose checksum is right.

    :raises struct.error: when the data are of another length.
    """
    return number, _LAST_INDEX.unpack(data)[0]


def boundary_values(boundary: Boundary) -> dict[str, Any]:
    """The row of the boundary, by column, without its id.

    :raises InvariantViolation: when a number does not fit into 63 bits.
    """
    configuration = encode_configuration(boundary.configuration)
    try:
        checksum = boundary_checksum(boundary.index, boundary.term, configuration)
    except StructError as error:
        raise InvariantViolation(f"a boundary at {boundary.index} of term {boundary.term} can't be stored: {error}") from error
    return {"log_index": boundary.index, "term": boundary.term, "configuration": configuration, "checksum": checksum}
