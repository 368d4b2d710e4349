"""Coordinate-wise work over blocks of columns that fit in cache."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

# Scalars in a block: 1 MiB of float32, so that a transposed block and its sort stay in the L2 cache.
_BLOCK_SCALARS = 1 << 18


def reduce_sorted_columns(
    gradients: torch.Tensor, reduce: Callable[[NDArray[np.floating], slice], None]
) -> None:
    """Call `reduce(block, columns)` with every column's values sorted ascending.

    Args:
        gradients: (n, d), on the CPU.
        reduce: gets a (c, n) array, one row per column of `gradients` in `columns`; called from
            several threads, on disjoint columns.
    """
    n, d = gradients.shape
    values = gradients.numpy()
    width = max(1, _BLOCK_SCALARS // n)

    def work(start: int) -> None:
        columns = slice(start, min(start + width, d))
        block = np.ascontiguousarray(values[:, columns].T)
        block.sort(axis=1)
        reduce(block, columns)

    starts = range(0, d, width)
    workers = min(len(starts), os.cpu_count() or 1)
    if workers <= 1:
        for start in starts:
            work(start)
        return
    with ThreadPoolExecutor(workers) as pool:  # NumPy releases the GIL while it copies and sorts
        list(pool.map(work, starts))


def mean_of_middle(gradients: torch.Tensor, first: int, last: int) -> torch.Tensor:
    """Per column, the mean of the sorted values at positions first..last-1: (n, d) -> (d,).

    The values are summed, never obtained by subtracting extremes from a total, so one huge upload
    leaves no trace.
    """
    if gradients.is_cuda:
        return _mean_of_middle_cuda(gradients, first, last)
    out = torch.empty(gradients.shape[1], dtype=gradients.dtype)
    result = out.numpy()
    wide = np.float64

    def reduce(block: NDArray[np.floating], columns: slice) -> None:
        middle = block[:, first:last]
        result[columns] = middle[:, 0] if last - first == 1 else middle.mean(axis=1, dtype=wide)

    reduce_sorted_columns(gradients, reduce)
    return out


def _mean_of_middle_cuda(gradients: torch.Tensor, first: int, last: int) -> torch.Tensor:
    n, d = gradients.shape
    out = torch.empty(d, dtype=gradients.dtype, device=gradients.device)
    width = max(1, (1 << 24) // n)
    for start in range(0, d, width):
        block = gradients[:, start : start + width].sort(dim=0).values[first:last]
        out[start : start + width] = block.double().mean(dim=0).to(out.dtype)
    return out
