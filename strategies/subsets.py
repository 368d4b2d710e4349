"""The best subset of the uploads: by trying them all where that is feasible, else among neighbourhoods."""

import itertools
import math
from collections.abc import Callable, Iterator

import torch

from byzflower.strategies.distances import nearest_rows

# Indices of subsets (k, size) -> what each costs (k, c); the first column that differs decides.
Cost = Callable[[torch.Tensor], torch.Tensor]

_BATCH_SCALARS = 1 << 20
_ROUNDING = 1e-9


def cheapest_subset(
    distances: torch.Tensor, size: int, cost: Cost, max_subsets: int
) -> tuple[torch.Tensor, bool]:
    """Find the subset of `size` of n rows of least cost; of equal ones the first in lexicographic order.

    If there are more than `max_subsets`, only those are tried that consist of a row and its nearest ones.
    The best of these has at most twice the least diameter: with any row of the best subset as the centre,
    all of that subset, and so the nearest ones, are within its diameter.

    Args:
        distances: (n, n) squared distances.
        size: of the subset.
        cost: of subsets.
        max_subsets: how many may be tried.

    Returns:
        Boolean (n,), and whether all were tried.
    """
    n = len(distances)
    exact = math.comb(n, size) <= max_subsets
    winners = []
    batches = _all_subsets(n, size) if exact else torch.split(nearest_rows(distances, size), _at_once(size))
    for subsets in batches:
        candidates = subsets.to(distances.device)
        winners.append(candidates[_first_least(cost(candidates))])
    finalists = torch.stack(winners)
    selected = torch.zeros(n, dtype=torch.bool, device=distances.device)
    selected[finalists[_first_least(cost(finalists))]] = True
    return selected, exact


def _first_least(costs: torch.Tensor) -> int:
    """Index of the lexicographically least row of (k, c), the first of those equal but for rounding."""
    left = torch.arange(len(costs), device=costs.device)
    for column in costs.T:
        least = column[left].min()
        left = left[column[left] <= least + _ROUNDING * least.abs()]
    return int(left[0])


def _all_subsets(n: int, size: int) -> Iterator[torch.Tensor]:
    """Batches (k, size) of all subsets in lexicographic order."""
    subsets = itertools.combinations(range(n), size)
    while batch := list(itertools.islice(subsets, _at_once(size))):
        yield torch.tensor(batch)


def _at_once(size: int) -> int:
    """How many subsets are tried at once: each needs a matrix of distances."""
    return max(1, _BATCH_SCALARS // size**2)
