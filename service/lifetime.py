"""Children that never outlive their parent, not even when it is killed with SIGKILL. Linux only."""

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its parent ends; call it first thing after a fork.

    The request is forgotten by a fork and survives an exec. A parent that died before the request could be made is noticed here.

    :param parent: process id of the parent, taken before the fork.
    :raises OSError: when the kernel refuses.
    """
    if _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl(PR_SET_PDEATHSIG): {os.strerror(code)}")
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
