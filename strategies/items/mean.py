"""Mean of each item's rows."""

import torch

from byzflower.numerics.item_rows import ItemRows
from byzflower.numerics.rows import Rows
from byzflower.strategies.fedavg import mean
from byzflower.strategies.items.base import ItemResult, ItemStrategy
from byzflower.strategies.result import AggregationResult


class ItemMean(ItemStrategy):
    """Per item, the mean of the rows that clients uploaded for it: no defence."""

    def aggregate_items(self, rows: ItemRows) -> ItemResult:
        """Average every item's rows, one vote per client."""
        return ItemResult(rows.means())

    def aggregate(self, gradients: Rows, weights: torch.Tensor) -> AggregationResult:
        """Apply `mean`, unweighted like the items."""
        return mean(gradients)
