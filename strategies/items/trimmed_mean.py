"""Coordinate-wise trimmed mean of each item's rows."""

import torch

from byzflower.numerics.columns import column_median, mean_around_median, mean_of_middle
from byzflower.numerics.item_rows import ItemRows
from byzflower.numerics.rows import Rows
from byzflower.strategies.items.base import Convention, ItemResult
from byzflower.strategies.items.bounded import FALLBACK, BoundedItemStrategy
from byzflower.strategies.result import AggregationResult
from byzflower.strategies.trimmed_mean import trimmed_mean


def item_trimmed_mean(rows: ItemRows, num_byzantine: int, convention: Convention = "standard") -> ItemResult:
    """Trim every item's c rows per coordinate.

    Args:
        rows: of all items.
        num_byzantine: f.
        convention: "standard" drops the f largest and the f smallest values (c > 2f), "spattack" averages
            the c - f values nearest the median (c > f). Items with fewer rows get their median.
    """
    f = num_byzantine
    fewest = 2 * f + 1 if convention == "standard" else f + 1

    def trim(matrix: Rows) -> torch.Tensor:
        c = matrix.n
        if c < fewest:
            return column_median(matrix)
        return (
            mean_of_middle(matrix, f, c - f)
            if convention == "standard"
            else mean_around_median(matrix, c - f)
        )

    return ItemResult(rows.columnwise(trim), {FALLBACK: float((rows.counts < fewest).sum())})


class ItemTrimmedMean(BoundedItemStrategy):
    """Per item, the mean without the f largest and smallest values, or of the c-f nearest the median."""

    def aggregate_items(self, rows: ItemRows) -> ItemResult:
        """Apply `item_trimmed_mean`."""
        return item_trimmed_mean(rows, self.f, self.convention)

    def aggregate(self, gradients: Rows, weights: torch.Tensor) -> AggregationResult:
        """Apply `trimmed_mean`."""
        return trimmed_mean(gradients, self.f)
