"""Krum on each item's rows."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from byzflower.numerics.columns import column_median
from byzflower.numerics.item_distances import ItemDistances
from byzflower.numerics.item_rows import ItemRows
from byzflower.numerics.order_statistics import order_statistics, sorts_fast
from byzflower.numerics.rows import Rows
from byzflower.numerics.threads import map_blocks
from byzflower.strategies.items.base import Convention, ItemResult
from byzflower.strategies.items.bounded import FALLBACK, BoundedItemStrategy
from byzflower.strategies.krum import krum
from byzflower.strategies.result import AggregationResult

# Distances computed at a time in each thread, so that they stay in the L2 cache.
_BLOCK_DISTANCES = 1 << 16


def item_scores(values: torch.Tensor, neighbours: int, squared: bool) -> torch.Tensor:
    """Krum scores of c rows for each of b items.

    Args:
        values: (b, c, d) rows.
        neighbours: how many of the other rows count, at least 1 (all of them, if fewer).
        squared: whether their squared distances are added, or the distances.

    Returns:
        (b, c) float64 scores, least is best.
    """
    b, c, _ = values.shape
    near = min(neighbours, c - 1)
    distances = ItemDistances(values)
    scores = torch.empty(distances.leaders.shape, dtype=torch.float64)
    width = max(1, _BLOCK_DISTANCES // (b * c))

    def work(part: slice) -> None:
        among = distances.of(part)
        added = (among if squared else among.sqrt_()).numpy()
        sums = _sums_of_least(added.reshape(-1, c), near)
        scores[:, part] = torch.from_numpy(sums.reshape(b, -1))

    map_blocks(work, scores.shape[1], width)
    return distances.of_all(scores)


def _sums_of_least(values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Sum of the `count` least of each row's values, which it may reorder: (r, n) -> (r,).

    There is at least one, or n = 1.
    """
    if sorts_fast(values.shape[1], values.dtype):
        values.sort(axis=1)
        return np.asarray(values[:, :count].sum(axis=1))
    (greatest,) = order_statistics(values, count - 1, count)
    less = values < greatest[:, None]
    return np.asarray(np.where(less, values, 0).sum(axis=1) + (count - less.sum(axis=1)) * greatest)


def neighbours(count: int, num_byzantine: int, convention: Convention) -> int:
    """Number of neighbours in Krum's scores of `count` rows; 0 if the rows are too few for Krum.

    Standard: c - f - 2 if c > 2f + 2. Spattack: that if c > f + 2, else c - f if c > f, else all.
    """
    c, f = count, num_byzantine
    if convention == "standard":
        return c - f - 2 if c > 2 * f + 2 else 0
    return c - f - 2 if c > f + 2 else c - f if c > f else c - 1


def select_rows(
    rows: ItemRows,
    num_byzantine: int,
    convention: Convention,
    choose: Callable[[torch.Tensor, int], torch.Tensor],
) -> ItemResult:
    """Score every item's rows and combine those that are chosen.

    Args:
        rows: of all items.
        num_byzantine: f.
        convention: see `neighbours`; "spattack" adds distances, "standard" squared ones.
        choose: from (b, c) scores of b items with c rows each and c, the (b, s) rows to average.
    """

    def select(values: torch.Tensor) -> torch.Tensor:
        count, number, _ = values.shape
        near = neighbours(count, num_byzantine, convention)
        if near == 0:
            return column_median(Rows.of(values.flatten(1))).view(number, -1)
        scores = item_scores(values.transpose(0, 1), near, squared=convention == "standard")
        chosen = choose(scores, count).T
        return values[chosen, torch.arange(number)].mean(dim=0)

    sizes, numbers = np.unique(rows.counts.numpy(), return_counts=True)
    few = sum(
        k
        for c, k in zip(sizes.tolist(), numbers.tolist(), strict=True)
        if neighbours(c, num_byzantine, convention) == 0
    )
    return ItemResult(rows.map(select), {FALLBACK: float(few)})


class ItemKrum(BoundedItemStrategy):
    """Per item, the one row with the least distances to its c-f-2 nearest neighbours.

    Standard: squared distances, more than 2f + 2 rows. Spattack: plain distances, and fewer neighbours or
    all of them for items with few rows.
    """

    def aggregate_items(self, rows: ItemRows) -> ItemResult:
        """Score each item's rows and keep the best; ties go to the lower client."""

        def best(scores: torch.Tensor, count: int) -> torch.Tensor:
            return scores.sort(dim=1, stable=True).indices[:, :1]

        return select_rows(rows, self.f, self.convention, best)

    def aggregate(self, gradients: Rows, weights: torch.Tensor) -> AggregationResult:
        """Apply `krum`."""
        return krum(gradients, self.f)
