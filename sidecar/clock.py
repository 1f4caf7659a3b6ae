"""The agent's clocks, and the alarm that the wall clock was set.

Deadlines are counted on CLOCK_BOOTTIME, which goes on in suspend and cannot be set; the kernel's fence compares
CLOCK_REALTIME, which can. So whoever converts one into the other has to convert again after `StepAlarm` has rung.
"""

from __future__ import annotations

import ctypes
import datetime as dt
import os
import struct
import time
from typing import Final

_CLOCK_REALTIME: Final = 0
_ABSOLUTE_CANCEL_ON_SET: Final = 1 | 2
# far enough never to be reached, near enough for a 64-bit ktime
_NEVER_S: Final = 1 << 33


def boottime() -> float:
    """Seconds since boot, suspend included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def wall_time() -> dt.datetime:
    """The time as people tell it, for the Lease's times and the log."""
    return dt.datetime.now(dt.UTC)


def realtime_ns(deadline_s: float) -> int:
    """Convert a time on CLOCK_BOOTTIME to nanoseconds of CLOCK_REALTIME, rounding to the early side."""
    # the wall clock first: a pause between the two readings then makes the result earlier, which is the safe side
    now_ns = time.clock_gettime_ns(time.CLOCK_REALTIME)
    left_ns = int(deadline_s * 1e9) - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return max(0, now_ns + left_ns)


class StepAlarm:
    """A descriptor that becomes readable when the wall clock is set (timerfd with TFD_TIMER_CANCEL_ON_SET)."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd: int = self._libc.timerfd_create(_CLOCK_REALTIME, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._arm()

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._fd

    def rang(self) -> bool:
        """Say whether the clock was set since the last call, and arm the alarm again."""
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return False
        except OSError:  # ECANCELED: the clock was set
            pass
        self._arm()
        return True

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._fd)

    def _arm(self) -> None:
        never = struct.pack("@llll", 0, 0, _NEVER_S, 0)
        if self._libc.timerfd_settime(self._fd, _ABSOLUTE_CANCEL_ON_SET, never, None) != 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")
