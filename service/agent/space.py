"""A full disk: waiting until there is room on it again."""

import asyncio
import errno
import os
import tempfile
from pathlib import Path

from raft.storage.failures import from_os

MIB = 1024 * 1024
ROOM_BYTES = 16 * MIB
"""What must fit before the node goes on: the write-ahead log of ``log.db`` between two checkpoints (4 MiB), that of the state, and the writes of the
first seconds, so that the node does not run into the wall again at once."""
LOOK_SECONDS = 0.5
PAUSE_SECONDS_MAX = 8.0
LASTING_SECONDS = 60.0


class Space:
    """The room in one file system, and how often it was too little.

    :param directory: the data directory.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._times = 0
        self._went_on = 0.0

    async def wait(self) -> None:
        """Return when there is room.

        A node that goes on and soon finds the disk full again, because it needs more than :data:`ROOM_BYTES`, waits twice as long each time,
        up to :data:`PAUSE_SECONDS_MAX`.

        :raises StorageFailed: when the disk refuses for another reason.
        """
        loop = asyncio.get_running_loop()
        self._times = self._times + 1 if loop.time() - self._went_on < LASTING_SECONDS and self._went_on else 0
        if self._times:
            await asyncio.sleep(min(LOOK_SECONDS * 2**self._times, PAUSE_SECONDS_MAX))
        while not await asyncio.to_thread(has_room, self._directory):  # noqa: ASYNC110 - nothing tells when a disk has room
            await asyncio.sleep(LOOK_SECONDS)
        self._went_on = loop.time()


def has_room(directory: Path, needed: int = ROOM_BYTES) -> bool:
    """Whether so many bytes can really be had: they are taken and given back, because a quota or the lack of inodes shows in no other way.

    :raises StorageFailed: when the disk refuses for another reason.
    """
    try:
        found = os.statvfs(directory)
        if found.f_bavail * found.f_frsize < needed:
            return False
        with tempfile.TemporaryFile(dir=directory) as probe:
            os.posix_fallocate(probe.fileno(), 0, needed)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            return False
        raise from_os("look for room", error, directory / "probe") from error
    return True
