"""Coordinate-wise median."""

import torch

from byzflower.numerics.columns import column_median
from byzflower.numerics.rows import Rows
from byzflower.strategies.base import RobustStrategy
from byzflower.strategies.result import AggregationResult, Gradients


def median(gradients: Gradients) -> AggregationResult:
    """Coordinate-wise median (Yin et al., 2018); for even n the mean of the two middle values.

    Args:
        gradients: (n, d) pseudo-gradients.

    Raises:
        TooFewClients: n < 1.
    """
    return AggregationResult(column_median(Rows.of(gradients)))


class Median(RobustStrategy):
    """Coordinate-wise median of the pseudo-gradients."""

    coordinate_wise = True

    def aggregate(self, gradients: Rows, weights: torch.Tensor) -> AggregationResult:
        """Apply `median`."""
        return median(gradients)
