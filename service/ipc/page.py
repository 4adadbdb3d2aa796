"""A page of memory in which the agent says until when local reads need nobody: the end of the lease, and what a reader must have seen.

Asking the agent costs a read two hops over a socket and a turn of another process. While this node leads and holds its lease, the answer is
known before the question: the end of the lease on the machine's clock, and the commit index. The agent writes both here *before* it sends
anything to anybody (``raft.runtime.lease.Lease.publish``), so whatever was acknowledged to anyone before a read began is at or below the index
that the read finds here.

The page is a seqlock (three words of 64 bits: a number, the end, the index). The number is odd while the two others change. A reader that
meets a change does not wait for it: it asks the agent, as it does without a lease.

It is memory without a file (memfd_create(2)): to write to a page of a file may have to wait for that file's disk, and the loop of the agent
must not. Workers open it as ``/proc/<pid>/fd/<number>``; it is gone with the last process that has it.
"""

import mmap
import os
import time
from pathlib import Path

_WORDS = 3
_BYTES = _WORDS * 8


class LeasePage:
    """The agent's end. It belongs to one thread."""

    def __init__(self) -> None:
        self._fd = os.memfd_create("kvorum-lease", os.MFD_CLOEXEC)
        os.ftruncate(self._fd, _BYTES)
        self._memory = mmap.mmap(self._fd, _BYTES)
        self._words = memoryview(self._memory).cast("Q")

    @property
    def path(self) -> Path:
        """Where workers find it, as long as this process lives."""
        return Path(f"/proc/{os.getpid()}/fd/{self._fd}")

    def publish(self, end_ns: int, commit: int) -> None:
        """Tell the end of the lease, in nanoseconds of ``CLOCK_BOOTTIME``, 0 for none, and the commit index."""
        words = self._words
        words[0] += 1
        words[1] = end_ns
        words[2] = commit
        words[0] += 1

    def close(self) -> None:
        """End the lease that is told, and let go. A second time has no effect."""
        if self._memory.closed:
            return
        self.publish(0, 0)
        self._words.release()
        self._memory.close()
        os.close(self._fd)


class LeaseView:
    """A worker's end.

    :param path: of :attr:`LeasePage.path`.
    :raises OSError: when it can't be had.
    """

    def __init__(self, path: Path | str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._memory = mmap.mmap(fd, _BYTES, prot=mmap.PROT_READ)
        finally:
            os.close(fd)
        self._words = memoryview(self._memory).cast("Q")

    def index(self) -> int | None:
        """What the local state must have applied to be read now without asking anybody; None when the agent must be asked."""
        number, end_ns, commit, after = (words := self._words)[0], words[1], words[2], words[0]
        # First the page, then the clock: the lease held when the page was read.
        whole = number == after and not number % 2
        return commit if whole and time.clock_gettime_ns(time.CLOCK_BOOTTIME) < end_ns else None

    def close(self) -> None:
        """Let go."""
        self._words.release()
        self._memory.close()
