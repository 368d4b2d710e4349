"""Coordinate-wise work over blocks of columns that fit in cache."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from byzflower.strategies.selection_network import select_middle
from byzflower.threads import map_blocks

# Scalars in a block: 1 MiB of float32, so that a transposed block and its sort stay in the L2 cache.
_BLOCK_SCALARS = 1 << 18
# Up to so many rows a selection network beats sorting; so many columns at a time keep NumPy busy enough
# between two exchanges that threads do not wait for each other.
_NETWORK_ROWS = 48
_NETWORK_COLUMNS = 1 << 15


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
    values = gradients.detach().numpy()
    width = max(1, _BLOCK_SCALARS // n)

    def work(columns: slice) -> None:
        block = np.ascontiguousarray(values[:, columns].T)
        block.sort(axis=1)
        reduce(block, columns)

    map_blocks(work, d, width)


def mean_of_middle(gradients: torch.Tensor, first: int, last: int) -> torch.Tensor:
    """Per column, the mean of the sorted values at positions first..last-1: (n, d) -> (d,).

    The values are summed, never obtained by subtracting extremes from a total, so one huge upload
    leaves no trace.
    """
    if gradients.is_cuda:
        return _mean_of_middle_cuda(gradients, first, last)
    out = torch.empty(gradients.shape[1], dtype=gradients.dtype)
    result = out.numpy()
    if len(gradients) <= _NETWORK_ROWS:
        _mean_by_network(gradients.detach().numpy(), first, last, result)
        return out

    def reduce(block: NDArray[np.floating], columns: slice) -> None:
        middle = block[:, first:last]
        result[columns] = middle[:, 0] if last - first == 1 else middle.mean(axis=1, dtype=np.float64)

    reduce_sorted_columns(gradients, reduce)
    return out


def _mean_by_network(
    values: NDArray[np.floating], first: int, last: int, result: NDArray[np.floating]
) -> None:
    n, d = values.shape

    def work(columns: slice) -> None:
        block = np.empty((n + 1, columns.stop - columns.start), values.dtype)
        np.copyto(block[:n], values[:, columns])
        middle = select_middle(block, first, last)
        if len(middle) == 1:
            result[columns] = middle[0]
            return
        total = middle[0].astype(np.float64)
        for row in middle[1:]:
            total += row
        result[columns] = np.divide(total, len(middle), out=total)

    map_blocks(work, d, _NETWORK_COLUMNS)


def _mean_of_middle_cuda(gradients: torch.Tensor, first: int, last: int) -> torch.Tensor:
    n, d = gradients.shape
    out = torch.empty(d, dtype=gradients.dtype, device=gradients.device)
    width = max(1, (1 << 24) // n)
    for start in range(0, d, width):
        block = gradients[:, start : start + width].sort(dim=0).values[first:last]
        out[start : start + width] = block.double().mean(dim=0).to(out.dtype)
    return out
