"""Memory that was freed, given back to the system."""

import ctypes
import sys


def give_back() -> None:
    """Let glibc return what it keeps for reuse; does nothing elsewhere.

    A round of many large uploads leaves the heap in pieces, and the next one would be put beside them.
    """
    if sys.platform != "linux":
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
    if trim is not None:
        trim(0)
