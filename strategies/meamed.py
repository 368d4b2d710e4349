"""Mean around the median."""

import torch

from byzflower.numerics.columns import mean_around_median
from byzflower.numerics.rows import Rows
from byzflower.strategies.base import BoundedStrategy
from byzflower.strategies.result import AggregationResult, Gradients, check_num_byzantine, require


def meamed(gradients: Gradients, num_byzantine: int) -> AggregationResult:
    """Per coordinate, average the n-f values closest to the median (Xie et al., 2018).

    For even n the median is the mean of the two middle values; of two values equally far from it on either
    side the lower one is taken, so that the order of clients does not matter.

    Args:
        gradients: (n, d) pseudo-gradients.
        num_byzantine: f.

    Raises:
        TooFewClients: n <= f.
    """
    rows = Rows.of(gradients)
    check_num_byzantine(num_byzantine)
    require(rows.n > num_byzantine, "MeaMed", "n > f", rows.n, num_byzantine)
    return AggregationResult(mean_around_median(rows, rows.n - num_byzantine))


class MeaMed(BoundedStrategy):
    """Coordinate-wise mean of the n-f values closest to the median."""

    coordinate_wise = True

    def aggregate(self, gradients: Rows, weights: torch.Tensor) -> AggregationResult:
        """Apply `meamed`."""
        return meamed(gradients, self.count_byzantine(gradients))
