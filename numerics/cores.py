"""The number of cores that this process may use."""

import os

_sharers = 1


def usable_cores() -> int:
    """Cores for this process's work, at least 1: its share of the machine's (see `share_cores`)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // _sharers)


def share_cores(processes: int) -> None:
    """Set how many processes, this one included, share this machine's cores; to be called before any work."""
    global _sharers
    _sharers = processes
