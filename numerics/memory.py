"""Memory that was freed, given back to the system."""

import contextlib
import ctypes
import sys


def give_back() -> None:
    """Let glibc return what it keeps for reuse; does nothing elsewhere.

    A round of many large uploads leaves the heap in pieces, and the next one would be put beside them.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):  # a static Python; another C library
        ctypes.CDLL(None).malloc_trim(0)
