"""Coordinate-wise median of each item's rows."""

import torch

from byzflower.strategies.columns import column_median
from byzflower.strategies.items.base import ItemResult, ItemStrategy
from byzflower.strategies.items.rows import ItemRows
from byzflower.strategies.median import median
from byzflower.strategies.result import AggregationResult
from byzflower.strategies.rows import Rows


class ItemMedian(ItemStrategy):
    """Per item, the coordinate-wise median of the rows that clients uploaded for it."""

    def aggregate_items(self, rows: ItemRows) -> ItemResult:
        """Take every item's median."""
        return ItemResult(rows.columnwise(column_median))

    def aggregate(self, gradients: Rows, weights: torch.Tensor) -> AggregationResult:
        """Apply `median`."""
        return median(gradients)
