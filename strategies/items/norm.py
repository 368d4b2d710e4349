"""Mean of each item's rows, none longer than a given norm."""

from typing import Unpack

import torch

from byzflower.numerics.item_rows import ItemRows
from byzflower.numerics.rows import Rows
from byzflower.strategies.items.base import ItemOptions, ItemResult, ItemStrategy
from byzflower.strategies.norm_clipping import norm_clipping
from byzflower.strategies.pre_aggregation.base import clip_factors
from byzflower.strategies.result import AggregationResult, check


def item_norm_clipping(rows: ItemRows, max_norm: float) -> ItemResult:
    """Scale every row longer than `max_norm` down to it, and average each item's."""
    norms = rows.squared_distances_to(None).sqrt_()
    clipped = float((norms > max_norm).sum())
    return ItemResult(rows.means(clip_factors(norms, max_norm)), {"rows-clipped": clipped})


class ItemNorm(ItemStrategy):
    """Per item, the mean of the rows, each scaled down to at most a given norm."""

    def __init__(self, max_norm: float = 1.0, **options: Unpack[ItemOptions]) -> None:
        """Make the strategy.

        Args:
            max_norm: M, positive; 1 in Spattack.
            options: see `ItemStrategy`.
        """
        super().__init__(**options)
        check(max_norm > 0, "max_norm must be positive", max_norm)
        self.max_norm = max_norm

    def aggregate_items(self, rows: ItemRows) -> ItemResult:
        """Apply `item_norm_clipping`."""
        return item_norm_clipping(rows, self.max_norm)

    def aggregate(self, gradients: Rows, weights: torch.Tensor) -> AggregationResult:
        """Apply `norm_clipping`."""
        return norm_clipping(gradients, self.max_norm)
