"""Coordinate-wise work over blocks of columns that fit in cache."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from byzflower.numerics.order_statistics import order_statistics
from byzflower.numerics.rows import Rows
from byzflower.numerics.selection_network import select_middle, sort_rows

# Up to this many rows a selection network beats sorting. With this many columns at a time, NumPy's calls
# between two exchanges are long enough for threads not to wait for the GIL.
_NETWORK_ROWS = 48
_NETWORK_COLUMNS = 1 << 15
# Scalars in a block on a GPU.
_CUDA_SCALARS = 1 << 24


def reduce_sorted_columns(
    rows: Rows, reduce: Callable[[torch.Tensor], torch.Tensor], used: torch.Tensor | None = None
) -> torch.Tensor:
    """Reduce every column's values, sorted ascending, to one: (n, d) -> (d,).

    Args:
        rows: n rows.
        reduce: gets a (c, n) tensor, one row per column; returns (c,). Called from several threads.
        used: indices of the rows to use, default all.
    """
    return _reduce_columns(
        rows, lambda block: reduce(_sorted_columns(block if used is None else block[used]))
    )


def _reduce_columns(rows: Rows, reduce: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Reduce every (n, c) block of columns to (c,): (n, d) -> (d,)."""
    out = torch.empty(rows.d, dtype=rows.dtype, device=rows.device)

    def work(block: torch.Tensor, columns: slice) -> None:
        out[columns] = reduce(block)

    rows.map(work, max(1, _CUDA_SCALARS // rows.n) if rows.device.type == "cuda" else None)
    return out


def _sorted_columns(block: torch.Tensor) -> torch.Tensor:
    """The columns as sorted rows: (n, c) -> (c, n)."""
    if block.is_cuda:
        return block.sort(dim=0).values.T
    values = _turned(block)
    values.sort(axis=1)  # several times as fast as torch's
    return torch.from_numpy(values)


def _turned(block: torch.Tensor) -> NDArray[np.floating]:
    """A contiguous transposed copy, (n, c) -> (c, n): also for n = 1, where a view would be contiguous."""
    return np.array(block.numpy().T, order="C")


def _median_of_many(block: torch.Tensor) -> torch.Tensor:
    """Median of the columns of an (n, c) block, n > 1: (c,)."""
    n = len(block)
    middle = order_statistics(block.numpy().T, (n - 1) // 2, n // 2 + 1)
    return torch.from_numpy(np.mean(middle, axis=0, dtype=np.float64))


def mean_of_middle(rows: Rows, first: int, last: int) -> torch.Tensor:
    """Per column, the mean of the sorted values at positions first..last-1: (n, d) -> (d,).

    The values are summed, never obtained by subtracting extremes from a total, so one huge upload
    leaves no trace.
    """
    if rows.device.type == "cpu" and rows.n <= _NETWORK_ROWS:
        return _mean_by_network(rows, first, last)
    if last - first == 1:
        return reduce_sorted_columns(rows, lambda block: block[:, first])
    return reduce_sorted_columns(rows, lambda block: block[:, first:last].mean(dim=1, dtype=torch.float64))


def middle_value(values: torch.Tensor) -> torch.Tensor:
    """Median of (n,) values; for even n the mean of the two middle ones."""
    n = len(values)
    return values.sort().values[(n - 1) // 2 : n // 2 + 1].mean()


def count_signs(block: torch.Tensor) -> torch.Tensor:
    """Numbers of positive, zero and negative values in each row of a block (n, c): float64 (3, n)."""
    signs = block.sign().float()  # sums of up to 2**24 of them are exact
    balance = signs.sum(dim=1).double()
    nonzero = torch.linalg.vector_norm(signs, ord=1, dim=1).double()
    return torch.stack([(nonzero + balance) / 2, block.shape[1] - nonzero, (nonzero - balance) / 2])


def column_median(rows: Rows) -> torch.Tensor:
    """Coordinate-wise median, (d,); for even n the mean of the two middle values."""
    if rows.device.type == "cpu" and rows.n > _NETWORK_ROWS:
        return _reduce_columns(rows, _median_of_many)
    return mean_of_middle(rows, (rows.n - 1) // 2, rows.n // 2 + 1)


def mean_around_median(rows: Rows, count: int, used: torch.Tensor | None = None) -> torch.Tensor:
    """Per column, the mean of the `count` values closest to the median: (n, d) -> (d,).

    Of two values equally far on either side the lower one is taken, so that the order of the rows does
    not matter.

    Args:
        rows: n rows.
        count: in [1, n] (or the number of rows used).
        used: indices of the rows to use, default all.
    """
    n = rows.n if used is None else len(used)
    # The `count` closest values are consecutive in sorted order, so among positions that are `count` apart
    # exactly one is chosen: the closest.
    apart = [range(first, n, count) for first in range(count)]
    if rows.device.type == "cpu" and n <= _NETWORK_ROWS:
        return _mean_of_closest_by_network(rows, apart, used)
    middle = slice((n - 1) // 2, n // 2 + 1)

    def reduce(block: torch.Tensor) -> torch.Tensor:
        twice_median = 2 * block[:, middle].mean(dim=1, keepdim=True, dtype=torch.float64)
        closest = block[:, :count]
        for start in range(count, n, count):
            higher = block[:, start : start + count]
            lower = closest[:, : higher.shape[1]]
            nearer = torch.where(lower.double() + higher < twice_median, higher, lower)
            closest = torch.cat([nearer, closest[:, higher.shape[1] :]], dim=1)
        return closest.mean(dim=1, dtype=torch.float64)

    return reduce_sorted_columns(rows, reduce, used)


def _mean_of_closest_by_network(rows: Rows, apart: list[range], used: torch.Tensor | None) -> torch.Tensor:
    def reduce(ordered: list[NDArray[np.floating]]) -> NDArray[np.floating]:
        n = len(ordered)
        twice_median: NDArray[np.float64] = np.add(ordered[(n - 1) // 2], ordered[n // 2], dtype=np.float64)
        total: NDArray[np.float64] = np.zeros_like(twice_median)
        two = np.empty_like(twice_median)
        for positions in apart:
            closest = ordered[positions[0]]
            for position in positions[1:]:
                np.add(closest, ordered[position], out=two, dtype=np.float64)
                np.copyto(closest, ordered[position], where=two < twice_median)
            total += closest
        total /= len(apart)
        return total

    return _reduce_by_network(rows, lambda block: reduce(sort_rows(block)), used)


def _mean_by_network(rows: Rows, first: int, last: int) -> torch.Tensor:
    def reduce(block: NDArray[np.floating]) -> NDArray[np.floating]:
        middle = select_middle(block, first, last)
        if len(middle) == 1:
            return middle[0]
        total = middle[0].astype(np.float64)
        for row in middle[1:]:
            total += row
        total /= len(middle)
        return total

    return _reduce_by_network(rows, reduce)


def _reduce_by_network(
    rows: Rows,
    reduce: Callable[[NDArray[np.floating]], NDArray[np.floating]],
    used: torch.Tensor | None = None,
) -> torch.Tensor:
    """Reduce blocks (n + 1, c), copies with a row of working space, to (c,) each: (n, d) -> (d,)."""
    out = torch.empty(rows.d, dtype=rows.dtype)
    result: NDArray[np.floating] = out.numpy()
    chosen = slice(None) if used is None else used.numpy()

    def work(values: torch.Tensor, columns: slice) -> None:
        own = values.numpy()[chosen]
        block = np.empty((len(own) + 1, columns.stop - columns.start), result.dtype)
        np.copyto(block[:-1], own)
        result[columns] = reduce(block)

    rows.map(work, _NETWORK_COLUMNS)
    return out
