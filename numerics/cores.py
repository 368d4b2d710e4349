"""How many of the machine's cores this process may use."""

import os

_sharers = 1


def usable_cores() -> int:
    """How many cores this process has for its work, at least 1: see `share_cores`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // _sharers)


def share_cores(processes: int) -> None:
    """Say that so many processes, this one among them, work side by side; before any work is done."""
    global _sharers
    _sharers = processes
