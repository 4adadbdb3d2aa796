"""Pages of the state file that were overwritten: named, not served, and not passed on to another node."""

from pathlib import Path

import pytest

from service.domain.commands import KvPut, encode, stamp
from service.errors import StateUnreadable
from service.store.machine import KvMachine

PAGE_BYTES = 4096


def filled(directory: Path) -> int:
    """A closed state of some pages; the index it holds."""
    directory.mkdir()
    machine = KvMachine(directory)
    machine.apply([(index, 1, stamp(encode(KvPut(b"key/%d" % index, b"v" * 300)), index)) for index in range(1, 201)])
    assert machine.checkpoint() == 200
    machine.close()
    return 200


def looked_at(directory: Path, other: Path) -> None:
    """Open the state, and have another node install a picture of it."""
    machine = KvMachine(directory)
    try:
        pieces: list[bytes] = []
        capture = machine.capture()
        try:
            capture.write(pieces.append)
        finally:
            capture.close()
    finally:
        machine.close()
    receiver = KvMachine(other)
    try:
        rest = iter(pieces)
        receiver.restore(200, 1, lambda _length: next(rest, b""))
    finally:
        receiver.close()


def test_st_07_a_damaged_page_is_named_and_does_not_spread(tmp_path: Path) -> None:
    """Whichever page of the tree is overwritten, the state is refused when it is opened or read, or its picture where it arrives."""
    filled(tmp_path / "live")
    sound = (tmp_path / "live" / "state-1.db").read_bytes()
    pages = len(sound) // PAGE_BYTES
    assert pages > 10
    (tmp_path / "other").mkdir()
    KvMachine(tmp_path / "other").close()
    for page in range(pages):
        content = bytearray(sound)
        content[page * PAGE_BYTES : page * PAGE_BYTES + 64] = b"\xa5" * 64
        (tmp_path / "live" / "state-1.db").write_bytes(content)
        with pytest.raises(StateUnreadable):
            looked_at(tmp_path / "live", tmp_path / "other")
        untouched = KvMachine(tmp_path / "other")
        assert untouched.applied() == (0, 0)
        untouched.close()
