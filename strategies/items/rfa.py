"""Geometric median of each item's rows."""

from typing import Unpack

import torch

from byzflower.strategies.geometric_median import _check_options, geometric_median
from byzflower.strategies.items.base import ItemOptions, ItemResult, ItemStrategy
from byzflower.strategies.items.rows import ItemRows
from byzflower.strategies.result import AggregationResult
from byzflower.strategies.rows import Rows


def item_geometric_median(rows: ItemRows, iterations: int = 8, nu: float = 1e-6) -> ItemResult:
    """Smoothed Weiszfeld steps for every item at once, from its mean (see `geometric_median`)."""
    share = 1 / rows.counts.double()[rows.place]
    for _ in range(iterations):
        center = rows.totals(share)
        share = 1 / rows.squared_distances_to(center).sqrt_().clamp_(min=nu)
        share /= rows.item_sums(share)[rows.place]
    return ItemResult(rows.totals(share))


class ItemRFA(ItemStrategy):
    """Per item, the geometric median of the rows by smoothed Weiszfeld steps (RFA)."""

    def __init__(self, iterations: int = 8, nu: float = 1e-6, **options: Unpack[ItemOptions]) -> None:
        """Make the strategy.

        Args:
            iterations: T, not negative.
            nu: smallest distance that a weight is divided by, positive.
            options: see `ItemStrategy`.
        """
        super().__init__(**options)
        _check_options(iterations, nu)
        self.iterations = iterations
        self.nu = nu

    def aggregate_items(self, rows: ItemRows) -> ItemResult:
        """Apply `item_geometric_median`."""
        return item_geometric_median(rows, self.iterations, self.nu)

    def aggregate(self, gradients: Rows, weights: torch.Tensor) -> AggregationResult:
        """Apply `geometric_median`, unweighted like the items."""
        return geometric_median(gradients, None, self.iterations, self.nu)
