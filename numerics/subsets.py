"""The best subset of rows: exhaustive search where that is feasible, else among neighbourhoods."""

import itertools
import math
from collections.abc import Callable, Iterator

import torch

from byzflower.numerics.distances import nearest_rows

# Indices of subsets (k, size) -> their costs (k, c), compared lexicographically.
Cost = Callable[[torch.Tensor], torch.Tensor]

_BATCH_SCALARS = 1 << 20
_MOST_NEIGHBOURHOODS = 20_000
_ROUNDING = 1e-9


def cheapest_subset(
    distances: torch.Tensor, size: int, cost: Cost, max_subsets: int, effort: float = 1.0
) -> tuple[torch.Tensor, bool]:
    """Find the cheapest subset of `size` of n rows; ties go to the first in lexicographic order.

    If there are more than `max_subsets`, only those that consist of a row and its nearest ones are tried.
    The best of these has at most twice the least diameter: with any row of the best subset as the centre,
    all of that subset, and so the nearest rows, are within its diameter. If even these are too many, those
    of least radius are tried.

    Args:
        distances: (n, n) squared distances.
        size: of the subset.
        cost: of subsets.
        max_subsets: how many may be tried.
        effort: how many subsets one counts as, in proportion to the time that its cost takes.

    Returns:
        Boolean (n,), and whether all were tried.
    """
    n = len(distances)
    exact = math.comb(n, size) * effort <= max_subsets
    winners = []
    most = max(1, int(_MOST_NEIGHBOURHOODS / effort))
    for subsets in _all_subsets(n, size) if exact else _neighbourhoods(distances, size, most):
        candidates = subsets.to(distances.device)
        winners.append(candidates[_first_least(cost(candidates))])
    finalists = torch.stack(winners)
    selected = torch.zeros(n, dtype=torch.bool, device=distances.device)
    selected[finalists[_first_least(cost(finalists))]] = True
    return selected, exact


def _neighbourhoods(distances: torch.Tensor, size: int, most: int) -> Iterator[torch.Tensor]:
    """Batches (k, size) of rows with their nearest ones, for the `most` rows of least radius."""
    subsets = nearest_rows(distances, size)
    if most < len(subsets):
        radii = distances.gather(1, subsets[:, -1:]).squeeze(1)
        subsets = subsets[radii.sort(stable=True).indices[:most].sort().values]
    yield from torch.split(subsets, _at_once(size))


def _first_least(costs: torch.Tensor) -> int:
    """Index of the lexicographically least row of (k, c), the first of those equal up to rounding."""
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
