"""Sorting networks, pruned to what an order statistic needs: branch-free, on whole rows at a time."""

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Exchange(NamedTuple):
    """Put the smaller of two rows at `low` and the larger at `high`, or only the one that is used later."""

    low: int
    high: int
    keep_low: bool
    keep_high: bool


@lru_cache(maxsize=64)
def sorting_network(n: int) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, to compare and exchange so that n values are sorted (Batcher, 1968).

    Odd-even merge sort for the next power of two; exchanges with a missing value, which would be
    infinity, are left out.
    """
    pairs = []
    run = 1
    while run < n:
        step = run
        while step >= 1:
            for start in range(step % run, n - step, 2 * step):
                pairs += [
                    (i, i + step)
                    for i in range(start, min(start + step, n - step))
                    if i // (2 * run) == (i + step) // (2 * run)
                ]
            step //= 2
        run *= 2
    return pairs


@lru_cache(maxsize=64)
def selection_network(n: int, first: int, last: int) -> tuple[Exchange, ...]:
    """The exchanges after which positions first..last-1 hold the values of those ranks, in any order.

    Walking backwards from the wanted positions, an exchange stays only if something depends on it; one
    between two wanted positions that nothing touches later would only put them in order.
    """
    needed, unordered = set(range(first, last)), set(range(first, last))
    kept = []
    for low, high in reversed(sorting_network(n)):
        if {low, high} <= unordered or needed.isdisjoint((low, high)):
            continue
        kept.append(Exchange(low, high, low in needed, high in needed))
        needed |= {low, high}
        unordered -= {low, high}
    return tuple(reversed(kept))


def select_middle(block: NDArray[np.floating], first: int, last: int) -> list[NDArray[np.floating]]:
    """Rows that hold, column by column, the values of ranks first..last-1 in any order.

    Args:
        block: (n + 1, c), overwritten: n rows of values and one of working space.
        first: lowest rank wanted, from 0.
        last: one past the highest.
    """
    return _exchange(block, selection_network(len(block) - 1, first, last))[first:last]


def sort_rows(block: NDArray[np.floating]) -> list[NDArray[np.floating]]:
    """Rows that hold, column by column, the values in ascending order.

    Args:
        block: (n + 1, c), overwritten: n rows of values and one of working space.
    """
    return _exchange(block, (Exchange(i, j, True, True) for i, j in sorting_network(len(block) - 1)))


def _exchange(block: NDArray[np.floating], exchanges: Iterable[Exchange]) -> list[NDArray[np.floating]]:
    rows = list(block)
    spare = rows.pop()
    for low, high, keep_low, keep_high in exchanges:
        if keep_low and keep_high:
            np.minimum(rows[low], rows[high], out=spare)
            np.maximum(rows[low], rows[high], out=rows[high])
            rows[low], spare = spare, rows[low]
        elif keep_low:
            np.minimum(rows[low], rows[high], out=rows[low])
        else:
            np.maximum(rows[low], rows[high], out=rows[high])
    return rows
