"""Multi-Krum on each item's rows."""

import torch

from byzflower.numerics.item_rows import ItemRows
from byzflower.numerics.rows import Rows
from byzflower.strategies.items.base import ItemResult
from byzflower.strategies.items.bounded import BoundedItemStrategy
from byzflower.strategies.items.krum import select_rows
from byzflower.strategies.multi_krum import multi_krum
from byzflower.strategies.result import AggregationResult


class ItemMultiKrum(BoundedItemStrategy):
    """Per item, the mean of the c-f rows with the least Krum scores (of one, if there are no more than f)."""

    def aggregate_items(self, rows: ItemRows) -> ItemResult:
        """Score each item's rows and average the best; ties go to the lower client."""

        def best(scores: torch.Tensor, count: int) -> torch.Tensor:
            return scores.sort(dim=1, stable=True).indices[:, : max(1, count - self.f)]

        return select_rows(rows, self.f, self.convention, best)

    def aggregate(self, gradients: Rows, weights: torch.Tensor) -> AggregationResult:
        """Apply `multi_krum`."""
        return multi_krum(gradients, self.f)
