"""Whether a process that does the same again and again needs more and more."""

import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

LOOKS = 10
"""So many in one run."""
WARM_LOOKS = 3
"""Before these have been taken, caches are still being filled."""
BLOCKS_PER_REQUEST_MAX = 0.01
BLOCKS_MIN = 3_000
BYTES_PER_REQUEST_MAX = 16.0
BYTES_MIN = 8 * 1024 * 1024
"""The C library gives memory back when it likes to; a body of 200 kB may stay."""
FILES_MIN = 3


class Look(NamedTuple):
    """What a process has.

    :ivar blocks: of memory that Python's allocator has given out: what no number of small objects can hide from.
    :ivar size: bytes of its memory that are resident; what is large, or not Python's, shows here.
    :ivar files: how many it has open.
    """

    requests: int
    blocks: int
    size: int
    files: int


def look(requests: int) -> Look:
    """What this process has after so many requests, without what is only waiting to be collected."""
    gc.collect()
    resident = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return Look(requests, sys.getallocatedblocks(), resident, len(os.listdir("/proc/self/fd")))  # noqa: PTH208 - Path would make objects of them


def grown(looks: Sequence[Look]) -> str:
    """What has grown with the number of requests, since the first ones; empty when nothing has, or too little was looked at.

    The smaller of two looks is compared with the smaller of the last two: what is there for a moment only is no growth.
    """
    warm = looks[WARM_LOOKS:]
    if len(warm) < 4:
        return ""
    requests = warm[-1].requests - warm[0].requests
    found = []
    for name, least, share in (("blocks", BLOCKS_MIN, BLOCKS_PER_REQUEST_MAX), ("size", BYTES_MIN, BYTES_PER_REQUEST_MAX), ("files", FILES_MIN, 0.0)):
        before, after = (min(getattr(one, name) for one in part) for part in (warm[:2], warm[-2:]))
        if after - before > max(least, requests * share):
            found.append(f"{name} from {before} to {after} within {requests} requests")
    return ", ".join(found)
