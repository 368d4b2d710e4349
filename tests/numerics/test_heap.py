"""Freed memory is returned to the system."""

import platform
import resource
from pathlib import Path

import pytest

from byzflower.numerics import heap


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators decide for themselves")
def test_freed_pieces_between_kept_ones_are_returned():
    pieces = [bytearray(100_000) for _ in range(2000)]
    kept = pieces[::2]
    del pieces
    before = resident()
    heap.trim()
    assert resident() < before - 50e6
    assert len(kept) == 1000
