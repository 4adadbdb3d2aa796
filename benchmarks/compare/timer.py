"""A clock that wakes an event loop many thousand times a second: Linux's timerfd. libuv's own timers, and epoll's, count whole milliseconds."""

import asyncio
import ctypes
import os
import time
from collections.abc import Callable

_TIMER_NONBLOCKING = os.O_NONBLOCK | os.O_CLOEXEC
_libc = ctypes.CDLL(None, use_errno=True)


class _Interval(ctypes.Structure):
    _fields_ = (("every_s", ctypes.c_long), ("every_ns", ctypes.c_long), ("first_s", ctypes.c_long), ("first_ns", ctypes.c_long))


class Timer:
    """Calls back at a steady pace until it is closed; a call that comes late stands for those that it missed."""

    def __init__(self, period_seconds: float, call: Callable[[], None]) -> None:
        """Begin now.

        :raises OSError: the system has no such timer.
        """
        self._call = call
        self._descriptor = _libc.timerfd_create(time.CLOCK_MONOTONIC, _TIMER_NONBLOCKING)
        period = divmod(max(round(period_seconds * 1e9), 1), 1_000_000_000)
        if self._descriptor < 0 or _libc.timerfd_settime(self._descriptor, 0, ctypes.byref(_Interval(*period, *period)), None) != 0:
            raise OSError(ctypes.get_errno(), "timerfd")
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._descriptor, self._due)

    def _due(self) -> None:
        os.read(self._descriptor, 8)
        self._call()

    def close(self) -> None:
        """Never call back again."""
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
