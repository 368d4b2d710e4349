"""Coordinate-wise trimmed mean."""

import torch

from byzflower.numerics.columns import mean_of_middle
from byzflower.numerics.rows import Rows
from byzflower.strategies.base import BoundedStrategy
from byzflower.strategies.result import (
    AggregationResult,
    Gradients,
    check_num_byzantine,
    require,
)


def trimmed_mean(gradients: Gradients, num_byzantine: int) -> AggregationResult:
    """Per coordinate, drop the f largest and the f smallest values and average the rest (Yin et al., 2018).

    Args:
        gradients: (n, d) pseudo-gradients.
        num_byzantine: f, how many values to drop on each side.

    Raises:
        TooFewClients: n <= 2f.
    """
    rows = Rows.of(gradients)
    check_num_byzantine(num_byzantine)
    require(rows.n > 2 * num_byzantine, "TrimmedMean", "n > 2f", rows.n, num_byzantine)
    return AggregationResult(mean_of_middle(rows, num_byzantine, rows.n - num_byzantine))


class TrimmedMean(BoundedStrategy):
    """Coordinate-wise mean without the f (or a fraction of n) largest and smallest values.

    SafeSparse's trim fraction of 0.1 on each side is `num_byzantine=0.1`.
    """

    coordinate_wise = True

    def aggregate(self, gradients: Rows, weights: torch.Tensor) -> AggregationResult:
        """Apply `trimmed_mean`."""
        return trimmed_mean(gradients, self.count_byzantine(gradients))
