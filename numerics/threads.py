"""Parallel work on blocks of columns, with the same bits on any number of cores."""

import math
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

import torch

from byzflower.numerics.cores import usable_cores

T = TypeVar("T")

_lock = threading.Lock()
_thread = threading.local()
_users = 0
_before = 1
_LEAST = math.ulp(0.0)  # subnormal


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch's own operations on one CPU thread.

    Torch's threads spin while they wait, which takes the cores from clients that train side by side, and
    the order of their sums depends on how many there are. The setting is the whole process's: the last
    to leave restores it.
    """
    global _users, _before
    with _lock:
        if _users == 0:
            _before = torch.get_num_threads()
        _users += 1
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                torch.set_num_threads(_before)


@contextmanager
def subnormals_as_zero() -> Iterator[None]:
    """Let this thread treat subnormal numbers (below 1.2e-38 in float32) as zero.

    Products with them take a hundred times as long: one client could slow the round down.
    """
    before = _LEAST * 1.0 == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


class Scratch(threading.local):
    """Memory that each thread reuses: touching fresh pages costs more than the arithmetic."""

    _space: torch.Tensor | None = None

    def like(self, values: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
        """An uninitialised contiguous tensor of the shape of `values`, by default also of their dtype."""
        space, size, dtype = self._space, values.numel(), dtype or values.dtype
        if space is None or space.numel() < size or space.dtype != dtype:
            self._space = space = values.new_empty(size, dtype=dtype)
        return space[:size].view(values.shape)


def map_blocks(work: Callable[[slice], T], columns: int, width: int) -> list[T]:
    """Call `work` with every block of `width` columns, on all cores; results come in the blocks' order.

    Work on a block must not depend on other blocks; then the result does not depend on the number of cores.
    Calls from within `work` process their own blocks one after the other.

    Args:
        work: releases the GIL for most of its time, as NumPy's and torch's operations do.
        columns: number of columns.
        width: of a block; the last one may be narrower.
    """
    inference = torch.is_inference_mode_enabled()

    def without_gradients(block: slice) -> T:  # grad modes are per thread
        with torch.inference_mode(inference), torch.no_grad():
            return work(block)

    blocks = [slice(start, min(start + width, columns)) for start in range(0, columns, width)]
    with one_thread():
        if len(blocks) <= 1 or usable_cores() == 1 or getattr(_thread, "works", False):
            return [without_gradients(block) for block in blocks]
        return list(_pool().map(without_gradients, blocks))


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(usable_cores(), "columns", initializer=_mark_worker)


def _mark_worker() -> None:
    _thread.works = True


# A forked process has the pool's object but none of its threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)
