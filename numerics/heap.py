"""Returning freed memory to the system."""

import contextlib
import ctypes
import sys


def trim() -> None:
    """Return to the system what glibc keeps for reuse; does nothing with other C libraries.

    A round of many large uploads leaves the heap fragmented, and the next round would grow it further.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):  # a static Python; another C library
        ctypes.CDLL(None).malloc_trim(0)
