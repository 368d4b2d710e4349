"""Coordinate-wise median of each item's rows."""

import torch

from byzflower.numerics.columns import column_median
from byzflower.numerics.item_rows import ItemRows
from byzflower.numerics.rows import Rows
from byzflower.strategies.items.base import ItemResult, ItemStrategy
from byzflower.strategies.median import median
from byzflower.strategies.result import AggregationResult


class ItemMedian(ItemStrategy):
    """Per item, the coordinate-wise median of the rows that clients uploaded for it."""

    def aggregate_items(self, rows: ItemRows) -> ItemResult:
        """Take every item's median."""
        return ItemResult(rows.columnwise(column_median))

    def aggregate(self, gradients: Rows, weights: torch.Tensor) -> AggregationResult:
        """Apply `median`."""
        return median(gradients)
