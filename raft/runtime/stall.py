"""Notices that a disk does not answer."""

from raft.config import RaftConfig
from raft.runtime.disk import Disk


class Stall:
    """How long one piece of work has been under way, in ticks of this node, so that a pause of the whole process is no fault of the disk."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._reports = self._silent_ticks = 0

    def tick(self) -> None:
        """Call it at every tick."""
        if self._disk.idle or self._disk.reports != self._reports:
            self._reports, self._silent_ticks = self._disk.reports, 0
        else:
            self._silent_ticks += 1

    def lasts(self, config: RaftConfig) -> bool:
        """Whether that is longer than the setting ``disk_stall_ms``."""
        return self._silent_ticks * config.tick_ms >= config.disk_stall_ms
