"""Setting damaged files aside: they move into ``damaged-<UTC time>`` (``damaged-state-…`` for the state alone) inside the data directory.

The directory is made first, with a name that says that the work is not finished. A crash in between is made up for at the next start, before
anything is opened: whatever was to go goes, and then the directory gets its name.
"""

import logging
import re
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

from raft.storage.directory import sync_directory
from raft.storage.failures import from_os

log = logging.getLogger(__name__)

_STATE = re.compile(r"CURRENT(\.new)?|state-.*|capture-.*")
_WHOLE = re.compile(rf"log\.(db|db-wal|db-shm|db-journal|witness)|snapshots|{_STATE.pattern}")
_FINISHED = re.compile(r"damaged-(state-)?[0-9]{8}T[0-9]{6}\.[0-9]{6}Z")
_STATE_PREFIX, _WHOLE_PREFIX, _UNFINISHED = "damaged-state-", "damaged-", ".unfinished"


def set_aside(data_dir: Path, *, state_only: bool) -> Path:
    """Move the node's files, or its state alone, out of the way. The caller owns the directory and has none of them open.

    Of each kind the newest is kept: an older one goes now.

    :returns: where they are.
    :raises StorageError: when the disk refuses.
    """
    prefix = _STATE_PREFIX if state_only else _WHOLE_PREFIX
    older = [path for path in data_dir.iterdir() if _FINISHED.fullmatch(path.name) and path.name.startswith(_STATE_PREFIX) == state_only]
    place = data_dir / f"{prefix}{datetime.fromtimestamp(time.time_ns() / 1e9, UTC):%Y%m%dT%H%M%S.%fZ}"
    try:
        place.with_name(place.name + _UNFINISHED).mkdir(mode=0o700)
        sync_directory(data_dir)
    except OSError as error:
        raise from_os("set damaged files aside", error, place) from error
    finish(data_dir)
    for path in older:
        shutil.rmtree(path, ignore_errors=True)
        log.info("%s was removed: %s is kept in its place", path, place.name)
    return place


def finish(data_dir: Path) -> None:
    """Finish what a crash has interrupted, if anything.

    :raises StorageError: when the disk refuses.
    """
    try:
        for unfinished in sorted(data_dir.glob(f"{_WHOLE_PREFIX}*{_UNFINISHED}")):
            wanted = _STATE if unfinished.name.startswith(_STATE_PREFIX) else _WHOLE
            for path in sorted(data_dir.iterdir()):
                if wanted.fullmatch(path.name):
                    path.rename(unfinished / path.name)
            sync_directory(unfinished)
            unfinished.rename(unfinished.with_name(unfinished.name.removesuffix(_UNFINISHED)))
            sync_directory(data_dir)
    except OSError as error:
        raise from_os("set damaged files aside", error, data_dir) from error
